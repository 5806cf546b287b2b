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
		h := c.handler(ready, prometheus.NewRegistry())
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
		ready.stopping.Store(true)
		if code, text := ask(); code != http.StatusServiceUnavailable ||
			text != "the server is shutting down\n" ||
			looks != 3 {
			t.Errorf("%d %q after %d looks, from a server that shuts down", code, text, looks)
		}
	})
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
		c.handler(newReadiness(nil, c.Log), prometheus.NewRegistry()).ServeHTTP(w, r)
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
