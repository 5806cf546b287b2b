package pair

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/ieum-rtc/ieum/internal/bench/client"
	"github.com/ieum-rtc/ieum/internal/protocol"
)

// dialect is how one server says what all servers say. Its methods may be called concurrently.
type dialect interface {
	// endpoint is where m connects, given the URL of the configuration.
	endpoint(base url.URL, m *member) url.URL
	// join brings m, which is connected, into the room of its pair. Member 0 joins first.
	join(ctx context.Context, m *member) error
	// message is what m sends to the other member: size bytes, with a number (see numberField).
	// The server must relay body unchanged. The receiver identifies the sender by mark.
	message(m *member, size int) (text, body, mark []byte)
	// heartbeat tells whether text is a heartbeat of the protocol, and what answers it.
	heartbeat(text []byte) (reply string, is bool)
}

var dialects = map[string]dialect{
	"ieum":          ieum{},
	"ieum-socketio": ieumSocketIO{},
	"peerjs":        peerjs{},
	"socketio":      socketio{},
}

// ieum is our own protocol (docs/protocol.md).
type ieum struct{}

func (ieum) endpoint(base url.URL, _ *member) url.URL { return base }
func (ieum) heartbeat([]byte) (string, bool)          { return "", false }

func (ieum) join(ctx context.Context, m *member) error { return joinRoom(ctx, m, plain{}) }

func (ieum) message(m *member, size int) (text, body, mark []byte) {
	const format = `{"eventOp":"sdp","userId":%q,"target":%q,"type":"cam",%s00000000","sdp":`
	head := fmt.Sprintf(format, m.id, m.other().id, numberField)
	text, body = offer(head, `}`, size)
	return text, body, fmt.Appendf(nil, `"userId":%q`, m.id)
}

// envelope is what a transport puts around each message of our protocol.
type envelope interface {
	wrap(message []byte) []byte
	unwrap(text []byte) ([]byte, error)
}

// plain is a WebSocket, which adds nothing.
type plain struct{}

func (plain) wrap(message []byte) []byte         { return message }
func (plain) unwrap(text []byte) ([]byte, error) { return text, nil }

// joinRoom registers m and brings it into the room of its pair.
func joinRoom(ctx context.Context, m *member, e envelope) error {
	cfg := &m.pair.run.cfg
	steps := []client.Request{
		{"eventOp": "register", "cpCode": cfg.CpCode, "authKey": cfg.AuthKey, "userId": m.id},
		{"eventOp": "createRoom", "roomId": m.pair.room},
		{"eventOp": "joinRoom", "roomId": m.pair.room},
	}
	for i, step := range steps {
		if i == 1 && m.index == 1 {
			continue
		}
		step["reqId"] = i + 1
		text, err := json.Marshal(step)
		if err != nil {
			return err
		}
		if err := m.ask(ctx, string(e.wrap(text)), unwrapped(e, answerTo(i+1))); err != nil {
			return fmt.Errorf("%s: %w", step["eventOp"], err)
		}
	}
	if m.index == 0 {
		return nil
	}
	// Member 0 must see the join before the play, or would take the event for a message.
	return m.other().ask(ctx, "", unwrapped(e, func(text []byte) (bool, error) {
		var p protocol.Presence
		err := json.Unmarshal(text, &p)
		return p.Type == "join" && p.Sender == m.id, err
	}))
}

// unwrapped passes the content of the envelope to answers.
func unwrapped(e envelope, answers func([]byte) (bool, error)) func([]byte) (bool, error) {
	return func(text []byte) (bool, error) {
		message, err := e.unwrap(text)
		if err != nil {
			return false, err
		}
		return answers(message)
	}
}

// answerTo accepts the answer to the request with that reqId, whose code must be 200. It skips
// presence and other answers.
func answerTo(reqID int) func([]byte) (bool, error) {
	want := fmt.Sprint(reqID)
	return func(text []byte) (bool, error) {
		var env protocol.Envelope
		if err := env.Scan(text); err != nil {
			return false, err
		}
		if string(env.ReqID) != want {
			return false, nil
		}
		var a client.Reply
		if err := json.Unmarshal(text, &a); err != nil {
			return false, err
		}
		if a.Code != protocol.OK {
			return false, fmt.Errorf("%s %s %s", a.Code, a.Message, a.Hint)
		}
		return true, nil
	}
}

// peerjs is the protocol of the npm package peer: messages to an id, no rooms.
type peerjs struct{}

func (peerjs) endpoint(base url.URL, m *member) url.URL {
	base.RawQuery = url.Values{
		"key":     {"peerjs"},
		"id":      {m.id},
		"token":   {"t" + m.id},
		"version": {"1.5.5"},
	}.Encode()
	return base
}

func (peerjs) heartbeat([]byte) (string, bool) { return "", false }

func (peerjs) join(ctx context.Context, m *member) error {
	return m.ask(ctx, "", func(text []byte) (bool, error) {
		var msg struct{ Type string }
		if err := json.Unmarshal(text, &msg); err != nil {
			return false, err
		}
		if msg.Type != "OPEN" {
			return false, fmt.Errorf("expected OPEN, got %.200q", text)
		}
		return true, nil
	})
}

func (peerjs) message(m *member, size int) (text, body, mark []byte) {
	const format = `{"type":"OFFER","dst":%q,"payload":` +
		`{"type":"media","connectionId":"mc_1",%s00000000","sdp":`
	text, body = offer(fmt.Sprintf(format, m.other().id, numberField), `}}`, size)
	return text, body, fmt.Appendf(nil, `"src":%q`, m.id)
}

// socketio is Socket.IO 4 over its WebSocket transport (Engine.IO 4). The event join joins a room,
// and the server relays the event knowledgetalk to the rest of the room.
type socketio struct{}

func (socketio) endpoint(base url.URL, _ *member) url.URL {
	base.RawQuery = "EIO=4&transport=websocket"
	return base
}

// Engine.IO: 2 is a ping, 3 a pong.
func (socketio) heartbeat(text []byte) (string, bool) { return "3", string(text) == "2" }

// Engine.IO: 0 opens, 4 is a message. In it Socket.IO: 0 connects, 2 is an event (here with
// acknowledgement 0), 3 acknowledges.
func (socketio) join(ctx context.Context, m *member) error {
	joinEvent := step{fmt.Sprintf(`420["join",%q]`, m.pair.room), "430["}
	return converse(ctx, m, append(connectSocketIO, joinEvent))
}

// step is what a member sends, and how the answer begins.
type step struct{ send, want string }

var connectSocketIO = []step{{"", "0{"}, {"40", "40{"}}

func converse(ctx context.Context, m *member, steps []step) error {
	for _, s := range steps {
		err := m.ask(ctx, s.send, func(text []byte) (bool, error) {
			if !bytes.HasPrefix(text, []byte(s.want)) {
				return false, fmt.Errorf("expected %s…, got %.200q", s.want, text)
			}
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (socketio) message(m *member, size int) (text, body, mark []byte) {
	text, body, mark = ieum{}.message(m, size-len(eventHead)-len(eventTail))
	return event{}.wrap(text), body, mark
}

// event is the envelope of Socket.IO.
type event struct{}

const eventHead, eventTail = `42["knowledgetalk",`, `]`

func (event) wrap(message []byte) []byte {
	return append(append([]byte(eventHead), message...), eventTail...)
}

func (event) unwrap(text []byte) ([]byte, error) {
	message, isEvent := bytes.CutPrefix(text, []byte(eventHead))
	message, ends := bytes.CutSuffix(message, []byte(eventTail))
	if !isEvent || !ends {
		return nil, fmt.Errorf("expected an event, got %.200q", text)
	}
	return message, nil
}

// ieumSocketIO is our own protocol over Socket.IO. Its messages are those of socketio, so that the
// two can be compared.
type ieumSocketIO struct{ socketio }

func (ieumSocketIO) join(ctx context.Context, m *member) error {
	if err := converse(ctx, m, connectSocketIO); err != nil {
		return err
	}
	return joinRoom(ctx, m, event{})
}

// offer is head, a session description and tail, size bytes in total.
func offer(head, tail string, size int) (text, description []byte) {
	const open, end = `{"type":"offer","sdp":"`, `"}`
	d := open + client.SDP(size-len(head)-len(tail)-len(open)-len(end)) + end
	return []byte(head + d + tail), []byte(d)
}
