package relay

import (
	"net/netip"
	"sync"
)

// Quota bounds the allocations that there may be at one time. Zero means the default named; -1 no limit.
type Quota struct {
	Session int // 64: a browser allocates once for each TURN URL of each connection
	Tenant  int // no limit of its own
	Source  int // of one client address (IPv6: /64), 1,000: an office may sit behind one
	Total   int // 10,000
}

func (q Quota) withDefaults() Quota {
	set := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	set(&q.Session, 64)
	set(&q.Tenant, -1)
	set(&q.Source, 1000)
	set(&q.Total, 10000)
	return q
}

// quota counts what is held.
type quota struct {
	limit Quota

	mu       sync.Mutex
	sessions map[string]int       // guarded by mu, like all that follow; the maps have no zeros
	tenants  map[string]int       //
	sources  map[netip.Prefix]int //
	total    int                  //
}

func newQuota(limit Quota) *quota {
	return &quota{limit: limit, sessions: map[string]int{}, tenants: map[string]int{}, sources: map[netip.Prefix]int{}}
}

// take takes one of each, or nothing.
func (q *quota) take(session, tenant string, source netip.Prefix) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	full := func(held, limit int) bool { return limit >= 0 && held >= limit }
	if full(q.sessions[session], q.limit.Session) || full(q.tenants[tenant], q.limit.Tenant) ||
		full(q.sources[source], q.limit.Source) || full(q.total, q.limit.Total) {
		return false
	}
	q.sessions[session]++
	q.tenants[tenant]++
	q.sources[source]++
	q.total++
	return true
}

func (q *quota) give(session, tenant string, source netip.Prefix) {
	q.mu.Lock()
	defer q.mu.Unlock()
	less(q.sessions, session)
	less(q.tenants, tenant)
	less(q.sources, source)
	q.total--
}

// less takes one from a count and forgets it when none is left.
func less[K comparable](m map[K]int, k K) {
	if m[k]--; m[k] <= 0 {
		delete(m, k)
	}
}
