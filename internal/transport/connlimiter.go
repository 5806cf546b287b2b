package transport

import (
	"cmp"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/ieum-rtc/ieum/internal/netaddr"
)

// Defaults of ConnLimiterConfig.
const (
	DefaultUnregistered = 50
	DefaultConnections  = 50_000
)

// ConnLimiterConfig has the limits of a ConnLimiter. The zero value of a number means its default,
// a negative one no limit.
type ConnLimiterConfig struct {
	// Unregistered limits the unregistered connections of one Source. A Site may have
	// SourcesPerSite times as many.
	Unregistered int
	// Connections limits all of them, default 50,000. Clients that announce a resume may have an
	// eighth more: under load new sessions are refused, not those that continue.
	Connections int
	// Closed tells whether clients that do not announce a resume are rejected for the time being.
	// It must not block. It may be nil.
	Closed func() bool
	// OnRegistered is told how many more or fewer registered connections an address has. It must
	// not block. It may be nil.
	OnRegistered func(addr netip.Addr, n int)
}

// ConnLimiter counts connections, of all transports together. Its table has an entry for each
// address with an unregistered connection. The number of connections bounds it, and a connection
// registers or is closed when the time for that is up.
type ConnLimiter struct {
	// Static after construction.
	maxUnregistered, maxConnections int
	closed                          func() bool
	onRegistered                    func(netip.Addr, int)

	draining atomic.Bool

	// Guarded by mu.
	mu       sync.Mutex
	open     int
	bySource map[netip.Prefix]int // unregistered, by source and by IPv6 site; has no zeros

	rejected *rejectedConns
}

// rejectedConns counts rejected connections, by limit.
type rejectedConns struct{ unregistered, connections, closed atomic.Uint64 }

// ConnLimiterStats counts rejected connections, by limit.
type ConnLimiterStats struct {
	Unregistered uint64 // of one address
	Connections  uint64 // in total
}

// NewConnLimiter returns a ConnLimiter without connections.
func NewConnLimiter(c ConnLimiterConfig) *ConnLimiter {
	if c.OnRegistered == nil {
		c.OnRegistered = func(netip.Addr, int) {}
	}
	if c.Closed == nil {
		c.Closed = func() bool { return false }
	}
	return &ConnLimiter{
		maxUnregistered: cmp.Or(c.Unregistered, DefaultUnregistered),
		maxConnections:  cmp.Or(c.Connections, DefaultConnections),
		closed:          c.Closed,
		onRegistered:    c.OnRegistered,
		bySource:        map[netip.Prefix]int{},
		rejected:        &rejectedConns{},
	}
}

// Separate returns a ConnLimiter with the limits of l for connections that l does not count. Its
// rejections are among those of l, and it has no OnRegistered.
func (l *ConnLimiter) Separate() *ConnLimiter {
	if l == nil {
		return nil
	}
	s := NewConnLimiter(ConnLimiterConfig{
		Unregistered: l.maxUnregistered,
		Connections:  l.maxConnections,
	})
	s.rejected = l.rejected
	return s
}

// Drain rejects all further connections, also of clients that resume: this server is about to stop,
// and another one has a place for them.
func (l *ConnLimiter) Drain() { l.draining.Store(true) }

// MaxConnections is the limit for connections that do not resume; negative: there is none.
func (l *ConnLimiter) MaxConnections() int { return l.maxConnections }

// Acquire counts an unregistered connection. A status other than 0 is the HTTP status that rejects
// it; then it is not counted. reserve tells that it has a place that is reserved for clients that
// resume.
func (l *ConnLimiter) Acquire(addr netip.Addr, resumes bool) (status int, reserve bool) {
	if l == nil {
		return 0, false
	}
	if l.draining.Load() || !resumes && l.closed() {
		l.rejected.closed.Add(1)
		return http.StatusServiceUnavailable, false
	}
	source := netaddr.Source(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.maxConnections > 0 && l.open >= l.maxConnections {
		reserve = true
		if !resumes || l.open >= l.maxConnections+l.maxConnections/8+1 {
			l.rejected.connections.Add(1)
			return http.StatusServiceUnavailable, false
		}
	}
	if l.tooManyUnregistered(source, reserve) {
		l.rejected.unregistered.Add(1)
		return http.StatusTooManyRequests, false
	}
	l.open++
	l.addUnregistered(source, 1)
	return 0, reserve
}

// tooManyUnregistered tells whether a source or its site is at the limit. The limit in the reserve
// is low: any client can announce a resume, and only register shows whether that is true. mu is
// held.
func (l *ConnLimiter) tooManyUnregistered(source netip.Prefix, reserve bool) bool {
	if l.maxUnregistered <= 0 || !source.IsValid() {
		return false
	}
	most := l.maxUnregistered
	if reserve {
		most = most/8 + 1
	}
	return l.bySource[source] >= most || l.bySource[netaddr.Site(source)] >= most*SourcesPerSite
}

// addUnregistered adds n unregistered connections of a source; n may be negative. mu is held.
func (l *ConnLimiter) addUnregistered(source netip.Prefix, n int) {
	add := func(p netip.Prefix) {
		if l.bySource[p] += n; l.bySource[p] <= 0 {
			delete(l.bySource, p)
		}
	}
	if !source.IsValid() {
		return
	}
	add(source)
	if site := netaddr.Site(source); site != source {
		add(site)
	}
}

// MarkRegistered says that a connection of the address has registered.
func (l *ConnLimiter) MarkRegistered(addr netip.Addr) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addUnregistered(netaddr.Source(addr), -1)
	l.onRegistered(addr.Unmap(), 1)
}

// Release says that a connection has ended, and whether it had registered.
func (l *ConnLimiter) Release(addr netip.Addr, registered bool) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if registered {
		l.onRegistered(addr.Unmap(), -1)
	} else {
		l.addUnregistered(netaddr.Source(addr), -1)
	}
}

// Open is the number of connections now.
func (l *ConnLimiter) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// Stats returns the current counts.
func (l *ConnLimiter) Stats() ConnLimiterStats {
	return ConnLimiterStats{
		Unregistered: l.rejected.unregistered.Load(),
		Connections:  l.rejected.connections.Load(),
	}
}

// Resumes tells whether a handshake announces a resume: /signal?resume. A client that lies gets a
// place in the reserve of a full server until its register shows it (see Peer.Reserve).
func Resumes(r *http.Request) bool { return r.URL.Query().Has("resume") }

// rejectUpgrade answers a handshake with the status that Acquire returned.
func (l *ConnLimiter) rejectUpgrade(w http.ResponseWriter, status int) {
	message := "Too many unregistered connections from your address: try again in a moment."
	after := "10"
	switch {
	case l.draining.Load():
		message, after = "This server is about to stop: another one takes over.", "1"
	case status == http.StatusServiceUnavailable:
		message, after = "The server takes no more clients now: try again later.", "30"
	}
	w.Header().Set("Retry-After", after)
	http.Error(w, message, status)
}

// registerer is a Conn that counts as unregistered until MarkRegistered.
type registerer interface{ MarkRegistered() }

// MarkRegistered says that the client of c has registered.
func MarkRegistered(c Conn) {
	if r, ok := c.(registerer); ok {
		r.MarkRegistered()
	}
}
