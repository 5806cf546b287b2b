package relay

import (
	"slices"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/limit"
)

// Quota bounds the allocations that there may be at one time. One with two relayed addresses counts
// twice. Zero means the default named; -1 no limit.
type Quota struct {
	Session int // 64: a browser allocates once for each TURN URL of each connection
	// Tenant is by default a quarter of Total: one license, which may stand in a public page, does
	// not take all. By default a license that has been alone for a day may take more, but leaves
	// the share of one other license free (see quota.tenantLimit).
	Tenant int
	// Of one client address (IPv6: /64), 1,000: an office may sit behind one; an IPv6 /48 has four
	// times that.
	Source int
	Total  int // 10,000

	tenantByDefault bool // Tenant was zero
}

// licenseMemory is how long the quota remembers that another license asked for an allocation.
const licenseMemory = 24 * time.Hour

// prefixShare is how many times the quota of an address the /48 around it has.
const prefixShare = 4

// Defaults of Quota.
const (
	DefaultSessionQuota = 64
	DefaultSourceQuota  = 1000
	DefaultTotalQuota   = 10_000
)

func (q Quota) withDefaults() Quota {
	set := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	set(&q.Session, DefaultSessionQuota)
	set(&q.Source, DefaultSourceQuota)
	set(&q.Total, DefaultTotalQuota)
	share := -1
	if q.Total > 0 {
		share = (q.Total + 3) / 4
	}
	q.tenantByDefault = q.tenantByDefault || q.Tenant == 0
	set(&q.Tenant, share)
	return q
}

// quotaKey is what an allocation is counted by.
type quotaKey struct {
	session, tenant string
	source          source
}

// sessionUsage is what the allocations of a session share: a number, a rate at which they are made,
// and a bandwidth each way.
type sessionUsage struct {
	allocations int        // guarded by quota.mu
	recovering  bool       // guarded by quota.mu: it is in quota.recovering
	made        limit.GCRA // of allocationRate
	up, down    limit.GCRA
}

// allocationRate is how often a session may allocate, also if it ends each allocation at once. A
// page with eight connections that gathers candidates again makes some 30.
var allocationRate = limit.NewRate(4, 256)

// isRecovered reports whether the whole bandwidth and burst are available: nothing was relayed and
// allocated lately.
func (s *sessionUsage) isRecovered(now time.Duration) bool {
	return s.made.Until() <= now && s.up.Until() <= now && s.down.Until() <= now
}

// tenantRequest is when a license last asked for an allocation.
type tenantRequest struct {
	tenant string
	at     time.Duration // since the relay started
}

// recoveringSession is a session without an allocation whose use of bandwidth and allocations
// still counts: its next allocation must not begin with a whole burst. A session is listed once,
// however often it ends its last allocation.
type recoveringSession struct {
	session string
	until   time.Duration
}

// quota counts what is held.
type quota struct {
	limit Quota

	mu sync.Mutex
	// Guarded by mu, like all that follow; those without an allocation are in recovering.
	sessions   map[string]*sessionUsage
	recovering []recoveringSession // oldest first
	tenants    map[string]int      // the maps have no zeros
	sources    map[source]int      //
	prefixes   map[source]int      // of IPv6 alone
	total      int                 //

	// The two licenses that asked for allocations last, the latest first.
	latest [2]tenantRequest
}

func newQuota(limit Quota) *quota {
	return &quota{
		limit:    limit,
		sessions: map[string]*sessionUsage{},
		tenants:  map[string]int{},
		sources:  map[source]int{},
		prefixes: map[source]int{},
	}
}

// acquire counts an allocation of n relay sockets by each limit, or by none if one is reached: nil.
func (q *quota) acquire(s quotaKey, n int, now time.Duration) *sessionUsage {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.evictRecovered(now)
	full := func(held, limit int) bool { return limit >= 0 && held+n > limit }
	tenantLimit := q.tenantLimit(s.tenant, now)
	usage := q.sessions[s.session]
	if usage == nil {
		usage = &sessionUsage{}
	}
	switch {
	case full(usage.allocations, q.limit.Session),
		full(q.tenants[s.tenant], tenantLimit),
		full(q.sources[s.source], q.limit.Source),
		full(q.prefixes[s.source.prefix()], prefixShare*q.limit.Source),
		full(q.total, q.limit.Total),
		q.limit.Session >= 0 && !usage.made.Take(now, allocationRate, 1):
		return nil
	}
	usage.allocations += n
	q.sessions[s.session] = usage
	q.tenants[s.tenant] += n
	q.sources[s.source] += n
	if s.source.is6() {
		q.prefixes[s.source.prefix()] += n
	}
	q.total += n
	return usage
}

// tenantLimit bounds the allocations of a license that asks for one. By default a license that is
// alone may have all but the share of another license: the next one to come, also right after a
// restart or a quiet day, finds its share free. mu is held.
func (q *quota) tenantLimit(tenant string, now time.Duration) int {
	limit := q.limit.Tenant
	if q.limit.tenantByDefault && limit >= 0 && q.alone(tenant, now) {
		limit = max(limit, q.limit.Total-limit)
	}
	return limit
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

// release takes back what acquire has counted.
func (q *quota) release(s quotaKey, n int, now time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if usage := q.sessions[s.session]; usage.allocations > n {
		usage.allocations -= n
	} else if usage.allocations = 0; usage.recovering {
		// The list has it, and forgets it.
	} else if usage.isRecovered(now) {
		delete(q.sessions, s.session)
	} else {
		usage.recovering = true
		q.recovering = append(q.recovering, recoveringSession{s.session, now + burstTime})
	}
	subtract(q.tenants, s.tenant, n)
	subtract(q.sources, s.source, n)
	if s.source.is6() {
		subtract(q.prefixes, s.source.prefix(), n)
	}
	q.total -= n
}

// evictRecovered forgets sessions without an allocation once they have recovered. What
// is left when no client comes any more are those of the last moment. mu is held.
func (q *quota) evictRecovered(now time.Duration) {
	n := 0
	for n < len(q.recovering) && q.recovering[n].until <= now {
		name := q.recovering[n].session
		usage := q.sessions[name]
		n++
		switch usage.recovering = false; {
		case usage.allocations > 0: // again
		case usage.isRecovered(now):
			delete(q.sessions, name)
		default: // it allocates at the limit, or another worker with a later clock relayed to it
			usage.recovering = true
			q.recovering = append(q.recovering, recoveringSession{name, now + burstTime})
		}
	}
	q.recovering = slices.Delete(q.recovering, 0, n)
}

// subtract takes n from a count and forgets it when none is left.
func subtract[K comparable](m map[K]int, k K, n int) {
	if m[k] -= n; m[k] <= 0 {
		delete(m, k)
	}
}
