package relay

import "time"

// burstTime is how long a client may send at full bandwidth after a pause. A key frame is many
// times the size of other frames.
const burstTime = 500 * time.Millisecond

// ownedBucket is limit.GCRA for one goroutine, without atomic operations. It takes as TakeWithin.
type ownedBucket struct{ fullAt time.Duration }

// after is fullAt after tokens have been taken; false: too few are left.
func (b *ownedBucket) after(now, cost, burst time.Duration) (fullAt time.Duration, ok bool) {
	if cost == 0 {
		return b.fullAt, true
	}
	fullAt = max(b.fullAt, now) + cost
	return fullAt, fullAt-now <= burst
}
