package relay

import (
	"slices"
	"sync"
	"time"
)

// Quota bounds the allocations that there may be at one time. Zero means the default named; -1 no limit.
type Quota struct {
	Session int // 64: a browser allocates once for each TURN URL of each connection
	// Tenant is by default a quarter of Total: one license, which may stand in a public page, does not
	// take all. The default does not bind a license that has been alone for a day (see quota.alone).
	Tenant int
	Source int // of one client address (IPv6: /64), 1,000: an office may sit behind one; an IPv6 /48 has four times that
	Total  int // 10,000

	tenantByDefault bool // Tenant was zero
}

// licenseMemory is how long the quota remembers that another license asked for an allocation.
const licenseMemory = 24 * time.Hour

// prefixShare is how many times the quota of an address the /48 around it has.
const prefixShare = 4

func (q Quota) withDefaults() Quota {
	set := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	set(&q.Session, 64)
	set(&q.Source, 1000)
	set(&q.Total, 10000)
	share := -1
	if q.Total > 0 {
		share = (q.Total + 3) / 4
	}
	q.tenantByDefault = q.tenantByDefault || q.Tenant == 0
	set(&q.Tenant, share)
	return q
}

// seat is what an allocation is counted by.
type seat struct {
	session, tenant string
	source          source
}

// shared is what the allocations of a session share: a number, and a bandwidth each way.
type shared struct {
	held     int // guarded by quota.mu
	up, down bucket
}

// rested tells that nothing has been relayed lately.
func (s *shared) rested(now time.Duration) bool { return s.up.isFull(now) && s.down.isFull(now) }

// tenantRequest is when a license last asked for an allocation.
type tenantRequest struct {
	tenant string
	at     time.Duration // since the relay started
}

// resting is a session without an allocation whose bandwidth is not forgotten yet: another allocation would get it whole again.
type resting struct {
	session string
	until   time.Duration
}

// quota counts what is held.
type quota struct {
	limit Quota

	mu       sync.Mutex
	sessions map[string]*shared // guarded by mu, like all that follow; those that hold nothing are in resting
	resting  []resting          // oldest first
	tenants  map[string]int     // the maps have no zeros
	sources  map[source]int     //
	prefixes map[source]int     // of IPv6 alone
	total    int                //

	// The two licenses that asked for allocations last, the latest first.
	latest [2]tenantRequest
}

func newQuota(limit Quota) *quota {
	return &quota{
		limit: limit, sessions: map[string]*shared{}, tenants: map[string]int{}, sources: map[source]int{}, prefixes: map[source]int{},
	}
}

// take takes one of each, or nothing: nil.
func (q *quota) take(s seat, now time.Duration) *shared {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.forget(now)
	full := func(held, limit int) bool { return limit >= 0 && held >= limit }
	tenantLimit := q.limit.Tenant
	if q.limit.tenantByDefault && q.alone(s.tenant, now) {
		tenantLimit = -1
	}
	own := q.sessions[s.session]
	if own == nil {
		own = &shared{}
	}
	if full(own.held, q.limit.Session) || full(q.tenants[s.tenant], tenantLimit) ||
		full(q.sources[s.source], q.limit.Source) || full(q.prefixes[s.source.prefix()], prefixShare*q.limit.Source) ||
		full(q.total, q.limit.Total) {
		return nil
	}
	own.held++
	q.sessions[s.session] = own
	q.tenants[s.tenant]++
	q.sources[s.source]++
	if s.source.is6() {
		q.prefixes[s.source.prefix()]++
	}
	q.total++
	return own
}

// alone notes that a license asks for an allocation, and reports whether no other license has asked
// for licenseMemory. Readiness checks of the server itself do not count. mu is held.
func (q *quota) alone(tenant string, now time.Duration) bool {
	if tenant == selfTenant {
		return false
	}
	if q.latest[0].tenant != tenant {
		q.latest[0], q.latest[1] = tenantRequest{tenant: tenant}, q.latest[0]
	}
	q.latest[0].at = now
	other := q.latest[1]
	return other.tenant == "" || now-other.at >= licenseMemory
}

func (q *quota) give(s seat, now time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if own := q.sessions[s.session]; own.held > 1 {
		own.held--
	} else if own.held = 0; own.rested(now) {
		delete(q.sessions, s.session)
	} else {
		q.resting = append(q.resting, resting{s.session, now + burstTime})
	}
	less(q.tenants, s.tenant)
	less(q.sources, s.source)
	if s.source.is6() {
		less(q.prefixes, s.source.prefix())
	}
	q.total--
}

// forget drops sessions that have rested. What is left when nobody comes any more are those of the last moment. mu is held.
func (q *quota) forget(now time.Duration) {
	n := 0
	for n < len(q.resting) && q.resting[n].until <= now {
		// It may hold something again, or rest for a second time, further back.
		name := q.resting[n].session
		if own := q.sessions[name]; own != nil && own.held == 0 {
			if own.rested(now) {
				delete(q.sessions, name)
			} else { // another worker, whose clock was read a moment later, has relayed to it
				q.resting = append(q.resting, resting{name, now + burstTime})
			}
		}
		n++
	}
	q.resting = slices.Delete(q.resting, 0, n)
}

// less takes one from a count and forgets it when none is left.
func less[K comparable](m map[K]int, k K) {
	if m[k]--; m[k] <= 0 {
		delete(m, k)
	}
}
