// Package admin serves operators and their monitoring: /metrics in Prometheus format, /healthz,
// /readyz, and optionally profiles. It has its own listener, by default on loopback, because
// metrics reveal how the server is used.
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

	"github.com/ieum-rtc/ieum/internal/transport"
)

// minToken is the minimum length of a token, against guessing.
const minToken = 16

// Config configures the admin listener.
type Config struct {
	// Listen is "host:port", TCP.
	Listen string
	// Token, if set, is required as "Authorization: Bearer TOKEN", except for /healthz and /readyz.
	// It has at least 16 bytes, and must be set unless Listen is on loopback.
	Token []byte
	// Profile serves /debug/pprof/.
	Profile bool
	// Optional lets the server run without this listener if Listen is in use, most likely by
	// another server of this machine.
	Optional bool
	Log      *slog.Logger
}

// Source is what the listener serves.
type Source struct {
	Metrics prometheus.Gatherer // exported at /metrics
	// Ready returns why the server cannot serve calls; nil: it can. Its context ends after two
	// seconds. The result is cached for five. A nil function is always ready.
	Ready func(context.Context) error
	// Drain is called by POST /drain, which requires the token. It must not wait. A nil function is
	// not served.
	Drain func()
}

// Of all clients at a time; monitoring keeps one connection or two.
var connLimits = transport.HTTPLimits{Connections: 64, PerAddress: 32, IdlePerAddress: 16}

// ErrToken is wrapped by all errors of the token.
var ErrToken = errors.New("the token is too short")

// Validate checks the configuration without opening anything.
func (c Config) Validate() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("%q is not of the form host:port", c.Listen)
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case len(c.Token) > 0 && len(c.Token) < minToken:
		return fmt.Errorf(
			"%w: it has %d bytes, at least %d are required",
			ErrToken, len(c.Token), minToken,
		)
	case len(c.Token) == 0 && (err != nil || !ip.IsLoopback()):
		return errors.New(
			"other machines can reach this address: set a token, or use a loopback address",
		)
	}
	return nil
}

// Server serves until Close. Its fields are static after Start.
type Server struct {
	listener net.Listener
	http     *http.Server
	ready    *readiness
	wg       sync.WaitGroup
}

// Start opens the listener and serves. The server is nil without a configuration, and if an
// optional listener cannot be opened.
func Start(c *Config, source Source) (*Server, error) {
	if c == nil {
		return nil, nil
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil && c.Optional {
		c.Log.Warn("metrics are not served", "listen", c.Listen, "error", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s := &Server{listener: l, ready: newReadiness(source.Ready, c.Log)}
	s.http = transport.NewHTTPServer(c.handler(s.ready, source), c.Log)
	s.http.WriteTimeout = c.writeTimeout()
	s.http.IdleTimeout = 2 * time.Minute // longer than the interval of a scrape
	transport.NewHTTPConns(connLimits).Watch(s.http)
	s.wg.Go(func() {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			c.Log.Error("admin listener failed", "error", err)
		}
	})
	return s, nil
}

// Addr is the address of the listener.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// SetStopping makes /readyz fail from now on, while the server shuts down.
func (s *Server) SetStopping() { s.ready.stopping.Store(true) }

// SetDraining makes /readyz fail from now on, while clients go to other servers.
func (s *Server) SetDraining() { s.ready.draining.Store(true) }

// Close shuts the listener down. Requests that are still open when ctx is done are cut off.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close() // monitoring retries
	}
	s.wg.Wait()
	return err
}

// writeTimeout allows for a profile, which takes half a minute by default.
func (c Config) writeTimeout() time.Duration {
	if c.Profile {
		return 2 * time.Minute
	}
	return 30 * time.Second
}

func (c Config) handler(ready http.Handler, source Source) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /readyz", ready)
	if c.Profile {
		profiles(func(path string, h http.HandlerFunc) { mux.Handle("GET "+path, c.guard(h)) })
	}
	mux.HandleFunc("GET /healthz", transport.ServeHealth)
	mux.Handle("GET /metrics", c.guard(promhttp.HandlerFor(source.Metrics, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4,
		ErrorLog:            slog.NewLogLogger(c.Log.Handler(), slog.LevelWarn),
	})))
	if source.Drain != nil {
		mux.Handle("POST /drain", c.guard(c.serveDrain(source.Drain)))
	}
	return mux
}

// serveDrain requires a token even on loopback: any web page in a browser of this machine can have
// it send a POST, but no page can add the token.
func (c Config) serveDrain(drain func()) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if len(c.Token) == 0 {
			http.Error(w, "Set --admin-token-file, or send SIGTERM.", http.StatusForbidden)
			return
		}
		drain()
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "draining\n")
	}
}

// guard requires the token. Without one the loopback address protects, so that a web page in a
// browser of this machine must not get in by a host name that points to loopback (DNS rebinding).
func (c Config) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case len(c.Token) == 0 && !transport.ByAddress(r.Host):
			http.Error(w, "Forbidden host: use an IP address or localhost.", http.StatusForbidden)
		case len(c.Token) > 0 && !c.authorized(r.Header.Get("Authorization")):
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "A bearer token is required.", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (c Config) authorized(header string) bool {
	scheme, token, _ := strings.Cut(header, " ")
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256(c.Token)
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}
