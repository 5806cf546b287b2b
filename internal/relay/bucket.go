package relay

import (
	"sync/atomic"
	"time"
)

// burstTime is how long a client may send at full bandwidth after a pause. A key frame is many
// times the size of other frames.
const burstTime = 500 * time.Millisecond

// bucket is a token bucket in one word (generic cell rate algorithm): the time at which it is full
// again. Any number of goroutines may take from it.
type bucket struct{ fullAt atomic.Int64 }

// take takes tokens that need cost to come back, of at most burst in all; false: too few are left
// and none are taken.
func (b *bucket) take(now, cost, burst time.Duration) bool {
	for {
		fullAt := b.fullAt.Load()
		next := max(fullAt, int64(now)) + int64(cost)
		if next-int64(now) > int64(burst) {
			return false
		}
		if b.fullAt.CompareAndSwap(fullAt, next) {
			return true
		}
	}
}

// refund puts back tokens that were taken and not used.
func (b *bucket) refund(cost time.Duration) { b.fullAt.Add(-int64(cost)) }

// isFull reports that nothing was taken lately.
func (b *bucket) isFull(now time.Duration) bool { return b.fullAt.Load() <= int64(now) }

// ownedBucket is a bucket that one goroutine takes from, without atomic operations.
type ownedBucket struct{ fullAt time.Duration }

// after is fullAt after tokens have been taken; false: too few are left.
func (b *ownedBucket) after(now, cost, burst time.Duration) (fullAt time.Duration, ok bool) {
	if cost == 0 {
		return b.fullAt, true
	}
	fullAt = max(b.fullAt, now) + cost
	return fullAt, fullAt-now <= burst
}
