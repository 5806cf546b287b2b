package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// way is how a client comes. Each is read in a manner of its own.
type way struct {
	name   string
	secure bool
	alpn   []string
	// The server does not see that it is a socket: a goroutine reads it, as everywhere but on
	// Linux.
	hidden bool
}

var (
	ways = []way{
		{name: "plain"},
		{name: "TLS", secure: true, alpn: []string{"http/1.1"}},
		{name: "TLS without ALPN", secure: true},
		{name: "stream", hidden: true},
	}
	secureWays = ways[1:3]
)

// site is a server for clients that come in one way.
type site struct {
	*testing.T
	way  way
	addr string
	ws   *WebSocket
	keys bytes.Buffer // of the clients' TLS
	open atomic.Int64
}

func eachWay(t *testing.T, list []way, f func(*testing.T, way)) {
	for _, w := range list {
		t.Run(w.name, func(t *testing.T) { f(t, w) })
	}
}

func openSite(t *testing.T, w way, cfg Config, accept func(Conn) Receiver) *site {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{T: t, way: w, addr: l.Addr().String()}
	if w.hidden {
		l = hiding{l}
	}
	sw := MuxConfig{}
	if w.secure {
		sw.TLS = serverTLS()
	}
	s.ws = NewWebSocket(cfg, func(c Conn) Receiver {
		s.open.Add(1)
		return &once{Receiver: accept(c), s: s}
	})
	port := NewMux(l, sw)
	srv := &http.Server{Handler: s.ws}
	var serving sync.WaitGroup
	serving.Go(func() { _ = port.Serve(srv) })
	t.Cleanup(func() {
		_ = port.Close()
		ctx, cancel := context.WithTimeout(context.Background(), failSafe)
		defer cancel()
		if err := errors.Join(s.ws.Close(ctx), srv.Close()); err != nil &&
			!errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		serving.Wait()
		if n, left := s.ws.Count(), s.open.Load(); n != 0 || left != 0 {
			t.Errorf("%d connections are left, %d receivers were not told of the end", n, left)
		}
		checkPoller(t, s.ws)
	})
	return s
}

// once sees to it that nothing comes after the end.
type once struct {
	Receiver
	s    *site
	over atomic.Bool
}

func (o *once) Message(msg []byte, r Reply) {
	if o.over.Load() {
		o.s.Error("a message after the end")
	}
	o.Receiver.Message(msg, r)
}

func (o *once) Closed(e End) {
	if o.over.Swap(true) {
		o.s.Error("a second end")
	}
	o.s.open.Add(-1)
	o.Receiver.Closed(e)
}

// hiding is a listener whose connections do not show their sockets.
type hiding struct{ net.Listener }

func (h hiding) Accept() (net.Conn, error) {
	c, err := h.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return hidden{c}, nil
}

type hidden struct{ net.Conn }

func (h hidden) CloseWrite() error { return h.Conn.(*net.TCPConn).CloseWrite() }

// guest is a client; tcp is the connection below its TLS.
type guest struct {
	net.Conn
	tcp *net.TCPConn
	in  *bufio.Reader
}

func (s *site) dial() *guest {
	s.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.Fatal(err)
	}
	g := &guest{Conn: c, tcp: c.(*net.TCPConn)}
	if s.way.secure {
		g.Conn = tls.Client(c,
			&tls.Config{InsecureSkipVerify: true, NextProtos: s.way.alpn, KeyLogWriter: &s.keys})
	}
	g.in = greet(s.T, g.Conn, nil)
	return g
}

func (s *site) send(g *guest, b []byte) {
	s.Helper()
	if _, err := g.Write(b); err != nil {
		s.Fatal(err)
	}
}

func (s *site) say(g *guest, text string) { s.Helper(); s.send(g, masked(0x81, text)) }

func (s *site) expect(g *guest, want string) {
	s.Helper()
	if op, got := framed(s.T, g.in); op != opText || got != want {
		s.Fatalf("got %d %.60q, want %.60q", op, got, want)
	}
}

// echoes answer each message with itself; what they end with goes to ends.
func echoes(ends chan End) func(Conn) Receiver {
	return func(c Conn) Receiver { return &echo{c, ends} }
}

// keeper keeps what comes, and answers nothing.
type keeper struct {
	got  chan string
	ends chan End
}

func (k *keeper) Message(msg []byte, _ Reply) { k.got <- string(msg) }
func (k *keeper) Closed(e End)                { k.ends <- e }

// Whatever the sweeper would find is found without it.
var unswept = Config{PingAfter: time.Hour, SilenceTimeout: 2 * time.Hour}

func TestEndOfStreamWithMessage(t *testing.T) {
	eachWay(t, ways, func(t *testing.T, w way) {
		for _, closes := range []struct {
			name string
			do   func(*testing.T, *guest)
		}{
			{"behind it", func(*testing.T, *guest) {}},
			{"in one segment", cork},
		} {
			ends, got := make(chan End, 1), make(chan string, 1)
			s := openSite(t, w, unswept, func(Conn) Receiver { return &keeper{got, ends} })
			for range 50 {
				g := s.dial()
				closes.do(t, g)
				s.say(g, "the last")
				if err := g.tcp.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if m := <-got; m != "the last" {
					t.Errorf("got %q", m)
				}
				if e := <-ends; e != (End{Code: 1006}) {
					t.Errorf("%s: ended as %+v, want lost", closes.name, e)
				}
				_ = g.Close()
			}
		}
	})
}

func TestResetIsSeen(t *testing.T) {
	eachWay(t, ways, func(t *testing.T, w way) {
		ends := make(chan End, 1)
		s := openSite(t, w, unswept, echoes(ends))
		for _, before := range []string{"", "a message", "half"} {
			g := s.dial()
			switch before {
			case "half":
				s.send(g, masked(0x81, before)[:3])
			case "":
			default:
				s.say(g, before)
			}
			_ = g.tcp.SetLinger(0)
			_ = g.tcp.Close()
			if e := <-ends; e != (End{Code: 1006}) {
				t.Errorf("after %q: ended as %+v, want lost", before, e)
			}
		}
	})
}

func TestSilentClientsAreAborted(t *testing.T) {
	eachWay(t, ways, func(t *testing.T, w way) {
		ends := make(chan End, 1)
		s := openSite(t, w,
			Config{PingAfter: 50 * time.Millisecond, SilenceTimeout: 100 * time.Millisecond},
			echoes(ends))
		g := s.dial()
		if e := <-ends; e != (End{Code: 1006}) {
			t.Errorf("ended as %+v, want lost", e)
		}
		if op, _ := framed(t, g.in); op != opPing {
			t.Errorf("got %d, want a ping", op)
		}
	})
}

func TestMessagesInTwoPieces(t *testing.T) {
	eachWay(t, ways, func(t *testing.T, w way) {
		s := openSite(t, w, unswept, echoes(make(chan End, 8)))
		g, other := s.dial(), s.dial()
		first, second := "first", strings.Repeat("second ", 20)
		b := slices.Concat(masked(0x81, first), masked(0x01, second[:50]), masked(0x89, ""),
			masked(0x80, second[50:]))
		for i := range b {
			s.send(g, b[:i])
			s.say(other, "the piece has come, most likely")
			s.expect(other, "the piece has come, most likely")
			s.send(g, b[i:])
			pongs := 0
			for _, want := range []string{first, second} {
				op, got := framed(t, g.in)
				for ; op == opPong; op, got = framed(t, g.in) {
					pongs++
				}
				if op != opText || got != want {
					t.Fatalf("cut at %d: got %d %q, want %q", i, op, got, want)
				}
			}
			if pongs == 0 { // it may have come behind the messages
				if op, _ := framed(t, g.in); op != opPong {
					t.Fatalf("cut at %d: got %d, want a pong", i, op)
				}
			}
		}
	})
}

func TestDataSentWithHandshake(t *testing.T) {
	eachWay(t, ways, func(t *testing.T, w way) {
		ends, got := make(chan End, 1), make(chan string, 3)
		s := openSite(t, w, unswept, func(Conn) Receiver { return &keeper{got, ends} })
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if w.secure {
			c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: w.alpn})
		}
		long := strings.Repeat("long ", 4000) // more than the HTTP server reads at once
		greet(
			t,
			c,
			slices.Concat(masked(0x81, "early"), masked(0x81, long), masked(0x81, "last"),
				masked(0x88, "")),
		)
		for _, want := range []string{"early", long, "last"} {
			if m := <-got; m != want {
				t.Fatalf("got %.20q, want %.20q", m, want)
			}
		}
		if e := <-ends; e != (End{Gone: true, Code: 1005}) {
			t.Errorf("ended as %+v", e)
		}
	})
}

// byteByByte writes each byte for itself.
type byteByByte struct{ net.Conn }

func (d byteByByte) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := d.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func TestTLSRecordsInSingleBytes(t *testing.T) {
	eachWay(t, secureWays, func(t *testing.T, w way) {
		s := openSite(t, w, unswept, echoes(make(chan End, 1)))
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		g := &guest{
			Conn: tls.Client(byteByByte{c},
				&tls.Config{InsecureSkipVerify: true, NextProtos: w.alpn}),
		}
		g.in = greet(t, g.Conn, nil)
		for _, n := range []int{0, 1, 500, 3000} {
			s.say(g, strings.Repeat("b", n))
			s.expect(g, strings.Repeat("b", n))
		}
	})
}

// What is behind the end of a record, or of a message, has no event of its own.
func TestDataBufferedByTLS(t *testing.T) {
	eachWay(t, secureWays, func(t *testing.T, w way) {
		ends, got := make(chan End, 1), make(chan string, 200)
		s := openSite(t, w, unswept, func(Conn) Receiver { return &keeper{got, ends} })
		g := s.dial()
		var all []byte
		var want []string
		for i := range 100 {
			want = append(want, fmt.Sprint(i))
		}
		want = append(want, strings.Repeat("x", 60_000), "last")
		for _, m := range want {
			all = append(all, masked(0x81, m)...)
		}
		s.send(g, append(all, masked(0x88, "\x03\xe8")...))
		for _, m := range want {
			if m2 := <-got; m2 != m {
				t.Fatalf("got %.20q, want %.20q", m2, m)
			}
		}
		if e := <-ends; e != (End{Gone: true, Code: 1000}) {
			t.Errorf("ended as %+v", e)
		}
	})
}

// sealer writes records of TLS 1.3 (RFC 8446) as its client does, since crypto/tls changes no keys
// by itself.
type sealer struct {
	secret []byte
	seq    uint64
}

func (s *sealer) expand(label string, n int) []byte {
	label = "tls13 " + label
	out, err := hkdf.Expand(sha256.New, s.secret,
		string([]byte{0, byte(n), byte(len(label))})+label+"\x00", n)
	if err != nil {
		panic(err)
	}
	return out
}

func (s *sealer) seal(kind byte, payload string) []byte {
	block, err := aes.NewCipher(s.expand("key", 16))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	nonce := s.expand("iv", 12)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^s.seq)
	s.seq++
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(payload)+1+aead.Overhead()))
	return aead.Seal(head, nonce, append([]byte(payload), kind), head)
}

func (s *sealer) update() { s.secret, s.seq = s.expand("traffic upd", 32), 0 }

// New keys (section 4.6.3) are asked for in a message of the handshake, which may come in two
// records, and those in single bytes.
func TestTLSKeyUpdate(t *testing.T) {
	eachWay(t, secureWays, func(t *testing.T, w way) {
		s := openSite(t, w, unswept, echoes(make(chan End, 1)))
		g := s.dial()
		if g.Conn.(*tls.Conn).ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
			t.Skip("another cipher was agreed on")
		}
		_, after, _ := strings.Cut(s.keys.String(), "CLIENT_TRAFFIC_SECRET_0 ")
		secret, err := hex.DecodeString(strings.Fields(after)[1])
		if err != nil {
			t.Fatal(err)
		}
		keys := &sealer{secret: secret, seq: 1} // the request was the first record
		write := func(b []byte) {
			t.Helper()
			if _, err := (byteByByte{g.tcp}).Write(b); err != nil {
				t.Fatal(err)
			}
		}
		const update, asked = "\x18\x00\x00\x01", "\x01"
		for i := range 3 {
			write(keys.seal(22, update[:2]))
			write(keys.seal(22, update[2:]+asked))
			keys.update()
			write(keys.seal(23, string(masked(0x81, fmt.Sprint("with keys ", i)))))
			s.expect(g, fmt.Sprint("with keys ", i))
		}
	})
}

// Each message must wake its connection, however it falls together with the reading of the one
// before.
func TestNoMessageIsMissed(t *testing.T) {
	eachWay(t, ways, func(t *testing.T, w way) {
		const guests, messages = 12, 1500
		cfg := unswept
		cfg.OutboxMessages = messages // nobody is to be closed for reading slowly
		s := openSite(t, w, cfg,
			func(c Conn) Receiver { return &counting{echo: echo{c, make(chan End, 1)}, t: t} })
		var all sync.WaitGroup
		for range guests {
			g := s.dial()
			all.Go(func() {
				var b []byte
				for i := range messages {
					b = append(b, masked(0x81, fmt.Sprint(i))...)
					if i == messages-1 || rand.IntN(3) > 0 {
						if _, err := g.Write(b); err != nil {
							t.Error(err)
							return
						}
						b = b[:0]
					}
				}
			})
			all.Go(func() {
				for i := range messages {
					head := make([]byte, 2)
					_, err := io.ReadFull(g.in, head)
					text := make([]byte, head[1])
					if err == nil {
						_, err = io.ReadFull(g.in, text)
					}
					if err != nil || string(text) != fmt.Sprint(i) {
						t.Errorf("got %q %v, want %d", text, err, i)
						return
					}
				}
			})
		}
		all.Wait()
	})
}

// counting is an echo that wants the messages in order and one at a time.
type counting struct {
	echo
	t      *testing.T
	next   int
	inside atomic.Bool
}

func (c *counting) Message(msg []byte, r Reply) {
	if c.inside.Swap(true) || string(msg) != fmt.Sprint(c.next) {
		c.t.Errorf("got %s, want %d", msg, c.next)
	}
	c.next++
	c.echo.Message(msg, r)
	c.inside.Store(false)
}

func TestFloodDelaysNoOther(t *testing.T) {
	eachWay(t, ways, func(t *testing.T, w way) {
		s := openSite(t, w, unswept,
			func(c Conn) Receiver { return &mute{echo{c, make(chan End, 1)}} })
		var floods sync.WaitGroup
		var enough atomic.Bool
		b := bytes.Repeat(masked(0x81, "flood"), 5000)
		for range runtime.GOMAXPROCS(0) {
			g := s.dial()
			floods.Go(func() {
				for !enough.Load() {
					if _, err := g.Write(b); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		g := s.dial()
		for range 20 {
			s.say(g, "hello")
			s.expect(g, "hello")
		}
		enough.Store(true)
		floods.Wait()
	})
}

// mute says nothing to those who flood.
type mute struct{ echo }

func (m *mute) Message(msg []byte, r Reply) {
	if string(msg) != "flood" {
		m.echo.Message(msg, r)
	}
}

func TestBlockedHandlersDelayNoOther(t *testing.T) {
	eachWay(t, ways, func(t *testing.T, w way) {
		release, inside := make(chan struct{}), make(chan struct{})
		s := openSite(t, w, unswept,
			func(c Conn) Receiver { return &waiting{echo{c, make(chan End, 1)}, inside, release} })
		var stuck []*guest
		for range 4*runtime.GOMAXPROCS(0) + 8 {
			g := s.dial()
			s.say(g, "wait")
			<-inside
			s.say(g, "behind it")
			stuck = append(stuck, g)
			other := s.dial()
			s.say(other, "hello")
			s.expect(other, "hello")
		}
		close(release)
		for _, g := range stuck {
			s.expect(g, "wait")
			s.expect(g, "behind it")
		}
	})
}

type waiting struct {
	echo
	inside, release chan struct{}
}

func (w *waiting) Message(msg []byte, r Reply) {
	if string(msg) == "wait" {
		w.inside <- struct{}{}
		<-w.release
	}
	w.echo.Message(msg, r)
}

func TestCloseByServer(t *testing.T) {
	for name, c := range map[string]struct {
		client func(*site, *guest)
		want   End
	}{
		"answered": {
			func(s *site, g *guest) { s.send(g, masked(0x88, "\x03\xf0")) }, End{Code: 1008},
		},
		"not answered": {func(*site, *guest) {}, End{Code: 1006}},
		"cut":          {func(_ *site, g *guest) { _ = g.tcp.Close() }, End{Code: 1006}},
		"half closed":  {func(_ *site, g *guest) { _ = g.tcp.CloseWrite() }, End{Code: 1006}},
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, ways, func(t *testing.T, w way) {
				t.Parallel()
				ends, conns := make(chan End, 1), make(chan Conn, 1)
				s := openSite(t, w, unswept,
					func(c Conn) Receiver { conns <- c; return &echo{c, ends} })
				g := s.dial()
				(<-conns).Close(1008, "enough")
				if op, got := framed(t, g.in); op != opClose || got != "\x03\xf0enough" {
					t.Errorf("got %d %q", op, got)
				}
				c.client(s, g)
				if e := <-ends; e != c.want {
					t.Errorf("ended as %+v, want %+v", e, c.want)
				}
			})
		})
	}
}

// A client that is sending when we close sees why.
func TestCloseWhileClientSends(t *testing.T) {
	eachWay(t, ways, func(t *testing.T, w way) {
		t.Parallel()
		ends, conns := make(chan End, 1), make(chan Conn, 1)
		s := openSite(t, w, unswept,
			func(c Conn) Receiver { conns <- c; return &mute{echo{c, ends}} })
		g := s.dial()
		var sending sync.WaitGroup
		started := make(chan struct{})
		sending.Go(func() {
			for i := range 50_000 {
				if i == 100 {
					close(started)
				}
				if _, err := g.Write(masked(0x81, "flood")); err != nil {
					return
				}
			}
		})
		<-started
		(<-conns).Close(1008, "enough")
		if op, got := framed(t, g.in); op != opClose || got != "\x03\xf0enough" {
			t.Errorf("got %d %q", op, got)
		}
		if e := <-ends; e != (End{Code: 1006}) {
			t.Errorf("ended as %+v", e)
		}
		sending.Wait()
	})
}

func TestCloseAbortsWhenContextIsDone(t *testing.T) {
	eachWay(t, ways, func(t *testing.T, w way) {
		ends := make(chan End, 10)
		s := openSite(t, w, unswept, echoes(ends))
		for range cap(ends) {
			g := s.dial()
			s.say(g, "half")
			s.expect(g, "half")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.ws.Close(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("closed with %v", err)
		}
		if n := s.ws.Count(); n != 0 || len(ends) != cap(ends) {
			t.Errorf("%d connections are left, %d have ended", n, len(ends))
		}
	})
}

// Descriptors come back at once, and must not carry anything over from one connection to the next.
func TestConnectionChurn(t *testing.T) {
	eachWay(t, ways, func(t *testing.T, w way) {
		limiter := NewConnLimiter(ConnLimiterConfig{})
		cfg := unswept
		cfg.Limiter = limiter
		conns := make(chan Conn, 1)
		ends := make(chan End, 10_000)
		s := openSite(t, w, cfg, func(c Conn) Receiver { conns <- c; return &echo{c, ends} })
		leave := []func(*guest, Conn){
			func(g *guest, _ Conn) { _, _ = g.Write(masked(0x88, "\x03\xe9")); _ = g.Close() },
			func(g *guest, _ Conn) { _ = g.tcp.Close() },
			func(g *guest, _ Conn) { _ = g.tcp.SetLinger(0); _ = g.tcp.Close() },
			func(g *guest, c Conn) { c.Close(1000, ""); _ = g.tcp.Close() },
			func(g *guest, c Conn) { c.(*wsConn).abort(); _ = g.tcp.Close() },
			func(g *guest, c Conn) { _, _ = g.Write(masked(0x81, "unread")); _ = g.tcp.Close() },
		}
		const rounds = 150
		for i := range rounds {
			g := s.dial()
			c := <-conns
			s.say(g, fmt.Sprint("round ", i))
			s.expect(g, fmt.Sprint("round ", i))
			leave[i%len(leave)](g, c)
		}
		for range rounds {
			<-ends
		}
		if err := s.ws.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(limiter.bySource) != 0 || limiter.open != 0 {
			t.Errorf("%d addresses, %d connections are left", len(limiter.bySource), limiter.open)
		}
	})
}
