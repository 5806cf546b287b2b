package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lxzan/gws"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers every message with itself, and keeps how the connection ended.
type echo struct {
	conn Conn
	end  chan End
}

func (e *echo) Message(msg []byte, r Reply) {
	m := NewMessage()
	m.B = append(m.B, msg...)
	r.Send(m)
}

func (e *echo) Closed(end End) { e.end <- end }

// server is a WebSocket handler on a real loopback socket.
type server struct {
	*testing.T
	ws       *WebSocket
	http     *httptest.Server
	accepted chan *echo
}

func serve(t *testing.T, cfg Config) *server {
	s := &server{T: t, accepted: make(chan *echo, 100)}
	s.ws = NewWebSocket(cfg, func(c Conn) Receiver {
		e := &echo{c, make(chan End, 1)}
		s.accepted <- e
		return e
	})
	s.http = httptest.NewServer(s.ws)
	t.Cleanup(func() {
		if err := s.ws.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		s.http.Close()
	})
	return s
}

// client collects what it gets.
type client struct {
	gws.BuiltinEventHandler
	ws   *gws.Conn
	got  chan string
	done chan error
}

func (c *client) OnMessage(_ *gws.Conn, m *gws.Message) {
	c.got <- string(m.Bytes())
	_ = m.Close()
}

func (c *client) OnClose(_ *gws.Conn, err error) { c.done <- err }

func (s *server) dial(headers ...string) (*client, *echo) {
	s.Helper()
	c, res, err := s.try(headers...)
	if err != nil {
		s.Fatal(err, res)
	}
	return c, <-s.accepted
}

func (s *server) try(headers ...string) (*client, *http.Response, error) {
	c := &client{got: make(chan string, 1000), done: make(chan error, 1)}
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Add(headers[i], headers[i+1])
	}
	ws, res, err := gws.NewClient(c,
		&gws.ClientOption{Addr: "ws" + strings.TrimPrefix(s.http.URL, "http"), RequestHeader: h})
	if err != nil {
		return nil, res, err
	}
	c.ws = ws
	go ws.ReadLoop()
	return c, res, nil
}

func code(err error) StatusCode {
	var ce *gws.CloseError
	if errors.As(err, &ce) {
		return StatusCode(ce.Code)
	}
	return 1006
}

func TestMessagesAndPeer(t *testing.T) {
	s := serve(t, Config{})
	c, e := s.dial("Origin", "https://app.example")
	for _, text := range []string{"한글", "", strings.Repeat("x", 64<<10)} {
		if err := c.ws.WriteMessage(gws.OpcodeText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := <-c.got; got != text {
			t.Errorf("%d bytes came back as %d", len(text), len(got))
		}
	}
	p := e.conn.Peer()
	if p.Origin != "https://app.example" || !p.Addr.Addr().IsLoopback() ||
		"http://"+p.Host != s.http.URL ||
		p.TLS {
		t.Errorf("peer %+v", p)
	}
}

func TestEndOfClient(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(c *client)
		want End
	}{
		"closed with 1000": {
			func(c *client) { _ = c.ws.WriteClose(1000, nil) }, End{Gone: true, Code: 1000},
		},
		"closed with 1001": {
			func(c *client) { _ = c.ws.WriteClose(1001, nil) }, End{Gone: true, Code: 1001},
		},
		"closed without a code": {
			func(c *client) { _, _ = c.ws.NetConn().Write([]byte{0x88, 0x80, 0, 0, 0, 0}) },
			End{Gone: true, Code: 1005},
		},
		"closed for a reconnect": {
			func(c *client) { _ = c.ws.WriteClose(4000, nil) }, End{Code: 4000},
		},
		"cut": {
			func(c *client) { _ = c.ws.NetConn().Close() }, End{Code: 1006},
		},
		"protocol error, no mask": {
			func(c *client) { _, _ = c.ws.NetConn().Write([]byte{0x81, 0x01, 'x'}) },
			End{Code: 1006},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Config{})
			cl, e := s.dial()
			c.end(cl)
			if got := <-e.end; got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			<-cl.done
		})
	}
}

func TestCloseCodes(t *testing.T) {
	for name, c := range map[string]struct {
		send func(c *client)
		want StatusCode
	}{
		"binary": {
			func(c *client) { _ = c.ws.WriteMessage(gws.OpcodeBinary, []byte("x")) }, 1003,
		},
		"compressed": {
			func(c *client) { _, _ = c.ws.NetConn().Write(masked(0xC1, "\xaa\x06\x00")) }, 1002,
		},
		"not UTF-8": {
			func(c *client) { _ = c.ws.WriteMessage(gws.OpcodeText, []byte("\xff\xfe")) }, 1007,
		},
		"a byte too long": {
			func(c *client) { _ = c.ws.WriteMessage(gws.OpcodeText, make([]byte, 64<<10+1)) }, 1009,
		},
		"1 MiB": {
			func(c *client) {
				_ = c.ws.WriteMessage(gws.OpcodeText, bytes.Repeat([]byte("x"), 1<<20))
			},
			1009,
		},
		"1 MiB in pieces": {func(c *client) {
			// 32 KiB, not the last.
			head := []byte{0x01, 0xFE, 0x80, 0, 0, 0, 0, 0}
			piece := append(head, bytes.Repeat([]byte("x"), 32<<10)...)
			for i := range 4 {
				if i == 1 {
					piece[0] = 0 // continuation
				}
				if _, err := c.ws.NetConn().Write(piece); err != nil {
					return
				}
			}
		}, 1009},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Config{})
			bystander, _ := s.dial()
			cl, e := s.dial()
			c.send(cl)
			if got := code(<-cl.done); got != c.want {
				t.Errorf("closed with %d, want %d", got, c.want)
			}
			if end := <-e.end; end.Gone || end.MessageTooLong != (c.want == 1009) {
				t.Errorf("ended as %+v", end)
			}
			_ = bystander.ws.WriteMessage(gws.OpcodeText, []byte("still here"))
			if got := <-bystander.got; got != "still here" {
				t.Errorf("the bystander got %q", got)
			}
		})
	}
}

// Closing sends what is queued first, then the code, even while the client is still sending.
func TestCloseDeliversQueuedMessages(t *testing.T) {
	s := serve(t, Config{})
	c, e := s.dial()
	for range 50 {
		m := NewMessage()
		m.B = append(m.B, "answer"...)
		e.conn.Send(m)
	}
	e.conn.Close(1008, "policy")
	m := NewMessage()
	if e.conn.Send(m) {
		t.Error("sent after Close")
	}
	for i := 0; i < 100 && c.ws.WriteMessage(gws.OpcodeText, make([]byte, 1000)) == nil; i++ {
		continue // unread data must not turn the close code into a reset
	}
	if got := code(<-c.done); got != 1008 {
		t.Errorf("closed with %d, want 1008", got)
	}
	if n := len(c.got); n != 50 {
		t.Errorf("%d of 50 messages came", n)
	}
	<-e.end
}

// A compressed message would have to be inflated before its length is known, for anybody who asks.
func TestNoCompression(t *testing.T) {
	s := serve(t, Config{})
	for _, offer := range []string{
		"permessage-deflate", "permessage-deflate; client_max_window_bits",
		"x-webkit-deflate-frame",
	} {
		_, res, err := s.try("Sec-WebSocket-Extensions", offer)
		if err != nil || res.Header.Values("Sec-WebSocket-Extensions") != nil {
			t.Errorf("%s: %v, answered with %v", offer, err, res.Header)
		}
	}
}

func TestInvalidOriginsAreRejected(t *testing.T) {
	s := serve(t, Config{})
	for _, origins := range [][]string{
		{"null"}, {"file://"}, {"https://"}, {"app.example"}, {"https://app.example/path"},
		{"https://app.example?x"}, {"javascript:alert(1)"},
		{"https://u@app.example"}, {"https://a.example", "https://b.example"}, {"%"}, {""},
		{"file:///index.html"}, {"file://localhost"}, {"data:text/html,x"},
		{"blob:https://app.example"}, {"about:blank"}, {"capacitor://"}, {"capacitor:localhost"},
		{"capacitor://localhost/"}, {"ionic://localhost#x"}, {"1app://localhost"}, {"app://a b"},
		{"app://:80"}, {"wss://app.example"}, {"capacitor://localhost", "null"},
		{"https://" + strings.Repeat("a", maxOrigin)},
	} {
		var h []string
		for _, o := range origins {
			h = append(h, "Origin", o)
		}
		if c, res, err := s.try(h...); err == nil || res == nil ||
			res.StatusCode != http.StatusForbidden {
			t.Errorf("origin %q: %v %v", origins, c, err)
		}
	}
	for _, o := range []string{
		"https://app.example", "http://localhost:3000", "https://[::1]:8443",
		"capacitor://localhost", "ionic://localhost",
		"tauri://localhost", "app://localhost", "app://.",
		"chrome-extension://abcdefghijklmnopabcdefghijklmnop",
		"moz-extension://8f2f9d60-1111-4c4c-9c9c-000000000000",
		"safari-web-extension://8F2F9D60-1111-4C4C-9C9C-000000000000",
		"com.example.app://localhost:8080",
	} {
		if _, _, err := s.try("Origin", o); err != nil {
			t.Errorf("origin %q: %v", o, err)
		}
	}
	dev := serve(t, Config{AnyOrigin: true})
	if _, _, err := dev.try("Origin", "null"); err != nil {
		t.Errorf("development: %v", err)
	}
}

func TestPlainRequestIsRejected(t *testing.T) {
	s := serve(t, Config{})
	res, err := http.Get(s.http.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusUpgradeRequired || res.Header.Get("Upgrade") != "websocket" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

func TestCloseNotifiesAndWaits(t *testing.T) {
	s := serve(t, Config{})
	var all []*client
	for range 20 {
		c, _ := s.dial()
		all = append(all, c)
	}
	if err := s.ws.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.ws.Count(); n != 0 {
		t.Errorf("%d connections left", n)
	}
	for _, c := range all {
		if got := code(<-c.done); got != 1001 {
			t.Errorf("closed with %d, want 1001", got)
		}
	}
	if _, _, err := s.try(); err == nil {
		t.Error("a connection was taken after Close")
	}
}

// stuck is a connection whose other end never reads.
func stuck(t *testing.T, cfg Config) (*wsConn, *echo, net.Conn) {
	var e *echo
	s := NewWebSocket(cfg, func(c Conn) Receiver {
		e = &echo{c, make(chan End, 1)}
		return e
	})
	ours, theirs := net.Pipe()
	r := httptest.NewRequest("GET", "http://ieum.test/signal", nil)
	for k, v := range map[string]string{
		"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		r.Header.Set(k, v)
	}
	go s.ServeHTTP(&hijacked{conn: theirs}, r)
	buf := make([]byte, 4096)
	if _, err := ours.Read(buf); err != nil { // the handshake's answer
		t.Fatal(err)
	}
	synctest.Wait()
	t.Cleanup(func() {
		_ = ours.Close()
		_ = s.Close(t.Context())
	})
	return s.snapshot()[0], e, ours
}

func TestOutboxIsLimited(t *testing.T) {
	for name, size := range map[string]int{"by number": 10, "by bytes": 100_000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, e, _ := stuck(t, Config{})
				sent := 0
				for sent < 5000 {
					m := NewMessage()
					m.B = append(m.B, make([]byte, size)...)
					if !c.Send(m) {
						break
					}
					sent++
				}
				if want := map[int]int{10: 2049, 100_000: 10}[size]; sent < want-1 || sent > want {
					t.Errorf("%d messages of %d bytes were taken, want about %d", sent, size, want)
				}
				time.Sleep(2 * time.Second)
				if end := <-e.end; end.Gone {
					t.Error("a slow reader counts as gone")
				}
			})
		})
	}
}

func sized(n int) *Message {
	m := NewMessage()
	m.B = append(m.B, make([]byte, n)...)
	return m
}

// What may be refused is, before the connection has to be closed for what may not.
func TestOfferIsRefusedWithoutClosing(t *testing.T) {
	for name, size := range map[string]int{"by number": 10, "by bytes": 100_000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _, nc := stuck(t, Config{})
				offered := 0
				for offered < 5000 && c.Offer(sized(size), 5) == nil {
					offered++
				}
				if want := map[int]int{10: 1280, 100_000: 6}[size]; offered != want {
					t.Errorf("%d offers of %d bytes were taken, want %d", offered, size, want)
				}
				if err := c.Offer(sized(size), 5); err != ErrFull {
					t.Errorf("one more: %v, want %v", err, ErrFull)
				}
				if !c.Send(sized(size)) {
					t.Error("there is no place left for what may not be refused")
				}
				go func() { _, _ = io.Copy(io.Discard, nc) }()
				synctest.Wait()
				if err := c.Offer(sized(size), 5); err != nil {
					t.Errorf("when all has been read: %v", err)
				}
				c.Close(1000, "")
				if err := c.Offer(sized(size), 5); err != ErrClosed {
					t.Errorf("when the connection closes: %v, want %v", err, ErrClosed)
				}
			})
		})
	}
}

// The state of a big room is larger than an outbox, and its members must get it all the same.
func TestLargeMessageIntoEmptyOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, nc := stuck(t, Config{})
		if !c.Send(sized(3 << 20)) {
			t.Error("refused")
		}
		if err := c.Offer(sized(10), 5); err != ErrFull {
			t.Errorf("behind it: %v, want %v", err, ErrFull)
		}
		go func() { _, _ = io.Copy(io.Discard, nc) }()
		synctest.Wait()
		if err := c.Offer(sized(3<<20), 5); err != nil {
			t.Errorf("when it has been read: %v", err)
		}
		synctest.Wait()
	})
}

// Who reads too slowly and goes on reading is told why it is put out, behind what was on its way.
func TestSlowConsumerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, e, nc := stuck(t, Config{})
		for {
			m := NewMessage()
			m.B = append(m.B, make([]byte, 1000)...)
			if !c.Send(m) {
				break
			}
		}
		rest, _ := io.ReadAll(nc)
		want := append(
			[]byte{0x88, byte(2 + len("outbox full: reconnect and resume")), 0x03, 0xF5},
			"outbox full: reconnect and resume"...) // 1013
		if !bytes.HasSuffix(rest, want) {
			t.Errorf("the last of %d bytes are %q", len(rest), rest[max(0, len(rest)-len(want)):])
		}
		if end := <-e.end; end.Gone || !end.SlowConsumer {
			t.Errorf("ended as %+v", end)
		}
	})
}

func TestBlockedWriteTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, e, _ := stuck(t, Config{})
		m := NewMessage()
		m.B = append(m.B, "x"...)
		start := time.Now()
		c.Send(m)
		<-e.end
		if d := time.Since(start); d < 9*time.Second || d > 12*time.Second {
			t.Errorf("ended after %v, want the write timeout", d)
		}
	})
}

func TestPingsOfSilentConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, e, nc := stuck(t, Config{})
		frames := make(chan byte, 100)
		var wg sync.WaitGroup
		wg.Go(func() {
			defer close(frames)
			b := make([]byte, 512)
			for {
				n, err := nc.Read(b)
				if err != nil {
					return
				}
				if n > 0 {
					frames <- b[0]
				}
			}
		})
		masked := []byte{0x81, 0x80, 0, 0, 0, 0} // an empty text
		for range 10 {
			if _, err := nc.Write(masked); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Second)
		}
		pings := 0
		for len(frames) > 0 {
			if <-frames == 0x89 {
				pings++
			}
		}
		if pings != 0 {
			t.Errorf("%d pings to a client that talks", pings)
		}
		start := time.Now()
		end := <-e.end // from here on it is silent, and does not answer pings
		if d := time.Since(start); end.Gone || d < 40*time.Second || d > 50*time.Second {
			t.Errorf("ended %+v after %v", end, d)
		}
		wg.Wait()
		for f := range frames {
			if f == 0x89 {
				pings++
			}
		}
		if pings == 0 {
			t.Error("a silent client was not pinged")
		}
	})
}
