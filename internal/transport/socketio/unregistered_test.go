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

// These are the bounds of the street below, small so that the tests pass them.
const (
	maxPending, maxPendingOf     = 24, 8
	mostHTTP, httpOf, idleOf     = 32, 8, 4
	mostConns, maxUnregisteredOf = 48, 6
	several                      = 4 // times the limit of a source, of a site
	attackers                    = 120
	honest                       = "203.0.113.200:1"
	honest6                      = "[2001:db8:ffff::1]:1"
	upgradeHeaders               = "Connection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	// And empty SETTINGS.
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	polling = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: ieum.test\r\n\r\n"
)

// street is a whole port in memory: switch, HTTP server, both carriers and their gate. Nobody in
// it ever logs in.
type street struct {
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

func (s *street) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}
func (s *street) Close() error   { s.once.Do(func() { close(s.done) }); return nil }
func (s *street) Addr() net.Addr { return &net.TCPAddr{} }

type comes struct {
	net.Conn
	from netip.AddrPort
}

func (c comes) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.from) }

// guest is a receiver that never answers.
type guest struct{}

func (guest) Message([]byte, transport.Reply) {}
func (guest) Closed(transport.End)            {}

// openStreet serves until the test's end, which has to come within its bubble.
func openStreet(t *testing.T) (*street, func()) {
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
	s := &street{t: t, conns: make(chan net.Conn), done: make(chan struct{})}
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
		time.AfterFunc(
			10*time.Second,
			func() { c.Close(1008, "no register in time") },
		) // as signaling does
		return guest{}
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
		time.Sleep(time.Minute) // the last of what was on its way
		synctest.Wait()
		if st := s.http.Stats(); st.Active != 0 || st.Idle != 0 {
			t.Errorf("HTTP connections are left: %+v", st)
		}
		if st := s.mux.Stats(); st.Pending != 0 {
			t.Errorf("undecided connections are left: %+v", st)
		}
		if n := s.limiter.Open(); n != 0 {
			t.Errorf("%d clients are left", n)
		}
	}
}

// pipe has someone come from an address. What the server says to it is read and thrown away,
// unless the caller reads.
func (s *street) pipe(from string) net.Conn {
	ours, theirs := net.Pipe()
	s.all = append(s.all, theirs)
	s.conns <- comes{ours, netip.MustParseAddrPort(from)}
	return theirs
}

func discard(c net.Conn) { go func() { _, _ = io.Copy(io.Discard, c) }() }

// attack opens a connection and leaves it in some state. What it writes may fail: it may have been
// refused.
type attack func(s *street, c net.Conn)

func secure(c net.Conn, protocols ...string) *tls.Conn {
	tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
	_ = tc.Handshake()
	return tc
}

func say(text string, protocols ...string) attack {
	return func(_ *street, c net.Conn) {
		tc := secure(c, protocols...)
		discard(tc)
		_, _ = io.WriteString(tc, text)
	}
}

const toldToGo = "plain HTTP, told to go" // its connection ends with the answer

// The kinds of connections that somebody without a license can have.
var attacks = map[string]attack{
	"silent": func(_ *street, c net.Conn) { discard(c) },
	"half a handshake": func(_ *street, c net.Conn) {
		_, _ = c.Write([]byte{22, 3, 1, 0, 200, 1})
		discard(c)
	},
	"silent in TLS":          say(""),
	"HTTP named, and silent": say("", "http/1.1"),
	"idle":                   say("GET / HTTP/1.1\r\nHost: ieum.test\r\n\r\n", "http/1.1"),
	"idle without a name":    say("GET / HTTP/1.1\r\nHost: ieum.test\r\n\r\n"),
	toldToGo: func(_ *street, c net.Conn) {
		discard(c)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: ieum.test\r\n\r\n")
	},
	"half a header": say("GET / HTTP/1.1\r\nHost: ieum.test\r\nX-", "http/1.1"),
	"half a body": say("POST / HTTP/1.1\r\nHost: ieum.test\r\nContent-Length: 4000\r\n\r\nx",
		"http/1.1"),
	"HTTP/2, idle": say(preface, "h2"),
	// HEADERS for POST /, which does not end: indexed fields of HPACK's table, and a literal
	// :authority
	"HTTP/2, half a body": say(
		preface+"\x00\x00\x06\x01\x04\x00\x00\x00\x01"+"\x83\x84\x87\x41\x01x", "h2"),
	"an answer unread": func(_ *street, c net.Conn) {
		tc := secure(c, "http/1.1")
		_, _ = io.WriteString(
			tc,
			"GET / HTTP/1.1\r\nHost: ieum.test\r\n\r\n",
		) // and net.Pipe has no buffer
	},
	"upgraded, no login": say("GET /signal HTTP/1.1\r\nHost: ieum.test\r\n"+upgradeHeaders+"\r\n",
		"http/1.1"),
	"claims to resume": say(
		"GET /signal?resume HTTP/1.1\r\nHost: ieum.test\r\n"+upgradeHeaders+"\r\n", "http/1.1"),
	"polling, no poll": say(polling, "http/1.1"),
	"polling, one poll": func(_ *street, c net.Conn) {
		tc := secure(c, "http/1.1")
		sid, err := openPolling(tc)
		if err != nil {
			return
		}
		discard(tc)
		_, _ = io.WriteString(tc,
			strings.Replace(polling, "polling HTTP", "polling&sid="+sid+" HTTP", 1))
	},
	"WebSocket of Socket.IO": say(
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
	"everybody": {
		func(i int) string { return fmt.Sprintf("198.51.100.%d:1", i+1) },
		maxPending,
		mostHTTP,
		mostConns + mostConns/8 + 1,
	},
}

// What a guest may cost is bounded, whatever it does, and nobody from elsewhere is kept out:
// neither at once, when an attacker holds many places, nor, when each of many attackers holds one,
// for longer than connections may be slow or strangers need for their login.
func TestUnregisteredConnectionsOfOneSite(t *testing.T) {
	for kind, do := range attacks {
		for origin, o := range origins {
			t.Run(kind+" from "+origin, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, end := openStreet(t)
					defer end()
					for i := range attackers {
						go do(s, s.pipe(o.from(i)))
						synctest.Wait()
						st, busy := s.http.Stats(), s.mux.Stats().Pending
						if busy > o.pending || st.Active+st.Idle > o.http ||
							s.limiter.Open() > o.conns {
							t.Fatalf(
								"after %d: %d undecided of %d, %+v HTTP of %d, %d clients of %d",
								i+1, busy, o.pending, st, o.http, s.limiter.Open(), o.conns)
						}
					}
					counts := s.limiter.Stats()
					refused := s.http.Stats().Shed + s.mux.Stats().Shed +
						counts.Unregistered + counts.Connections
					if refused == 0 && kind != toldToGo {
						t.Error("nothing was bounded")
					}
					patience := time.Duration(0)
					if origin == "everybody" {
						patience = 16 * time.Second // a login, a slow body
					}
					s.gets(honest, patience)
					s.gets(honest6, patience)
				})
			})
		}
	}
}

// gets fetches a page and then has a WebSocket, within the time.
func (s *street) gets(from string, patience time.Duration) {
	s.t.Helper()
	for begin := time.Now(); ; time.Sleep(time.Second) {
		err := s.visit(from)
		if err == nil {
			return
		}
		if time.Since(begin) >= patience {
			s.t.Errorf("%s is kept out: %v", from, err)
			return
		}
	}
}

func (s *street) visit(from string) error {
	c := s.pipe(from)
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err := tc.Handshake(); err != nil {
		return err
	}
	r := bufio.NewReader(tc)
	if err := ask(tc, r, "GET / HTTP/1.1\r\nHost: ieum.test\r\n\r\n", 200); err != nil {
		return err
	}
	return ask(tc, r, "GET /signal HTTP/1.1\r\nHost: ieum.test\r\n"+upgradeHeaders+"\r\n", 101)
}

func ask(c net.Conn, r *bufio.Reader, request string, want int) error {
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
