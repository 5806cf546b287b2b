package relay

import (
	"sync/atomic"
	"time"
)

// bucket is a token bucket in one word (the generic cell rate algorithm): the time at which it will be full again. Several workers
// may take from it.
type bucket struct{ full atomic.Int64 }

// burstTime is how long one may send at full speed after a pause: a key frame is many times the size of others.
const burstTime = 500 * time.Millisecond

// take takes what costs this much of the time in which the bucket fills; false: not enough is there, and nothing is taken.
func (b *bucket) take(now, cost, burst time.Duration) bool {
	for {
		full := b.full.Load()
		next := max(full, int64(now)) + int64(cost)
		if next-int64(now) > int64(burst) {
			return false
		}
		if b.full.CompareAndSwap(full, next) {
			return true
		}
	}
}

// give gives back what was taken and not used.
func (b *bucket) give(cost time.Duration) { b.full.Add(-int64(cost)) }

// isFull tells that nothing was taken lately.
func (b *bucket) isFull(now time.Duration) bool { return b.full.Load() <= int64(now) }

const (
	// strangers answered: this many a second to one source prefix (an IPv4 /24 or IPv6 /48), twice that at once.
	answersPerSecond = 100
	answersBurst     = 200
	limiterSlots     = 4096
)

// limiter bounds what is sent to sources that have proved nothing: they may be forged. It has a fixed size, so that forged sources
// cost nothing; prefixes that meet in one slot share it, and which ones meet cannot be foreseen.
type limiter struct {
	seed  uint64
	slots [limiterSlots]bucket
}

func (l *limiter) allow(ip [16]byte, now time.Duration) bool {
	n := 6
	if familyOf(ip) == v4 {
		n = 15
	}
	h := l.seed
	for _, b := range ip[:n] {
		h = (h ^ uint64(b)) * 0x100000001b3
	}
	h ^= h >> 29
	const cost = time.Second / answersPerSecond
	return l.slots[h%limiterSlots].take(now, cost, answersBurst*cost)
}
