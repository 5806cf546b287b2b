package signaling

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lxzan/gws"
	"go.uber.org/goleak"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/logtest"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
	"github.com/ieum-rtc/ieum/internal/signaling/enginetest"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// maxUnregistered bounds the connections of an address that have not registered.
const maxUnregistered = 50

// underRace is true with the race detector.
var underRace bool

// thinned is for tests of many cases, each of which is a world of its own. With the race detector a
// world takes ten times as long, so that of each few cases one is left. make race runs all of them
// without it.
type thinned int

func (n *thinned) skips(of int) bool {
	*n++
	return underRace && int(*n)%of != 0
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is one or more nodes in virtual time. Clients reach them through real WebSockets over
// net.Pipe.
type world struct {
	*testing.T
	local    directory
	verifier *license.Verifier
	cpCode   string
	authKey  string
	log      *logtest.Buffer
	nodes    []*testNode

	residents map[string]*peer // by tenant, see resident
	counted   int
}

// resident is a user of the tenant who has registered from an address.
func (w *world) resident(tenant string) *peer { return w.residents[tenant] }

// count makes a number that there has not been.
func (w *world) count() int { w.counted++; return w.counted }

// issue makes a license of another tenant.
func (w *world) issue(tenant string) string {
	key, err := w.verifier.Issue(license.Params{
		Name: tenant, CpCode: tenant, CompanyCode: "T", MaxUser: 100,
		Start: time.Now().Add(-time.Hour), End: time.Now().Add(24 * time.Hour),
	})
	if err != nil {
		w.Fatal(err)
	}
	return key
}

// directory is what all nodes agree on.
type directory struct{ *enginetest.Network }

func (d directory) Holder(_ context.Context, tenant, user string) (l Location, err error) {
	d.View(func(t *engine.Table) { l = t.Holder(tenant, user) })
	return l, nil
}

func (d directory) users() map[userKey]Location {
	users := map[userKey]Location{}
	d.View(func(t *engine.Table) {
		for k, l := range t.Users() {
			users[userKey{k.Tenant, k.ID}] = l
		}
	})
	return users
}

func (d directory) rooms() map[userKey]Owner {
	rooms := map[userKey]Owner{}
	d.View(func(t *engine.Table) {
		for k, o := range t.Rooms() {
			rooms[userKey{k.Tenant, k.ID}] = o
		}
	})
	return rooms
}

// seats are the user ids taken, by tenant.
func (d directory) seats() (seats map[string]int) {
	d.View(func(t *engine.Table) { seats = t.Taken() })
	return seats
}

type testNode struct {
	hub     *Hub
	ws      *transport.WebSocket
	http    *http.Server
	pipes   *pipeListener
	done    chan struct{}
	limiter *transport.ConnLimiter
	known   known
	killed  bool
}

// known are the users that a limiter reports, by address.
type known struct {
	mu sync.Mutex
	of map[netip.Addr]int
}

func (k *known) add(a netip.Addr, n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil {
		k.of = map[netip.Addr]int{}
	}
	if k.of[a] += n; k.of[a] == 0 {
		delete(k.of, a)
	}
}

// in runs a test in virtual time with n nodes.
func in(t *testing.T, n int, change func(*Config, *license.Params), f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			T:      t,
			local:  directory{enginetest.NewNetwork(1)},
			cpCode: "KP-20200101-01",
			log:    &logtest.Buffer{},
		}
		var err error
		w.verifier, err = license.New(license.Config{
			Keys: [][]byte{[]byte("0123456789abcdef0123456789abcdef")},
		})
		if err != nil {
			t.Fatal(err)
		}
		params := license.Params{
			Name: "Test", CpCode: w.cpCode, CompanyCode: "T", MaxUser: 100,
			Start: time.Now().Add(-time.Hour), End: time.Now().Add(24 * time.Hour),
		}
		cfg := Config{
			Licenses: w.verifier, ICE: fixedICE{},
			ResumeKeys: w.verifier.DeriveAll("resume secret", 32),
			Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{
				Level: slog.LevelInfo,
			})),
		}
		if change != nil {
			change(&cfg, &params)
		}
		if w.authKey, err = w.verifier.Issue(params); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			cfg.Node = fmt.Sprintf("n%d", i)
			w.start(cfg)
		}
		defer w.close()
		f(w)
	})
}

// over is a Directory of the test that needs that of each node.
type over interface {
	Directory
	over(Directory) Directory
}

// overBus is a Bus of the test over that of each node.
type overBus interface {
	Bus
	over(node string, b Bus) Bus
}

func (w *world) start(cfg Config) {
	at := w.local.Join(cfg.Node)
	if b, ok := cfg.Bus.(overBus); ok {
		cfg.Bus = b.over(cfg.Node, at)
	} else {
		cfg.Bus = at
	}
	if d, ok := cfg.Directory.(over); ok {
		cfg.Directory = d.over(at)
	} else {
		cfg.Directory = at
	}
	hub, err := New(cfg)
	if err != nil {
		w.Fatal(err)
	}
	n := &testNode{
		hub:   hub,
		pipes: &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})},
		done:  make(chan struct{}),
	}
	n.limiter = transport.NewConnLimiter(transport.ConnLimiterConfig{
		Unregistered: maxUnregistered,
		OnRegistered: n.known.add,
	})
	n.ws = transport.NewWebSocket(transport.Config{
		Log:     cfg.Log,
		Limiter: n.limiter,
		Backlog: cfg.Backlog,
	}, hub.Accept)
	mux := http.NewServeMux()
	mux.Handle("GET /signal", n.ws)
	mux.HandleFunc("POST /leave", hub.ServeLeave)
	n.http = &http.Server{Handler: mux}
	go func() {
		defer close(n.done)
		_ = n.http.Serve(n.pipes)
	}()
	w.nodes = append(w.nodes, n)
}

func (w *world) close() {
	for _, n := range w.nodes {
		n.close(w.T)
	}
}

func (n *testNode) close(t *testing.T) {
	if n.killed {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := n.ws.Close(ctx); err != nil {
		t.Error(err)
	}
	_ = n.http.Close()
	n.hub.Close()
	<-n.done
}

// kill ends a node as SIGKILL does. Others learn of it when it is buried.
func (w *world) kill(node int) {
	n := w.nodes[node]
	w.local.Kill(n.hub.cfg.Node)
	n.close(w.T)
	n.killed = true
	synctest.Wait()
}

// detectTime is how long after its end a node counts as dead.
const detectTime = time.Second

// dies kills a node, and waits until others have gone on with what it had.
func (w *world) dies(node int) {
	w.kill(node)
	time.Sleep(detectTime)
	w.local.Bury(w.nodes[node].hub.cfg.Node)
	w.repaired()
}

type fixedICE struct{}

func (fixedICE) ICEServers(host, _, session string, relay bool) []protocol.ICEServer {
	s := []protocol.ICEServer{{URLs: []string{"stun:" + host}}}
	if relay {
		s = append(s, protocol.ICEServer{
			URLs:       []string{"turn:" + host},
			Username:   session,
			Credential: "x",
		})
	}
	return s
}

// pipeListener hands net.Pipe connections to an http.Server.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr {
	return &net.TCPAddr{
		IP:   net.IPv4(127, 0, 0, 1),
		Port: 7102,
	}
}

// dial opens a plain connection to the node, from nowhere.
func (n *testNode) dial() net.Conn {
	ours, theirs := net.Pipe()
	n.pipes.conns <- theirs
	return ours
}

// dialFrom is dial from an address.
func (n *testNode) dialFrom(addr string) net.Conn {
	ours, theirs := net.Pipe()
	n.pipes.conns <- addressed{theirs,
		net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 50000))}
	return ours
}

type addressed struct {
	net.Conn
	remote net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.remote }

// peer is a test client. What it gets is kept; expect methods wait, in virtual time, until
// everything has settled.
type peer struct {
	w       *world
	ws      *gws.Conn
	nc      net.Conn
	mu      sync.Mutex
	got     []msg
	closed  error
	ended   chan struct{}
	reading chan struct{} // while it is open, nothing more is read
	answer  func(msg)     // is told of each message

	user, secret string
	reqID        int
}

type msg map[string]any

func (m msg) str(k string) string { s, _ := m[k].(string); return s }

func (p *peer) OnOpen(*gws.Conn)              {}
func (p *peer) OnPing(ws *gws.Conn, b []byte) { _ = ws.WritePong(b) }
func (p *peer) OnPong(*gws.Conn, []byte)      {}
func (p *peer) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	var v msg
	if err := json.Unmarshal(m.Bytes(), &v); err != nil {
		p.w.Errorf("not JSON: %s", m.Bytes())
	}
	p.mu.Lock()
	p.got = append(p.got, v)
	reading, answer := p.reading, p.answer
	p.mu.Unlock()
	if answer != nil {
		answer(v)
	}
	if reading != nil {
		<-reading
	}
}

// stall stops reading after the next message, until the returned function is called.
func (p *peer) stall() (resume func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	reading := make(chan struct{})
	p.reading = reading
	return func() {
		p.mu.Lock()
		p.reading = nil
		p.mu.Unlock()
		close(reading)
	}
}

func (p *peer) OnClose(_ *gws.Conn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = err
}

func (w *world) connect(node int, headers ...string) *peer {
	w.Helper()
	return w.over(w.nodes[node].dial(), headers...)
}

// from is connect from an address, to the first node.
func (w *world) from(addr string) *peer {
	w.Helper()
	return w.over(w.nodes[0].dialFrom(addr))
}

func (w *world) over(nc net.Conn, headers ...string) *peer {
	w.Helper()
	p := &peer{w: w, nc: nc, ended: make(chan struct{})}
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	ws, res, err := gws.NewClientFromConn(p, &gws.ClientOption{
		Addr:          "ws://ieum.test/signal",
		RequestHeader: h,
	}, p.nc)
	if err != nil {
		w.Fatalf("connect: %v %v", err, res)
	}
	p.ws = ws
	go func() {
		defer close(p.ended)
		ws.ReadLoop()
	}()
	return p
}

// raw sends text and lets everything settle.
func (p *peer) raw(text string) {
	_ = p.ws.WriteMessage(gws.OpcodeText, []byte(text))
	synctest.Wait()
}

// ask sends a request and returns its answer.
func (p *peer) ask(m msg) msg {
	p.w.Helper()
	p.reqID++
	id := fmt.Sprint(p.reqID)
	m["reqId"] = id
	b, _ := json.Marshal(m)
	p.raw(string(b))
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, g := range p.got {
		if g.str("reqId") == id && g.str("code") != "" {
			p.got = append(p.got[:i], p.got[i+1:]...)
			return g
		}
	}
	return nil
}

func (p *peer) want(code string, m msg) msg {
	p.w.Helper()
	a := p.ask(m)
	if a.str("code") != code || (code != "200" && a.str("message") == "") {
		p.w.Fatalf("%v was answered %v, want code %s with a message", m, a, code)
	}
	return a
}

// take returns what came since and forgets it.
func (p *peer) take() []msg {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

// told takes what came and writes it short: presence as type:user, relayed messages as op from
// user.
func (p *peer) told() string {
	s := ""
	for _, m := range p.take() {
		switch {
		case m.str("eventOp") == "presence":
			user := m.str("user")
			if u, ok := m["user"].(map[string]any); ok {
				user = msg(u).str("userId")
			}
			s += fmt.Sprintf("%s:%s:%v ", m.str("type"), user, m["seq"])
		case m.str("code") == "":
			s += fmt.Sprintf("%s<%s ", m.str("eventOp"), m.str("userId"))
		default:
			s += fmt.Sprintf("answer:%s:%s ", m.str("eventOp"), m.str("code"))
		}
	}
	return s
}

func (p *peer) saw(want string) {
	p.w.Helper()
	if got := p.told(); got != want {
		p.w.Errorf("%s saw %q, want %q", p.user, got, want)
	}
}

// closeCode is the code with which the server closed; 0 while open.
func (p *peer) closeCode() transport.StatusCode {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	var ce *gws.CloseError
	switch {
	case p.closed == nil:
		return 0
	case errors.As(p.closed, &ce):
		return transport.StatusCode(ce.Code)
	}
	return 1006
}

// register registers and remembers id and secret.
func (p *peer) register(user string, extra ...any) msg {
	p.w.Helper()
	m := msg{
		"eventOp":  "register",
		"cpCode":   p.w.cpCode,
		"authKey":  p.w.authKey,
		"features": []string{"pair", "publish"},
	}
	if user != "" {
		m["userId"] = user
	}
	for i := 0; i < len(extra); i += 2 {
		m[extra[i].(string)] = extra[i+1]
	}
	a := p.want("200", m)
	p.user, p.secret = a.str("userId"), a.str("resume")
	return a
}

// user connects and registers.
func (w *world) user(node int, id string) *peer {
	w.Helper()
	p := w.connect(node)
	p.register(id)
	return p
}

// lose cuts the connection without a close frame.
func (p *peer) lose() {
	_ = p.nc.Close()
	<-p.ended
	synctest.Wait()
}

// goAway closes like a page that is closed.
func (p *peer) goAway(code uint16) {
	_ = p.ws.WriteClose(code, nil)
	<-p.ended
	synctest.Wait()
}

// post sends a POST to the node and returns the status.
func (n *testNode) post(t *testing.T, path, body string) int {
	t.Helper()
	nc := n.dial()
	defer nc.Close()
	req, _ := http.NewRequest("POST", "http://ieum.test"+path, bytes.NewBufferString(body))
	req.Close = true
	go func() { _ = req.Write(nc) }()
	res, err := http.ReadResponse(bufio.NewReader(nc), req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}
