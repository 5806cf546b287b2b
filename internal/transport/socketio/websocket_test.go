package socketio

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/transport"
	"github.com/lxzan/gws"
)

// socket is a client's WebSocket.
type socket struct {
	gws.BuiltinEventHandler
	t    *testing.T
	ws   *gws.Conn
	got  chan string
	done chan transport.StatusCode
}

func (c *socket) OnMessage(_ *gws.Conn, m *gws.Message) {
	c.got <- string(m.Bytes())
	_ = m.Close()
}

func (c *socket) OnClose(_ *gws.Conn, err error) {
	var ce *gws.CloseError
	if errors.As(err, &ce) {
		c.done <- transport.StatusCode(ce.Code)
	} else {
		c.done <- 1006
	}
	close(c.got)
}

func (c *socket) write(packet string) {
	c.t.Helper()
	if err := c.ws.WriteMessage(gws.OpcodeText, []byte(packet)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *socket) want(packets ...string) {
	c.t.Helper()
	for _, want := range packets {
		if got := <-c.got; got != want {
			c.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func (c *socket) wantPrefix(want string) {
	c.t.Helper()
	if got := <-c.got; !strings.HasPrefix(got, want) {
		c.t.Fatalf("got %q, want %s…", got, want)
	}
}

// serve puts the carrier on a loopback socket.
func (g *rig) serve() string {
	srv := httptest.NewServer(g)
	g.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func dial(t *testing.T, host, query string) (*socket, *http.Response, error) {
	return dialFrom(t, "", host, query)
}

// dialFrom is dial through a proxy that names an address.
func dialFrom(t *testing.T, from, host, query string) (*socket, *http.Response, error) {
	c := &socket{t: t, got: make(chan string, 1000), done: make(chan transport.StatusCode, 1)}
	header := http.Header{}
	if from != "" {
		header.Set("X-Forwarded-For", from)
	}
	ws, res, err := gws.NewClient(c, &gws.ClientOption{
		Addr:          "ws://" + host + Path + "?" + query,
		RequestHeader: header,
	})
	if err != nil {
		return nil, res, err
	}
	c.ws = ws
	go ws.ReadLoop()
	return c, res, nil
}

func (g *rig) dial(host, query string) *socket {
	g.Helper()
	c, res, err := dial(g.T, host, query)
	if err != nil {
		g.Fatal(err, res)
	}
	return c
}

// straight is a client that uses nothing but a WebSocket, connected to "/".
func (g *rig) straight(host, version string) (*socket, *user) {
	g.Helper()
	c := g.dial(host, "EIO="+version+"&transport=websocket")
	c.wantPrefix(`0{"sid":"`)
	if version == "4" {
		c.write("40")
		c.wantPrefix(`40{"sid":"`)
	} else {
		c.want("40")
	}
	return c, <-g.users
}

func TestWebSocketOnly(t *testing.T) {
	g := newRig(t, Config{})
	host := g.serve()
	for _, version := range []string{"3", "4"} {
		c, u := g.straight(host, version)
		c.write(`42["knowledgetalk",{"a":"한글 😀"}]`)
		c.want(`42["knowledgetalk",{"a":"한글 😀"}]`)
		c.write(`427["knowledgetalk",{"b":1}]`)
		c.want(`437[{"b":1}]`)
		if version == "3" {
			c.write("2")
			c.want("3")
		}
		c.write("41")
		if got := <-u.end; got != (transport.End{Gone: true, Code: 1000}) {
			t.Errorf("version %s: ended as %+v", version, got)
		}
		if code := <-c.done; code != 1000 {
			t.Errorf("version %s: closed with %d", version, code)
		}
	}
}

func TestEndOfWebSocketClient(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(c *socket)
		want transport.End
	}{
		"disconnect": {func(c *socket) { c.write("41") }, transport.End{Gone: true, Code: 1000}},
		"close":      {func(c *socket) { c.write("1") }, transport.End{Gone: true, Code: 1000}},
		"page closed": {
			func(c *socket) { _ = c.ws.WriteClose(1001, nil) },
			transport.End{Gone: true, Code: 1001},
		},
		"without a code": {func(c *socket) {
			_, _ = c.ws.NetConn().Write([]byte{0x88, 0x80, 0, 0, 0, 0})
		}, transport.End{Gone: true, Code: 1005}},
		"for a change": {
			func(c *socket) { _ = c.ws.WriteClose(4000, nil) }, transport.End{Code: 4000},
		},
		"cut": {func(c *socket) { _ = c.ws.NetConn().Close() }, transport.End{Code: 1006}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, Config{})
			cl, u := g.straight(g.serve(), "4")
			c.end(cl)
			if got := <-u.end; got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			<-cl.done
		})
	}
}

func TestProtocolErrorsCloseWebSocket(t *testing.T) {
	for name, c := range violations {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, Config{})
			cl, u := g.straight(g.serve(), c.version)
			cl.write(c.packet)
			if code := <-cl.done; code != c.code {
				t.Errorf("closed with %d, want %d", code, c.code)
			}
			if e := <-u.end; e.Gone || e.MessageTooLong != (c.code == 1009) ||
				len(u.messages()) != 0 {
				t.Errorf("ended as %+v, handed up %q", e, u.messages())
			}
		})
	}
	for name, c := range map[string]struct {
		opcode gws.Opcode
		data   []byte
		code   transport.StatusCode
	}{
		"binary frame":    {gws.OpcodeBinary, []byte("\x0442"), 1003},
		"not UTF-8":       {gws.OpcodeText, []byte("42[\"knowledgetalk\",\"\xff\"]"), 1007},
		"frame too long":  {gws.OpcodeText, make([]byte, 64<<10+65), 1009},
		"an empty packet": {gws.OpcodeText, nil, 1002},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, Config{})
			cl, u := g.straight(g.serve(), "4")
			_ = cl.ws.WriteMessage(c.opcode, c.data)
			if code := <-cl.done; code != c.code {
				t.Errorf("closed with %d, want %d", code, c.code)
			}
			if e := <-u.end; e.Gone || e.MessageTooLong != (c.code == 1009) {
				t.Errorf("ended as %+v", e)
			}
		})
	}
}

func TestLargestMessage(t *testing.T) {
	g := newRig(t, Config{})
	c, u := g.straight(g.serve(), "4")
	u.mute = true
	message := `"` + strings.Repeat("x", 64<<10-2) + `"`
	c.write(`42/,9007199254740991["knowledgetalk",` + message + `]`)
	c.write("41")
	<-u.end
	if got := u.messages(); len(got) != 1 || got[0] != message {
		t.Errorf("%d messages", len(got))
	}
}

func TestFinalCloseCodes(t *testing.T) {
	g := newRig(t, Config{})
	host := g.serve()
	for _, version := range []string{"3", "4"} {
		for code, want := range map[transport.StatusCode][]string{
			1001: nil, 1008: nil, 4001: {"41"}, 4002: {"41"}, 4003: {"41"},
		} {
			c, u := g.straight(host, version)
			u.send(`{"last":1}`)
			u.conn.Close(code, "reason")
			c.want(append([]string{`42["knowledgetalk",{"last":1}]`}, want...)...)
			if got := <-c.done; got != code {
				t.Errorf("closed with %d, want %d", got, code)
			}
			if got := <-u.end; got != (transport.End{Code: code}) {
				t.Errorf("%d: ended as %+v", code, got)
			}
		}
	}
}

func TestUpgradeFromPolling(t *testing.T) {
	for _, version := range []string{"3", "4"} {
		t.Run("version "+version, func(t *testing.T) {
			g := newRig(t, Config{})
			host := g.serve()
			p := g.connect(version)
			poll, _ := p.background("GET", nil)
			c := g.dial(host, "EIO="+version+"&transport=websocket&sid="+p.sid)
			c.write("2probe")
			c.want("3probe")
			if got := (<-poll).Body.String(); got != p.frame("6") {
				t.Errorf("the poll that waited got %q", got)
			}
			if got := p.poll(); got != p.frame("6") { // polls do not wait any more
				t.Errorf("the next poll got %q", got)
			}
			p.send(`{"n":1}`)
			if got := p.poll(); got != p.frame(`42["knowledgetalk",{"n":1}]`) {
				t.Errorf("the last poll got %q", got)
			}
			p.send(`{"n":2}`)
			p.post(`421["knowledgetalk",{"n":3}]`)
			c.write("5")
			c.want(`42["knowledgetalk",{"n":2}]`, `431[{"n":3}]`)
			c.write(`422["knowledgetalk",{"n":4}]`)
			c.want(`432[{"n":4}]`)
			for _, method := range []string{"GET", "POST"} {
				if status, body := p.do(request{method: method, query: p.query()}); status != 400 ||
					!strings.Contains(body, `"code":3`) {
					t.Errorf("%s after changing over: %d %s", method, status, body)
				}
			}
			if _, res, err := dial(t, host,
				"EIO="+version+"&transport=websocket&sid="+p.sid); err == nil ||
				res.StatusCode != 400 {
				t.Errorf("a second change: %v", res)
			}
			_ = c.ws.WriteClose(1001, nil)
			p.wantEnd(transport.End{Gone: true, Code: 1001})
			<-c.done
		})
	}
}

func TestUpgradeReleasesWaitingPoll(t *testing.T) {
	g := newRig(t, Config{})
	p := g.connect("4")
	c := g.dial(g.serve(), "EIO=4&transport=websocket&sid="+p.sid)
	c.write("2probe")
	c.want("3probe")
	c.write("5")
	c.write(`421["knowledgetalk",{}]`)
	c.want("431[{}]")
	if status, _ := p.do(request{method: "GET", query: p.query()}); status != 400 {
		t.Errorf("%d", status)
	}
}

func TestUnfinishedUpgrades(t *testing.T) {
	for name, c := range map[string]struct {
		words []string
		code  transport.StatusCode // 0: the client closes
	}{
		"another word":          {[]string{"40"}, 1002},
		"no probe":              {[]string{"5"}, 1002},
		"a message":             {[]string{"2probe", `42["knowledgetalk",{}]`}, 1002},
		"a second probe":        {[]string{"2probe", "2probe"}, 1002},
		"an upgrade with more":  {[]string{"2probe", "5x"}, 1002},
		"closed by the client":  {nil, 0},
		"closed after a probe":  {[]string{"2probe"}, 0},
		"something long, no 5x": {[]string{"2probe", strings.Repeat("5", 1000)}, 1002},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, Config{})
			host := g.serve()
			p := g.connect("4")
			query := "EIO=4&transport=websocket&sid=" + p.sid
			ws := g.dial(host, query)
			for _, word := range c.words {
				ws.write(word)
			}
			if c.code == 0 {
				_ = ws.ws.WriteClose(1000, nil)
			}
			for range ws.got {
				continue
			}
			if code := <-ws.done; c.code != 0 && code != c.code {
				t.Errorf("closed with %d, want %d", code, c.code)
			}
			// The session goes on polling, and may try again.
			p.post(`421["knowledgetalk",{}]`)
			for got := p.poll(); got != "431[{}]"; got = p.poll() {
				if got != "6" { // until the server has noticed
					t.Fatalf("polled %q", got)
				}
			}
			var again *socket
			for again == nil { // until the server has noticed
				again, _, _ = dial(t, host, query)
			}
			again.write("2probe")
			again.want("3probe")
			again.write("5")
			again.write(`422["knowledgetalk",{}]`)
			again.want("432[{}]")
			if len(p.end) != 0 {
				t.Error("the session has ended")
			}
		})
	}
}

func TestUpgradeEndsWithSession(t *testing.T) {
	g := newRig(t, Config{})
	p := g.connect("4")
	c := g.dial(g.serve(), "EIO=4&transport=websocket&sid="+p.sid)
	c.write("2probe")
	c.want("3probe")
	p.conn.Close(1008, "policy")
	if code := <-c.done; code != 1008 {
		t.Errorf("closed with %d", code)
	}
}

// The client takes its last poll back just when it has changed over: that is no loss.
func TestPollAbortedAfterUpgrade(t *testing.T) {
	g := newRig(t, Config{})
	p := g.connect("4")
	s := p.conn.(*session)
	s.pollLock <- struct{}{} // so that the poll cannot be answered
	poll, stop := p.background("GET", nil)
	for waiting := false; !waiting; runtime.Gosched() {
		s.mu.Lock()
		waiting = s.polling
		s.mu.Unlock()
	}
	c := g.dial(g.serve(), "EIO=4&transport=websocket&sid="+p.sid)
	c.write("2probe")
	c.want("3probe")
	c.write("5")
	c.write(`421["knowledgetalk",{}]`)
	c.want("431[{}]")
	stop()
	<-poll
	c.write(`422["knowledgetalk",{}]`)
	c.want("432[{}]")
}

// A receiver may close at once, for an address that it does not want.
func TestReceiverClosesAtOnce(t *testing.T) {
	end := make(chan transport.End, 2)
	g := &rig{T: t, Server: New(Config{}, func(c transport.Conn) transport.Receiver {
		c.Close(1008, "unwanted")
		return &user{conn: c, end: end}
	})}
	defer func() {
		if err := g.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	c := g.dial(g.serve(), "EIO=4&transport=websocket")
	for range c.got {
		continue
	}
	<-c.done
	if got := <-end; got != (transport.End{Code: 1008}) {
		t.Errorf("ended as %+v", got)
	}
	status, body := g.do(request{method: "GET", query: "EIO=4&transport=polling"})
	if status != 200 || !strings.HasPrefix(body, "0{") {
		t.Errorf("handshake: %d %s", status, body)
	}
	if got := <-end; got != (transport.End{Code: 1008}) {
		t.Errorf("ended as %+v", got)
	}
}

// pipe is a ResponseWriter that hands out a connection in memory.
type pipe struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (p pipe) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return p.conn, bufio.NewReadWriter(bufio.NewReader(p.conn), bufio.NewWriter(p.conn)), nil
}

// inMemory opens a WebSocket within a bubble of virtual time and reads its frames.
func (g *rig) inMemory(query string) (write func(string), frames chan string, stop func()) {
	g.Helper()
	ours, theirs := net.Pipe()
	r := request{method: "GET", query: query, header: []string{
		"Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Version", "13",
		"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==",
	}}.build()
	go g.ServeHTTP(pipe{httptest.NewRecorder(), theirs}, r)
	in := bufio.NewReader(ours)
	if res, err := http.ReadResponse(in, r); err != nil ||
		res.StatusCode != http.StatusSwitchingProtocols {
		g.Fatal(res, err)
	}
	frames = make(chan string, 1000)
	go func() {
		defer close(frames)
		for {
			head := make([]byte, 2)
			if _, err := io.ReadFull(in, head); err != nil {
				return
			}
			size := int(head[1] & 127)
			if size == 126 {
				long := make([]byte, 2)
				_, _ = io.ReadFull(in, long)
				size = int(binary.BigEndian.Uint16(long))
			}
			body := make([]byte, size)
			if _, err := io.ReadFull(in, body); err != nil {
				return
			}
			if head[0] == 0x81 {
				frames <- string(body)
			}
		}
	}()
	write = func(packet string) {
		g.Helper()
		head := []byte{0x81, 0x80 | byte(len(packet)), 0, 0, 0, 0}
		if _, err := ours.Write(append(head, packet...)); err != nil {
			g.Fatal(err)
		}
	}
	return write, frames, func() { _ = ours.Close() }
}

func TestWebSocketPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Config{})
		write, frames, stop := g.inMemory("EIO=4&transport=websocket")
		defer stop()
		u := <-g.users
		<-frames // open
		write("40")
		<-frames // connected
		for range 3 {
			start := time.Now()
			if got := <-frames; got != "2" {
				t.Fatalf("got %q", got)
			}
			if d := time.Since(start); d < 22*time.Second || d > 28*time.Second {
				t.Errorf("pinged after %v", d)
			}
			write("3")
		}
		start := time.Now()
		if got := <-frames; got != "2" {
			t.Fatalf("got %q", got)
		}
		if got := <-u.end; got != (transport.End{Code: 1006}) {
			t.Errorf("ended as %+v", got)
		}
		if d := time.Since(start); d < 42*time.Second || d > 50*time.Second {
			t.Errorf("lost after %v", d)
		}
	})
}

func TestUpgradeTimeout(t *testing.T) {
	for name, word := range map[string]string{"no probe": "", "no upgrade": "2probe"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, Config{})
				p := g.connect("4")
				write, frames, stop := g.inMemory("EIO=4&transport=websocket&sid=" + p.sid)
				defer stop()
				start := time.Now()
				if word != "" {
					write(word)
				}
				for range frames {
					continue
				}
				if d := time.Since(start); d < 9*time.Second || d > 15*time.Second {
					t.Errorf("closed after %v", d)
				}
				p.post(`421["knowledgetalk",{}]`)
				if got := p.poll(); got != "431[{}]" {
					t.Errorf("then polled %q", got)
				}
			})
		})
	}
}

func TestCloseNotifiesWebSockets(t *testing.T) {
	g := newRig(t, Config{})
	host := g.serve()
	var sockets []*socket
	var users []*user
	for range 10 {
		c, u := g.straight(host, "4")
		sockets, users = append(sockets, c), append(users, u)
	}
	half := g.connect("4")
	changing := g.dial(host, "EIO=4&transport=websocket&sid="+half.sid)
	changing.write("2probe")
	changing.want("3probe")
	if err := g.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i, c := range append(sockets, changing) {
		if code := <-c.done; code != 1001 {
			t.Errorf("%d: closed with %d", i, code)
		}
	}
	for _, u := range append(users, half.user) {
		if e := <-u.end; e.Gone {
			t.Errorf("ended as %+v", e)
		}
	}
	if n := g.Count(); n != 0 {
		t.Errorf("%d sessions left", n)
	}
}

// A request that is no upgrade must not leave a session behind.
func TestRefusedWebSocket(t *testing.T) {
	g := newRig(t, Config{})
	if status, _ := g.do(request{
		method: "GET", query: "EIO=4&transport=websocket",
	}); status != http.StatusUpgradeRequired {
		t.Errorf("%d", status)
	}
	if e := <-(<-g.users).end; e.Gone {
		t.Errorf("ended as %+v", e)
	}
	if n := g.Count(); n != 0 {
		t.Errorf("%d sessions left", n)
	}
}
