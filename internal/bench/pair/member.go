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
	pair  *pair
	index int // 0 or 1 in its pair
	id    string
	inbox chan []byte // what was received while entering the room; more than fits is dropped, as nobody asked for it

	conn *gws.Conn // set by dial, before its reader starts

	// text is the message this member sends, at the place where its number stands; guarded by the pair's mu, as are body and mark
	text []byte
	at   int
	body []byte // the part that the server must hand on as it is
	mark []byte // what the server must have put or left in the message: the sender
}

func (m *member) other() *member { return m.pair.members[1-m.index] }

// dial connects, upgrades and starts the reader.
func (m *member) dial(ctx context.Context) error {
	r := m.pair.run
	address := r.dialect.address(*r.url, m)
	conn, err := r.dialer.WebSocket(ctx, &address, m, nil)
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

// prepare makes the message; called with the pair's mu held.
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

// sent tells whether text is the message with that number, sent by m, whole and unchanged.
func (m *member) sent(text []byte, number int) bool {
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

// What follows is gws's Event; all of it runs on the member's reader.

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
	if reply, is := m.pair.run.dialect.beat(text); is {
		_ = c.WriteString(reply)
		return
	}
	if m.pair.playing() {
		m.pair.got(m, text)
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
	m.pair.run.faults.add(fmt.Errorf("the server ended the connection of %s: %w", m.id, client.CloseError(err)))
	m.pair.fail("the connection ended")
}
