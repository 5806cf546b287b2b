package transport

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestUnregisteredPerAddress(t *testing.T) {
	g := NewConnLimiter(ConnLimiterConfig{Unregistered: 3, Connections: -1})
	enter := func(addr string, want int) {
		t.Helper()
		if got, _ := g.Acquire(netip.MustParseAddr(addr), false); got != want {
			t.Errorf("%s: %d, want %d", addr, got, want)
		}
	}
	for range 3 {
		enter("192.0.2.1", 0)
		enter("2001:db8::1", 0)
		enter("127.0.0.1", 0)
	}
	enter("192.0.2.1", 429)
	enter("::ffff:192.0.2.1", 429)
	enter("2001:db8:0:0:ffff::2", 429) // the same /64
	enter("2001:db8:0:1::1", 0)        // another
	enter("192.0.2.2", 0)
	enter("127.0.0.1", 0)
	g.MarkRegistered(netip.MustParseAddr("192.0.2.1"))
	enter("192.0.2.1", 0)
	g.Release(netip.MustParseAddr("2001:db8::1"), false)
	enter("2001:db8::7", 0)
	if s := g.Stats(); s != (ConnLimiterStats{Unregistered: 3}) {
		t.Errorf("%+v", s)
	}
}

func TestConnLimiterForgetsRegisteredAndReleased(t *testing.T) {
	g := NewConnLimiter(ConnLimiterConfig{})
	for i := range 1000 {
		a := netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
		g.Acquire(a, false)
		if i%2 == 0 {
			g.MarkRegistered(a)
		}
		g.Release(a, i%2 == 0)
	}
	if len(g.bySource) != 0 || g.open != 0 {
		t.Errorf("%d addresses, %d connections are left", len(g.bySource), g.open)
	}
}

func TestADrainingConnLimiterAdmitsNobody(t *testing.T) {
	g := NewConnLimiter(ConnLimiterConfig{})
	a := netip.MustParseAddr("192.0.2.1")
	g.Acquire(a, false)
	g.Drain()
	for _, resumes := range []bool{false, true} {
		if got, _ := g.Acquire(a, resumes); got != 503 {
			t.Errorf("one that resumes (%v): %d", resumes, got)
		}
	}
	// An open session may still change from polling to a WebSocket.
	if got, _ := g.Separate().Acquire(a, false); got != 0 {
		t.Errorf("one of an open session: %d", got)
	}
	if n := g.rejected.closed.Load(); n != 2 {
		t.Errorf("%d are counted", n)
	}
}

func TestFullConnLimiterAdmitsResumes(t *testing.T) {
	g := NewConnLimiter(ConnLimiterConfig{Connections: 16, Unregistered: -1})
	a := netip.MustParseAddr("192.0.2.1")
	for range 16 {
		g.Acquire(a, false)
	}
	if got, _ := g.Acquire(a, false); got != 503 {
		t.Errorf("a new one: %d", got)
	}
	for range 3 {
		if got, _ := g.Acquire(a, true); got != 0 {
			t.Errorf("one that resumes: %d", got)
		}
	}
	if got, _ := g.Acquire(a, true); got != 503 {
		t.Errorf("without any end: %d", got)
	}
	if s := g.Stats(); s.Connections != 2 {
		t.Errorf("%+v", s)
	}
}

func TestUnregisteredPerSite(t *testing.T) {
	g := NewConnLimiter(ConnLimiterConfig{Unregistered: 3, Connections: -1})
	in := 0
	for i := range 1000 {
		addr := netip.MustParseAddr(fmt.Sprintf("2001:db8:7:%x::1", i))
		if status, _ := g.Acquire(addr, false); status == 0 {
			in++
		}
	}
	if in != 3*SourcesPerSite {
		t.Errorf("%d strangers of a /48", in)
	}
	for _, addr := range []string{"2001:db8:8::1", "2001:db8::1", "192.0.2.1"} {
		if status, _ := g.Acquire(netip.MustParseAddr(addr), false); status != 0 {
			t.Errorf("%s: %d", addr, status)
		}
	}
}

// A place in the reserve is marked as such, and one address cannot take all of them by saying that
// it resumes.
func TestReserveIsForResumes(t *testing.T) {
	g := NewConnLimiter(ConnLimiterConfig{Connections: 800, Unregistered: 16})
	for i := range 800 {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		if _, reserve := g.Acquire(addr, true); reserve {
			t.Fatal("the reserve was used before it was needed")
		}
	}
	liar, in := netip.MustParseAddr("192.0.2.1"), 0
	for range 100 {
		if status, reserve := g.Acquire(liar, true); status == 0 {
			in++
			if !reserve {
				t.Error("the place is not marked")
			}
		}
	}
	if in != 16/8+1 {
		t.Errorf("one address took %d places of the reserve", in)
	}
	g.MarkRegistered(liar) // one was genuine
	if status, _ := g.Acquire(liar, true); status != 0 {
		t.Errorf("the next: %d", status)
	}
	if status, reserve := g.Acquire(netip.MustParseAddr("192.0.2.2"), true); status != 0 ||
		!reserve {
		t.Errorf("another: %d", status)
	}
}

func TestClientAddrBehindProxies(t *testing.T) {
	trusted := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("::1/128"),
		netip.MustParsePrefix("fe80::/64"),
	}
	for _, c := range []struct {
		remote    string
		forwarded []string
		want      string
	}{
		{"192.0.2.1:5", []string{"203.0.113.9"}, "192.0.2.1:5"}, // no proxy of ours
		{"10.0.0.1:5", nil, "10.0.0.1:5"},
		{"10.0.0.1:5", []string{"203.0.113.9"}, "203.0.113.9:0"},
		// The first was made up by the client.
		{"10.0.0.1:5", []string{"127.0.0.1, 203.0.113.9, 10.2.2.2"}, "203.0.113.9:0"},
		{"10.0.0.1:5", []string{"198.51.100.1", "203.0.113.9"}, "203.0.113.9:0"},
		{"10.0.0.1:5", []string{"203.0.113.9:1234"}, "203.0.113.9:0"},
		{"10.0.0.1:5", []string{"::ffff:203.0.113.9"}, "203.0.113.9:0"},
		{"[::1]:5", []string{"[2001:db8::1]:443"}, "[2001:db8::1]:0"},
		{"[fe80::1%eth0]:5", []string{"203.0.113.9"}, "203.0.113.9:0"},
		{"10.0.0.1:5", []string{"203.0.113.9, unknown"}, "10.0.0.1:5"},
		{"10.0.0.1:5", []string{""}, "10.0.0.1:5"},
	} {
		r := httptest.NewRequest("GET", "/signal", nil)
		r.RemoteAddr = c.remote
		for _, f := range c.forwarded {
			r.Header.Add("X-Forwarded-For", f)
		}
		if got := PeerOf(r, "", trusted).Addr.String(); got != c.want {
			t.Errorf("%s %q: %s, want %s", c.remote, c.forwarded, got, c.want)
		}
	}
}

func TestTooManyUnregisteredRejectedAtUpgrade(t *testing.T) {
	g := NewConnLimiter(ConnLimiterConfig{Unregistered: 2, Connections: 5})
	s := serve(t,
		Config{Limiter: g, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	first, known := s.dial("X-Forwarded-For", "203.0.113.9")
	if got := known.conn.Peer().Addr.Addr(); got != netip.MustParseAddr("203.0.113.9") {
		t.Errorf("the peer is %s", got)
	}
	second, _ := s.dial("X-Forwarded-For", "203.0.113.9")
	refused := func(addr string, status int) {
		t.Helper()
		_, res, err := s.try("X-Forwarded-For", addr)
		if err == nil || res.StatusCode != status || res.Header.Get("Retry-After") == "" {
			t.Errorf("%v %v, want %d and when to come again", res, err, status)
		}
	}
	refused("203.0.113.9", http.StatusTooManyRequests)
	MarkRegistered(known.conn)
	MarkRegistered(known.conn) // counts once
	s.dial("X-Forwarded-For", "203.0.113.9")
	refused("203.0.113.9", http.StatusTooManyRequests)
	for i := range 2 {
		s.dial("X-Forwarded-For", fmt.Sprintf("203.0.113.%d", 20+i))
	}
	refused("203.0.113.30", http.StatusServiceUnavailable)
	if first.ws.WriteString("live") != nil || <-first.got != "live" {
		t.Error("a live connection suffered")
	}
	_ = second.ws.NetConn().Close()
	if err := s.ws.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(g.bySource) != 0 || g.open != 0 {
		t.Errorf("%d addresses, %d connections are left", len(g.bySource), g.open)
	}
}

// Whoever wants to know hears of each user that comes and goes, and of no stranger.
func TestOnRegistered(t *testing.T) {
	users := map[netip.Addr]int{}
	g := NewConnLimiter(
		ConnLimiterConfig{OnRegistered: func(a netip.Addr, n int) { users[a] += n }})
	one := netip.MustParseAddr("192.0.2.1")
	same, other := netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, a := range []netip.Addr{one, same, other, other} {
		if status, _ := g.Acquire(a, false); status != 0 {
			t.Fatal(status)
		}
	}
	g.MarkRegistered(one)
	g.MarkRegistered(same)
	g.MarkRegistered(other)
	g.Release(other, false)
	if users[one] != 2 || users[other] != 1 || len(users) != 2 {
		t.Errorf("known are %v", users)
	}
	g.Release(one, true)
	g.Release(same, true)
	g.Release(other, true)
	if users[one] != 0 || users[other] != 0 {
		t.Errorf("left are %v", users)
	}
}

// While it is closed only clients that announce a resume are let in.
func TestClosedConnLimiterAdmitsResumes(t *testing.T) {
	closed := true
	l := NewConnLimiter(ConnLimiterConfig{Closed: func() bool { return closed }})
	addr := netip.MustParseAddr("203.0.113.1")
	if status, _ := l.Acquire(addr, false); status != http.StatusServiceUnavailable {
		t.Errorf("a new client: %d", status)
	}
	if status, reserve := l.Acquire(addr, true); status != 0 || reserve {
		t.Errorf("a client that resumes: %d, %t", status, reserve)
	}
	closed = false
	if status, _ := l.Acquire(addr, false); status != 0 {
		t.Errorf("opened again: %d", status)
	}
	if l.Open() != 2 {
		t.Errorf("%d open", l.Open())
	}
}
