package signaling

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// benchConn is a connection that is always read. It counts what it gets, and keeps the code of the
// last answer.
type benchConn struct {
	transport.Conn
	got  int
	last []byte
}

func (c *benchConn) Send(m *transport.Message) bool {
	c.got++
	c.last = append(c.last[:0], m.B...)
	m.Release()
	return true
}

func (c *benchConn) Offer(m *transport.Message, _ transport.Share) error { c.Send(m); return nil }
func (c *benchConn) Peer() transport.Peer                                { return transport.Peer{} }

func (c *benchConn) Close(code transport.StatusCode, reason string) {
	panic(fmt.Sprintf("closed with %d %s", code, reason))
}

// bench is a hub without limits, whose users have no sockets.
type bench struct {
	*testing.B
	hub    *Hub
	login  map[string]any
	client []*client
	conn   []*benchConn
}

// newBench puts users u0, u1 … into room R.
func newBench(b *testing.B, users int) *bench {
	b.Helper()
	licenses, err := license.New(license.Config{
		Keys: [][]byte{[]byte("0123456789abcdef0123456789abcdef")},
	})
	if err != nil {
		b.Fatal(err)
	}
	key, err := licenses.Issue(license.Params{
		Name:        "Test",
		CpCode:      "BENCH",
		CompanyCode: "T",
		MaxUser:     1_000_000,
		Start:       time.Now().Add(-time.Hour),
		End:         time.Now().Add(24 * time.Hour),
	})
	if err != nil {
		b.Fatal(err)
	}
	local := engine.NewLocal("n0")
	w := &bench{
		B:     b,
		login: map[string]any{"eventOp": "register", "cpCode": "BENCH", "authKey": key},
	}
	if w.hub, err = New(Config{
		Node:       "n0",
		Licenses:   licenses,
		Directory:  local,
		Bus:        local,
		ICE:        fixedICE{},
		ResumeKeys: licenses.DeriveAll("resume secret", 32),
		Rate:       1e9,
		Burst:      1e9,
		Limits: Limits{
			Joins:           -1,
			Candidates:      -1,
			AddressSessions: -1,
			AddressRooms:    -1,
			Takeovers:       -1,
		},
	}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		for _, c := range w.client {
			c.Closed(transport.End{Gone: true})
		}
		w.hub.Close()
	})
	for i := range users {
		w.user(fmt.Sprint("u", i))
		if i == 0 {
			w.ask(0, map[string]any{"eventOp": "createRoom", "roomId": "R", "capacity": 1000})
		}
		w.ask(i, map[string]any{"eventOp": "joinRoom", "roomId": "R"})
	}
	return w
}

func (w *bench) user(id string) {
	w.Helper()
	conn := &benchConn{}
	w.conn = append(w.conn, conn)
	w.client = append(w.client, w.hub.Accept(conn).(*client))
	w.login["userId"] = id
	w.ask(len(w.client)-1, w.login)
}

// ask sends a request, which must be answered 200.
func (w *bench) ask(user int, m map[string]any) {
	w.Helper()
	text, err := protocol.Marshal(m)
	if err != nil {
		w.Fatal(err)
	}
	c := w.conn[user]
	w.client[user].Message(text, c)
	var answer struct{ Code string }
	if err := json.Unmarshal(c.last, &answer); err != nil || answer.Code != "200" {
		w.Fatalf("%s: %s", text, c.last)
	}
}

// received is what everybody has got so far.
func (w *bench) received() (n int) {
	for _, c := range w.conn {
		n += c.got
	}
	return n
}

// BenchmarkRelayedMessage passes a candidate from one member to another.
func BenchmarkRelayedMessage(b *testing.B) {
	w := newBench(b, 8)
	text := []byte(`{"eventOp":"candidate","target":"u1",` +
		`"candidate":{"candidate":"candidate:1 1 udp 1 10.0.0.1 9 typ host"},"type":"cam"}`)
	before := w.conn[1].got
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		w.client[0].Message(text, w.conn[0])
		n++
	}
	if got := w.conn[1].got - before; got != n {
		b.Errorf("%d of %d came", got, n)
	}
}

// BenchmarkRoomFanout sends a chat message to a room. One operation is one message to all its
// members.
func BenchmarkRoomFanout(b *testing.B) {
	for _, members := range []int{2, 8, 50, 500} {
		b.Run(fmt.Sprint("members=", members), func(b *testing.B) {
			w := newBench(b, members)
			text := []byte(`{"eventOp":"chat","roomId":"R","message":"hello"}`)
			before, n := w.received(), 0
			b.ReportAllocs()
			for b.Loop() {
				w.client[0].Message(text, w.conn[0])
				n++
			}
			// The others get the event, the sender an answer.
			if got := w.received() - before; got != n*members {
				b.Errorf("%d came of %d messages to %d members", got, n, members)
			}
		})
	}
}

// BenchmarkJoinAndLeave has one more user enter a room and leave it again; the others are told of
// both.
func BenchmarkJoinAndLeave(b *testing.B) {
	for _, members := range []int{1, 8, 50} {
		b.Run(fmt.Sprint("members=", members), func(b *testing.B) {
			w := newBench(b, members)
			w.user("guest")
			join, leave := []byte(`{"eventOp":"joinRoom","roomId":"R"}`),
				[]byte(`{"eventOp":"leaveRoom"}`)
			before, n := w.received(), 0
			b.ReportAllocs()
			for b.Loop() {
				w.client[members].Message(join, w.conn[members])
				w.client[members].Message(leave, w.conn[members])
				n++
			}
			if got := w.received() - before; got != n*(2+2*members) {
				b.Errorf("%d came of %d joins and leaves among %d members", got, n, members)
			}
		})
	}
}

// BenchmarkRegister opens a session with a license and ends it.
func BenchmarkRegister(b *testing.B) {
	w := newBench(b, 0)
	w.login["userId"] = "guest"
	text, err := protocol.Marshal(w.login)
	if err != nil {
		b.Fatal(err)
	}
	conn, n := &benchConn{}, 0
	b.ReportAllocs()
	for b.Loop() {
		c := w.hub.Accept(conn)
		c.Message(text, conn)
		c.Closed(transport.End{Gone: true})
		n++
	}
	if conn.got != n || w.hub.Stats().Sessions != 0 {
		b.Errorf("%d answers of %d, %d sessions left", conn.got, n, w.hub.Stats().Sessions)
	}
}
