package transport

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// NewHTTPServer makes an HTTP server with the limits that all of ours have: strangers reach them.
func NewHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 60 * time.Second,
		IdleTimeout: 30 * time.Second, // more than clients that poll are silent for
		// Go takes 4 KiB more than it is told.
		MaxHeaderBytes: MaxHeader - 4<<10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReceiveBufferPerConnection: 256 << 10, MaxReceiveBufferPerStream: 128 << 10},
	}
}

// MaxHeader is how long a request's line and headers may be together, about.
const MaxHeader = 16 << 10

type tlsStateKey struct{}

// Serve is srv.Serve for the connections of the switch. Requests that came by TLS say so, with and without ALPN; those that came
// without it where a certificate is there are sent to https.
func (s *Mux) Serve(srv *http.Server) error {
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if c, ok := c.(*sniffedTLSConn); ok {
			state := c.ConnectionState()
			return context.WithValue(ctx, tlsStateKey{}, &state)
		}
		return ctx
	}
	s.cfg.HTTP.Watch(srv)
	next := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if state, ok := r.Context().Value(tlsStateKey{}).(*tls.ConnectionState); ok && r.TLS == nil {
			r.TLS = state
		}
		if s.cfg.TLS != nil && r.TLS == nil {
			redirectToHTTPS(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
	return srv.Serve(s)
}

// sendToHTTPS answers plain HTTP on a port with a certificate: whoever typed the address comes to the right one. Programs, and
// WebSockets, do not follow; they are told.
func redirectToHTTPS(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	w.Header().Set("Cache-Control", "no-store") // it answers the port, not the address
	if (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Host != "" && r.Header.Get("Upgrade") == "" {
		http.Redirect(w, r, "https://"+r.Host+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		return
	}
	http.Error(w, "Client sent an HTTP request to an HTTPS server: use https:// or wss://.", http.StatusBadRequest)
}
