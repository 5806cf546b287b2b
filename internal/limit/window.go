package limit

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Window is the length of every window: it begins with the first event that it counts.
	Window = time.Minute
	// maxKeys bounds the keys that a FixedWindow remembers. At capacity the oldest is evicted: no
	// client is refused because others are many, and limits per address do not constrain an
	// attacker who has so many addresses anyway.
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
// calls itself. Without entries it holds no memory.
type FixedWindow[K comparable] struct {
	limit    int // static; negative: nothing is counted
	seed     maphash.Seed
	rejected atomic.Uint64

	mu     sync.Mutex
	counts map[uint64]int // guarded by mu
	// ends has the end of each key's window in order, since all windows are equally long. Entries
	// before first have expired. Guarded by mu.
	ends  []windowEnd
	first int // guarded by mu
}

type windowEnd struct {
	key uint64
	at  time.Time
}

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
	return w.counts[w.hash(key)] >= w.limit
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
	return len(w.counts)
}

func (w *FixedWindow[K]) hash(key K) uint64 { return maphash.Comparable(w.seed, key) }

// The methods below are called with mu held.

func (w *FixedWindow[K]) reject(k uint64) bool {
	if w.counts[k] < w.limit {
		return false
	}
	w.rejected.Add(1)
	return true
}

func (w *FixedWindow[K]) count(k uint64, now time.Time) {
	if _, known := w.counts[k]; !known {
		if len(w.counts) >= maxKeys {
			w.evict()
		}
		if w.counts == nil {
			w.counts = map[uint64]int{}
		}
		w.ends = append(w.ends, windowEnd{k, now.Add(Window)})
	}
	w.counts[k]++
}

// expire forgets the keys whose window has ended.
func (w *FixedWindow[K]) expire(now time.Time) {
	for w.first < len(w.ends) && !now.Before(w.ends[w.first].at) {
		w.evict()
	}
	if w.first == len(w.ends) {
		w.counts, w.ends, w.first = nil, nil, 0
	}
}

// evict forgets the oldest key.
func (w *FixedWindow[K]) evict() {
	delete(w.counts, w.ends[w.first].key)
	w.first++
	if w.first > len(w.ends)/2 { // each end is moved at most once per eviction
		w.ends = w.ends[:copy(w.ends, w.ends[w.first:])]
		w.first = 0
	}
}
