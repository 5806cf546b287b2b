package socketio

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/ieum-rtc/ieum/internal/transport"
)

func TestTooManyUnregisteredRejectedAtHandshake(t *testing.T) {
	limits := transport.ConnLimiterConfig{Unregistered: 2, Connections: 4}
	limiter := transport.NewConnLimiter(limits)
	g := newRig(
		t,
		Config{
			Conn: transport.Config{
				Limiter:        limiter,
				TrustedProxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
			},
		},
	)
	open := func(from string) int {
		r := httptest.NewRequest(
			"GET",
			"/socket.io/?EIO=4&transport=polling",
			nil,
		) // comes from 192.0.2.1
		r.Header.Set("X-Forwarded-For", from)
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code >= 400 && w.Header().Get("Retry-After") == "" {
			t.Errorf("%d does not say when to come again", w.Code)
		}
		return w.Code
	}
	for i, want := range []int{200, 200, 429} {
		if got := open("203.0.113.1"); got != want {
			t.Errorf("handshake %d: %d, want %d", i, got, want)
		}
	}
	first := <-g.users
	transport.MarkRegistered(first.conn)
	if got := open("203.0.113.1"); got != 200 {
		t.Errorf("after one is known: %d", got)
	}
	if got := open("203.0.113.2"); got != 200 {
		t.Errorf("another address: %d", got)
	}
	if got := open("203.0.113.3"); got != 503 {
		t.Errorf("when all is full: %d", got)
	}
	first.conn.Close(1008, "")
	<-first.end
	if got := open("203.0.113.3"); got != 200 {
		t.Errorf("after one has ended: %d", got)
	}
}

// A WebSocket that does not get to replace polling, or outlasts its session, has a limit of its
// own: a client that does not read keeps it open until a write times out.
func TestTooManyUnregisteredWebSockets(t *testing.T) {
	const from = "198.51.100.7:1"
	upgradeOf := func(sid string) string {
		return "GET /socket.io/?EIO=4&transport=websocket" + sid +
			" HTTP/1.1\r\nHost: ieum.test\r\n" + upgradeHeaders + "\r\n"
	}
	t.Run("upgrades of one session at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, end := openTestServer(t)
			defer end()
			sid, err := openPolling(startTLS(s.dial(from), "http/1.1"))
			if err != nil {
				t.Fatal(err)
			}
			var conns []net.Conn
			for range httpOf { // the limit of requests
				conn := startTLS(s.dial(from), "http/1.1")
				s.write(conn, upgradeOf("&sid="+sid))
				conns = append(conns, conn)
			}
			synctest.Wait()
			accepted := 0
			for _, conn := range conns {
				if switches(conn) {
					accepted++
				}
			}
			if accepted != maxUnregisteredOf {
				t.Errorf("%d of %d accepted, want %d", accepted, len(conns), maxUnregisteredOf)
			}
		})
	})
	t.Run("of closed sessions", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, end := openTestServer(t)
			defer end()
			most := 0
			for range attackers {
				conn := startTLS(s.dial(from), "http/1.1")
				s.write(conn, upgradeOf(""))
				if switches(conn) {
					s.write(conn, "\x81\x81\x00\x00\x00\x001") // the packet that closes, masked
				}
				synctest.Wait()
				most = max(most, s.sio.ws.Count())
			}
			if most != maxUnregisteredOf {
				t.Errorf("%d WebSockets, want %d", most, maxUnregisteredOf)
			}
			s.connects(honest, 0)
		})
	})
}

// The WebSocket of a registered session leaves its place to others, also if it replaced polling.
func TestWebSocketOfRegisteredSession(t *testing.T) {
	g := newRig(t, Config{Conn: transport.Config{
		Limiter:        transport.NewConnLimiter(transport.ConnLimiterConfig{Unregistered: 1}),
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}})
	host := g.serve()
	p := g.connect("4")
	transport.MarkRegistered(p.conn)
	dial := func(query string) *socket {
		t.Helper()
		c, res, err := dialFrom(t, "203.0.113.1", host, "EIO=4&transport=websocket"+query)
		if err != nil {
			t.Fatal(err, res)
		}
		return c
	}
	upgraded := dial("&sid=" + p.sid)
	upgraded.write("2probe")
	upgraded.want("3probe")
	if _, res, err := dialFrom(t, "203.0.113.1", host, "EIO=4&transport=websocket"); err == nil ||
		res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("beside an unfinished upgrade: %v", err)
	}
	<-(<-g.users).end // its place is free again
	upgraded.write("5")
	upgraded.write(`421["knowledgetalk",{}]`)
	upgraded.want("431[{}]")
	dial("").wantPrefix(`0{"sid":"`)
	transport.MarkRegistered((<-g.users).conn)
	dial("")
}

func (s *testServer) write(c net.Conn, text string) {
	s.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		s.t.Fatal(err)
	}
}

// switches tells whether the response is 101.
func switches(c net.Conn) bool {
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	return err == nil && res.StatusCode == http.StatusSwitchingProtocols
}
