package signaling

import (
	"sync/atomic"
	"time"
)

// flood is what a session may send: so many messages a second on average, and so many at once.
type flood struct {
	each  int64 // nanoseconds that a message takes
	ahead int64 // nanoseconds that may be taken in advance
}

func newFlood(rate, burst float64) flood {
	const most = 1 << 60 // no sum of two overflows
	return flood{each: int64(min(most, 1e9/rate)), ahead: int64(min(most, (burst-1)*1e9/rate))}
}

// meter is a leaky bucket in eight bytes, written without a lock: the time up to which messages have been taken (GCRA). The zero value
// is empty.
type meter struct{ until atomic.Int64 }

// take counts a message at a time, given as what has passed since the hub began, which no clock that is set changes; false: it is one
// too many, and not counted.
func (m *meter) take(now time.Duration, f flood) bool {
	for {
		old := m.until.Load()
		from := max(old, int64(now))
		if from-int64(now) > f.ahead {
			return false
		}
		if m.until.CompareAndSwap(old, from+f.each) {
			return true
		}
	}
}

// minute counts within a minute that begins with the first, for one who guards it. The zero value has counted nothing.
type minute struct {
	began time.Duration // since the hub did
	n     int
}

// take counts one; false: it is more than limit, which is no limit when negative.
func (m *minute) take(now time.Duration, limit int) bool {
	if limit < 0 {
		return true
	}
	if m.n == 0 || now-m.began >= tallyWindow {
		m.began, m.n = now, 0
	}
	if m.n >= limit {
		return false
	}
	m.n++
	return true
}
