package socketio

import (
	"bufio"
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
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// Limits of testServer, small so that the tests exceed them.
const (
	maxPending, maxPendingOf     = 24, 8
	mostHTTP, httpOf, idleOf     = 32, 8, 4
	mostConns, maxUnregisteredOf = 48, 6
	several                      = 4 // a site has this many times the limit of an address
	attackers                    = 120
	honest                       = "203.0.113.200:1"
	honest6                      = "[2001:db8:ffff::1]:1"
	upgradeHeaders               = "Connection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	// And empty SETTINGS.
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	polling = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: ieum.test\r\n\r\n"
)

// testServer is a port in memory: mux, HTTP server, both transports and their connection limiter.
// None of its clients registers.
type testServer struct {
	t       *testing.T
	mux     *transport.Mux
	http    *transport.HTTPConns
	limiter *transport.ConnLimiter
	sio     *Server

	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	all   []net.Conn
}

func (s *testServer) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}
func (s *testServer) Close() error   { s.once.Do(func() { close(s.done) }); return nil }
func (s *testServer) Addr() net.Addr { return &net.TCPAddr{} }

type connFrom struct {
	net.Conn
	remote netip.AddrPort
}

func (c connFrom) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// noReply is a receiver that never replies.
type noReply struct{}

func (noReply) Message([]byte, transport.Reply) {}
func (noReply) Closed(transport.End)            {}

// openTestServer serves until the function it returns is called, within the test's bubble.
func openTestServer(t *testing.T) (*testServer, func()) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"ieum.test"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{t: t, conns: make(chan net.Conn), done: make(chan struct{})}
	s.http = transport.NewHTTPConns(
		transport.HTTPLimits{Connections: mostHTTP, PerAddress: httpOf, IdlePerAddress: idleOf})
	s.limiter = transport.NewConnLimiter(
		transport.ConnLimiterConfig{Unregistered: maxUnregisteredOf, Connections: mostConns})
	s.mux = transport.NewMux(s, transport.MuxConfig{
		MaxPending: maxPending, MaxPerAddress: maxPendingOf, HTTP: s.http,
		TLS: &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
			NextProtos:   []string{"h2", "http/1.1"},
		},
	})
	accept := func(c transport.Conn) transport.Receiver {
		// As signaling does.
		time.AfterFunc(10*time.Second, func() { c.Close(1008, "no register in time") })
		return noReply{}
	}
	cfg := transport.Config{Limiter: s.limiter}
	ws, sio := transport.NewWebSocket(cfg, accept), New(Config{Conn: cfg}, accept)
	s.sio = sio
	mux := http.NewServeMux()
	mux.Handle("/signal", ws)
	mux.Handle(Path, sio)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "a page")
	})
	srv := transport.NewHTTPServer(mux, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- s.mux.Serve(srv) }()
	return s, func() {
		for _, c := range s.all {
			_ = c.Close()
		}
		_ = s.mux.Close()
		_ = ws.Close(context.Background())
		_ = sio.Close(context.Background())
		_ = srv.Close()
		<-ended
		time.Sleep(time.Minute) // longer than every timeout
		synctest.Wait()
		if st := s.http.Stats(); st.Active != 0 || st.Idle != 0 {
			t.Errorf("HTTP connections are left: %+v", st)
		}
		if st := s.mux.Stats(); st.Pending != 0 {
			t.Errorf("pending connections are left: %+v", st)
		}
		if n := s.limiter.Open(); n != 0 {
			t.Errorf("%d clients are left", n)
		}
	}
}

// dial connects from an address. It does not read: see discard.
func (s *testServer) dial(from string) net.Conn {
	ours, theirs := net.Pipe()
	s.all = append(s.all, theirs)
	s.conns <- connFrom{ours, netip.MustParseAddrPort(from)}
	return theirs
}

func discard(c net.Conn) { go func() { _, _ = io.Copy(io.Discard, c) }() }

// attack leaves a new connection in some state. Its writes may fail, if the server has refused the
// connection.
type attack func(s *testServer, c net.Conn)

func startTLS(c net.Conn, protocols ...string) *tls.Conn {
	tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
	_ = tc.Handshake()
	return tc
}

func send(text string, protocols ...string) attack {
	return func(_ *testServer, c net.Conn) {
		tc := startTLS(c, protocols...)
		discard(tc)
		_, _ = io.WriteString(tc, text)
	}
}

const plainHTTP = "plain HTTP" // the server closes it after the response

// The kinds of connections of a client without a license.
var attacks = map[string]attack{
	"silent": func(_ *testServer, c net.Conn) { discard(c) },
	"half a handshake": func(_ *testServer, c net.Conn) {
		_, _ = c.Write([]byte{22, 3, 1, 0, 200, 1})
		discard(c)
	},
	"silent in TLS":         send(""),
	"ALPN http/1.1, silent": send("", "http/1.1"),
	"idle":                  send("GET / HTTP/1.1\r\nHost: ieum.test\r\n\r\n", "http/1.1"),
	"idle without ALPN":     send("GET / HTTP/1.1\r\nHost: ieum.test\r\n\r\n"),
	plainHTTP: func(_ *testServer, c net.Conn) {
		discard(c)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: ieum.test\r\n\r\n")
	},
	"half a header": send("GET / HTTP/1.1\r\nHost: ieum.test\r\nX-", "http/1.1"),
	"half a body": send("POST / HTTP/1.1\r\nHost: ieum.test\r\nContent-Length: 4000\r\n\r\nx",
		"http/1.1"),
	"HTTP/2, idle": send(preface, "h2"),
	// HEADERS for POST /, which does not end: indexed fields of HPACK's table, and a literal
	// :authority
	"HTTP/2, half a body": send(
		preface+"\x00\x00\x06\x01\x04\x00\x00\x00\x01"+"\x83\x84\x87\x41\x01x", "h2"),
	"unread response": func(_ *testServer, c net.Conn) {
		tc := startTLS(c, "http/1.1")
		// net.Pipe has no buffer.
		_, _ = io.WriteString(tc, "GET / HTTP/1.1\r\nHost: ieum.test\r\n\r\n")
	},
	"upgraded, not registered": send(
		"GET /signal HTTP/1.1\r\nHost: ieum.test\r\n"+upgradeHeaders+"\r\n", "http/1.1"),
	"claims to resume": send(
		"GET /signal?resume HTTP/1.1\r\nHost: ieum.test\r\n"+upgradeHeaders+"\r\n", "http/1.1"),
	"polling, no poll": send(polling, "http/1.1"),
	"polling, one poll": func(_ *testServer, c net.Conn) {
		tc := startTLS(c, "http/1.1")
		sid, err := openPolling(tc)
		if err != nil {
			return
		}
		discard(tc)
		_, _ = io.WriteString(tc,
			strings.Replace(polling, "polling HTTP", "polling&sid="+sid+" HTTP", 1))
	},
	"WebSocket of Socket.IO": send(
		"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: ieum.test\r\n"+
			upgradeHeaders+"\r\n",
		"http/1.1"),
}

// openPolling opens a session that polls, and returns its id.
func openPolling(c net.Conn) (sid string, err error) {
	if _, err := io.WriteString(c, polling); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(res.Body)
	return sidOf(string(body)), err
}

// Where the attackers come from, and what that many of them may have at a time: of each of the
// three counts.
var origins = map[string]struct {
	from                 func(i int) string
	pending, http, conns int
}{
	"one address": {
		func(i int) string { return fmt.Sprintf("198.51.100.7:%d", i+1) },
		maxPendingOf,
		httpOf,
		maxUnregisteredOf,
	},
	"one /64": {
		func(i int) string { return fmt.Sprintf("[2001:db8:1:2::%x]:1", i+1) },
		maxPendingOf,
		httpOf,
		maxUnregisteredOf,
	},
	"one /48": {
		func(i int) string { return fmt.Sprintf("[2001:db8:1:%x::1]:1", i+1) },
		min(maxPending, several*maxPendingOf),
		min(mostHTTP, several*httpOf),
		min(mostConns, several*maxUnregisteredOf),
	},
	"many addresses": {
		func(i int) string { return fmt.Sprintf("198.51.100.%d:1", i+1) },
		maxPending,
		mostHTTP,
		mostConns + mostConns/8 + 1,
	},
}

// Unregistered connections are limited in every state. An honest client elsewhere connects at once
// while one site attacks. While many addresses attack, it connects as soon as the timeouts for slow
// requests and for registration have passed.
func TestUnregisteredConnectionsOfOneSite(t *testing.T) {
	for kind, do := range attacks {
		for origin, o := range origins {
			t.Run(kind+" from "+origin, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, end := openTestServer(t)
					defer end()
					for i := range attackers {
						go do(s, s.dial(o.from(i)))
						synctest.Wait()
						st, pending := s.http.Stats(), s.mux.Stats().Pending
						if pending > o.pending || st.Active+st.Idle > o.http ||
							s.limiter.Open() > o.conns {
							t.Fatalf(
								"after %d: %d pending of %d, %+v HTTP of %d, %d clients of %d",
								i+1, pending, o.pending, st, o.http, s.limiter.Open(), o.conns)
						}
					}
					counts := s.limiter.Stats()
					refused := s.http.Stats().Shed + s.mux.Stats().Shed +
						counts.Unregistered + counts.Connections
					if refused == 0 && kind != plainHTTP {
						t.Error("no connection was refused")
					}
					timeout := time.Duration(0)
					if origin == "many addresses" {
						timeout = 16 * time.Second // registration, slow bodies
					}
					s.connects(honest, timeout)
					s.connects(honest6, timeout)
				})
			})
		}
	}
}

// connects fetches a page and then upgrades to a WebSocket, within the timeout.
func (s *testServer) connects(from string, timeout time.Duration) {
	s.t.Helper()
	for begin := time.Now(); ; time.Sleep(time.Second) {
		err := s.visit(from)
		if err == nil {
			return
		}
		if time.Since(begin) >= timeout {
			s.t.Errorf("%s cannot connect: %v", from, err)
			return
		}
	}
}

func (s *testServer) visit(from string) error {
	c := s.dial(from)
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err := tc.Handshake(); err != nil {
		return err
	}
	r := bufio.NewReader(tc)
	if err := expect(tc, r, "GET / HTTP/1.1\r\nHost: ieum.test\r\n\r\n", 200); err != nil {
		return err
	}
	return expect(tc, r, "GET /signal HTTP/1.1\r\nHost: ieum.test\r\n"+upgradeHeaders+"\r\n", 101)
}

func expect(c net.Conn, r *bufio.Reader, request string, want int) error {
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	if res.StatusCode != want {
		return errors.New(res.Status)
	}
	if want == 200 {
		_, err = io.Copy(io.Discard, res.Body)
	}
	return err
}
