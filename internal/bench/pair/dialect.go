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

// dialect is one server's way to say the same things. Its methods may be called for many members at once.
type dialect interface {
	// address is where m connects, given what the user named.
	address(base url.URL, m *member) url.URL
	// enter brings m, who is connected, into the room of its pair; member 0 comes first. What it has been told then, the server knows.
	enter(ctx context.Context, m *member) error
	// message is what m sends to the other member: size bytes with a number (see numberField) in it. body is the part that must
	// arrive unchanged, mark is what tells the receiver who sent it.
	message(m *member, size int) (text, body, mark []byte)
	// beat answers what the protocol itself wants answered, and tells whether text is that.
	beat(text []byte) (reply string, is bool)
}

var dialects = map[string]dialect{"ieum": ieum{}, "ieum-socketio": ieumSocketIO{}, "peerjs": peerjs{}, "socketio": socketio{}}

// ieum is our own protocol; docs/protocol.md.
type ieum struct{}

func (ieum) address(base url.URL, _ *member) url.URL { return base }
func (ieum) beat([]byte) (string, bool)              { return "", false }

func (ieum) enter(ctx context.Context, m *member) error { return enterRoom(ctx, m, bare{}) }

// envelope is what a carrier puts around each message of our protocol.
type envelope interface {
	wrap(message []byte) []byte
	unwrap(text []byte) ([]byte, error)
}

// bare is a WebSocket, which adds nothing.
type bare struct{}

func (bare) wrap(message []byte) []byte         { return message }
func (bare) unwrap(text []byte) ([]byte, error) { return text, nil }

// enterRoom registers m and brings it into the room of its pair.
func enterRoom(ctx context.Context, m *member, e envelope) error {
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
		if err := m.ask(ctx, string(e.wrap(text)), within(e, answerTo(i+1))); err != nil {
			return fmt.Errorf("%s: %w", step["eventOp"], err)
		}
	}
	if m.index == 0 {
		return nil
	}
	// the first member hears of the second: what comes later would be taken for a message of play
	return m.other().ask(ctx, "", within(e, func(text []byte) (bool, error) {
		var p protocol.Presence
		err := json.Unmarshal(text, &p)
		return p.Type == "join" && p.Sender == m.id, err
	}))
}

// within lets answers judge what stands in the envelope.
func within(e envelope, answers func([]byte) (bool, error)) func([]byte) (bool, error) {
	return func(text []byte) (bool, error) {
		message, err := e.unwrap(text)
		if err != nil {
			return false, err
		}
		return answers(message)
	}
}

// answerTo accepts the answer to the request with that reqId, whose code must be 200. Presence and other answers pass by.
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
		var a struct {
			Code          protocol.Code
			Message, Hint string
		}
		if err := json.Unmarshal(text, &a); err != nil {
			return false, err
		}
		if a.Code != protocol.OK {
			return false, fmt.Errorf("%s %s %s", a.Code, a.Message, a.Hint)
		}
		return true, nil
	}
}

func (ieum) message(m *member, size int) (text, body, mark []byte) {
	head := fmt.Sprintf(`{"eventOp":"sdp","userId":%q,"target":%q,"type":"cam",%s00000000","sdp":`, m.id, m.other().id, numberField)
	text, body = offer(head, `}`, size)
	return text, body, fmt.Appendf(nil, `"userId":%q`, m.id)
}

// peerjs is what the npm package peer serves: messages to an id, no rooms.
type peerjs struct{}

func (peerjs) address(base url.URL, m *member) url.URL {
	base.RawQuery = url.Values{"key": {"peerjs"}, "id": {m.id}, "token": {"t" + m.id}, "version": {"1.5.5"}}.Encode()
	return base
}

func (peerjs) beat([]byte) (string, bool) { return "", false }

func (peerjs) enter(ctx context.Context, m *member) error {
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
	head := fmt.Sprintf(`{"type":"OFFER","dst":%q,"payload":{"type":"media","connectionId":"mc_1",%s00000000","sdp":`, m.other().id, numberField)
	text, body = offer(head, `}}`, size)
	return text, body, fmt.Appendf(nil, `"src":%q`, m.id)
}

// socketio is Socket.IO 4 over its websocket transport (Engine.IO 4), with a server that joins rooms by the event join and hands
// the event knowledgetalk on to the rest of the room.
type socketio struct{}

func (socketio) address(base url.URL, _ *member) url.URL {
	base.RawQuery = "EIO=4&transport=websocket"
	return base
}

// Engine.IO: 2 is a ping, 3 a pong.
func (socketio) beat(text []byte) (string, bool) { return "3", len(text) == 1 && text[0] == '2' }

// Engine.IO: 0 opens, 4 is a message; in it Socket.IO: 0 connects, 2 is an event (here with acknowledgement 0), 3 acknowledges.
func (socketio) enter(ctx context.Context, m *member) error {
	return converse(ctx, m, append(connectSocketIO, step{fmt.Sprintf(`420["join",%q]`, m.pair.room), "430["}))
}

// step is what a member says, and how the answer begins.
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

// event is the envelope of a message that Socket.IO carries.
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

// ieumSocketIO is our own protocol, carried by Socket.IO: on the wire what socketio sends, so that the two can be compared.
type ieumSocketIO struct{ socketio }

func (ieumSocketIO) enter(ctx context.Context, m *member) error {
	if err := converse(ctx, m, connectSocketIO); err != nil {
		return err
	}
	return enterRoom(ctx, m, event{})
}

// offer is head, a session description and tail, size bytes together.
func offer(head, tail string, size int) (text, description []byte) {
	const open, end = `{"type":"offer","sdp":"`, `"}`
	d := open + client.SDP(size-len(head)-len(tail)-len(open)-len(end)) + end
	return []byte(head + d + tail), []byte(d)
}
