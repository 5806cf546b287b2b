// Package schedule decides when a load generator acts: at a fixed rate, or with limited
// concurrency.
package schedule

import (
	"context"
	"runtime"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/report"
)

// MaxRate is the highest rate that generators accept, in actions per second.
const MaxRate = 100_000

// Action is told when it was due. It must not block. False: not possible now, try again soon.
type Action func(due time.Duration) bool

// Stream is an action that is due at a fixed rate, whatever the server does. Latency counts from
// the due time, so a stall shows in every message that should have been sent meanwhile (no
// coordinated omission).
type Stream struct {
	interval time.Duration
	from     time.Duration // due time of the first action
	until    time.Duration // no action is due at or after this time
	do       Action

	done int // actions so far; owned by Pacer.Run
}

// PerSecond is a stream of n actions per second from one time until another.
func PerSecond(n float64, from, until time.Duration, do Action) *Stream {
	return &Stream{
		interval: time.Duration(float64(time.Second) / n),
		from:     from,
		until:    until,
		do:       do,
	}
}

// Count is a stream of so many actions, at a rate per second.
func Count(actions int, rate float64, from time.Duration, do Action) *Stream {
	s := PerSecond(rate, from, 0, do)
	s.until = from + time.Duration(actions)*s.interval
	return s
}

func (s *Stream) due() (time.Duration, bool) {
	due := s.from + time.Duration(s.done)*s.interval
	return due, due < s.until
}

// Pacer performs the actions of streams when they are due.
type Pacer struct {
	// Late receives how late the generator itself was, in nanoseconds.
	Late *report.Histogram

	// Static after construction.
	now   func() time.Duration
	stall time.Duration
	sleep func(time.Duration)
}

// NewPacer returns a pacer whose time is now(), counted from any epoch. It gives up when an action
// is not possible for longer than stall.
func NewPacer(now func() time.Duration, stall time.Duration) *Pacer {
	return &Pacer{Late: new(report.Histogram), now: now, stall: stall, sleep: sleep}
}

const (
	retryAfter   = 200 * time.Microsecond // after an action that was not possible
	longestSleep = 20 * time.Millisecond  // between two looks at the context
)

// Run performs all streams. It returns how many actions are left over because one was not possible
// in time, or because the context ended.
func (p *Pacer) Run(ctx context.Context, streams ...*Stream) (undone int) {
	runtime.LockOSThread() // it sleeps in the kernel
	defer runtime.UnlockOSThread()
	for ctx.Err() == nil {
		wait, open := longestSleep, false
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
				p.Late.Add(int64(now - due))
				s.done++
			}
		}
		if !open {
			return 0
		}
		p.sleep(wait)
	}
	return left(streams)
}

func left(streams []*Stream) (n int) {
	for _, s := range streams {
		if due, more := s.due(); more {
			n += int((s.until-due-1)/s.interval) + 1
		}
	}
	return n
}
