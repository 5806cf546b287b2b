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
	readyWithin = 2 * time.Second // what one look may take
	readyFor    = 5 * time.Second // how long its answer is kept: whoever asks often must cost nothing
)

// readiness answers /readyz. One look at a time is had; who asks meanwhile waits for it.
type readiness struct {
	ready func(context.Context) error
	log   *slog.Logger
	stops atomic.Bool

	one   chan struct{} // has room for who looks; guards what follows
	until time.Time
	fault error
}

func newReadiness(c Config) *readiness {
	r := &readiness{ready: c.Ready, log: c.Log, one: make(chan struct{}, 1)}
	if r.ready == nil {
		r.ready = func(context.Context) error { return nil }
	}
	return r
}

var errStops = errors.New("the server stops")

// look is the answer of now, or of some seconds ago. It does not go by the request that asks: others wait for it too.
func (r *readiness) look() error {
	if r.stops.Load() {
		return errStops
	}
	r.one <- struct{}{}
	defer func() { <-r.one }()
	if time.Now().Before(r.until) {
		return r.fault
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	before := r.fault
	r.fault = r.ready(ctx)
	r.until = time.Now().Add(readyFor)
	switch {
	case r.fault != nil && before == nil:
		r.log.Warn("not ready", "error", r.fault)
	case r.fault == nil && before != nil:
		r.log.Info("ready again")
	}
	return r.fault
}

// ServeHTTP implements http.Handler.
func (r *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err := r.look(); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, err.Error()+"\n")
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// profiles are those of the standard library. Its package also registers them with http.DefaultServeMux, which nobody serves.
func profiles(handle func(path string, h http.HandlerFunc)) {
	handle("/debug/pprof/", pprof.Index)
	handle("/debug/pprof/cmdline", pprof.Cmdline)
	handle("/debug/pprof/profile", pprof.Profile)
	handle("/debug/pprof/symbol", pprof.Symbol)
	handle("/debug/pprof/trace", pprof.Trace)
}
