package bench

import (
	"context"
	"runtime"
	"time"
)

// stream is something that is due at a fixed rate, whatever the server does: what comes late counts from when it was due, so that a
// stall shows in every message that should have been sent meanwhile (no coordinated omission).
type stream struct {
	every time.Duration
	from  time.Duration // when the first is due
	until time.Duration // none is due then or later
	// do is told when it was due. It must not wait; false: it cannot be done now, and is asked for again.
	do func(due time.Duration) bool

	done int
}

// perSecond is a stream of n a second.
func perSecond(n float64, from, until time.Duration, do func(due time.Duration) bool) *stream {
	return &stream{every: time.Duration(float64(time.Second) / n), from: from, until: until, do: do}
}

func (s *stream) due() (time.Duration, bool) {
	due := s.from + time.Duration(s.done)*s.every
	return due, due < s.until
}

// pacer does what is due.
type pacer struct {
	now func() time.Duration
	nap func(time.Duration)
	// stall is how late something may be before it is given up, with all that is due later.
	stall time.Duration
	late  *histogram // how late the load itself was, when it could do it
}

const (
	retryAfter = 200 * time.Microsecond // of what could not be done
	longestNap = 20 * time.Millisecond  // without a look at the context
)

// run returns how much was left undone, since it could not be done within the stall or the context ended.
func (p *pacer) run(ctx context.Context, streams ...*stream) (undone int) {
	runtime.LockOSThread() // its naps are the kernel's
	defer runtime.UnlockOSThread()
	for ctx.Err() == nil {
		wait, open := longestNap, false
		for _, s := range streams {
			for {
				due, more := s.due()
				if !more {
					break
				}
				open = true
				now := p.now()
				if due > now {
					wait = min(wait, due-now)
					break
				}
				if !s.do(due) {
					if now-due > p.stall {
						return left(streams)
					}
					wait = min(wait, retryAfter)
					break
				}
				p.late.add(int64(now - due))
				s.done++
			}
		}
		if !open {
			return 0
		}
		p.nap(wait)
	}
	return left(streams)
}

func left(streams []*stream) (n int) {
	for _, s := range streams {
		if due, more := s.due(); more {
			n += int((s.until-due-1)/s.every) + 1
		}
	}
	return n
}
