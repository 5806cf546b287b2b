package transport

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/netaddr"
)

// SourcesPerSite is how many times the limit of one Source all sources of a Site may have together.
const SourcesPerSite = 4

// connSetLimits bound a connSet.
type connSetLimits struct {
	total         int
	perSource     int            // of one Source; a Site may have SourcesPerSite times as many
	idlePerSource int            // idle ones of these; 0: no limit of their own
	exempt        []netip.Prefix // proxies: like loopback, their connections count in total only
	slowAfter     time.Duration  // how long an active connection is safe from eviction
}

// connSet is a bounded set of connections with fair eviction: at the total limit a new connection
// evicts one of the site that has most, so that a client that opens many cannot keep out others.
//
// A connection is idle (nothing is lost by closing it) or active. An idle one is evicted at once,
// an active one when it is slow, or when its site has more connections than that of the new one.
type connSet struct {
	// Static after construction.
	limits  connSetLimits
	onEvict func(*entry) // closes the connection of an evicted entry; mu is held, must not block

	// Guarded by mu, as are the entries.
	mu          sync.Mutex
	lists       [2]list.List // of *entry by state, longest in the state first
	sources     map[netip.Prefix]*sourceCount
	sites       map[netip.Prefix]*siteConns
	bySize      []*list.List // of *siteConns by n, longest of that size first
	largestSize int          // no site has more
}

// sourceCount counts the connections of one source.
type sourceCount struct{ n, idle int }

// siteConns are the connections of one site.
type siteConns struct {
	site  netip.Prefix
	n     int
	lists [2]list.List // of *entry by state, longest in the state first

	sizeElement *list.Element // in connSet.bySize[n]
}

// The states, indices of the lists.
const (
	activeList = 0
	idleList   = 1
)

// entry is one connection of a connSet.
type entry struct {
	// Static after construction.
	conn   net.Conn
	source netip.Prefix // invalid: only the total limit applies

	// Guarded by connSet.mu.
	since       time.Time // of the state
	siteConns   *siteConns
	state       int
	suspensions int           // requests that suspend the limit
	left        bool          // removed or evicted for good
	element     *list.Element // in connSet.lists; nil: not in the set
	siteElement *list.Element // in siteConns.lists
}

func newConnSet(limits connSetLimits, onEvict func(*entry)) *connSet {
	return &connSet{
		limits:  limits,
		onEvict: onEvict,
		sources: map[netip.Prefix]*sourceCount{},
		sites:   map[netip.Prefix]*siteConns{},
		bySize:  []*list.List{list.New()},
	}
}

// add adds a connection, which may evict another. It returns nil when no place can be had.
func (s *connSet) add(conn net.Conn, state int) *entry {
	e := &entry{
		conn:   conn,
		source: s.sourceOf(conn.RemoteAddr()),
		since:  time.Now(),
		state:  state,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.makeRoom(e) {
		return nil
	}
	s.link(e)
	return e
}

// sourceOf returns the source to which the limits per source and site apply; invalid: there is
// none.
func (s *connSet) sourceOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := tcp.AddrPort().Addr().Unmap()
	if netaddr.Within(addr, s.limits.exempt) {
		return netip.Prefix{}
	}
	return netaddr.Source(addr)
}

// remove removes an entry for good. It returns false when the entry has been evicted.
func (s *connSet) remove(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.left = true
	return s.unlink(e) || e.suspensions > 0
}

// suspend takes an entry out while something else counts its connection. Each call needs a call of
// resume.
func (s *connSet) suspend(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.suspensions == 0 && !s.unlink(e) {
		e.left = true // it has been evicted
	}
	e.suspensions++
}

// resume puts a suspended entry back. It is never refused: the connection was admitted before.
func (s *connSet) resume(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.suspensions--; e.suspensions == 0 && !e.left {
		e.since = time.Now()
		s.link(e)
	}
}

// setState changes the state of an entry. Where its source or site then has too many idle
// connections, the longest idle one of them is evicted.
func (s *connSet) setState(e *entry, state int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.unlink(e) {
		e.state = state // of a suspended one
		return
	}
	e.state, e.since = state, time.Now()
	s.link(e)
	most := s.limits.idlePerSource
	if state != idleList || most == 0 || e.siteConns == nil {
		return
	}
	if s.sources[e.source].idle > most {
		s.evict(e.siteConns.oldest(idleList, e.source))
	}
	if idle := e.siteConns.lists[idleList].Len(); idle > most*SourcesPerSite {
		s.evict(e.siteConns.oldest(idleList, netip.Prefix{}))
	}
}

// evictIdle evicts the longest idle entry, if there is one: descriptors have run out.
func (s *connSet) evictIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.evictElement(s.lists[idleList].Front())
}

// evictAll evicts all entries.
func (s *connSet) evictAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.lists {
		for s.evictElement(s.lists[i].Front()) {
			continue
		}
	}
}

// count returns the number of active and idle entries.
func (s *connSet) count() (active, idle int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists[activeList].Len(), s.lists[idleList].Len()
}

// mu is held for all that follows.

// makeRoom tells whether e may be added, and evicts another entry if that is needed.
func (s *connSet) makeRoom(e *entry) bool {
	if e.source.IsValid() {
		perSource, site := s.limits.perSource, s.sites[netaddr.Site(e.source)]
		c := s.sources[e.source]
		if c != nil && c.n >= perSource && !s.evictFromSite(site, e.source, e) {
			return false
		}
		if site != nil && site.n >= perSource*SourcesPerSite &&
			!s.evictFromSite(site, netip.Prefix{}, e) {
			return false
		}
	}
	if s.lists[activeList].Len()+s.lists[idleList].Len() < s.limits.total {
		return true
	}
	siteSize := 0 // of the site of e
	if e.source.IsValid() {
		if site := s.sites[netaddr.Site(e.source)]; site != nil {
			siteSize = site.n
		}
	}
	if largest := s.largestSite(); largest != nil && largest.n > siteSize+1 {
		if s.evictElement(largest.lists[idleList].Front()) ||
			s.evictElement(largest.lists[activeList].Front()) {
			return true
		}
	}
	return s.evictElement(s.lists[idleList].Front()) ||
		s.evictIfSlow(s.lists[activeList].Front(), e)
}

// evictFromSite makes room for e by evicting an entry of its site, or of its source if that is
// valid.
func (s *connSet) evictFromSite(site *siteConns, source netip.Prefix, e *entry) bool {
	if idle := site.oldest(idleList, source); idle != nil {
		s.evict(idle)
		return true
	}
	active := site.oldest(activeList, source)
	if active == nil || e.since.Sub(active.since) < s.limits.slowAfter {
		return false
	}
	s.evict(active)
	return true
}

// largestSite returns the site with the most connections, of several the one that has had so many
// for longest; nil: there is none.
func (s *connSet) largestSite() *siteConns {
	if front := s.bySize[s.largestSize].Front(); front != nil {
		return front.Value.(*siteConns)
	}
	return nil
}

// evictElement evicts the entry of a list's element; nil: there is none.
func (s *connSet) evictElement(at *list.Element) bool {
	if at == nil {
		return false
	}
	s.evict(at.Value.(*entry))
	return true
}

func (s *connSet) evictIfSlow(at *list.Element, added *entry) bool {
	if at == nil || added.since.Sub(at.Value.(*entry).since) < s.limits.slowAfter {
		return false
	}
	return s.evictElement(at)
}

func (s *connSet) evict(e *entry) {
	s.unlink(e)
	s.onEvict(e)
}

// oldest returns the entry that has been in the state for longest, of one source if that is valid.
// A site has at most SourcesPerSite times the limit of a source, which bounds the search.
func (c *siteConns) oldest(state int, source netip.Prefix) *entry {
	for at := c.lists[state].Front(); at != nil; at = at.Next() {
		if e := at.Value.(*entry); !source.IsValid() || e.source == source {
			return e
		}
	}
	return nil
}

// link puts e into the lists and counts it.
func (s *connSet) link(e *entry) {
	e.element = s.lists[e.state].PushBack(e)
	if !e.source.IsValid() {
		return
	}
	key := netaddr.Site(e.source)
	site := s.sites[key]
	if site == nil {
		site = &siteConns{site: key}
		s.sites[key] = site
	}
	e.siteConns, e.siteElement = site, site.lists[e.state].PushBack(e)
	s.resize(site, site.n+1)
	c := s.sources[e.source]
	if c == nil {
		c = &sourceCount{}
		s.sources[e.source] = c
	}
	c.n++
	c.idle += e.state // idleList is 1
}

// unlink undoes link. It returns false when e is not in the lists.
func (s *connSet) unlink(e *entry) bool {
	if e.element == nil {
		return false
	}
	s.lists[e.state].Remove(e.element)
	e.element = nil
	site := e.siteConns
	if site == nil {
		return true
	}
	site.lists[e.state].Remove(e.siteElement)
	e.siteConns, e.siteElement = nil, nil
	if s.resize(site, site.n-1); site.n == 0 {
		delete(s.sites, site.site)
	}
	c := s.sources[e.source]
	c.idle -= e.state
	if c.n--; c.n == 0 {
		delete(s.sources, e.source)
	}
	return true
}

// resize keeps bySize and largestSize up to date.
func (s *connSet) resize(site *siteConns, n int) {
	if site.n > 0 {
		s.bySize[site.n].Remove(site.sizeElement)
	}
	for len(s.bySize) <= n {
		s.bySize = append(s.bySize, list.New())
	}
	if site.n = n; n > 0 {
		site.sizeElement = s.bySize[n].PushBack(site)
		s.largestSize = max(s.largestSize, n)
	}
	for s.largestSize > 0 && s.bySize[s.largestSize].Len() == 0 {
		s.largestSize--
	}
}
