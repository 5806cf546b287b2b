package transport

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
)

// ConnLimiterConfig bounds what may be connected. The zero value of a number means its default, a negative one no limit.
type ConnLimiterConfig struct {
	// Strangers are connections of one Source whose user is not known yet, default 50; those of a site with many sources may be four
	// times that.
	Unregistered int
	// Connections are all of them, default 50,000. Clients that say that they resume find room for an eighth more: what is shed under
	// load is new, never a session that goes on.
	Connections int
	// Known is told how many users more, or less, are connected from an address. It must not block, and may be nil.
	OnRegistered func(addr netip.Addr, n int)
}

// ConnLimiter counts connections, of all carriers together. Its table has one entry for each address with a stranger, which the number of
// connections bounds, and a stranger is known or gone when the login's time is up.
type ConnLimiter struct {
	maxUnregistered, maxConnections int
	onRegistered                    func(netip.Addr, int)

	mu       sync.Mutex // guards what follows
	open     int
	bySource map[netip.Prefix]int // strangers of each source, and of each IPv6 site; has no zeros

	rejectedUnregistered, rejectedConnections atomic.Uint64
}

// ConnLimiterStats count what was refused.
type ConnLimiterStats struct {
	Unregistered uint64 // an address had too many
	Connections  uint64 // there were too many in all
}

// NewConnLimiter makes a limiter.
func NewConnLimiter(c ConnLimiterConfig) *ConnLimiter {
	if c.Unregistered == 0 {
		c.Unregistered = 50
	}
	if c.Connections == 0 {
		c.Connections = 50_000
	}
	if c.OnRegistered == nil {
		c.OnRegistered = func(netip.Addr, int) {}
	}
	return &ConnLimiter{maxUnregistered: c.Unregistered, maxConnections: c.Connections, onRegistered: c.OnRegistered, bySource: map[netip.Prefix]int{}}
}

// MaxConnections is the most that may be connected, but for those that resume; negative: there is no limit.
func (g *ConnLimiter) MaxConnections() int { return g.maxConnections }

// Acquire counts a connection of a stranger. A status other than 0 is the HTTP answer that refuses it: it is not counted then. reserve
// tells that it got a place that is kept for those who resume.
func (g *ConnLimiter) Acquire(addr netip.Addr, resumes bool) (status int, reserve bool) {
	if g == nil {
		return 0, false
	}
	source := Source(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.maxConnections > 0 && g.open >= g.maxConnections {
		if reserve = true; !resumes || g.open >= g.maxConnections+g.maxConnections/8+1 {
			g.rejectedConnections.Add(1)
			return http.StatusServiceUnavailable, false
		}
	}
	if g.tooManyUnregistered(source, reserve) {
		g.rejectedUnregistered.Add(1)
		return http.StatusTooManyRequests, false
	}
	g.open++
	g.addUnregistered(source, 1)
	return 0, reserve
}

// tooManyUnregistered tells whether a source, or the site it is in, has as many strangers as it may. In the reserve it may have few: everybody can say
// that it resumes, and only its login shows whether that is so.
func (g *ConnLimiter) tooManyUnregistered(source netip.Prefix, reserve bool) bool {
	if g.maxUnregistered <= 0 || !source.IsValid() {
		return false
	}
	most := g.maxUnregistered
	if reserve {
		most = most/8 + 1
	}
	return g.bySource[source] >= most || g.bySource[Site(source)] >= most*SourcesPerSite
}

// count adds n strangers of a source, or takes them away.
func (g *ConnLimiter) addUnregistered(source netip.Prefix, n int) {
	add := func(p netip.Prefix) {
		if g.bySource[p] += n; g.bySource[p] <= 0 {
			delete(g.bySource, p)
		}
	}
	if !source.IsValid() {
		return
	}
	add(source)
	if site := Site(source); site != source {
		add(site)
	}
}

// MarkRegistered says that one stranger of the address is a user now.
func (g *ConnLimiter) MarkRegistered(addr netip.Addr) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.addUnregistered(Source(addr), -1)
	g.onRegistered(addr.Unmap(), 1)
}

// Release says that a connection has ended; stranger: its user never became known.
func (g *ConnLimiter) Release(addr netip.Addr, stranger bool) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	if stranger {
		g.addUnregistered(Source(addr), -1)
	} else {
		g.onRegistered(addr.Unmap(), -1)
	}
}

// Source is whom a limit by address counts: an IPv4 address, or the /64 of an IPv6 address, since whoever has one address of it has
// all. It is invalid, and there is no limit, for loopback: that is where a proxy is that nobody told us of, with everybody behind it.
func Source(a netip.Addr) netip.Prefix {
	if a = a.Unmap().WithZone(""); a.IsLoopback() {
		return netip.Prefix{}
	}
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}

// Site is what one party may have many sources in: the /48 of an IPv6 source, which is what a site is given (RFC 6177). An IPv4
// address is its own site.
func Site(source netip.Prefix) netip.Prefix {
	if source.Addr().Is4() {
		return source
	}
	p, _ := source.Addr().Prefix(48)
	return p
}

// Open is how many are connected.
func (g *ConnLimiter) Open() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// Stats counts.
func (g *ConnLimiter) Stats() ConnLimiterStats {
	return ConnLimiterStats{Unregistered: g.rejectedUnregistered.Load(), Connections: g.rejectedConnections.Load()}
}

// Resumes tells whether an upgrade announces that a session goes on: /signal?resume. Who lies gets a place in the reserve of a full
// server until its login shows it (see Peer.Reserve).
func Resumes(r *http.Request) bool { return r.URL.Query().Has("resume") }

// rejectUpgrade is the answer to whom the gate does not let in.
func rejectUpgrade(w http.ResponseWriter, status int) {
	why, after := "Too many connections of your address wait for their login: try again in a moment.", "10"
	if status == http.StatusServiceUnavailable {
		why, after = "The server is full: try again later.", "30"
	}
	w.Header().Set("Retry-After", after)
	http.Error(w, why, status)
}

// registerer is what a Conn has that counts as a stranger's until its user is known.
type registerer interface{ MarkRegistered() }

// MarkRegistered says that the connection's user is known.
func MarkRegistered(c Conn) {
	if a, ok := c.(registerer); ok {
		a.MarkRegistered()
	}
}

// clientAddr is the address of whoever sent the request. What proxies say counts only as far as they are trusted: the header is read
// from its end, where the nearest proxy wrote, up to the first address that is no trusted proxy. Whatever stands before that, the
// client may have written itself.
func clientAddr(r *http.Request, trusted []netip.Prefix) netip.AddrPort {
	direct, _ := netip.ParseAddrPort(r.RemoteAddr)
	direct = netip.AddrPortFrom(direct.Addr().Unmap(), direct.Port())
	if len(trusted) == 0 || !within(direct.Addr(), trusted) {
		return direct
	}
	addr := direct
	lines := r.Header.Values("X-Forwarded-For")
	for i := len(lines) - 1; i >= 0; i-- {
		hops := strings.Split(lines[i], ",")
		for j := len(hops) - 1; j >= 0; j-- {
			hop, err := parseHop(strings.TrimSpace(hops[j]))
			if err != nil {
				return addr
			}
			addr = netip.AddrPortFrom(hop, 0)
			if !within(hop, trusted) {
				return addr
			}
		}
	}
	return addr
}

// parseHop reads an address; some proxies write the port too.
func parseHop(text string) (netip.Addr, error) {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr().Unmap().WithZone(""), nil
	}
	a, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return a.Unmap().WithZone(""), err
}

func within(a netip.Addr, list []netip.Prefix) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
