package protocol

import (
	"encoding/json"
	"errors"
)

// What Scan refuses. All of them are a 400 to the client; the text says which.
var (
	ErrSyntax     = errors.New("the message is not one JSON object")
	ErrDepth      = errors.New("the message is nested deeper than 32")
	ErrDuplicate  = errors.New("the message has a name twice at its top level")
	ErrEscaped    = errors.New("the message has a top-level name written with escapes")
	ErrManyFields = errors.New("the message has more than 64 top-level names")
)

const (
	maxDepth  = 32
	maxFields = 64
)

type span struct{ start, end int32 }

// Envelope is what routing needs of a message. The byte fields are parts of the scanned message and live as long as it does.
// It is reused from message to message; about half a kilobyte.
type Envelope struct {
	Op     []byte // eventOp, unquoted
	ReqID  []byte // raw JSON: a string or a number; nil when absent
	UserID []byte // unquoted; nil when absent
	Target []byte // unquoted; nil when absent

	msg    []byte
	fields [maxFields]field
	n      int
}

type field struct {
	name  span // without quotes
	value span
}

// Scan validates msg as one JSON object (RFC 8259, at most 32 deep) and fills e. A name that stands twice at the top level, or
// is written with escapes, is refused: JavaScript takes the last of two, so either could smuggle in another sender than the
// one that AppendRelayed stamps. It allocates only when eventOp, userId or target contain escapes.
func (e *Envelope) Scan(msg []byte) error {
	e.Op, e.ReqID, e.UserID, e.Target, e.msg, e.n = nil, nil, nil, nil, msg, 0
	s := scanner{b: msg}
	s.space()
	if !s.take('{') {
		return ErrSyntax
	}
	s.space()
	if !s.take('}') {
		for {
			if err := e.member(&s); err != nil {
				return err
			}
			s.space()
			if s.take(',') {
				s.space()
				continue
			}
			if s.take('}') {
				break
			}
			return ErrSyntax
		}
	}
	s.space()
	if s.i != len(msg) {
		return ErrSyntax
	}
	return nil
}

// member reads one `"name": value` of the top level.
func (e *Envelope) member(s *scanner) error {
	start := s.i
	escaped, ok := s.str()
	if !ok {
		return ErrSyntax
	}
	if escaped {
		return ErrEscaped
	}
	name := span{int32(start + 1), int32(s.i - 1)}
	s.space()
	if !s.take(':') {
		return ErrSyntax
	}
	s.space()
	vstart := s.i
	if err := s.value(2); err != nil {
		return err
	}
	if e.n == maxFields {
		return ErrManyFields
	}
	key := e.msg[name.start:name.end]
	for i := range e.n {
		f := e.fields[i].name
		if string(e.msg[f.start:f.end]) == string(key) {
			return ErrDuplicate
		}
	}
	e.fields[e.n] = field{name, span{int32(vstart), int32(s.i)}}
	e.n++

	v := e.msg[vstart:s.i]
	switch string(key) {
	case "eventOp":
		e.Op = text(v)
	case "reqId":
		if v[0] == '"' || v[0] == '-' || (v[0] >= '0' && v[0] <= '9') {
			e.ReqID = v
		}
	case "userId":
		e.UserID = text(v)
	case "target":
		e.Target = text(v)
	}
	return nil
}

// text is the content of a JSON string, or nil when v is another kind of value. An empty string is not nil.
func text(v []byte) []byte {
	if v[0] != '"' {
		return nil
	}
	for _, c := range v {
		if c == '\\' {
			var t string
			if json.Unmarshal(v, &t) != nil {
				return nil
			}
			return []byte(t)
		}
	}
	return v[1 : len(v)-1]
}

// AppendRelayed appends the scanned message to dst as another member receives it: every field as it came, but userId replaced
// by the sender and reqId left out, since it belongs to the sender alone. sender is a JSON string with its quotes.
func (e *Envelope) AppendRelayed(dst, sender []byte) []byte {
	dst = append(dst, `{"userId":`...)
	dst = append(dst, sender...)
	for _, f := range e.fields[:e.n] {
		switch string(e.msg[f.name.start:f.name.end]) {
		case "userId", "reqId":
			continue
		}
		dst = append(dst, ',')
		dst = append(dst, e.msg[f.name.start-1:f.name.end+1]...)
		dst = append(dst, ':')
		dst = append(dst, e.msg[f.value.start:f.value.end]...)
	}
	return append(dst, '}')
}

// Has tells whether the message has a top-level field of that name.
func (e *Envelope) Has(name string) bool {
	for _, f := range e.fields[:e.n] {
		if string(e.msg[f.name.start:f.name.end]) == name {
			return true
		}
	}
	return false
}

// scanner walks over JSON text. Its methods leave i behind what they have read.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) take(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

func (s *scanner) value(depth int) error {
	if s.i >= len(s.b) {
		return ErrSyntax
	}
	ok := false
	switch c := s.b[s.i]; {
	case c == '{' || c == '[':
		if depth > maxDepth {
			return ErrDepth
		}
		return s.container(c, depth)
	case c == '"':
		_, ok = s.str()
	case c == 't':
		ok = s.literal("true")
	case c == 'f':
		ok = s.literal("false")
	case c == 'n':
		ok = s.literal("null")
	default:
		ok = s.number()
	}
	if !ok {
		return ErrSyntax
	}
	return nil
}

func (s *scanner) container(open byte, depth int) error {
	end := byte('}')
	if open == '[' {
		end = ']'
	}
	s.i++
	s.space()
	if s.take(end) {
		return nil
	}
	for {
		if open == '{' {
			if _, ok := s.str(); !ok {
				return ErrSyntax
			}
			s.space()
			if !s.take(':') {
				return ErrSyntax
			}
			s.space()
		}
		if err := s.value(depth + 1); err != nil {
			return err
		}
		s.space()
		if s.take(end) {
			return nil
		}
		if !s.take(',') {
			return ErrSyntax
		}
		s.space()
	}
}

// str reads a string and tells whether it holds escapes. Bytes above 0x7F pass: carriers check UTF-8.
func (s *scanner) str() (escaped, ok bool) {
	if !s.take('"') {
		return false, false
	}
	for s.i < len(s.b) {
		c := s.b[s.i]
		s.i++
		switch {
		case c == '"':
			return escaped, true
		case c < 0x20:
			return escaped, false
		case c == '\\':
			escaped = true
			if s.i >= len(s.b) {
				return escaped, false
			}
			c = s.b[s.i]
			s.i++
			switch c {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if s.i+4 > len(s.b) {
					return escaped, false
				}
				for _, h := range s.b[s.i : s.i+4] {
					if !(h >= '0' && h <= '9' || h >= 'a' && h <= 'f' || h >= 'A' && h <= 'F') {
						return escaped, false
					}
				}
				s.i += 4
			default:
				return escaped, false
			}
		}
	}
	return escaped, false
}

func (s *scanner) literal(w string) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}

func (s *scanner) number() bool {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return false
	}
	if s.take('.') && !s.digits() {
		return false
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		return s.digits()
	}
	return true
}
