package transport

import (
	"net/http"
	"net/netip"
	"net/url"
)

// PeerOf describes the client of a connection's first request. X-Forwarded-For of trusted proxies
// is believed.
func PeerOf(r *http.Request, origin string, trusted []netip.Prefix) Peer {
	return Peer{
		Addr:   clientAddr(r, trusted),
		Origin: origin,
		Host:   r.Host,
		TLS:    r.TLS != nil,
	}
}

// CheckOrigin checks a request's Origin header. The license decides about origins at register. Here
// only those are refused that no page with an origin of its own sends: null, file:, and anything
// that is not a serialised origin, unless anyOrigin is set. Without the header the client is not a
// browser, and origin is empty.
func CheckOrigin(r *http.Request, anyOrigin bool) (origin string, ok bool) {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return "", true
	}
	return values[0], anyOrigin || len(values) == 1 && serialisedOrigin(values[0])
}

// maxOrigin is more than a name of 253 bytes needs with any scheme.
const maxOrigin = 512

// serialisedOrigin tells whether o is a scheme and a host, with or without a port (RFC 6454,
// section 6.2). Schemes other than http and https are those of web views and extensions:
// capacitor://localhost, tauri://localhost, chrome-extension://ID.
func serialisedOrigin(o string) bool {
	u, err := url.Parse(o)
	if err != nil || len(o) > maxOrigin || u.Host == "" || u.Hostname() == "" ||
		u.Scheme+"://"+u.Host != o {
		return false
	}
	for _, c := range []byte(o) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	switch u.Scheme {
	case "file", "data", "blob", "about", "javascript", "ws", "wss": // no origin, or not of a page
		return false
	}
	return true
}
