package transport

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lxzan/gws"
)

// allocate is the first message of a TURN client: an Allocate request without attributes.
var allocate = []byte("\x00\x03\x00\x00\x21\x12\xa4\x42twelve bytes")

// failSafe ends a test that would hang; no test depends on its length.
const failSafe = 20 * time.Second

var testCert = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

func serverTLS() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{testCert()},
		NextProtos:   []string{"h2", "http/1.1"},
	}
}

// port is a switch with an HTTP server that says how it was reached, and a relay that sends back
// what it gets.
type port struct {
	*Mux
	addr string
	ws   *WebSocket
	turn chan net.Conn // what came for the relay, after its echo has ended
}

func openPort(t *testing.T, cfg MuxConfig) *port {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &port{addr: l.Addr().String(), turn: make(chan net.Conn, 8)}
	p.ws = NewWebSocket(Config{}, func(c Conn) Receiver { return sayer{} })
	var echoes, serving sync.WaitGroup
	cfg.TURN = func(c net.Conn) {
		echoes.Go(func() {
			_, _ = io.Copy(c, c)
			_ = c.Close()
			p.turn <- c
		})
	}
	p.Mux = NewMux(l, cfg)
	mux := http.NewServeMux()
	mux.Handle("/signal", p.ws)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s, TLS %v", r.Proto, PeerOf(r, "", nil).TLS)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: failSafe}
	serving.Go(func() {
		if err := p.Serve(srv); !errors.Is(err, net.ErrClosed) &&
			!errors.Is(err, http.ErrServerClosed) {
			t.Errorf("served: %v", err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), failSafe)
		defer cancel()
		_ = p.Close()
		if err := errors.Join(p.ws.Close(ctx), srv.Close()); err != nil &&
			!errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		serving.Wait()
		echoes.Wait()
	})
	return p
}

type sayer struct{}

func (sayer) Message(msg []byte, r Reply) {
	m := NewMessage()
	m.B = append(m.B, msg...)
	r.Send(m)
}
func (sayer) Closed(End) {}

// dial connects, with TLS if alpn is not nil.
func (p *port) dial(t *testing.T, secure bool, alpn ...string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	if secure {
		tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: alpn})
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		c = tc
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(failSafe)); err != nil {
		t.Fatal(err)
	}
	return c
}

func exchange(t *testing.T, c net.Conn, pieces ...[]byte) {
	t.Helper()
	sent := bytes.Join(pieces, nil)
	for _, p := range pieces {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("came back: %q, %v", got, err)
	}
}

func browser(t *testing.T, c *tls.Config, h2 bool) *http.Client {
	tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: h2}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Timeout:   failSafe,
		Transport: tr,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

func fetch(t *testing.T, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestMuxServesHTTP(t *testing.T) {
	secure, plain := openPort(t, MuxConfig{TLS: serverTLS()}), openPort(t, MuxConfig{})
	insecure := func() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
	noALPN := browser(t, nil, false)
	noALPN.Transport.(*http.Transport).DialTLSContext = func(
		ctx context.Context, network, addr string,
	) (net.Conn, error) {
		return (&tls.Dialer{Config: insecure()}).DialContext(ctx, network, addr)
	}
	for name, c := range map[string]struct {
		client *http.Client
		url    string
		want   string
	}{
		"HTTP/2": {
			browser(t, insecure(), true), "https://" + secure.addr, "HTTP/2.0, TLS true",
		},
		"HTTP/1.1 by ALPN": {
			browser(t, &tls.Config{
				InsecureSkipVerify: true, NextProtos: []string{"http/1.1"},
			}, false),
			"https://" + secure.addr, "HTTP/1.1, TLS true",
		},
		"HTTP/1.1 without": {noALPN, "https://" + secure.addr, "HTTP/1.1, TLS true"},
		"TLS 1.2": {
			browser(t, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, true),
			"https://" + secure.addr, "HTTP/2.0, TLS true",
		},
		"plain, no TLS at all": {
			browser(t, nil, false), "http://" + plain.addr, "HTTP/1.1, TLS false",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // on one connection
				if res, got := fetch(t, c.client, c.url+"/x"); res.StatusCode != 200 ||
					got != c.want {
					t.Errorf("%d %q, want %q", res.StatusCode, got, c.want)
				}
			}
		})
	}
	if s := secure.Stats(); s.HTTP != 4 || s.TURN != 0 || s.Failed != 0 || s.Pending != 0 {
		t.Errorf("%+v", s)
	}
}

func TestMuxServesTURN(t *testing.T) {
	secure, plain := openPort(t, MuxConfig{TLS: serverTLS()}), openPort(t, MuxConfig{})
	more := []byte("\x40\x00\x00\x04more") // ChannelData
	for name, c := range map[string]net.Conn{
		"over TLS":                secure.dial(t, true),
		"over TLS with its ALPN":  secure.dial(t, true, "stun.turn"),
		"over TLS with STUN's":    secure.dial(t, true, "stun.nat-discovery"),
		"over TLS as a page":      secure.dial(t, true, "http/1.1"),
		"over TCP where TLS is":   secure.dial(t, false),
		"over TCP where none is":  plain.dial(t, false),
		"byte for byte, over TCP": secure.dial(t, false),
		"byte for byte, over TLS": secure.dial(t, true),
	} {
		t.Run(name, func(t *testing.T) {
			pieces := [][]byte{append(bytes.Clone(allocate), more...), more}
			if strings.HasPrefix(name, "byte") {
				pieces = bytes.SplitAfter(allocate, nil)
			}
			exchange(t, c, pieces...)
			_ = c.Close()
			p := secure
			if name == "over TCP where none is" {
				p = plain
			}
			_, isTLS := (<-p.turn).(interface{ ConnectionState() tls.ConnectionState })
			if _, want := c.(*tls.Conn); isTLS != want {
				t.Errorf("the relay takes it for TLS: %v", isTLS)
			}
		})
	}
	if s := secure.Stats(); s.TURN != 7 || s.HTTP != 0 {
		t.Errorf("%+v", s)
	}
}

// The shortest request is shorter than what a STUN header needs: nobody must wait for more.
func TestMuxServesShortestRequest(t *testing.T) {
	for _, secure := range []bool{false, true} {
		cfg := MuxConfig{}
		if secure {
			cfg.TLS = serverTLS()
		}
		c := openPort(t, cfg).dial(t, secure)
		if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || !bytes.HasPrefix(got, []byte("HTTP/1.0 200")) {
			t.Errorf("%q, %v", got, err)
		}
	}
}

func TestPlainHTTPIsRedirected(t *testing.T) {
	p := openPort(t, MuxConfig{TLS: serverTLS()})
	c := browser(t, nil, false)
	res, _ := fetch(t, c, "http://"+p.addr+"/sample?x=1")
	if res.Header.Get("Cache-Control") != "no-store" { // the port may serve plain HTTP another day
		t.Errorf("kept by caches: %v", res.Header)
	}
	if want := "https://" + p.addr + "/sample?x=1"; res.StatusCode != 307 ||
		res.Header.Get("Location") != want {
		t.Errorf("%d to %q, want %q", res.StatusCode, res.Header.Get("Location"), want)
	}
	for what, request := range map[string]string{
		"POST": "POST /leave HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
		"a WebSocket": "GET /signal HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n" +
			"Connection: Upgrade\r\nSec-WebSocket-Key: a\r\n\r\n",
		"no Host":          "GET / HTTP/1.0\r\n\r\n",
		"what is not HTTP": "\x01\x02\x03\x04\x05\x06\x07\x08\r\n\r\n",
	} {
		c := p.dial(t, false)
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || !bytes.Contains(got, []byte(" 400 ")) {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
}

func TestMuxServesWebSocket(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  MuxConfig
		url  string
		alpn []string
	}{
		"plain":            {MuxConfig{}, "ws://", nil},
		"TLS":              {MuxConfig{TLS: serverTLS()}, "wss://", []string{"http/1.1"}},
		"TLS without ALPN": {MuxConfig{TLS: serverTLS()}, "wss://", nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := openPort(t, c.cfg)
			got := make(chan string, 1)
			ws, _, err := gws.NewClient(&hearing{got: got}, &gws.ClientOption{
				Addr:      c.url + p.addr + "/signal",
				TlsConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: c.alpn},
			})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { defer close(done); ws.ReadLoop() }()
			if err := ws.WriteString("hello"); err != nil {
				t.Fatal(err)
			}
			if m := <-got; m != "hello" {
				t.Errorf("%q", m)
			}
			for _, c := range p.ws.snapshot() {
				if polled := c.sock != nil; polled != (runtime.GOOS == "linux") {
					t.Errorf("needs no goroutine: %v", polled)
				}
				want := name == "plain" && runtime.GOOS == "linux"
				if direct := c.out.tryWrite != nil; direct != want {
					t.Errorf("written past the net package: %v", direct)
				}
			}
			_ = ws.WriteClose(1000, nil)
			<-done
		})
	}
}

type hearing struct {
	gws.BuiltinEventHandler
	got chan string
}

func (h *hearing) OnMessage(_ *gws.Conn, m *gws.Message) {
	h.got <- m.Data.String()
	_ = m.Close()
}

func TestTLSSessionTickets(t *testing.T) {
	p := openPort(t, MuxConfig{TLS: serverTLS()})
	cfg := &tls.Config{
		InsecureSkipVerify: true,
		ServerName:         "localhost",
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
		NextProtos:         []string{"http/1.1"},
	}
	for i := range 2 {
		c, err := tls.Dial("tcp", p.addr, cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if _, err := io.ReadAll(c); err != nil { // tickets come with what is read
			t.Fatal(err)
		}
		if c.ConnectionState().DidResume != (i == 1) {
			t.Errorf("connection %d resumed: %v", i, c.ConnectionState().DidResume)
		}
		_ = c.Close()
	}
}

// pipes is a listener of in-memory connections.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipes) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// from is a connection that comes from an address.
type from struct {
	net.Conn
	addr string
}

func (c from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.addr))
}

func (l *pipes) connect(addr string) (theirs net.Conn) {
	ours, theirs := net.Pipe()
	l.conns <- from{ours, addr}
	return theirs
}

func isClosed(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Nanosecond))
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe)
}

func TestPendingConnectionsTimeOut(t *testing.T) {
	for name, c := range map[string]struct {
		say   func(net.Conn)
		limit time.Duration
	}{
		"silent": {func(net.Conn) {}, 10 * time.Second},
		"half a STUN header": {
			func(c net.Conn) { _, _ = c.Write(allocate[:19]) }, 10 * time.Second,
		},
		"half a handshake": {
			func(c net.Conn) { _, _ = c.Write([]byte{22, 3, 1, 0, 200}) }, 10 * time.Second,
		},
		"a byte every second": {func(c net.Conn) { go drip(c, allocate[:12]) }, 10 * time.Second},
		"silent inside TLS": {func(c net.Conn) {
			time.Sleep(4 * time.Second)
			tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			if err := tc.Handshake(); err != nil {
				t.Errorf("handshake: %v", err)
			}
			_, _ = io.Copy(io.Discard, tc) // the ticket
		}, 14 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				s := NewMux(l, MuxConfig{TLS: serverTLS()})
				begin, theirs := time.Now(), l.connect("192.0.2.1:5")
				c.say(theirs)
				_, _ = io.Copy(io.Discard, theirs)
				if took := time.Since(begin); took != c.limit {
					t.Errorf("cut after %v, want %v", took, c.limit)
				}
				time.Sleep(time.Minute) // what drips comes to an end, too
				if st := s.Stats(); st.TimedOut != 1 || st.Pending != 0 ||
					len(s.pending.sources) != 0 {
					t.Errorf("%+v, %v", st, s.pending.sources)
				}
				_ = s.Close()
			})
		})
	}
}

func drip(c net.Conn, b []byte) {
	for i := range b {
		if _, err := c.Write(b[i : i+1]); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// A connection that has been decided on has no deadline left over.
func TestTimeoutEndsWithDetection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, secure := range []bool{false, true} {
			l, turn := newPipes(), make(chan net.Conn, 1)
			s := NewMux(l, MuxConfig{TLS: serverTLS(), TURN: func(c net.Conn) { turn <- c }})
			theirs := l.connect("192.0.2.1:5")
			if secure {
				tc := tls.Client(theirs,
					&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"stun.turn"}})
				if err := tc.Handshake(); err != nil {
					t.Fatal(err)
				}
				go func() { _, _ = io.Copy(io.Discard, tc) }()
				theirs = tc
			}
			_, _ = theirs.Write(allocate)
			ours := <-turn
			time.Sleep(time.Hour)
			go func() { _, _ = theirs.Write([]byte("late")) }()
			got := make([]byte, len(allocate)+4)
			if _, err := io.ReadFull(ours, got); err != nil ||
				!bytes.HasSuffix(got, []byte("late")) {
				t.Errorf("%q, %v", got, err)
			}
			_, _, _ = ours.Close(), theirs.Close(), s.Close()
		}
	})
}

func TestPendingConnectionsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := NewMux(l, MuxConfig{MaxPending: 4, MaxPerAddress: 2})
		var all []net.Conn
		open := func(addr string) net.Conn {
			c := l.connect(addr)
			synctest.Wait()
			all = append(all, c)
			return c
		}
		first, second := open("192.0.2.1:1"), open("192.0.2.1:2")
		if third := open("192.0.2.1:3"); !isClosed(third) {
			t.Error("one too many from one address")
		}
		time.Sleep(slowAfter)
		other := open("[2001:db8::1]:1")
		if third := open("192.0.2.1:3"); isClosed(third) || !isClosed(first) || isClosed(second) {
			t.Error("the address's oldest must make room for its newcomer, once it is slow")
		}
		if same := open("[2001:db8::2]:1"); isClosed(same) {
			t.Error("two of one /64 were allowed")
		}
		if full := open("192.0.2.9:1"); isClosed(full) || !isClosed(second) {
			t.Error("the oldest of all must make room")
		}
		time.Sleep(slowAfter)
		for i := range 4 {
			if full := open(fmt.Sprintf("127.0.0.1:%d", i+1)); isClosed(full) ||
				(i == 0 && !isClosed(other)) {
				t.Error("loopback has a limit other than that of all")
			}
		}
		if full := open("127.0.0.1:9"); !isClosed(full) {
			t.Error("more than all")
		}
		if st := s.Stats(); st.Pending != 4 || st.Shed != 8 {
			t.Errorf("%+v", st)
		}
		_ = s.Close()
		for _, c := range all {
			if !isClosed(c) {
				t.Error("still open after Close")
			}
		}
		if st := s.Stats(); st.Pending != 0 || len(s.pending.sources) != 0 ||
			len(s.pending.sites) != 0 {
			t.Errorf("left: %+v, %v", st, s.pending.sources)
		}
	})
}

// Close cuts whatever state a connection is in and leaves no goroutine (see TestMain).
func TestMuxCloseDuringDetection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := NewMux(l, MuxConfig{TLS: serverTLS()})
		silent := l.connect("192.0.2.1:1")
		shaking, ready := l.connect("192.0.2.1:2"), l.connect("192.0.2.1:3")
		_, _ = shaking.Write([]byte{22, 3, 1, 0, 200})
		_, _ = ready.Write([]byte("GET / ")) // nobody accepts it
		synctest.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for _, c := range []net.Conn{silent, shaking, ready} {
			if !isClosed(c) {
				t.Error("still open")
			}
		}
		if _, err := s.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accepted: %v", err)
		}
		if err := s.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed again: %v", err)
		}
	})
}

// refusing is a listener without descriptors for a while.
type refusing struct {
	*pipes
	left int
}

func (l *refusing) Accept() (net.Conn, error) {
	if l.left > 0 {
		l.left--
		return nil, errors.New("too many open files")
	}
	return l.pipes.Accept()
}

func TestAcceptRetriesAfterError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &refusing{newPipes(), 3}
		s := NewMux(l, MuxConfig{})
		theirs := l.connect("192.0.2.1:1")
		go func() { _, _ = theirs.Write([]byte("GET /")) }()
		c, err := s.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _, _ = c.Close(), theirs.Close(), s.Close()
	})
}

// scripted is a connection that brings bytes in pieces.
type scripted struct {
	net.Conn
	rest  []byte
	piece int
}

func (c *scripted) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.rest[:min(len(c.rest), c.piece)])
	c.rest = c.rest[n:]
	return n, nil
}

// FuzzDetectProtocol: whatever comes, in whatever pieces, the decision is that of the whole, it
// needs no more than a STUN header, and not a byte is lost.
func FuzzDetectProtocol(f *testing.F) {
	f.Add(allocate, uint8(1), true)
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"), uint8(7), false)
	f.Add([]byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 0}, uint8(2), true)
	f.Add([]byte{0, 1, 0, 3, 0x21, 0x12, 0xa4, 0x42}, uint8(8), false)
	f.Add([]byte{0x40, 0, 0, 4, 'd', 'a', 't', 'a'}, uint8(3), false)
	f.Fuzz(func(t *testing.T, stream []byte, piece uint8, mayBeTLS bool) {
		want := protocolHTTP
		switch {
		case len(stream) > 0 && stream[0] == 22 && mayBeTLS:
			want = protocolTLS
		case len(stream) >= 20 && stream[0]&0xc0 == 0 && stream[3]&3 == 0 &&
			bytes.Equal(stream[4:8], []byte{0x21, 0x12, 0xa4, 0x42}):
			want = protocolSTUN
		case detectProtocol(stream, mayBeTLS) == protocolUnknown: // ends before it can be told
			want = protocolUnknown
			if len(stream) >= 20 {
				t.Fatal("a header's length, and still open")
			}
		}
		head, got, err := sniff(&scripted{rest: stream, piece: int(piece)%32 + 1}, mayBeTLS)
		if want == protocolUnknown {
			if err == nil {
				t.Fatalf("decided %v", got)
			}
			return
		}
		if err != nil || got != want || len(head) > 20 || !bytes.HasPrefix(stream, head) {
			t.Fatalf("%v with %q, %v; want %v", got, head, err, want)
		}
		c := &sniffedConn{
			Conn:   &scripted{rest: stream[len(head):], piece: int(piece)%32 + 1},
			prefix: head,
		}
		if all, err := io.ReadAll(bufio.NewReaderSize(c, 16)); err != nil ||
			!bytes.Equal(all, stream) {
			t.Fatalf("%q, %v", all, err)
		}
	})
}

// Every list of protocol names of ALPN, in every order: who names TURN or STUN gets it, who names
// HTTP/1.1 is looked at, and HTTP/2 is HTTP/2.
func TestALPNOffers(t *testing.T) {
	names := []string{"stun.turn", "stun.nat-discovery", "h2", "http/1.1"}
	p := openPort(t, MuxConfig{TLS: serverTLS()})
	for _, list := range orders(names) {
		asked := func(name string) bool { return slices.Contains(list, name) }
		c := p.dial(t, true, list...)
		got := c.(*tls.Conn).ConnectionState().NegotiatedProtocol
		want := ""
		for _, name := range names { // in this order
			if want == "" && asked(name) {
				want = name
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", list, got, want)
		}
		if got != "h2" {
			exchange(t, c, allocate)
			_ = c.Close()
			if t.Failed() {
				t.Fatalf("%q: no TURN", list)
			}
			<-p.turn
			c = p.dial(t, true, list...)
			if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if page, err := io.ReadAll(c); err != nil ||
				!bytes.HasPrefix(page, []byte("HTTP/1.0 200")) ||
				!bytes.HasSuffix(page, []byte("TLS true")) {
				t.Errorf("%q: a page is %q, %v", list, page, err)
			}
		}
	}
	if s := p.Stats(); s.Failed != 0 {
		t.Errorf("%+v", s)
	}
	tc := func(list ...string) error {
		c, err := tls.Dial("tcp", p.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: list})
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	// Names of DTLS, and those that nobody has heard of, agree on nothing.
	for _, name := range []string{"webrtc", "c-webrtc", "smtp"} {
		if err := tc(name); err == nil {
			t.Errorf("%q is agreed on", name)
		}
	}
}

// orders are all lists that can be made of some names, the empty one too.
func orders(names []string) (lists [][]string) {
	lists = [][]string{nil}
	for i, name := range names {
		rest := slices.Delete(slices.Clone(names), i, i+1)
		for _, list := range orders(rest) {
			lists = append(lists, append([]string{name}, list...))
		}
	}
	return lists
}

// What connects over HTTP/2 to the address of WebSockets gets an answer that HTTP/2 allows (RFC
// 9113, section 8.2.2), at each refusal.
func TestRefusalOverHTTP2(t *testing.T) {
	p := openPort(t, MuxConfig{TLS: serverTLS()})
	client := &http.Client{Timeout: failSafe, Transport: &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	defer client.CloseIdleConnections()
	for _, c := range []struct{ method, origin string }{
		{"GET", ""}, {"POST", ""}, {"GET", "null"}, {"GET", "https://app.example"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, "https://"+p.addr+"/signal",
			nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		want := http.StatusUpgradeRequired
		if c.origin == "null" {
			want = http.StatusForbidden
		}
		if res.ProtoMajor != 2 || res.StatusCode != want {
			t.Errorf("%v: %s %d", c, res.Proto, res.StatusCode)
		}
		for _, name := range []string{
			"Upgrade", "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding",
		} {
			if v := res.Header.Values(name); v != nil {
				t.Errorf("%v: %s: %q", c, name, v)
			}
		}
	}
}

// The documented length of a request's header is the one that counts.
func TestHeaderSizeIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		srv := NewHTTPServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
			slog.New(slog.DiscardHandler))
		ended := make(chan error, 1)
		go func() { ended <- srv.Serve(l) }()
		for length, want := range map[int]int{
			1000: 200, MaxHeader: 200, MaxHeader + 1: 431, 2 * MaxHeader: 431,
		} {
			c := l.connect("192.0.2.1:1")
			const around = "GET / HTTP/1.1\r\nHost: x\r\nX: " + "\r\n\r\n"
			go func() {
				filler := strings.Repeat("x", length-len(around))
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX: "+filler+"\r\n\r\n")
			}()
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || res.StatusCode != want {
				t.Errorf("%d bytes: %v, %v, want %d", length, res, err, want)
			}
			_ = c.Close()
		}
		_ = srv.Close()
		<-ended
		time.Sleep(time.Second) // a refused connection is read for a moment
	})
}
