package socketio

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/ieum-rtc/ieum/internal/transport"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// user is a receiver that answers each message with itself, and keeps how its session ended.
type user struct {
	conn transport.Conn
	end  chan transport.End
	mute bool // does not answer

	mu     sync.Mutex
	got    []string
	wanted []bool
}

func (u *user) Message(msg []byte, r transport.Reply) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.got = append(u.got, string(msg))
	u.wanted = append(u.wanted, transport.AckRequested(r))
	if u.mute {
		return
	}
	m := transport.NewMessage()
	m.B = append(m.B, msg...)
	r.Send(m)
}

func (u *user) Closed(e transport.End) { u.end <- e }

func (u *user) messages() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.got
}

func (u *user) send(s string) bool {
	m := transport.NewMessage()
	m.B = append(m.B, s...)
	return u.conn.Send(m)
}

// rig is a carrier whose users it knows.
type rig struct {
	*testing.T
	*Server
	users chan *user
}

func newRig(t *testing.T, cfg Config) *rig {
	g := &rig{T: t, users: make(chan *user, 100)}
	g.Server = New(cfg, func(c transport.Conn) transport.Receiver {
		u := &user{conn: c, end: make(chan transport.End, 2)}
		g.users <- u
		return u
	})
	t.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if n := g.Count(); n != 0 {
			t.Errorf("%d sessions left", n)
		}
	})
	return g
}

type request struct {
	method, query, body string
	header              []string
}

func (q request) build() *http.Request {
	r := httptest.NewRequest(q.method, "http://ieum.test"+Path+"?"+q.query,
		strings.NewReader(q.body))
	for i := 0; i < len(q.header); i += 2 {
		r.Header.Add(q.header[i], q.header[i+1])
	}
	return r
}

func (g *rig) do(q request) (status int, body string) {
	g.Helper()
	w := httptest.NewRecorder()
	g.ServeHTTP(w, q.build())
	return w.Code, w.Body.String()
}

// poller is a polling client.
type poller struct {
	*rig
	*user
	version, sid string
}

// sidOf is the id of the session in the answer to a handshake.
func sidOf(body string) string {
	_, sid, _ := strings.Cut(body, `"sid":"`)
	sid, _, _ = strings.Cut(sid, `"`)
	return sid
}

// open makes a session; one of version 4 is not connected to "/" yet.
func (g *rig) open(version string) *poller {
	g.Helper()
	status, body := g.do(request{method: "GET", query: "EIO=" + version + "&transport=polling"})
	sid := sidOf(body)
	if status != http.StatusOK || len(sid) != 20 {
		g.Fatalf("handshake: %d %q", status, body)
	}
	return &poller{g, <-g.users, version, sid}
}

// connect is open, and connected to "/".
func (g *rig) connect(version string) *poller {
	g.Helper()
	p := g.open(version)
	if version == "4" {
		p.post("40")
		if got := p.poll(); !strings.HasPrefix(got, `40{"sid":"`) {
			g.Fatalf("connected with %q", got)
		}
	}
	return p
}

func (p *poller) query() string { return "EIO=" + p.version + "&transport=polling&sid=" + p.sid }

// frame makes a payload of one packet.
func (p *poller) frame(packet string) string {
	if p.version == "3" {
		return string(appendPayload(nil, 3, messages(packet)))
	}
	return packet
}

func (p *poller) poll() string {
	p.Helper()
	status, body := p.do(request{method: "GET", query: p.query()})
	if status != http.StatusOK {
		p.Fatalf("poll: %d %q", status, body)
	}
	return body
}

func (p *poller) post(packet string) {
	p.Helper()
	if status, body := p.raw(p.frame(packet)); status != http.StatusOK || body != "ok" {
		p.Fatalf("post %q: %d %q", packet, status, body)
	}
}

func (p *poller) raw(payload string, header ...string) (int, string) {
	p.Helper()
	return p.do(request{"POST", p.query(), payload, header})
}

// background sends a request that waits; stop is the client's going away.
func (p *poller) background(
	method string,
	body io.Reader,
) (answer chan *httptest.ResponseRecorder, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	r := httptest.NewRequestWithContext(ctx, method, "http://ieum.test"+Path+"?"+p.query(), body)
	answer = make(chan *httptest.ResponseRecorder, 1)
	go func() {
		defer cancel()
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		answer <- w
	}()
	return answer, cancel
}

func (p *poller) wantEnd(want transport.End) {
	p.Helper()
	if got := <-p.end; got != want {
		p.Errorf("ended as %+v, want %+v", got, want)
	}
}
