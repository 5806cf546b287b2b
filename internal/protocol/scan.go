package protocol

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/bits"
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

// Envelope is what routing needs of a message. The byte fields are parts of the scanned message and
// live as long as it does. It is reused from message to message; about half a kilobyte.
type Envelope struct {
	Op     []byte // eventOp, unquoted
	ReqID  []byte // raw JSON: a string or a number; nil when absent
	UserID []byte // unquoted; nil when absent
	Target []byte // unquoted; nil when absent

	in     scanner
	fields [maxFields]field
	n      int
}

type field struct {
	name  span // without quotes
	value span
}

// Scan validates msg as one JSON object (RFC 8259, at most 32 deep) and fills e. A name that stands
// twice at the top level, or is written with escapes, is refused: JavaScript takes the last of two,
// so either could smuggle in another sender than the one that AppendRelayed stamps. It allocates
// only when eventOp, userId or target contain escapes.
func (e *Envelope) Scan(msg []byte) error {
	e.Op, e.ReqID, e.UserID, e.Target, e.in, e.n = nil, nil, nil, nil, scanner{b: msg}, 0
	s := &e.in
	s.space()
	if !s.take('{') {
		return ErrSyntax
	}
	s.space()
	if !s.take('}') {
		for {
			if err := e.member(); err != nil {
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
func (e *Envelope) member() error {
	s := &e.in
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
	start = s.i
	if err := s.value(2); err != nil {
		return err
	}
	return e.note(name, span{int32(start), int32(s.i)})
}

// note keeps a field that has been read, and what routing needs of it.
func (e *Envelope) note(name, value span) error {
	if e.n == maxFields {
		return ErrManyFields
	}
	key := e.in.b[name.start:name.end]
	for i := range e.n {
		f := e.fields[i].name
		if string(e.in.b[f.start:f.end]) == string(key) {
			return ErrDuplicate
		}
	}
	e.fields[e.n] = field{name, value}
	e.n++

	v := e.in.b[value.start:value.end]
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

// text is the content of a JSON string, or nil when v is another kind of value. An empty string is
// not nil.
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

// AppendRelayed appends the scanned message to dst as another member receives it: every field as it
// came, but userId replaced by the sender, and without reqId, which belongs to the sender alone,
// and the fields of answers: what a member sends must not be taken for the server's word. sender is
// a JSON string with its quotes.
func (e *Envelope) AppendRelayed(dst, sender []byte) []byte {
	dst = append(dst, `{"userId":`...)
	dst = append(dst, sender...)
	for _, f := range e.fields[:e.n] {
		switch string(e.in.b[f.name.start:f.name.end]) {
		case "userId", "reqId", "code", "message", "hint":
			continue
		}
		dst = append(dst, ',')
		dst = append(dst, e.in.b[f.name.start-1:f.name.end+1]...)
		dst = append(dst, ':')
		dst = append(dst, e.in.b[f.value.start:f.value.end]...)
	}
	return append(dst, '}')
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

// value reads one value; depth is what it would have if it were an object or an array. It does not
// call itself: its reader is the goroutine of a connection, whose stack stays as large as it has
// once been.
func (s *scanner) value(depth int) error {
	// One bit for each object or array that is open, the innermost lowest: 1 is an object.
	var objects uint64
	open := 0
	for {
		if s.i >= len(s.b) {
			return ErrSyntax
		}
		c := s.b[s.i]
		if c == '{' || c == '[' {
			if depth+open > maxDepth {
				return ErrDepth
			}
			s.i++
			s.space()
			if !s.take(c + 2) { // the closing ones stand two behind in ASCII
				open++
				objects <<= 1
				if c == '{' {
					objects |= 1
					if !s.name() {
						return ErrSyntax
					}
				}
				continue
			}
		} else if !s.scalar(c) {
			return ErrSyntax
		}
		// a value is complete: close what ends with it, and go on with the next one
		for {
			if open == 0 {
				return nil
			}
			s.space()
			if s.take(']' + byte(objects&1)<<5) {
				open--
				objects >>= 1
				continue
			}
			if !s.take(',') {
				return ErrSyntax
			}
			s.space()
			if objects&1 == 1 && !s.name() {
				return ErrSyntax
			}
			break
		}
	}
}

// name reads `"name":` of an inner object.
func (s *scanner) name() bool {
	if _, ok := s.str(); !ok {
		return false
	}
	s.space()
	if !s.take(':') {
		return false
	}
	s.space()
	return true
}

func (s *scanner) scalar(c byte) bool {
	switch c {
	case '"':
		_, ok := s.str()
		return ok
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	}
	return s.number()
}

// str reads a string and tells whether it holds escapes. Bytes above 0x7F pass: transports check
// UTF-8.
func (s *scanner) str() (escaped, ok bool) {
	if !s.take('"') {
		return false, false
	}
	b, i := s.b, s.i
	for {
		for i+8 <= len(b) {
			if m := special(binary.LittleEndian.Uint64(b[i:])); m != 0 {
				i += bits.TrailingZeros64(m) / 8
				break
			}
			i += 8
		}
		if i+8 <= len(b) && binary.LittleEndian.Uint32(b[i:]) == lineEnd {
			escaped = true
			i += 4
			continue
		}
		for i+1 < len(b) && b[i] == '\\' {
			escaped = true
			switch { // constants, so that the next read need not wait for this one
			case escapes[b[i+1]] == 2:
				i += 2
			case b[i+1] == 'u' && hex4(b[i+2:]):
				i += 6
			default:
				return escaped, false
			}
		}
		switch {
		case i >= len(b) || b[i] < 0x20:
			return escaped, false
		case b[i] == '"':
			s.i = i + 1
			return escaped, true
		case b[i] != '\\':
			i++
		case i+1 == len(b):
			return escaped, false
		}
	}
}

// lineEnd is the escapes `\r\n`, at the end of each line of a description.
const lineEnd = '\\' | 'r'<<8 | '\\'<<16 | 'n'<<24

// special marks, by its highest bit, the lowest byte of w that is a quote, a backslash or a control
// character; bits above the lowest one mean nothing. Subtracting borrows from the next byte only
// where the byte itself is marked.
func special(w uint64) uint64 {
	const each = 0x0101010101010101
	quote, backslash := w^each*'"', w^each*'\\'
	return ((quote-each)&^quote | (backslash-each)&^backslash | (w-each*0x20)&^w) & (each * 0x80)
}

// escapes is the length of the escape with that second byte; 0: there is none, or it is longer.
var escapes = [256]uint8{'"': 2, '\\': 2, '/': 2, 'b': 2, 'f': 2, 'n': 2, 'r': 2, 't': 2}

func hex4(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	for _, h := range b[:4] {
		if !(h >= '0' && h <= '9' || h >= 'a' && h <= 'f' || h >= 'A' && h <= 'F') {
			return false
		}
	}
	return true
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
