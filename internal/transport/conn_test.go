package transport

import (
	"bytes"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// held is a receiver that stops inside each message until it is let go.
type held struct {
	conn    Conn
	in, out chan struct{}
	end     chan End
}

func (h *held) Message([]byte, Reply) { h.in <- struct{}{}; <-h.out }
func (h *held) Closed(e End)          { h.end <- e }

func hold(t *testing.T, cfg Config) (addr string, accepted <-chan *held) {
	t.Helper()
	all := make(chan *held, 1)
	ws := NewWebSocket(cfg, func(c Conn) Receiver {
		h := &held{c, make(chan struct{}), make(chan struct{}), make(chan End, 1)}
		all <- h
		return h
	})
	srv := httptest.NewServer(ws)
	t.Cleanup(func() {
		if err := ws.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		srv.Close()
	})
	return srv.Listener.Addr().String(), all
}

func said(text string) *Message {
	m := NewMessage()
	m.B = append(m.B, text...)
	return m
}

// A page that goes says so and is gone, while others still send to it: what they send fails before
// its word is read.
func TestCloseFrameReadAfterFailedWrite(t *testing.T) {
	addr, accepted := hold(t, Config{})
	c, _ := rawClient(t, addr, nil)
	h := <-accepted
	if _, err := c.Write(masked(0x81, "last message")); err != nil {
		t.Fatal(err)
	}
	<-h.in // from here on nothing is read
	if _, err := c.Write(masked(0x88, "\x03\xe9")); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	ws := h.conn.(*wsConn)
	// Until the reset has come and the write failed.
	for h.conn.Send(said("to somebody who is no more")) {
		continue
	}
	ws.out.writers.Wait()
	h.out <- struct{}{}
	if e := <-h.end; e != (End{Gone: true, Code: 1001}) {
		t.Errorf("ended as %+v, want gone with 1001", e)
	}
}

// The end that comes with the last message is the one that reading without a second look does not
// see.
func TestEndOfStreamBehindMessage(t *testing.T) {
	addr, accepted := hold(t, Config{})
	c, _ := rawClient(t, addr, nil)
	h := <-accepted
	if _, err := c.Write(masked(0x81, "first")); err != nil {
		t.Fatal(err)
	}
	<-h.in
	if _, err := c.Write(masked(0x81, "last")); err != nil {
		t.Fatal(err)
	}
	// Both have come before the reader looks again.
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	h.out <- struct{}{}
	<-h.in
	h.out <- struct{}{}
	if e := <-h.end; e != (End{Code: 1006}) {
		t.Errorf("ended as %+v, want lost", e)
	}
}

func TestFramesSentWithHandshake(t *testing.T) {
	s := serve(t, Config{})
	_, in := rawClient(t, s.http.Listener.Addr().String(),
		append(masked(0x81, "early"), masked(0x81, "half a message")[:9]...))
	if op, got := framed(t, in); op != opText || got != "early" {
		t.Errorf("got %d %q", op, got)
	}
}

// More than a socket takes at once goes on by the writer; nothing is lost, doubled or out of
// order, pongs stand between messages.
func TestAllArrivesWhenSocketIsFull(t *testing.T) {
	addr, accepted := hold(t, Config{OutboxBytes: 64 << 20, OutboxMessages: 4000})
	c, in := rawClient(t, addr, nil)
	h := <-accepted
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range 3000 {
			if !h.conn.Send(said(strings.Repeat(string(rune('a'+i%26)), 1+i*7%20_000))) {
				t.Errorf("message %d was not taken", i)
				return
			}
		}
	}()
	<-sent // nothing was read so far, so most of it waits
	if _, err := c.Write(append(masked(0x89, "one"), masked(0x89, "two")...)); err != nil {
		t.Fatal(err)
	}
	pongs := ""
	for i := 0; i < 3000; {
		op, got := framed(t, in)
		if op == opPong {
			pongs += got + " "
			continue
		}
		if want := strings.Repeat(string(rune('a'+i%26)), 1+i*7%20_000); op != opText ||
			got != want {
			t.Fatalf("message %d is %d bytes %.10q, want %d %.10q", i, len(got), got, len(want),
				want)
		}
		i++
	}
	if pongs != "one two " {
		t.Errorf("pongs %q", pongs)
	}
	h.conn.Close(1008, "enough")
	if op, got := framed(t, in); op != opClose || got != "\x03\xf0enough" {
		t.Errorf("got %d %q", op, got)
	}
	if e := <-h.end; e.Gone {
		t.Errorf("ended as %+v", e)
	}
	ws := h.conn.(*wsConn)
	ws.out.writers.Wait()
	if ws.out.count != 0 || ws.out.bytes != 0 {
		t.Errorf("%d messages, %d bytes are counted as waiting", ws.out.count, ws.out.bytes)
	}
}

// A client that pings and reads nothing gets what fits the bound, and costs no more.
func TestPongsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, nc := stuck(t, Config{})
		for range 1000 {
			if _, err := nc.Write(masked(0x89, strings.Repeat("p", maxControl))); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		c.out.mu.Lock()
		waiting := len(c.out.control)
		c.out.mu.Unlock()
		if waiting == 0 || waiting > maxWaitingControl {
			t.Errorf("%d bytes wait", waiting)
		}
	})
}

// Once a write has waited, its deadline must not count for a later one.
func TestWriteAfterBlockedWrite(t *testing.T) {
	cfg := Config{WriteTimeout: time.Minute}
	addr, accepted := hold(t, cfg)
	_, in := rawClient(t, addr, nil)
	h := <-accepted
	ws := h.conn.(*wsConn)
	if ws.out.tryWrite == nil {
		t.Skip("all writes may wait here")
	}
	if err := ws.net.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := ws.out.tryWrite([]byte("x")); err == nil {
		t.Fatal("a deadline in the past does not stop try: this test shows nothing")
	}
	if err := ws.write(appendFrame(nil, opText, []byte("waited"))); err != nil {
		t.Fatal(err)
	}
	h.conn.Send(said("at once"))
	for _, want := range []string{"waited", "at once"} {
		if _, got := framed(t, in); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestHandshakeRefused(t *testing.T) {
	good := map[string]string{
		"Upgrade": "h2c, WebSocket", "Connection": "keep-alive, Upgrade",
		"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	}
	for name, c := range map[string]struct {
		header, value string
		status        int
	}{
		"as it should be": {"", "", 0},
		"other protocol":  {"Upgrade", "websockets", http.StatusUpgradeRequired},
		"no upgrade":      {"Connection", "keep-alive", http.StatusBadRequest},
		"old version":     {"Sec-WebSocket-Version", "8", http.StatusUpgradeRequired},
		"short key":       {"Sec-WebSocket-Key", "c2hvcnQ=", http.StatusBadRequest},
		"key no base64":   {"Sec-WebSocket-Key", "****", http.StatusBadRequest},
		"no key":          {"Sec-WebSocket-Key", "", http.StatusBadRequest},
	} {
		r := httptest.NewRequest("GET", "/signal", nil)
		for h, v := range good {
			r.Header.Set(h, v)
		}
		if c.header != "" {
			r.Header.Set(c.header, c.value)
		}
		accepted, _, status := handshake(r)
		if status != c.status || (accepted != nil) != (status == 0) {
			t.Errorf("%s: %d %q", name, status, accepted)
		}
	}
	r := httptest.NewRequest("POST", "/signal", nil)
	for h, v := range good {
		r.Header.Set(h, v)
	}
	if _, _, status := handshake(r); status != http.StatusUpgradeRequired {
		t.Errorf("POST: %d", status)
	}
}

// Subprotocols offered with the handshake, and what follows. An early message counts as the first
// message; without "ieum" beside it nothing is agreed on.
func TestEarlyMessage(t *testing.T) {
	early := earlyMessagePrefix + base64.RawURLEncoding.EncodeToString([]byte(`{"text":"안녕?"}`))
	for name, c := range map[string]struct {
		offers        []string
		agreed, early string
		status        int
	}{
		"one line":         {[]string{"ieum, " + early}, "ieum", `{"text":"안녕?"}`, 0},
		"two lines":        {[]string{early, "ieum"}, "ieum", `{"text":"안녕?"}`, 0},
		"none":             {[]string{"ieum"}, "ieum", "", 0},
		"empty":            {[]string{"ieum", earlyMessagePrefix}, "ieum", "", 0},
		"without our name": {[]string{early}, "", "", 0},
		"others":           {[]string{"mqtt, chat"}, "", "", 0},
		"no base64url": {
			[]string{"ieum", earlyMessagePrefix + "+/=="}, "", "", http.StatusBadRequest,
		},
	} {
		r := httptest.NewRequest("GET", "/signal", nil)
		for h, v := range map[string]string{
			"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
		} {
			r.Header.Set(h, v)
		}
		r.Header["Sec-Websocket-Protocol"] = c.offers
		accepted, got, status := handshake(r)
		if status != c.status || string(got) != c.early {
			t.Errorf("%s: %d %q", name, status, got)
		}
		_, after, _ := strings.Cut(string(accepted), "Sec-WebSocket-Protocol: ")
		if strings.TrimRight(after, "\r\n") != c.agreed {
			t.Errorf("%s: %q", name, accepted)
		}
	}
}

func TestEarlyMessageAnsweredFirst(t *testing.T) {
	s := serve(t, Config{MaxMessage: 10})
	offer := func(text string) []string {
		return []string{
			"Sec-WebSocket-Protocol",
			"ieum, " + earlyMessagePrefix + base64.RawURLEncoding.EncodeToString([]byte(text)),
		}
	}
	c, e := s.dial(offer("hello")...)
	if err := c.ws.WriteString("second"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"hello", "second"} {
		if got := <-c.got; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	c.ws.WriteClose(1000, nil)
	<-e.end
	c, e = s.dial(offer("\xff")...)
	if err := <-c.done; code(err) != errEncoding.code {
		t.Errorf("not UTF-8: %v", err)
	}
	<-e.end
	if _, res, err := s.try(offer("more than ten")...); err == nil ||
		res.StatusCode != http.StatusBadRequest {
		t.Errorf("too long: %v %v", res, err)
	}
}

// TLS and pipes have no descriptor: the same must hold for them.
func TestMessagesOverPipe(t *testing.T) {
	e := make(chan *echo, 1)
	ws := NewWebSocket(Config{}, func(c Conn) Receiver {
		r := &echo{c, make(chan End, 1)}
		e <- r
		return r
	})
	srv := httptest.NewTLSServer(ws)
	defer srv.Close()
	defer func() { _ = ws.Close(t.Context()) }()
	c, in := rawTLS(t, srv)
	r := <-e
	for _, size := range []int{0, 1, 511, 512, 513, 5000, 60_000} {
		want := strings.Repeat("s", size)
		if _, err := io.Copy(c, bytes.NewReader(masked(0x81, want))); err != nil {
			t.Fatal(err)
		}
		if op, got := framed(t, in); op != opText || got != want {
			t.Errorf("%d bytes came back as %d", size, len(got))
		}
	}
	if _, err := c.Write(masked(0x88, "\x03\xe8")); err != nil {
		t.Fatal(err)
	}
	if op, got := framed(t, in); op != opClose || got != "\x03\xe8" {
		t.Errorf("got %d %q", op, got)
	}
	if end := <-r.end; end != (End{Gone: true, Code: 1000}) {
		t.Errorf("ended as %+v", end)
	}
}
