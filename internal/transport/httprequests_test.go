package transport

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
)

// Over HTTP/2 a hundred requests come on one connection. They are limited as connections are, per
// address, per site and in total, and a poll is not counted while it waits.
func TestHTTP2RequestsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHTTPConns(HTTPLimits{
			Connections: 12,
			PerAddress:  2,
			Exempt:      []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		})
		release := make(chan struct{})
		srv := NewHTTPServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/poll" {
				defer SuspendLimit(r)()
			}
			<-release
		}), slog.New(slog.DiscardHandler))
		h.Watch(srv)
		conns := map[string]context.Context{}
		var wg sync.WaitGroup
		// ask returns the status of a request, 0 while it is served.
		ask := func(addr, path string, version int) int {
			if conns[addr] == nil {
				conns[addr] = srv.ConnContext(t.Context(), somebody(addr))
			}
			r := httptest.NewRequest("GET", path, nil).WithContext(conns[addr])
			r.ProtoMajor = version
			w := httptest.NewRecorder()
			done := false
			wg.Go(func() {
				srv.Handler.ServeHTTP(w, r)
				done = true
			})
			synctest.Wait()
			if !done {
				return 0
			}
			if w.Body.Len() != 0 || w.Header().Get("Retry-After") == "" {
				t.Errorf("%s: %q %v", addr, w.Body, w.Header())
			}
			return w.Code
		}
		for i, c := range []struct {
			addr, path string
			version    int
			want       int
		}{
			{"192.0.2.1", "/", 2, 0},
			{"192.0.2.1", "/poll", 2, 0},
			{"192.0.2.1", "/", 2, 0},
			{"192.0.2.1", "/", 2, 429},
			{"192.0.2.1", "/poll", 2, 429}, // before it is known to be one
			{"192.0.2.1", "/", 1, 0},       // a connection of its own
			{"2001:db8:0:1::1", "/", 2, 0},
			{"2001:db8:0:1::1", "/", 2, 0},
			{"2001:db8:0:1::1", "/", 2, 429},
			{"2001:db8:0:2::1", "/", 2, 0},
			{"2001:db8:0:2::1", "/", 2, 0},
			{"2001:db8:0:3::1", "/", 2, 0},
			{"2001:db8:0:3::1", "/", 2, 0},
			{"2001:db8:0:4::1", "/", 2, 0},
			{"2001:db8:0:4::1", "/", 2, 0},
			{"2001:db8:0:5::1", "/", 2, 429}, // of the site
			{"192.0.2.2", "/", 2, 0},
			{"192.0.2.2", "/", 2, 0}, // the last of twelve
			{"192.0.2.2", "/", 2, 429},
			{"192.0.2.3", "/", 2, 0}, // the first of its site
			{"192.0.2.3", "/", 2, 429},
			{"10.0.0.1", "/", 2, 0},
			{"10.0.0.1", "/", 2, 0},
			{"10.0.0.1", "/", 2, 0},
			{"127.0.0.1", "/", 2, 0},
		} {
			if got := ask(c.addr, c.path, c.version); got != c.want {
				t.Errorf("request %d, %s: %d, want %d", i, c.addr, got, c.want)
			}
		}
		close(release)
		wg.Wait()
		if l := h.requests; l.open != 0 || len(l.bySource) != 0 || l.rejected.Load() != 6 {
			t.Errorf("%d open, %v, %d rejected", l.open, l.bySource, l.rejected.Load())
		}
	})
}
