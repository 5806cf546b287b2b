package limit

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Window is the length of every window: it begins with the first event that it counts.
	Window = time.Minute
	// maxKeys bounds the keys that a FixedWindow remembers. At capacity the oldest is evicted: no
	// client is refused because others are many, and limits per address do not constrain an
	// attacker who has so many addresses anyway. It is a power of two.
	maxKeys = 65_536
)

// Counter counts within one window. The zero value has counted nothing. The caller guards it.
type Counter struct {
	began time.Duration // since the caller's start
	n     int
}

// Take counts units and reports whether limit was not reached before. A negative limit is none.
func (c *Counter) Take(now time.Duration, limit, units int) bool {
	if limit < 0 {
		return true
	}
	if c.Expired(now) {
		c.began, c.n = now, 0
	}
	if c.n >= limit {
		return false
	}
	c.n += units
	return true
}

// Expired reports whether nothing is counted any more.
func (c *Counter) Expired(now time.Duration) bool { return c.n == 0 || now-c.began >= Window }

// FixedWindow counts events per key, each key in a window of its own. It stores hashes of the
// keys, with a seed of its own, so that the size of an entry does not depend on what a client
// calls itself. A full one holds 1.75 MiB (28 bytes per key), an empty one nothing.
type FixedWindow[K comparable] struct {
	limit    int // static; negative: nothing is counted
	seed     maphash.Seed
	rejected atomic.Uint64

	// Guarded by mu.
	mu    sync.Mutex
	began time.Time // what the times in windows count from
	// windows is a ring: since all windows are equally long, they end in the order of their first
	// events. Its length is a power of two, like that of chains.
	windows []window
	oldest  uint32 // place in windows
	n       uint32 // how many there are
	// chains has, for the low bits of a key, the newest window with them.
	chains []link
}

// window is that of one key.
type window struct {
	key   uint64
	ends  time.Duration
	count int32
	next  link // an older window in the same chain
}

// link is a place in FixedWindow.windows, plus one; 0: none.
type link uint32

// minWindows is the least length of a ring that is not empty.
const minWindows = 16

// NewFixedWindow returns a limiter of so many events per key and Window; negative: there is no
// limit.
func NewFixedWindow[K comparable](limit int) *FixedWindow[K] {
	return &FixedWindow[K]{limit: limit, seed: maphash.MakeSeed()}
}

// Exceeded reports whether key has reached the limit, and counts a rejection if so.
func (w *FixedWindow[K]) Exceeded(key K) bool {
	if w.limit < 0 {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expire(time.Now())
	return w.reject(w.hash(key))
}

// Reached is Exceeded without counting a rejection.
func (w *FixedWindow[K]) Reached(key K) bool {
	if w.limit < 0 {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expire(time.Now())
	return w.countOf(w.hash(key)) >= w.limit
}

// Add counts an event of key that is known to count only after it was let through.
func (w *FixedWindow[K]) Add(key K) {
	if w.limit < 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.expire(now)
	w.count(w.hash(key), now)
}

// Take counts an event of key and reports true, unless key has reached the limit.
func (w *FixedWindow[K]) Take(key K) bool {
	if w.limit < 0 {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.expire(now)
	k := w.hash(key)
	if w.reject(k) {
		return false
	}
	w.count(k, now)
	return true
}

// Rejected is the number of rejections so far.
func (w *FixedWindow[K]) Rejected() uint64 { return w.rejected.Load() }

// Len is the number of keys whose window has not ended.
func (w *FixedWindow[K]) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expire(time.Now())
	return int(w.n)
}

func (w *FixedWindow[K]) hash(key K) uint64 { return maphash.Comparable(w.seed, key) }

// The methods below are called with mu held.

func (w *FixedWindow[K]) reject(k uint64) bool {
	if w.countOf(k) < w.limit {
		return false
	}
	w.rejected.Add(1)
	return true
}

// find returns the window of a key, or nil.
func (w *FixedWindow[K]) find(k uint64) *window {
	if w.n == 0 {
		return nil
	}
	for l := *w.chain(k); l != 0; {
		e := &w.windows[l-1]
		if e.key == k {
			return e
		}
		l = e.next
	}
	return nil
}

func (w *FixedWindow[K]) chain(k uint64) *link { return &w.chains[k&uint64(len(w.chains)-1)] }

func (w *FixedWindow[K]) countOf(k uint64) int {
	if e := w.find(k); e != nil {
		return int(e.count)
	}
	return 0
}

func (w *FixedWindow[K]) count(k uint64, now time.Time) {
	e := w.find(k)
	if e == nil {
		switch {
		case w.n == maxKeys:
			w.evict()
		case int(w.n) == len(w.windows):
			w.resize(max(minWindows, 2*len(w.windows)))
		}
		if w.n == 0 {
			w.began = now
		}
		e = w.push(window{key: k, ends: now.Sub(w.began) + Window})
	}
	if e.count < math.MaxInt32 {
		e.count++
	}
}

// push adds the newest window. There is room.
func (w *FixedWindow[K]) push(e window) *window {
	at := (w.oldest + w.n) & uint32(len(w.windows)-1)
	chain := w.chain(e.key)
	e.next, *chain = *chain, link(at+1)
	w.windows[at] = e
	w.n++
	return &w.windows[at]
}

// expire forgets the keys whose window has ended.
func (w *FixedWindow[K]) expire(now time.Time) {
	for w.n > 0 && now.Sub(w.began) >= w.windows[w.oldest].ends {
		w.evict()
	}
	switch {
	case w.n == 0:
		w.windows, w.chains, w.oldest = nil, nil, 0
	case len(w.windows) > minWindows && int(w.n) <= len(w.windows)/4:
		w.resize(len(w.windows) / 2)
	}
}

// evict forgets the oldest key.
func (w *FixedWindow[K]) evict() {
	e := &w.windows[w.oldest]
	l := w.chain(e.key)
	for *l != link(w.oldest+1) {
		l = &w.windows[*l-1].next
	}
	*l = e.next
	w.oldest = (w.oldest + 1) & uint32(len(w.windows)-1)
	w.n--
}

// resize moves all windows, in their order, to a ring of another length.
func (w *FixedWindow[K]) resize(length int) {
	old, first, n := w.windows, w.oldest, w.n
	w.windows, w.chains = make([]window, length), make([]link, length)
	w.oldest, w.n = 0, 0
	for i := range n {
		w.push(old[(first+i)&uint32(len(old)-1)])
	}
}
