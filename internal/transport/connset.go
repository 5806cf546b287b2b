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
type crowd struct {
	most       int            // in all
	ofSource   int            // busy and spare
	spareOf    int            // spare of one source; 0: no limit of their own
	exempt     []netip.Prefix // as loopback is: proxies, with everybody behind them
	slow       time.Duration
	onDeparted func(*entry) // closes the connection of an entry that has made room; called with mu held, must not block

	mu      sync.Mutex // guards what follows, and the entries
	all     [2]list.List
	sources map[netip.Prefix]*tally
	sites   map[netip.Prefix]*holder
	bySize  []map[*holder]struct{} // index: entries that the holder has
	largest int                    // no holder has more
}

// tally counts the entries of one source.
type tally struct{ n, spare int }

// holder is a site with its entries.
type holder struct {
	site netip.Prefix
	n    int
	own  [2]list.List // by state, longest in it first
}

// Indices of the lists.
const (
	busyList  = 0
	spareList = 1
)

// entry is one connection.
type entry struct {
	conn  net.Conn
	since time.Time // of its state

	source  netip.Prefix // invalid: only the limit in all counts
	holder  *holder      // nil: exempt
	state   int
	excused int           // how many requests keep it out
	gone    bool          // it does not come back
	inAll   *list.Element // nil: not in the crowd
	inOwn   *list.Element
}

func newCrowd(most, ofSource, spareOf int, exempt []netip.Prefix, slow time.Duration, departed func(*entry)) *crowd {
	return &crowd{
		most: most, ofSource: ofSource, spareOf: spareOf, exempt: exempt, slow: slow, onDeparted: departed,
		sources: map[netip.Prefix]*tally{}, sites: map[netip.Prefix]*holder{}, bySize: []map[*holder]struct{}{{}},
	}
}

// enter takes a connection in, if need be in another's place. It returns nil when there is no room.
func (k *crowd) enter(conn net.Conn, state int) *entry {
	e := &entry{conn: conn, state: state, since: time.Now(), source: k.limited(conn.RemoteAddr())}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.makeRoom(e) {
		return nil
	}
	k.add(e)
	return e
}

// limited is the source of a connection that the limit by source concerns; invalid: it does not.
func (k *crowd) limited(a net.Addr) netip.Prefix {
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
func (k *crowd) leave(e *entry) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	e.gone = true
	return k.remove(e) || e.excused > 0
}

// excuse takes an entry out for as long as something else counts it; each call needs one of resume.
func (k *crowd) excuse(e *entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.excused == 0 && !k.remove(e) {
		e.gone = true // it had to make room
	}
	e.excused++
}

// resume takes an excused entry in again. It is not refused: it has been let in before.
func (k *crowd) resume(e *entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.excused--; e.excused == 0 && !e.gone {
		e.since = time.Now()
		k.add(e)
	}
}

// turn changes the state of an entry. One that makes too many spare ones of its source costs the longest spare its place.
func (k *crowd) turn(e *entry, state int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.remove(e) {
		e.state = state // of an excused one
		return
	}
	e.state, e.since = state, time.Now()
	k.add(e)
	if state != spareList || k.spareOf == 0 || e.holder == nil {
		return
	}
	if k.sources[e.source].spare > k.spareOf {
		k.depart(e.holder.oldest(spareList, e.source))
	}
	if siteSpare := e.holder.own[spareList].Len(); siteSpare > k.spareOf*SourcesPerSite {
		k.depart(e.holder.oldest(spareList, netip.Prefix{}))
	}
}

// relieve closes the longest spare entry, if there is one: descriptors have run out.
func (k *crowd) relieve() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	front := k.all[spareList].Front()
	if front != nil {
		k.depart(front.Value.(*entry))
	}
	return front != nil
}

// clear has all entries depart.
func (k *crowd) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.all {
		for e := k.all[i].Front(); e != nil; e = k.all[i].Front() {
			k.depart(e.Value.(*entry))
		}
	}
}

// count is how many are busy and spare.
func (k *crowd) count() (busy, spare int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.all[busyList].Len(), k.all[spareList].Len()
}

// What follows is called with mu held.

// makeRoom tells whether e may come in, which may cost another its place.
func (k *crowd) makeRoom(e *entry) bool {
	if e.source.IsValid() {
		site := k.sites[Site(e.source)]
		if t := k.sources[e.source]; t != nil && t.n >= k.ofSource && !k.replace(site, e.source, e) {
			return false
		}
		if site != nil && site.n >= k.ofSource*SourcesPerSite && !k.replace(site, netip.Prefix{}, e) {
			return false
		}
	}
	if k.all[busyList].Len()+k.all[spareList].Len() < k.most {
		return true
	}
	mine := 0
	if e.source.IsValid() {
		if h := k.sites[Site(e.source)]; h != nil {
			mine = h.n
		}
	}
	if h := k.greatest(); h != nil && h.n > mine+1 {
		if k.departOldest(h.own[spareList].Front()) || k.departOldest(h.own[busyList].Front()) {
			return true
		}
	}
	return k.departOldest(k.all[spareList].Front()) || k.departSlow(k.all[busyList].Front(), e)
}

// replace makes room for e among those of its own site, or of one source of it.
func (k *crowd) replace(h *holder, source netip.Prefix, e *entry) bool {
	if spare := h.oldest(spareList, source); spare != nil {
		k.depart(spare)
		return true
	}
	busy := h.oldest(busyList, source)
	if busy == nil || e.since.Sub(busy.since) < k.slow {
		return false
	}
	k.depart(busy)
	return true
}

// greatest is a holder that no other has more than.
func (k *crowd) greatest() *holder {
	for h := range k.bySize[k.largest] {
		return h
	}
	return nil
}

func (k *crowd) departOldest(at *list.Element) bool {
	if at == nil {
		return false
	}
	k.depart(at.Value.(*entry))
	return true
}

func (k *crowd) departSlow(at *list.Element, newcomer *entry) bool {
	if at == nil || newcomer.since.Sub(at.Value.(*entry).since) < k.slow {
		return false
	}
	return k.departOldest(at)
}

func (k *crowd) depart(e *entry) {
	k.remove(e)
	k.onDeparted(e)
}

// oldest is the entry that has been in the state for longest, of one source if it is valid. A holder has at most SourcesPerSite times the
// limit of a source, so that the search ends soon.
func (h *holder) oldest(state int, source netip.Prefix) *entry {
	for at := h.own[state].Front(); at != nil; at = at.Next() {
		if e := at.Value.(*entry); !source.IsValid() || e.source == source {
			return e
		}
	}
	return nil
}

func (k *crowd) add(e *entry) {
	e.inAll = k.all[e.state].PushBack(e)
	if !e.source.IsValid() {
		return
	}
	site := Site(e.source)
	h := k.sites[site]
	if h == nil {
		h = &holder{site: site}
		k.sites[site] = h
	}
	e.holder, e.inOwn = h, h.own[e.state].PushBack(e)
	k.resize(h, h.n+1)
	t := k.sources[e.source]
	if t == nil {
		t = &tally{}
		k.sources[e.source] = t
	}
	t.n++
	t.spare += e.state // spareList is 1
}

// remove returns false when e is not in.
func (k *crowd) remove(e *entry) bool {
	if e.inAll == nil {
		return false
	}
	k.all[e.state].Remove(e.inAll)
	e.inAll = nil
	h := e.holder
	if h == nil {
		return true
	}
	h.own[e.state].Remove(e.inOwn)
	e.holder, e.inOwn = nil, nil
	if k.resize(h, h.n-1); h.n == 0 {
		delete(k.sites, h.site)
	}
	t := k.sources[e.source]
	t.spare -= e.state
	if t.n--; t.n == 0 {
		delete(k.sources, e.source)
	}
	return true
}

// resize keeps bySize and largest right.
func (k *crowd) resize(h *holder, n int) {
	if h.n > 0 {
		delete(k.bySize[h.n], h)
	}
	for len(k.bySize) <= n {
		k.bySize = append(k.bySize, map[*holder]struct{}{})
	}
	if h.n = n; n > 0 {
		k.bySize[n][h] = struct{}{}
		k.largest = max(k.largest, n)
	}
	for k.largest > 0 && len(k.bySize[k.largest]) == 0 {
		k.largest--
	}
}
