package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/protocol"
)

// link is one connection, from its upgrade to its end.
type link struct {
	gws.BuiltinEventHandler
	// deliver takes what no request is answered by; it runs on the connection's reader.
	deliver func(env *protocol.Envelope, text []byte)
	// ended is told why, unless the connection was left; it runs on the connection's reader.
	ended func(error)

	tickets tls.ClientSessionCache // what earlier connections of the same client left; nil: none

	conn    *gws.Conn
	answers chan answer   // to the request that waits; there is one at a time
	gone    chan struct{} // closed when the connection has ended
	left    atomic.Bool   // we have ended it
	// both belong to whoever asks: requests so far, and when the last of them was answered, as for messages the moment when it could be read
	asked    int
	answered time.Time
}

type answer struct {
	text []byte
	at   time.Time
}

// open dials and upgrades; its reader is one of readers.
func (m *mixer) open(ctx context.Context, l *link) error {
	l.answers, l.gone = make(chan answer, 4), make(chan struct{})
	conn, err := m.dialer.websocket(ctx, m.url, l, l.tickets)
	if err != nil {
		return err
	}
	l.conn = conn
	m.readers.Go(conn.ReadLoop)
	return nil
}

// request is answered by reply.
type reply struct {
	Code          protocol.Code
	Message, Hint string
	UserID        string
	Resume        string // secret
	Resumed       bool
	Room          *struct{ Members map[string]json.RawMessage }
	Members       map[string]json.RawMessage
}

var errRefused = errors.New("refused")

// ask sends a request and waits for its answer. One goroutine asks at a time.
func (l *link) ask(ctx context.Context, q request) (reply, error) {
	if err := l.send(q); err != nil {
		return reply{}, err
	}
	return l.reply(ctx, q)
}

// send sends a request; reply must be called for it before another is sent.
func (l *link) send(q request) error {
	l.asked++
	q["reqId"] = l.asked
	text, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if err := l.conn.WriteMessage(gws.OpcodeText, text); err != nil {
		return fmt.Errorf("%s: %w", q["eventOp"], err)
	}
	return nil
}

// reply waits for the answer to the request that was sent.
func (l *link) reply(ctx context.Context, q request) (reply, error) {
	id := strconv.Itoa(l.asked)
	for {
		select {
		case got := <-l.answers:
			var a struct {
				ReqID json.RawMessage
				reply
			}
			if err := json.Unmarshal(got.text, &a); err != nil {
				return reply{}, err
			}
			if string(a.ReqID) != id {
				continue // of a request that was given up
			}
			l.answered = got.at
			if a.Code != protocol.OK {
				return a.reply, fmt.Errorf("%s %w: %s %s %s", q["eventOp"], errRefused, a.Code, a.Message, a.Hint)
			}
			return a.reply, nil
		case <-l.gone:
			return reply{}, fmt.Errorf("%s: the connection ended", q["eventOp"])
		case <-ctx.Done():
			return reply{}, fmt.Errorf("%s: no answer: %w", q["eventOp"], context.Cause(ctx))
		}
	}
}

// cut ends the connection as a network does that fails: no word of it.
func (l *link) cut() {
	l.left.Store(true)
	_ = l.conn.NetConn().Close()
}

// leave ends the connection as a page does that goes.
func (l *link) leave() {
	l.left.Store(true)
	_ = l.conn.WriteClose(1000, nil)
}

// OnPing implements gws.Event.
func (l *link) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) }

// OnMessage implements gws.Event.
func (l *link) OnMessage(_ *gws.Conn, msg *gws.Message) {
	defer func() { _ = msg.Close() }()
	text := msg.Bytes()
	var env protocol.Envelope
	if err := env.Scan(text); err != nil {
		l.ended(fmt.Errorf("the server sent %.200q: %w", text, err))
		return
	}
	if n := len(env.ReqID); n > 0 && env.ReqID[0] != '"' { // ours are numbers where somebody waits
		select {
		case l.answers <- answer{bytes.Clone(text), time.Now()}:
		default: // nobody waits for so many
		}
		return
	}
	l.deliver(&env, text)
}

// OnClose implements gws.Event.
func (l *link) OnClose(_ *gws.Conn, err error) {
	close(l.gone)
	if l.left.Load() {
		return
	}
	l.ended(err)
}
