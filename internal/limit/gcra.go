// Package limit has the rate limiters of the server: GCRA for a sustained rate with a burst, and
// fixed windows for counts per minute and key. They measure time on the monotonic clock, so setting
// the wall clock changes no limit.
//
// GCRA counts messages per session, answers of the relay per address, and relayed bytes; fixed
// windows count logins, failures and lookups per address or license.
package limit

import (
	"sync/atomic"
	"time"
)

// Rate is a sustained rate and a burst, in units.
type Rate struct {
	each  int64 // nanoseconds per unit
	ahead int64 // nanoseconds that may be taken in advance
}

// NewRate returns the rate of so many units per second, with so many at once.
func NewRate(perSecond, burst float64) Rate {
	const most = 1 << 50 // no sum of a few of them overflows
	return Rate{
		each:  int64(min(most, 1e9/perSecond)),
		ahead: int64(min(most, max(0, (burst-1)*1e9/perSecond))),
	}
}

// Divided returns num/den of the rate and of the burst, but for the first unit of a burst: it
// always passes.
func (r Rate) Divided(num, den int) Rate {
	r.each = r.each * int64(den) / int64(num)
	return r
}

// Next charges units at a time, both in nanoseconds since the same start. It returns until when
// the rate is used up then. If it is used up now, ok is false and nothing is charged. A message of
// several units passes where one unit would, and is paid for afterwards: else a long one might
// never pass.
func (r Rate) Next(until, now, units int64) (next int64, ok bool) {
	from := max(until, now)
	if from-now > r.ahead {
		return until, false
	}
	return from + units*r.each, true
}

// GCRA is a limiter in eight bytes, without a lock (generic cell rate algorithm, ITU-T I.371). The
// zero value is unused. It may be used by several goroutines.
type GCRA struct{ until atomic.Int64 }

// Take charges units at a time since some start. It reports whether they were within the rate;
// units beyond it are not charged.
func (g *GCRA) Take(now time.Duration, r Rate, units int64) bool {
	for {
		old := g.until.Load()
		next, ok := r.Next(old, int64(now), units)
		if !ok || g.until.CompareAndSwap(old, next) {
			return ok
		}
	}
}

// TakeWithin charges the time that something costs, of which burst may be charged in advance. All
// of it must be within the burst: what costs more never passes.
func (g *GCRA) TakeWithin(now, cost, burst time.Duration) bool {
	for {
		old := g.until.Load()
		next := max(old, int64(now)) + int64(cost)
		if next-int64(now) > int64(burst) {
			return false
		}
		if g.until.CompareAndSwap(old, next) {
			return true
		}
	}
}

// Charge charges a time, whether or not that is within a rate.
func (g *GCRA) Charge(now, cost time.Duration) {
	for {
		old := g.until.Load()
		if g.until.CompareAndSwap(old, max(old, int64(now))+int64(cost)) {
			return
		}
	}
}

// Refund takes back a charge that was taken and not used.
func (g *GCRA) Refund(cost time.Duration) { g.until.Add(-int64(cost)) }

// Until is when all that was charged is past: from then on the whole burst is available.
func (g *GCRA) Until() time.Duration { return time.Duration(g.until.Load()) }

// Add charges units whether or not they are within the rate.
func (g *GCRA) Add(now time.Duration, r Rate, units int64) {
	g.Charge(now, time.Duration(units*r.each))
}
