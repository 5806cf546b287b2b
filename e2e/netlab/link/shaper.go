package link

import "time"

// shaper decides when a packet leaves the far end of one direction. It has no clock and no
// randomness of its own.
type shaper struct {
	free time.Time // when the wire has sent everything accepted so far
	last time.Time // when the latest accepted packet leaves; later packets never overtake it
}

// schedule returns when a packet of size bytes, arriving at now, is due at the far end; false when
// it is lost. random returns values in [0,1).
func (s *shaper) schedule(
	p Params,
	now time.Time,
	size int,
	random func() float64,
) (time.Time, bool) {
	if p.Down || p.Loss > 0 && random() < p.Loss {
		return time.Time{}, false
	}
	start := now
	if p.Rate > 0 {
		if s.free.After(start) {
			start = s.free
		}
		queue := p.Queue
		if queue == 0 {
			queue = DefaultQueue
		}
		if start.Sub(now) > queue {
			return time.Time{}, false
		}
		start = start.Add(time.Duration(float64(size*8) / p.Rate * float64(time.Second)))
		s.free = start
	}
	due := start.Add(p.Delay)
	if p.Jitter > 0 {
		due = due.Add(time.Duration(random() * float64(p.Jitter)))
	}
	if due.Before(s.last) {
		due = s.last
	}
	s.last = due
	return due, true
}
