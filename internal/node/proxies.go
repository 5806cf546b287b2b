package node

import (
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
)

// maxProxyWarnings bounds what clients, which can send a proxy's headers themselves, can write into the log.
const maxProxyWarnings = 8

// proxyWatch warns of proxies that --trusted-proxy does not name: all users behind such a proxy share its address, and the limits of
// one address.
type proxyWatch struct {
	next    http.Handler
	trusted []netip.Prefix
	log     *slog.Logger

	mu   sync.Mutex
	seen []netip.Prefix // networks that were warned of; guarded by mu
}

func (p *proxyWatch) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if hasProxyHeader(r.Header) {
		p.check(r.RemoteAddr)
	}
	p.next.ServeHTTP(w, r)
}

func hasProxyHeader(h http.Header) bool {
	return h["X-Forwarded-For"] != nil || h["Forwarded"] != nil || h["X-Real-Ip"] != nil
}

func (p *proxyWatch) check(remote string) {
	at, err := netip.ParseAddrPort(remote)
	addr := at.Addr().Unmap().WithZone("")
	if err != nil || addr.IsLoopback() || slices.ContainsFunc(p.trusted, func(t netip.Prefix) bool { return t.Contains(addr) }) {
		return
	}
	network := networkOf(addr)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) >= maxProxyWarnings || slices.Contains(p.seen, network) {
		return
	}
	p.seen = append(p.seen, network)
	p.log.Warn("request with headers of a proxy that is not trusted: if the proxy is yours, name its address with --trusted-proxy",
		"network", network.String())
}

// networkOf is what the log may hold: clients can send the headers too, and a user's address is not logged.
func networkOf(a netip.Addr) netip.Prefix {
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits)
	return p
}
