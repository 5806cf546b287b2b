package transport

import (
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
)

// maxProxyWarnings bounds the log: clients can send the headers of a proxy, too.
const maxProxyWarnings = 8

// proxyWarner warns of proxies that --trusted-proxy does not name.
type proxyWarner struct {
	// Static after construction.
	next    http.Handler
	trusted []netip.Prefix
	log     *slog.Logger

	mu   sync.Mutex
	seen []netip.Prefix // networks that were warned of; guarded by mu
}

// WarnUndeclaredProxies returns a handler that calls next for every request, and logs a warning
// about proxies that are not trusted: all users behind such a proxy share its address, and the
// limits of one address.
func WarnUndeclaredProxies(
	next http.Handler, trusted []netip.Prefix, log *slog.Logger,
) http.Handler {
	return &proxyWarner{next: next, trusted: trusted, log: log}
}

// ServeHTTP implements http.Handler.
func (p *proxyWarner) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if hasProxyHeader(r.Header) {
		p.check(r.RemoteAddr)
	}
	p.next.ServeHTTP(w, r)
}

func hasProxyHeader(h http.Header) bool {
	return h["X-Forwarded-For"] != nil || h["Forwarded"] != nil || h["X-Real-Ip"] != nil
}

func (p *proxyWarner) check(remote string) {
	at, err := netip.ParseAddrPort(remote)
	addr := at.Addr().Unmap().WithZone("")
	if err != nil || addr.IsLoopback() || within(addr, p.trusted) {
		return
	}
	network := networkOf(addr)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) >= maxProxyWarnings || slices.Contains(p.seen, network) {
		return
	}
	p.seen = append(p.seen, network)
	p.log.Warn(
		"request with headers of a proxy that is not trusted: "+
			"if the proxy is yours, name its address with --trusted-proxy",
		"network", network.String(),
	)
}

// networkOf is the network of an address as the log may hold it. Clients can send the headers, too,
// and the address of a user is not logged.
func networkOf(a netip.Addr) netip.Prefix {
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits)
	return p
}
