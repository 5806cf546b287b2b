package relay

import (
	"sync/atomic"
	"time"
)

// bucket is a token bucket in one word (the generic cell rate algorithm): the time at which it will be full again. Several workers
// may take from it.
type bucket struct{ fullAt atomic.Int64 }

// burstTime is how long one may send at full speed after a pause: a key frame is many times the size of others.
const burstTime = 500 * time.Millisecond

// take takes what costs this much of the time in which the bucket fills; false: not enough is there, and nothing is taken.
func (b *bucket) take(now, cost, burst time.Duration) bool {
	for {
		full := b.fullAt.Load()
		next := max(full, int64(now)) + int64(cost)
		if next-int64(now) > int64(burst) {
			return false
		}
		if b.fullAt.CompareAndSwap(full, next) {
			return true
		}
	}
}

// refund gives back what was taken and not used.
func (b *bucket) refund(cost time.Duration) { b.fullAt.Add(-int64(cost)) }

// isFull tells that nothing was taken lately.
func (b *bucket) isFull(now time.Duration) bool { return b.fullAt.Load() <= int64(now) }
