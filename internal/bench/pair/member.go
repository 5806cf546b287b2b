package pair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/bench/client"
)

// member is one connection.
type member struct {
	// Static after construction.
	pair  *pair
	index int // 0 or 1 in its pair
	id    string
	inbox chan []byte // messages received before the play; what does not fit is dropped

	conn *gws.Conn // static after dial

	// The message that this member sends; guarded by the pair's mu.
	text []byte
	at   int    // where the digits of its number are
	body []byte // the part that the server must relay unchanged
	mark []byte // the sender, which the server must have added or left in the message
}

func (m *member) other() *member { return m.pair.members[1-m.index] }

// dial connects, upgrades and starts the reader.
func (m *member) dial(ctx context.Context) error {
	r := m.pair.run
	endpoint := r.dialect.endpoint(*r.urls[m.index], m)
	conn, err := r.dialer.WebSocket(ctx, &endpoint, m, nil)
	if err != nil {
		return err
	}
	m.conn = conn
	r.readers.Go(conn.ReadLoop)
	return nil
}

// ask sends text, unless it is empty, and waits for a message that answers accepts.
func (m *member) ask(ctx context.Context, text string, answers func([]byte) (bool, error)) error {
	if text != "" {
		if err := m.conn.WriteString(text); err != nil {
			return err
		}
	}
	for {
		select {
		case b, open := <-m.inbox:
			if !open {
				return errors.New("the server closed the connection")
			}
			if ok, err := answers(b); ok || err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w", context.Cause(ctx))
		}
	}
}

// prepare makes the message. Called with the pair's mu held.
func (m *member) prepare() {
	if m.text == nil {
		m.text, m.body, m.mark = m.pair.run.dialect.message(m, m.pair.run.cfg.Size)
		m.at = numberAt(m.text)
	}
}

func (m *member) send(number int) {
	putNumber(m.text, m.at, number)
	_ = m.conn.WriteMessage(gws.OpcodeText, m.text)
}

// hasSent tells whether text is the message of m with that number, complete and unchanged.
func (m *member) hasSent(text []byte, number int) bool {
	at := numberAt(text)
	if at < 0 {
		return false
	}
	n, err := strconv.Atoi(string(text[at : at+numberDigits]))
	return err == nil && n == number && bytes.Contains(text, m.mark) && bytes.Contains(text, m.body)
}

func (m *member) close() {
	if m.conn != nil {
		_ = m.conn.WriteClose(1000, nil)
	}
}

// The methods of gws.Event run on the member's reader.

// OnOpen implements gws.Event.
func (m *member) OnOpen(*gws.Conn) {}

// OnPing implements gws.Event.
func (m *member) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) }

// OnPong implements gws.Event.
func (m *member) OnPong(*gws.Conn, []byte) {}

// OnMessage implements gws.Event.
func (m *member) OnMessage(c *gws.Conn, msg *gws.Message) {
	defer func() { _ = msg.Close() }()
	text := msg.Bytes()
	if reply, is := m.pair.run.dialect.heartbeat(text); is {
		_ = c.WriteString(reply)
		return
	}
	if m.pair.playing() {
		m.pair.receive(m, text)
		return
	}
	select {
	case m.inbox <- bytes.Clone(text):
	default:
	}
}

// OnClose implements gws.Event.
func (m *member) OnClose(_ *gws.Conn, err error) {
	close(m.inbox)
	if m.pair.run.closing.Load() {
		return
	}
	err = client.CloseError(err)
	m.pair.run.failures.add(fmt.Errorf("the server ended the connection of %s: %w", m.id, err))
	m.pair.fail("the connection ended")
}
