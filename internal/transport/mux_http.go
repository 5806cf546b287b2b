package transport

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
)

type tlsStateKey struct{}

// Serve is srv.Serve for the HTTP connections of the mux. Request.TLS is set for requests over TLS,
// with and without ALPN. Where a certificate is configured, plain requests are redirected to https.
func (m *Mux) Serve(srv *http.Server) error {
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if c, ok := c.(*sniffedTLSConn); ok {
			state := c.ConnectionState()
			return context.WithValue(ctx, tlsStateKey{}, &state)
		}
		return ctx
	}
	m.cfg.HTTP.Watch(srv)
	next := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		state, ok := r.Context().Value(tlsStateKey{}).(*tls.ConnectionState)
		if ok && r.TLS == nil {
			r.TLS = state
		}
		if m.cfg.TLS != nil && r.TLS == nil {
			redirectToHTTPS(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
	return srv.Serve(m)
}

// redirectToHTTPS answers plain HTTP on a port with a certificate. Browsers follow the redirect.
// Programs and WebSockets do not, and get an error that says what to do.
func redirectToHTTPS(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Connection", "close")
	h.Set("Cache-Control", "no-store") // the answer is about the port, not the address
	page := r.Method == http.MethodGet || r.Method == http.MethodHead
	if page && r.Host != "" && r.Header.Get("Upgrade") == "" {
		target := "https://" + r.Host + r.URL.RequestURI()
		http.Redirect(w, r, target, http.StatusTemporaryRedirect)
		return
	}
	const message = "Client sent an HTTP request to an HTTPS server: use https:// or wss://."
	http.Error(w, message, http.StatusBadRequest)
}
