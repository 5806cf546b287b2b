package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/protocol"
)

// Link is one connection that speaks our protocol, from its upgrade to its end.
type Link struct {
	gws.BuiltinEventHandler

	// Static after construction. The connection's reader calls the functions.
	Deliver func(env *protocol.Envelope, text []byte) // takes messages that answer no request
	Ended   func(error)                               // the connection ended, not by this side
	Tickets tls.ClientSessionCache                    // of the same client; nil: none

	// Static after Open.
	conn    *gws.Conn
	answers chan answer   // to the pending request; one is pending at a time
	gone    chan struct{} // closed when the connection has ended

	left atomic.Bool // this side has ended it

	// Owned by the goroutine that sends requests.
	requests int       // so far
	answered time.Time // when the last answer was read
}

type answer struct {
	text []byte
	at   time.Time
}

// Open dials and upgrades. The connection's reader is added to readers.
func (l *Link) Open(ctx context.Context, d *Dialer, to *url.URL, readers *sync.WaitGroup) error {
	l.answers, l.gone = make(chan answer, 4), make(chan struct{})
	conn, err := d.WebSocket(ctx, to, l, l.Tickets)
	if err != nil {
		return err
	}
	l.conn = conn
	readers.Go(conn.ReadLoop)
	return nil
}

// Request is a message that the server answers.
type Request map[string]any

// Reply is the answer to a Request.
type Reply struct {
	Code    protocol.Code
	Message string
	Hint    string
	UserID  string
	Resume  string // resume token
	Resumed bool
	Room    *struct{ Members map[string]json.RawMessage }
	Members map[string]json.RawMessage
}

// ErrRefused is part of the error when the answer's code is not 200.
var ErrRefused = errors.New("refused")

// Ask sends a request and waits for its answer. One goroutine asks at a time.
func (l *Link) Ask(ctx context.Context, q Request) (Reply, error) {
	if err := l.Send(q); err != nil {
		return Reply{}, err
	}
	return l.Reply(ctx, q)
}

// Send sends a request; Reply must be called for it before the next Send.
func (l *Link) Send(q Request) error {
	l.requests++
	q["reqId"] = l.requests
	text, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if err := l.Write(text); err != nil {
		return fmt.Errorf("%s: %w", q["eventOp"], err)
	}
	return nil
}

// Reply waits for the answer to the request that was sent last.
func (l *Link) Reply(ctx context.Context, q Request) (Reply, error) {
	id, op := strconv.Itoa(l.requests), q["eventOp"]
	for {
		select {
		case got := <-l.answers:
			var a struct {
				ReqID json.RawMessage
				Reply
			}
			if err := json.Unmarshal(got.text, &a); err != nil {
				return Reply{}, err
			}
			if string(a.ReqID) != id {
				continue // to a request that was given up
			}
			l.answered = got.at
			if a.Code != protocol.OK {
				err := fmt.Errorf("%s %w: %s %s %s", op, ErrRefused, a.Code, a.Message, a.Hint)
				return a.Reply, err
			}
			return a.Reply, nil
		case <-l.gone:
			return Reply{}, fmt.Errorf("%s: the connection ended", op)
		case <-ctx.Done():
			return Reply{}, fmt.Errorf("%s: no answer: %w", op, context.Cause(ctx))
		}
	}
}

// Answered is when the answer that Reply returned last was read.
func (l *Link) Answered() time.Time { return l.answered }

// Write sends a text message.
func (l *Link) Write(text []byte) error { return l.conn.WriteMessage(gws.OpcodeText, text) }

// Gone is closed when the connection has ended.
func (l *Link) Gone() <-chan struct{} { return l.gone }

// UsedTicket tells whether a session ticket shortened the TLS handshake.
func (l *Link) UsedTicket() bool {
	c, ok := l.conn.NetConn().(*tls.Conn)
	return ok && c.ConnectionState().DidResume
}

// Cut ends the connection like a network failure: without a close frame.
func (l *Link) Cut() {
	l.left.Store(true)
	_ = l.conn.NetConn().Close()
}

// Leave ends the connection like a page that is closed.
func (l *Link) Leave() {
	l.left.Store(true)
	_ = l.conn.WriteClose(1000, nil)
}

// OnPing implements gws.Event.
func (l *Link) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) }

// OnMessage implements gws.Event.
func (l *Link) OnMessage(_ *gws.Conn, msg *gws.Message) {
	defer func() { _ = msg.Close() }()
	text := msg.Bytes()
	var env protocol.Envelope
	if err := env.Scan(text); err != nil {
		l.Ended(fmt.Errorf("the server sent %.200q: %w", text, err))
		return
	}
	if len(env.ReqID) > 0 && env.ReqID[0] != '"' { // ids of requests are numbers
		select {
		case l.answers <- answer{bytes.Clone(text), time.Now()}:
		default: // more answers than requests
		}
		return
	}
	l.Deliver(&env, text)
}

// OnClose implements gws.Event.
func (l *Link) OnClose(_ *gws.Conn, err error) {
	close(l.gone)
	if l.left.Load() {
		return
	}
	l.Ended(err)
}

// CloseError words a close code as our documents do, and leaves other errors as they are.
func CloseError(err error) error {
	if closed := new(gws.CloseError); errors.As(err, &closed) {
		return fmt.Errorf("close code %d %s", closed.Code, closed.Reason)
	}
	return err
}
