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

// CheckOrigin judges a request's Origin header. Which origins a license allows is decided at register; here only what no page of
// a web site sends is refused, unless anyOrigin is set. No header at all means that no browser is asking: origin is then empty.
func CheckOrigin(r *http.Request, anyOrigin bool) (origin string, ok bool) {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return "", true
	}
	o := values[0]
	u, err := url.Parse(o)
	ok = err == nil && len(values) == 1 && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.Scheme+"://"+u.Host == o
	return o, ok || anyOrigin
}
