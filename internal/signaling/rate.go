package signaling

import (
	"sync/atomic"
	"time"
)

// flood is what somebody may send: so many units a second on average, and so many at once.
type flood struct {
	each  int64 // nanoseconds that a unit takes
	ahead int64 // nanoseconds that may be taken in advance
}

func newFlood(rate, burst float64) flood {
	const most = 1 << 50 // no sum of a few of them overflows
	return flood{each: int64(min(most, 1e9/rate)), ahead: int64(min(most, max(0, (burst-1)*1e9/rate)))}
}

// next is the time up to which units have been taken once these are, too; false: it is too much, and nothing is taken. A message
// of several units passes as one of a single unit would, and is paid for afterwards: else a long one might never pass.
func (f flood) next(until, now, units int64) (int64, bool) {
	from := max(until, now)
	if from-now > f.ahead {
		return until, false
	}
	return from + units*f.each, true
}

// meter is a leaky bucket in eight bytes, written without a lock: the time up to which units have been taken (GCRA). The zero value
// is empty.
type meter struct{ until atomic.Int64 }

// take counts units at a time, given as what has passed since the hub began, which no clock that is set changes; false: it is too much,
// and not counted.
func (m *meter) take(now time.Duration, f flood, units int64) bool {
	for {
		old := m.until.Load()
		next, ok := f.next(old, int64(now), units)
		if !ok || m.until.CompareAndSwap(old, next) {
			return ok
		}
	}
}

// add counts units whether or not they are too much.
func (m *meter) add(now time.Duration, f flood, units int64) {
	for {
		old := m.until.Load()
		if m.until.CompareAndSwap(old, max(old, int64(now))+units*f.each) {
			return
		}
	}
}

// minute counts within a minute that begins with the first, for one who guards it. The zero value has counted nothing.
type minute struct {
	began time.Duration // since the hub did
	n     int
}

// take counts units; false: limit is reached, which is no limit when negative.
func (m *minute) take(now time.Duration, limit, units int) bool {
	if limit < 0 {
		return true
	}
	if m.over(now) {
		m.began, m.n = now, 0
	}
	if m.n >= limit {
		return false
	}
	m.n += units
	return true
}

// over tells whether it has counted nothing that still counts.
func (m *minute) over(now time.Duration) bool { return m.n == 0 || now-m.began >= tallyWindow }
