package pair

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/lxzan/gws"
)

// fakeServer speaks the part of a protocol that the load uses. A test decides what it relays.
type fakeServer struct {
	gws.BuiltinEventHandler
	*testing.T
	url  string
	wire fakeWire
	// relay returns the texts that the receiver of the nth relayed message gets, counting from 1.
	// Nil: the message unchanged.
	relay func(n int, text string, from *gws.Conn) []string

	mu      sync.Mutex // guards what follows, and is held while a message is handled
	users   map[string]*gws.Conn
	rooms   map[string][]*gws.Conn
	relayed int
	sizes   map[int]bool    // of relayed messages, as their senders sent them
	sources map[string]bool // addresses that connections came from
}

// fakeWire is one protocol. What it sends, it sends by s.send.
type fakeWire interface {
	opened(s *fakeServer, c *gws.Conn, r *http.Request)
	message(s *fakeServer, c *gws.Conn, text string)
}

var fakeWires = map[string]fakeWire{
	"ieum":          fakeIeum{},
	"ieum-socketio": fakeIeumSocketIO{},
	"peerjs":        fakePeerJS{},
	"socketio":      fakeSocketIO{},
}

func startFake(t *testing.T, protocol string) *fakeServer {
	return startFakeOn(t, protocol, httptest.NewServer)
}

func startFakeOn(
	t *testing.T,
	protocol string,
	start func(http.Handler) *httptest.Server,
) *fakeServer {
	s := &fakeServer{
		T:       t,
		wire:    fakeWires[protocol],
		users:   map[string]*gws.Conn{},
		rooms:   map[string][]*gws.Conn{},
		sizes:   map[int]bool{},
		sources: map[string]bool{},
	}
	up := gws.NewUpgrader(s, nil)
	var readers sync.WaitGroup
	server := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// before the upgrade: after it, the server's Close no longer waits for the connection
		readers.Add(1)
		c, err := up.Upgrade(w, r)
		if err != nil {
			t.Error(err)
			readers.Done()
			return
		}
		s.mu.Lock()
		s.sources[netip.MustParseAddrPort(r.RemoteAddr).Addr().String()] = true
		s.wire.opened(s, c, r)
		s.mu.Unlock()
		go func() {
			defer readers.Done()
			c.ReadLoop()
		}()
	}))
	t.Cleanup(func() {
		server.Close()
		readers.Wait()
	})
	s.url = "ws" + strings.TrimPrefix(server.URL, "http") + "/path"
	return s
}

func (s *fakeServer) OnMessage(c *gws.Conn, m *gws.Message) {
	defer func() { _ = m.Close() }()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wire.message(s, c, string(bytes.Clone(m.Bytes())))
}

func (s *fakeServer) send(c *gws.Conn, text string) { _ = c.WriteString(text) }

// pass relays text, which came from from as size bytes, to to.
func (s *fakeServer) pass(from, to *gws.Conn, size int, text string) {
	s.relayed++
	s.sizes[size] = true
	texts := []string{text}
	if s.relay != nil {
		texts = s.relay(s.relayed, text, from)
	}
	for _, t := range texts {
		s.send(to, t)
	}
}

// seen is what the server has counted.
func (s *fakeServer) seen() (users, rooms, relayed int, sizes map[int]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.users), len(s.rooms), s.relayed, maps.Clone(s.sizes)
}

// other is the one in room who is not c.
func (s *fakeServer) other(room string, c *gws.Conn) *gws.Conn {
	for _, m := range s.rooms[room] {
		if m != c {
			return m
		}
	}
	s.Errorf("%s is alone in its room", room)
	return c
}

func attribute(c *gws.Conn, name string) string {
	v, _ := c.Session().Load(name)
	text, _ := v.(string)
	return text
}

// fakeIeum puts into its envelope what it sends; nil: it sends it as it is.
type fakeIeum struct{ envelope envelope }

func (f fakeIeum) wrap(text string) string {
	if f.envelope == nil {
		return text
	}
	return string(f.envelope.wrap([]byte(text)))
}

func (fakeIeum) opened(*fakeServer, *gws.Conn, *http.Request) {}

func (f fakeIeum) message(s *fakeServer, c *gws.Conn, text string) {
	var m struct {
		EventOp, CpCode, AuthKey, UserID, RoomID, Target string
		ReqID                                            int
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		s.Errorf("%v: %.200q", err, text)
	}
	answer := func(code string) {
		const format = `{"eventOp":%q,"reqId":%d,"code":%q,"message":"from the test"}`
		s.send(c, f.wrap(fmt.Sprintf(format, m.EventOp, m.ReqID, code)))
	}
	switch m.EventOp {
	case "register":
		if m.CpCode != "CODE" || m.AuthKey != "KEY" {
			answer("401")
			return
		}
		c.Session().Store("user", m.UserID)
		s.users[m.UserID] = c
		answer("200")
	case "createRoom":
		if s.rooms[m.RoomID] != nil {
			s.Errorf("%s is created twice", m.RoomID)
		}
		s.rooms[m.RoomID] = []*gws.Conn{}
		answer("200")
	case "joinRoom":
		if s.rooms[m.RoomID] == nil {
			s.Errorf("%s is entered before it is there", m.RoomID)
		}
		user := attribute(c, "user")
		answer("200")
		for _, o := range s.rooms[m.RoomID] {
			const format = `{"eventOp":"presence","type":"join","roomId":%q,"seq":2,` +
				`"user":{"id":%q},"sender":%q}`
			s.send(o, f.wrap(fmt.Sprintf(format, m.RoomID, user, user)))
		}
		s.rooms[m.RoomID] = append(s.rooms[m.RoomID], c)
	case "sdp":
		whole := f.wrap(text)
		s.pass(c, s.users[m.Target], len(whole), whole)
	default:
		s.Errorf("unexpected %.200q", text)
	}
}

type fakePeerJS struct{}

func (fakePeerJS) opened(s *fakeServer, c *gws.Conn, r *http.Request) {
	q := r.URL.Query()
	if q.Get("key") != "peerjs" || q.Get("token") == "" || r.URL.Path != "/path" {
		s.Errorf("opened as %s", r.URL)
	}
	c.Session().Store("user", q.Get("id"))
	s.users[q.Get("id")] = c
	s.send(c, `{"type":"OPEN"}`)
}

func (fakePeerJS) message(s *fakeServer, c *gws.Conn, text string) {
	var m struct{ Type, Dst string }
	if err := json.Unmarshal([]byte(text), &m); err != nil || m.Type != "OFFER" {
		s.Errorf("%v: %.200q", err, text)
	}
	s.pass(
		c,
		s.users[m.Dst],
		len(text),
		fmt.Sprintf(`{"src":%q,%s`, attribute(c, "user"), text[1:]),
	)
}

type fakeSocketIO struct{}

func (fakeSocketIO) opened(s *fakeServer, c *gws.Conn, r *http.Request) {
	if r.URL.RawQuery != "EIO=4&transport=websocket" {
		s.Errorf("opened as %s", r.URL)
	}
	s.send(c, `0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000}`)
}

func (fakeSocketIO) message(s *fakeServer, c *gws.Conn, text string) {
	switch {
	case text == "40":
		s.send(c, `40{"sid":"y"}`)
	case strings.HasPrefix(text, `420["join",`):
		var args []string
		if err := json.Unmarshal([]byte(text[3:]), &args); err != nil || len(args) != 2 {
			s.Errorf("%v: %q", err, text)
			return
		}
		c.Session().Store("room", args[1])
		s.rooms[args[1]] = append(s.rooms[args[1]], c)
		s.send(c, `430[]`)
		s.send(c, `2`)
	case text == "3":
		c.Session().Store("pong", "3")
	case strings.HasPrefix(text, `42["knowledgetalk",`):
		if !json.Valid([]byte(text[2:])) {
			s.Errorf("not JSON: %.200q", text)
		}
		if attribute(c, "pong") == "" {
			s.Error("the ping was not answered before the first message")
		}
		s.pass(c, s.other(attribute(c, "room"), c), len(text), text)
	default:
		s.Errorf("unexpected %.200q", text)
	}
}

// fakeIeumSocketIO opens as Socket.IO does, and then speaks our protocol in events.
type fakeIeumSocketIO struct{ fakeSocketIO }

func (f fakeIeumSocketIO) message(s *fakeServer, c *gws.Conn, text string) {
	if text == "3" {
		return
	}
	if text == "40" {
		f.fakeSocketIO.message(s, c, text)
		s.send(c, `2`)
		return
	}
	message, err := event{}.unwrap([]byte(text))
	if err != nil {
		s.Error(err)
		return
	}
	fakeIeum{event{}}.message(s, c, string(message))
}
