// Package admin serves what operators and their monitoring ask: /metrics in the form of Prometheus, /healthz and /readyz, and profiles
// where they are wanted. It has a listener of its own, by default on loopback: figures say who uses the server and how much.
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// minKey keeps keys from being guessed.
const minKey = 16

// Config of a listener for operators.
type Config struct {
	// Listen is "host:port", TCP.
	Listen string
	// Key, when given, is asked for as "Authorization: Bearer KEY"; /healthz and /readyz need none. A listener that is not on loopback must have
	// one, of 16 bytes at least.
	Key []byte
	// Metrics are what /metrics shows.
	Metrics prometheus.Gatherer
	// Ready tells why the server cannot serve calls; nil: it can. It is given two seconds, and its answer is kept for five.
	Ready func(context.Context) error
	// Profile serves /debug/pprof/.
	Profile bool
	// Watch bounds the connections of the server that is to be started; nil: nothing does.
	Watch func(*http.Server)
	Log   *slog.Logger
}

// ErrKey is part of every fault of the key.
var ErrKey = errors.New("the key is too short")

// Validate tells everything that is wrong. It opens nothing.
func (c Config) Validate() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("%q is not of the form host:port", c.Listen)
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case len(c.Key) > 0 && len(c.Key) < minKey:
		return fmt.Errorf("%w: it has %d bytes, at least %d are needed", ErrKey, len(c.Key), minKey)
	case len(c.Key) == 0 && (err != nil || !ip.IsLoopback()):
		return errors.New("other machines can reach it: give a key, or an address of loopback")
	}
	return nil
}

// Server is a listener that serves until Close.
type Server struct {
	listen  net.Listener
	http    *http.Server
	ready   *readiness
	serving sync.WaitGroup
}

// Start opens the listener and serves.
func Start(c Config) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, err
	}
	s := &Server{listen: l, ready: newReadiness(c)}
	s.http = &http.Server{
		Handler: c.handler(s.ready), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: c.longest(),
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 12 << 10, ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	if c.Watch != nil {
		c.Watch(s.http)
	}
	s.serving.Go(func() {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			c.Log.Error("metrics are served no longer", "error", err)
		}
	})
	return s, nil
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.listen.Addr() }

// Stops says that the server is ready no longer, while it ends what it has.
func (s *Server) Stops() { s.ready.stops.Store(true) }

// Close returns when nothing is served any more, or soon after ctx is done.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close() // who asks for figures comes again
	}
	s.serving.Wait()
	return err
}

// longest is how long an answer may take: a profile is measured for half a minute when nobody says how long.
func (c Config) longest() time.Duration {
	if c.Profile {
		return 2 * time.Minute
	}
	return 30 * time.Second
}

func (c Config) handler(ready http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /readyz", ready)
	if c.Profile {
		profiles(func(path string, h http.HandlerFunc) { mux.Handle("GET "+path, c.guard(h)) })
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.Handle("GET /metrics", c.guard(promhttp.HandlerFor(c.Metrics, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelWarn),
	})))
	return mux
}

// guard lets in whoever has the key. Without one it is the address that protects, and a page in a browser of this machine must not get
// round it by a name of its own that points to loopback.
func (c Config) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case len(c.Key) == 0 && !ByAddress(r.Host):
			http.Error(w, "Ask by address: this name is not known here.", http.StatusForbidden)
		case len(c.Key) > 0 && !c.knows(r.Header.Get("Authorization")):
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "A key is required.", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (c Config) knows(authorization string) bool {
	scheme, key, _ := strings.Cut(authorization, " ")
	got, want := sha256.Sum256([]byte(key)), sha256.Sum256(c.Key)
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// ByAddress tells whether a request's Host is an address, or localhost. Another name may be one that its owner has pointed here, so that
// pages of that name read the answer (DNS rebinding).
func ByAddress(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	_, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil || name == "localhost"
}
