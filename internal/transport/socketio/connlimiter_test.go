package socketio

import (
	"net/http/httptest"
	"net/netip"
	"testing"

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
