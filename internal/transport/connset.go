package transport

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"
)

// SourcesPerSite is how many times the limit of one Source all sources of a Site may have together.
const SourcesPerSite = 4

// crowd bounds connections of which nobody knows yet whose they are: in all, of one source, and of one site. When it is full, a
// newcomer takes the place of one of whoever has most, so that no one who opens many keeps out another who opens one.
//
// An entry is spare (nothing would be lost by closing it) or busy. A spare one makes room at once, a busy one when it is slow, or when
// its holder has more than the newcomer's.
type connSet struct {
	maxTotal         int            // in all
	maxPerSource     int            // busy and spare
	maxIdlePerSource int            // spare of one source; 0: no limit of their own
	exempt           []netip.Prefix // as loopback is: proxies, with everybody behind them
	slowAfter        time.Duration
	onEvict          func(*entry) // closes the connection of an entry that has made room; called with mu held, must not block

	mu          sync.Mutex // guards what follows, and the entries
	lists       [2]list.List
	sources     map[netip.Prefix]*sourceCount
	sites       map[netip.Prefix]*siteConns
	bySize      []map[*siteConns]struct{} // index: entries that the holder has
	largestSize int                       // no holder has more
}

// tally counts the entries of one source.
type sourceCount struct{ n, idle int }

// holder is a site with its entries.
type siteConns struct {
	site  netip.Prefix
	n     int
	lists [2]list.List // by state, longest in it first
}

// Indices of the lists.
const (
	activeList = 0
	idleList   = 1
)

// entry is one connection.
type entry struct {
	conn  net.Conn
	since time.Time // of its state

	source      netip.Prefix // invalid: only the limit in all counts
	siteConns   *siteConns   // nil: exempt
	state       int
	suspensions int           // how many requests keep it out
	left        bool          // it does not come back
	element     *list.Element // nil: not in the crowd
	siteElement *list.Element
}

func newConnSet(most, ofSource, spareOf int, exempt []netip.Prefix, slow time.Duration, departed func(*entry)) *connSet {
	return &connSet{
		maxTotal: most, maxPerSource: ofSource, maxIdlePerSource: spareOf, exempt: exempt, slowAfter: slow, onEvict: departed,
		sources: map[netip.Prefix]*sourceCount{}, sites: map[netip.Prefix]*siteConns{}, bySize: []map[*siteConns]struct{}{{}},
	}
}

// enter takes a connection in, if need be in another's place. It returns nil when there is no room.
func (k *connSet) add(conn net.Conn, state int) *entry {
	e := &entry{conn: conn, state: state, since: time.Now(), source: k.sourceOf(conn.RemoteAddr())}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.makeRoom(e) {
		return nil
	}
	k.link(e)
	return e
}

// limited is the source of a connection that the limit by source concerns; invalid: it does not.
func (k *connSet) sourceOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := tcp.AddrPort().Addr().Unmap()
	if within(addr.WithZone(""), k.exempt) {
		return netip.Prefix{}
	}
	return Source(addr)
}

// leave takes an entry out for good. It returns false when it had to make room before.
func (k *connSet) remove(e *entry) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	e.left = true
	return k.unlink(e) || e.suspensions > 0
}

// excuse takes an entry out for as long as something else counts it; each call needs one of resume.
func (k *connSet) suspend(e *entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.suspensions == 0 && !k.unlink(e) {
		e.left = true // it had to make room
	}
	e.suspensions++
}

// resume takes an excused entry in again. It is not refused: it has been let in before.
func (k *connSet) resume(e *entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.suspensions--; e.suspensions == 0 && !e.left {
		e.since = time.Now()
		k.link(e)
	}
}

// turn changes the state of an entry. One that makes too many spare ones of its source costs the longest spare its place.
func (k *connSet) setState(e *entry, state int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.unlink(e) {
		e.state = state // of an excused one
		return
	}
	e.state, e.since = state, time.Now()
	k.link(e)
	if state != idleList || k.maxIdlePerSource == 0 || e.siteConns == nil {
		return
	}
	if k.sources[e.source].idle > k.maxIdlePerSource {
		k.evict(e.siteConns.oldest(idleList, e.source))
	}
	if siteSpare := e.siteConns.lists[idleList].Len(); siteSpare > k.maxIdlePerSource*SourcesPerSite {
		k.evict(e.siteConns.oldest(idleList, netip.Prefix{}))
	}
}

// relieve closes the longest spare entry, if there is one: descriptors have run out.
func (k *connSet) evictIdle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	front := k.lists[idleList].Front()
	if front != nil {
		k.evict(front.Value.(*entry))
	}
	return front != nil
}

// clear has all entries depart.
func (k *connSet) evictAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.lists {
		for e := k.lists[i].Front(); e != nil; e = k.lists[i].Front() {
			k.evict(e.Value.(*entry))
		}
	}
}

// count is how many are busy and spare.
func (k *connSet) count() (busy, spare int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lists[activeList].Len(), k.lists[idleList].Len()
}

// What follows is called with mu held.

// makeRoom tells whether e may come in, which may cost another its place.
func (k *connSet) makeRoom(e *entry) bool {
	if e.source.IsValid() {
		site := k.sites[Site(e.source)]
		if t := k.sources[e.source]; t != nil && t.n >= k.maxPerSource && !k.evictFromSite(site, e.source, e) {
			return false
		}
		if site != nil && site.n >= k.maxPerSource*SourcesPerSite && !k.evictFromSite(site, netip.Prefix{}, e) {
			return false
		}
	}
	if k.lists[activeList].Len()+k.lists[idleList].Len() < k.maxTotal {
		return true
	}
	mine := 0
	if e.source.IsValid() {
		if h := k.sites[Site(e.source)]; h != nil {
			mine = h.n
		}
	}
	if h := k.largestSite(); h != nil && h.n > mine+1 {
		if k.evictElement(h.lists[idleList].Front()) || k.evictElement(h.lists[activeList].Front()) {
			return true
		}
	}
	return k.evictElement(k.lists[idleList].Front()) || k.evictIfSlow(k.lists[activeList].Front(), e)
}

// replace makes room for e among those of its own site, or of one source of it.
func (k *connSet) evictFromSite(h *siteConns, source netip.Prefix, e *entry) bool {
	if spare := h.oldest(idleList, source); spare != nil {
		k.evict(spare)
		return true
	}
	busy := h.oldest(activeList, source)
	if busy == nil || e.since.Sub(busy.since) < k.slowAfter {
		return false
	}
	k.evict(busy)
	return true
}

// greatest is a holder that no other has more than.
func (k *connSet) largestSite() *siteConns {
	for h := range k.bySize[k.largestSize] {
		return h
	}
	return nil
}

func (k *connSet) evictElement(at *list.Element) bool {
	if at == nil {
		return false
	}
	k.evict(at.Value.(*entry))
	return true
}

func (k *connSet) evictIfSlow(at *list.Element, newcomer *entry) bool {
	if at == nil || newcomer.since.Sub(at.Value.(*entry).since) < k.slowAfter {
		return false
	}
	return k.evictElement(at)
}

func (k *connSet) evict(e *entry) {
	k.unlink(e)
	k.onEvict(e)
}

// oldest is the entry that has been in the state for longest, of one source if it is valid. A holder has at most SourcesPerSite times the
// limit of a source, so that the search ends soon.
func (h *siteConns) oldest(state int, source netip.Prefix) *entry {
	for at := h.lists[state].Front(); at != nil; at = at.Next() {
		if e := at.Value.(*entry); !source.IsValid() || e.source == source {
			return e
		}
	}
	return nil
}

func (k *connSet) link(e *entry) {
	e.element = k.lists[e.state].PushBack(e)
	if !e.source.IsValid() {
		return
	}
	site := Site(e.source)
	h := k.sites[site]
	if h == nil {
		h = &siteConns{site: site}
		k.sites[site] = h
	}
	e.siteConns, e.siteElement = h, h.lists[e.state].PushBack(e)
	k.resize(h, h.n+1)
	t := k.sources[e.source]
	if t == nil {
		t = &sourceCount{}
		k.sources[e.source] = t
	}
	t.n++
	t.idle += e.state // spareList is 1
}

// remove returns false when e is not in.
func (k *connSet) unlink(e *entry) bool {
	if e.element == nil {
		return false
	}
	k.lists[e.state].Remove(e.element)
	e.element = nil
	h := e.siteConns
	if h == nil {
		return true
	}
	h.lists[e.state].Remove(e.siteElement)
	e.siteConns, e.siteElement = nil, nil
	if k.resize(h, h.n-1); h.n == 0 {
		delete(k.sites, h.site)
	}
	t := k.sources[e.source]
	t.idle -= e.state
	if t.n--; t.n == 0 {
		delete(k.sources, e.source)
	}
	return true
}

// resize keeps bySize and largest right.
func (k *connSet) resize(h *siteConns, n int) {
	if h.n > 0 {
		delete(k.bySize[h.n], h)
	}
	for len(k.bySize) <= n {
		k.bySize = append(k.bySize, map[*siteConns]struct{}{})
	}
	if h.n = n; n > 0 {
		k.bySize[n][h] = struct{}{}
		k.largestSize = max(k.largestSize, n)
	}
	for k.largestSize > 0 && len(k.bySize[k.largestSize]) == 0 {
		k.largestSize--
	}
}
