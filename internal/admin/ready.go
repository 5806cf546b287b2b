package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"
)

const (
	checkTimeout = 2 * time.Second
	cacheFor     = 5 * time.Second // frequent requests must cost nothing
)

// readiness serves /readyz. Concurrent requests share one check.
type readiness struct {
	check    func(context.Context) error
	log      *slog.Logger
	stopping atomic.Bool
	draining atomic.Bool

	mu    chan struct{} // a mutex that synctest takes for durably blocking
	until time.Time     // Guarded by mu.
	err   error         // Guarded by mu. Result of the last check, valid until then.
}

func newReadiness(check func(context.Context) error, log *slog.Logger) *readiness {
	r := &readiness{check: check, log: log, mu: make(chan struct{}, 1)}
	if r.check == nil {
		r.check = func(context.Context) error { return nil }
	}
	return r
}

var (
	errStopping = errors.New("the server is shutting down")
	errDraining = errors.New("the server is draining: it takes no new clients and will stop")
)

// ready returns the result of a check, which may be some seconds old. It does not use the context
// of a request, since other requests wait for the same check.
func (r *readiness) ready() error {
	if r.stopping.Load() {
		return errStopping
	}
	if r.draining.Load() {
		return errDraining
	}
	r.mu <- struct{}{}
	defer func() { <-r.mu }()
	if time.Now().Before(r.until) {
		return r.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	before := r.err
	r.err = r.check(ctx)
	r.until = time.Now().Add(cacheFor)
	switch {
	case r.err != nil && before == nil:
		r.log.Warn("not ready", "error", r.err)
	case r.err == nil && before != nil:
		r.log.Info("ready again")
	}
	return r.err
}

// ServeHTTP implements http.Handler.
func (r *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err := r.ready(); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, err.Error()+"\n")
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// profiles registers the handlers of net/http/pprof. That package also registers them with
// http.DefaultServeMux, which is not served.
func profiles(handle func(path string, h http.HandlerFunc)) {
	handle("/debug/pprof/", pprof.Index)
	handle("/debug/pprof/cmdline", pprof.Cmdline)
	handle("/debug/pprof/profile", pprof.Profile)
	handle("/debug/pprof/symbol", pprof.Symbol)
	handle("/debug/pprof/trace", pprof.Trace)
}
