package transport

import (
	"net/http"
	"net/netip"
	"net/url"
)

// PeerOf reads from a connection's first request who is at the other end; trusted are the proxies whose word counts.
func PeerOf(r *http.Request, origin string, trusted []netip.Prefix) Peer {
	return Peer{Addr: clientAddr(r, trusted), Origin: origin, Host: r.Host, TLS: r.TLS != nil}
}

// CheckOrigin judges a request's Origin header. Which origins a license allows is decided at register; here only what no page with an
// origin of its own sends is refused (null, file:, and what is no serialised origin), unless anyOrigin is set. No header at all means
// that no browser is asking: origin is then empty.
func CheckOrigin(r *http.Request, anyOrigin bool) (origin string, ok bool) {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return "", true
	}
	return values[0], anyOrigin || len(values) == 1 && serialisedOrigin(values[0])
}

// maxOrigin is more than a name of 253 bytes needs with any scheme.
const maxOrigin = 512

// serialisedOrigin tells whether o is a scheme and a host, with a port or without (RFC 6454, section 6.2). Schemes other than http and
// https are those of web views and extensions: capacitor://localhost, tauri://localhost, chrome-extension://ID.
func serialisedOrigin(o string) bool {
	u, err := url.Parse(o)
	if err != nil || len(o) > maxOrigin || u.Host == "" || u.Hostname() == "" || u.Scheme+"://"+u.Host != o {
		return false
	}
	for _, c := range []byte(o) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	switch u.Scheme {
	case "file", "data", "blob", "about", "javascript", "ws", "wss": // have no origin, or are that of no page
		return false
	}
	return true
}
