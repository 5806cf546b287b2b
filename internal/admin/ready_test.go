package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestReadinessIsLookedAtOnceInSomeSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks, failure := 0, error(nil)
		c := Config{Log: slog.New(slog.DiscardHandler)}
		ready := newReadiness(func(ctx context.Context) error {
			if end, ok := ctx.Deadline(); !ok || time.Until(end) != checkTimeout {
				t.Errorf("a look without an end in %v", checkTimeout)
			}
			looks++
			time.Sleep(time.Second)
			return failure
		}, c.Log)
		h := c.handler(ready, Source{Metrics: prometheus.NewRegistry()})
		ask := func() (int, string) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
			return w.Code, w.Body.String()
		}
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if code, text := ask(); code != http.StatusOK || text != "ok\n" {
					t.Errorf("%d %q", code, text)
				}
			})
		}
		all.Wait()
		failure = errors.New("the relay is full")
		if code, _ := ask(); code != http.StatusOK || looks != 1 {
			t.Errorf("%d after %d looks, want what was seen", code, looks)
		}
		time.Sleep(cacheFor)
		if code, text := ask(); code != http.StatusServiceUnavailable ||
			text != "the relay is full\n" ||
			looks != 2 {
			t.Errorf("%d %q after %d looks", code, text, looks)
		}
		failure = nil
		time.Sleep(cacheFor)
		if code, _ := ask(); code != http.StatusOK || looks != 3 {
			t.Errorf("%d after %d looks", code, looks)
		}
		ready.draining.Store(true)
		if code, text := ask(); code != http.StatusServiceUnavailable ||
			text != errDraining.Error()+"\n" {
			t.Errorf("%d %q from a server that drains", code, text)
		}
		ready.stopping.Store(true)
		if code, text := ask(); code != http.StatusServiceUnavailable ||
			text != "the server is shutting down\n" ||
			looks != 3 {
			t.Errorf("%d %q after %d looks, from a server that shuts down", code, text, looks)
		}
	})
}

// A drain needs the token, on loopback too: web pages reach loopback, but have no token.
func TestWhoMayDrain(t *testing.T) {
	for _, c := range []struct {
		token, authorization string
		status               int
	}{
		{"0123456789abcdef", "Bearer 0123456789abcdef", http.StatusAccepted},
		{"0123456789abcdef", "Bearer 0123456789abcdex", http.StatusUnauthorized},
		{"0123456789abcdef", "", http.StatusUnauthorized},
		{"", "", http.StatusForbidden},
	} {
		drained := 0
		cfg := Config{Token: []byte(c.token), Log: slog.New(slog.DiscardHandler)}
		h := cfg.handler(newReadiness(nil, cfg.Log), Source{
			Metrics: prometheus.NewRegistry(),
			Drain:   func() { drained++ },
		})
		r := httptest.NewRequest("POST", "/drain", nil)
		r.Host = "127.0.0.1:7103"
		r.Header.Set("Authorization", c.authorization)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status || (drained == 1) != (c.status == http.StatusAccepted) {
			t.Errorf("%+v: %d, drained %d times", c, w.Code, drained)
		}
		w = httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/drain", nil))
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("GET: %d", w.Code)
		}
	}
}

func TestProfilesWhereTheyAreWanted(t *testing.T) {
	c := Config{
		Token:   []byte("0123456789abcdef"),
		Profile: true,
		Log:     slog.New(slog.DiscardHandler),
	}
	ask := func(path, authorization string) int {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		source := Source{Metrics: prometheus.NewRegistry()}
		c.handler(newReadiness(nil, c.Log), source).ServeHTTP(w, r)
		return w.Code
	}
	for _, path := range []string{
		"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/pprof/symbol",
	} {
		if got := ask(path, "Bearer 0123456789abcdef"); got != http.StatusOK {
			t.Errorf("%s: %d", path, got)
		}
		if got := ask(path, ""); got != http.StatusUnauthorized {
			t.Errorf("%s without the key: %d", path, got)
		}
		c.Profile = false
		if got := ask(path, "Bearer 0123456789abcdef"); got != http.StatusNotFound {
			t.Errorf("%s, not asked for: %d", path, got)
		}
		c.Profile = true
	}
}
