package transport

import (
	"cmp"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/ieum-rtc/ieum/internal/netaddr"
)

// requestLimiter limits the concurrent requests over HTTP/2, by the limits of connections: over
// HTTP/1.1 there is one request per connection. A request whose client does not read its response
// takes as much memory as a connection.
type requestLimiter struct {
	// Static after construction.
	total, perSource int

	rejected atomic.Uint64

	// Guarded by mu.
	mu       sync.Mutex
	open     int                  // of sources
	bySource map[netip.Prefix]int // and by IPv6 site; invalid: the exempt ones. Has no zeros.
}

func newRequestLimiter(l HTTPLimits) *requestLimiter {
	return &requestLimiter{
		total:     cmp.Or(l.Connections, defaultHTTPConns),
		perSource: cmp.Or(l.PerAddress, defaultHTTPPerAddress),
		bySource:  map[netip.Prefix]int{},
	}
}

// limit returns a handler that calls next, or answers 429 at a limit. That response has no body,
// for which a client could let it wait.
func (l *requestLimiter) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(requestConnKey{}).(requestConn)
		if r.ProtoMajor < 2 || !ok {
			next.ServeHTTP(w, r)
			return
		}
		if !l.acquire(c.entry.source) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		defer l.add(c.entry.source, -1)
		next.ServeHTTP(w, r)
	})
}

// acquire counts a request of a source, or returns false. At the total limit a site without a
// request still gets one, so that a few sites cannot keep out others.
func (l *requestLimiter) acquire(source netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, site := l.bySource[source], l.bySource[netaddr.Site(source)]
	full := n >= l.perSource || site >= l.perSource*SourcesPerSite || l.open >= l.total && site > 0
	if !source.IsValid() { // of a proxy or loopback
		full = n >= l.total
	}
	if full {
		l.rejected.Add(1)
		return false
	}
	l.addLocked(source, 1)
	return true
}

// add adds n requests of a source; n may be negative.
func (l *requestLimiter) add(source netip.Prefix, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addLocked(source, n)
}

// addLocked is add with mu held.
func (l *requestLimiter) addLocked(source netip.Prefix, n int) {
	count := func(p netip.Prefix) {
		if l.bySource[p] += n; l.bySource[p] == 0 {
			delete(l.bySource, p)
		}
	}
	count(source)
	if !source.IsValid() {
		return
	}
	l.open += n
	if site := netaddr.Site(source); site != source {
		count(site)
	}
}
