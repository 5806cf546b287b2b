package signaling

import (
	"encoding/base64"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/ieum-rtc/ieum/internal/limit"
	"github.com/ieum-rtc/ieum/internal/netaddr"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// origin is what stands for the address that a session registered from, and for the network around
// it, where that is kept: nobody learns an address from it. Empty: limits by address do not count
// the session. The site of an IPv4 address is empty.
type origin struct{ Source, Site string }

// addressSessions counts the sessions of each address, of those whose license admits without a user
// token: a visitor with a license out of a page could else take all places that it has. A session
// counts for where it registered until it ends, wherever it resumes.
type addressSessions struct {
	// Of a source, negative: none; a site has transport.SourcesPerSite times as much.
	limit    int
	rejected atomic.Uint64 // refusals

	mu     sync.Mutex
	counts map[userKey]int // tenant, and Source or Site of an origin
}

// add counts a session, and tells whether it is within the limit.
func (c *addressSessions) add(tenant string, o origin) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	source := c.count(userKey{tenant, o.Source}, 1)
	site := c.count(userKey{tenant, o.Site}, 1)
	return c.limit < 0 || source <= c.limit && site <= c.limit*transport.SourcesPerSite
}

func (c *addressSessions) remove(tenant string, o origin) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count(userKey{tenant, o.Source}, -1)
	c.count(userKey{tenant, o.Site}, -1)
}

// count is called with mu held.
func (c *addressSessions) count(k userKey, n int) int {
	if k.id == "" {
		return 0
	}
	if c.counts == nil {
		c.counts = map[userKey]int{}
	}
	if c.counts[k] += n; c.counts[k] == 0 {
		delete(c.counts, k)
	}
	return c.counts[k]
}

func (h *Hub) originOf(source netip.Prefix) (o origin) {
	if !source.IsValid() {
		return o
	}
	name := func(p netip.Prefix) string {
		sum := mac(h.keys.Load().resume[0], "source "+p.String())
		return base64.RawURLEncoding.EncodeToString(sum[:9])
	}
	o.Source = name(source)
	if site := netaddr.Site(source); site != source {
		o.Site = name(site)
	}
	return o
}

// tenantsPerSource is how many times a tenant's limit all tenants together have at one address: a
// page of one tenant cannot lock out the users of another behind the same NAT, and an address still
// costs no more than a few tenants may.
const tenantsPerSource = 4

// addressLimiter is a tally by tenant and address, and by tenant and the network around the
// address, which may have transport.SourcesPerSite times as much; and by both for all tenants
// together.
type addressLimiter struct {
	sources, sites       *limit.FixedWindow[tenantPrefix]
	allSources, allSites *limit.FixedWindow[netip.Prefix]
}

type tenantPrefix struct {
	tenant string
	prefix netip.Prefix
}

func newAddressLimiter(perMinute int) addressLimiter {
	all := perMinute * tenantsPerSource
	return addressLimiter{
		sources:    limit.NewFixedWindow[tenantPrefix](perMinute),
		sites:      limit.NewFixedWindow[tenantPrefix](perMinute * transport.SourcesPerSite),
		allSources: limit.NewFixedWindow[netip.Prefix](all),
		allSites:   limit.NewFixedWindow[netip.Prefix](all * transport.SourcesPerSite),
	}
}

// exceeded tells whether a source or its site has reached a limit, and counts a refusal if so. What
// is not valid has none.
func (t addressLimiter) exceeded(tenant string, source netip.Prefix) bool {
	if !source.IsValid() {
		return false
	}
	site := netaddr.Site(source)
	return t.sources.Exceeded(tenantPrefix{tenant, source}) ||
		t.sites.Exceeded(tenantPrefix{tenant, site}) ||
		t.allSources.Exceeded(source) || t.allSites.Exceeded(site)
}

// reached is spent without counting a refusal.
func (t addressLimiter) reached(tenant string, source netip.Prefix) bool {
	if !source.IsValid() {
		return false
	}
	site := netaddr.Site(source)
	return t.sources.Reached(tenantPrefix{tenant, source}) ||
		t.sites.Reached(tenantPrefix{tenant, site}) ||
		t.allSources.Reached(source) || t.allSites.Reached(site)
}

func (t addressLimiter) add(tenant string, source netip.Prefix) {
	if !source.IsValid() {
		return
	}
	site := netaddr.Site(source)
	t.sources.Add(tenantPrefix{tenant, source})
	t.sites.Add(tenantPrefix{tenant, site})
	t.allSources.Add(source)
	t.allSites.Add(site)
}

// rejected counts refusals.
func (t addressLimiter) rejected() uint64 {
	return t.sources.Rejected() + t.sites.Rejected() +
		t.allSources.Rejected() + t.allSites.Rejected()
}
