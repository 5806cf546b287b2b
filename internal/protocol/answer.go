package protocol

import "time"

// Answer is the outcome of a request. Fields beyond code, message and hint depend on the operation:
// Body holds them.
type Answer struct {
	Code    Code
	Message string
	Hint    string
	Body    any // nil, or a struct whose JSON fields stand beside code; see the answer types below
}

// RegisterAnswer is the body of a successful register.
type RegisterAnswer struct {
	UserID       string      `json:"userId"`
	ICEServers   []ICEServer `json:"iceServers"`
	Resume       string      `json:"resume"`
	ResumeWindow int         `json:"resumeWindow"` // seconds
	Resumed      bool        `json:"resumed"`
	Room         *RoomState  `json:"room,omitempty"`
}

// CreateRoomAnswer is the body of a successful createRoom.
type CreateRoomAnswer struct {
	RoomID string `json:"roomId"`
}

// GroupAnswer is the body of a successful createGroup.
type GroupAnswer struct {
	GroupID string `json:"groupId"`
}

// MemberListAnswer is the body of a successful memberList.
type MemberListAnswer struct {
	Members Members `json:"members"`
}

// ICEAnswer is the body of a successful iceServers.
type ICEAnswer struct {
	ICEServers []ICEServer `json:"iceServers"`
}

// AppendAnswer appends the answer to a request as JSON. op and reqID are the request's own; reqID
// is raw JSON or nil.
func AppendAnswer(dst []byte, op string, reqID []byte, a Answer) ([]byte, error) {
	if a.Message == "" && a.Code == OK {
		a.Message = "ok"
	}
	dst = append(dst, `{"eventOp":`...)
	dst = AppendString(dst, op)
	if reqID != nil {
		dst = append(dst, `,"reqId":`...)
		dst = append(dst, reqID...)
	}
	dst = append(dst, `,"code":"`...)
	dst = append(dst, a.Code...)
	dst = append(dst, `","message":`...)
	dst = AppendString(dst, a.Message)
	if a.Hint != "" {
		dst = append(dst, `,"hint":`...)
		dst = AppendString(dst, a.Hint)
	}
	if a.Body != nil {
		body, err := Marshal(a.Body)
		if err != nil {
			return dst, err
		}
		if len(body) > 2 { // not {}
			dst = append(dst, ',')
			dst = append(dst, body[1:len(body)-1]...)
		}
	}
	return append(dst, '}'), nil
}

// AppendString appends s as a JSON string.
func AppendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7F || c == '"' || c == '\\' {
			b, err := Marshal(s)
			if err != nil { // cannot happen for a string
				b = []byte(`""`)
			}
			return append(dst, b...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// MarshalJSON writes the members as one object in order of joining.
func (m Members) MarshalJSON() ([]byte, error) {
	dst := []byte{'{'}
	for i, x := range m {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, x.ID)
		dst = append(dst, ':')
		b, err := Marshal(x)
		if err != nil {
			return nil, err
		}
		dst = append(dst, b...)
	}
	return append(dst, '}'), nil
}

// FormatTime writes t as createdAt stands on the wire.
func FormatTime(t time.Time) string { return t.UTC().Format("2006/01/02 15:04:05") }
