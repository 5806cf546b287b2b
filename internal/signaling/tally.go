package signaling

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

const (
	tallyWindow = time.Minute
	// maxTally bounds the keys that a tally remembers. When it is full the oldest makes room: nobody is refused because others are
	// many, and who could come from so many addresses to be forgotten needs no forgetting.
	maxTally = 65_536
)

// tally counts what each key does within a minute, which begins with the key's first. It keeps hashes of the keys, under a seed of
// its own, so that an entry's size does not depend on what a client calls itself; an empty tally has no memory.
type tally[K comparable] struct {
	limit int // negative: nothing is counted
	seed  maphash.Seed
	hits  atomic.Uint64 // refusals

	mu     sync.Mutex // guards what follows
	counts map[uint64]int
	ends   []tallyEnd // of all counts, in order, since all minutes are equally long; from first on
	first  int
}

type tallyEnd struct {
	key uint64
	at  time.Time
}

func newTally[K comparable](limit int) *tally[K] {
	return &tally[K]{limit: limit, seed: maphash.MakeSeed()}
}

// spent tells whether key has reached the limit, and counts a refusal if so.
func (t *tally[K]) spent(key K) bool {
	if t.limit < 0 {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(time.Now())
	return t.refuses(t.hash(key))
}

// reached is spent without counting a refusal.
func (t *tally[K]) reached(key K) bool {
	if t.limit < 0 {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(time.Now())
	return t.counts[t.hash(key)] >= t.limit
}

// add counts one for key, which was not known to count when it was let through.
func (t *tally[K]) add(key K) {
	if t.limit < 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.forget(now)
	t.count(t.hash(key), now)
}

// take counts one for key unless it has reached the limit; false is a refusal.
func (t *tally[K]) take(key K) bool {
	if t.limit < 0 {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.forget(now)
	k := t.hash(key)
	if t.refuses(k) {
		return false
	}
	t.count(k, now)
	return true
}

func (t *tally[K]) hash(key K) uint64 { return maphash.Comparable(t.seed, key) }

// What follows is called with mu held.

func (t *tally[K]) refuses(k uint64) bool {
	if t.counts[k] < t.limit {
		return false
	}
	t.hits.Add(1)
	return true
}

func (t *tally[K]) count(k uint64, now time.Time) {
	if _, known := t.counts[k]; !known {
		if len(t.counts) >= maxTally {
			t.drop()
		}
		if t.counts == nil {
			t.counts = map[uint64]int{}
		}
		t.ends = append(t.ends, tallyEnd{k, now.Add(tallyWindow)})
	}
	t.counts[k]++
}

// forget drops the counts whose minute is over.
func (t *tally[K]) forget(now time.Time) {
	for t.first < len(t.ends) && !now.Before(t.ends[t.first].at) {
		t.drop()
	}
	if t.first == len(t.ends) {
		t.counts, t.ends, t.first = nil, nil, 0
	}
}

// drop forgets the oldest count.
func (t *tally[K]) drop() {
	delete(t.counts, t.ends[t.first].key)
	t.first++
	if t.first > len(t.ends)/2 { // each end is moved once at most for each that goes
		t.ends = t.ends[:copy(t.ends, t.ends[t.first:])]
		t.first = 0
	}
}
