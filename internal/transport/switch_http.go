package transport

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
)

type tlsKey struct{}

// Serve is srv.Serve for the connections of the switch. Requests that came by TLS say so, with and without ALPN; those that came
// without it where a certificate is there are sent to https.
func (s *Switch) Serve(srv *http.Server) error {
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if c, ok := c.(*earlyTLS); ok {
			state := c.ConnectionState()
			return context.WithValue(ctx, tlsKey{}, &state)
		}
		return ctx
	}
	next := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if state, ok := r.Context().Value(tlsKey{}).(*tls.ConnectionState); ok && r.TLS == nil {
			r.TLS = state
		}
		if s.cfg.TLS != nil && r.TLS == nil {
			sendToHTTPS(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
	return srv.Serve(s)
}

// sendToHTTPS answers plain HTTP on a port with a certificate: whoever typed the address comes to the right one. Programs, and
// WebSockets, do not follow; they are told.
func sendToHTTPS(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	if (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Host != "" && r.Header.Get("Upgrade") == "" {
		http.Redirect(w, r, "https://"+r.Host+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		return
	}
	http.Error(w, "Client sent an HTTP request to an HTTPS server: use https:// or wss://.", http.StatusBadRequest)
}
