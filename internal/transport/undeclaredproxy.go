package transport

import (
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/limit"
	"github.com/ieum-rtc/ieum/internal/netaddr"
)

// Clients can send the headers of a proxy, too. So the log is limited, but never for good: a proxy
// that is noticed after many forged headers is still reported.
const (
	proxyWarningBurst    = 8
	proxyWarningInterval = 10 * time.Minute
	maxProxyNetworks     = 64 // that are remembered
)

// proxyWarner warns of proxies that --trusted-proxy does not name.
type proxyWarner struct {
	// Static after construction.
	next    http.Handler
	trusted []netip.Prefix
	log     *slog.Logger
	started time.Time
	rate    limit.Rate

	// Guarded by mu.
	mu       sync.Mutex
	warnings limit.GCRA
	warned   []netip.Prefix       // the most recent ones
	requests map[netip.Prefix]int // of other networks, see count
}

// WarnUndeclaredProxies returns a handler that calls next for every request, and logs a warning
// about proxies that are not trusted: all users behind such a proxy share its address, and the
// limits of one address.
func WarnUndeclaredProxies(
	next http.Handler, trusted []netip.Prefix, log *slog.Logger,
) http.Handler {
	return &proxyWarner{
		next:     next,
		trusted:  trusted,
		log:      log,
		started:  time.Now(),
		rate:     limit.NewRate(1/proxyWarningInterval.Seconds(), proxyWarningBurst),
		requests: map[netip.Prefix]int{},
	}
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
	if err != nil || addr.IsLoopback() || netaddr.Within(addr, p.trusted) {
		return
	}
	network := netaddr.Network(addr)
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Contains(p.warned, network) {
		return
	}
	p.count(network)
	if len(p.requests) == 0 || !p.warnings.Take(time.Since(p.started), p.rate, 1) {
		return
	}
	busiest := p.takeBusiest()
	if len(p.warned) >= maxProxyNetworks {
		p.warned = slices.Delete(p.warned, 0, 1)
	}
	p.warned = append(p.warned, busiest)
	p.log.Warn(
		"request with headers of a proxy that is not trusted: "+
			"if the proxy is yours, name its address with --trusted-proxy",
		"network", busiest.String(),
	)
}

// count counts a request. The table is bounded and still has every network with more than one in
// maxProxyNetworks of the requests, as a proxy has (Misra and Gries). mu is held.
func (p *proxyWarner) count(network netip.Prefix) {
	if _, ok := p.requests[network]; ok || len(p.requests) < maxProxyNetworks {
		p.requests[network]++
		return
	}
	for other := range p.requests {
		if p.requests[other]--; p.requests[other] <= 0 {
			delete(p.requests, other)
		}
	}
}

// takeBusiest removes the network with the most requests. mu is held.
func (p *proxyWarner) takeBusiest() (busiest netip.Prefix) {
	for network, n := range p.requests {
		if n > p.requests[busiest] {
			busiest = network
		}
	}
	delete(p.requests, busiest)
	return busiest
}
