// Package lease measures how long this node may act. It uses a clock that goes on while the machine
// is suspended: a node that wakes up must not believe that no time has passed.
package lease

import (
	"sync/atomic"
	"time"
)

// Lease is a time until which something holds. The zero Lease has ended.
type Lease struct{ until atomic.Int64 }

// Extend makes the lease hold until a time of Now, unless it holds longer already.
func (l *Lease) Extend(until time.Duration) {
	for {
		old := l.until.Load()
		if int64(until) <= old || l.until.CompareAndSwap(old, int64(until)) {
			return
		}
	}
}

// End ends the lease.
func (l *Lease) End() { l.until.Store(0) }

// Holds tells whether the lease holds at a time of Now.
func (l *Lease) Holds(now time.Duration) bool { return int64(now) < l.until.Load() }

// Ended is for how long the lease has not held; negative while it holds.
func (l *Lease) Ended(now time.Duration) time.Duration {
	return now - time.Duration(l.until.Load())
}
