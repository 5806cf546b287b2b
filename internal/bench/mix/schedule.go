package mix

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/client"
	"github.com/ieum-rtc/ieum/internal/bench/schedule"
)

// play runs the load for a time, and waits until all messages have arrived and all users are
// inside.
func (m *mixer) play(ctx context.Context, length time.Duration) error {
	from := m.now()
	until := from + length
	n := 0
	undone := m.pacer.Run(ctx,
		schedule.PerSecond(m.cfg.Rate, from, until, func(due time.Duration) bool {
			done := m.send(script[n%len(script)], due)
			if done {
				n++
			}
			return done
		}),
		schedule.PerSecond(m.cfg.Joins, from, until, func(due time.Duration) bool {
			return m.leaveOne(ctx, due)
		}),
		schedule.PerSecond(m.cfg.Joins, from+outsideFor, until+outsideFor,
			func(due time.Duration) bool { return m.rejoinOne(ctx, due) }),
		schedule.PerSecond(m.cfg.Joins/resumeEvery, from, until, func(due time.Duration) bool {
			return m.reconnectOne(ctx, due)
		}),
	)
	if undone > 0 && ctx.Err() == nil {
		const format = "%d messages, joins and leaves could not be sent within %s"
		err := fmt.Errorf(format, undone, m.cfg.Stall)
		m.failures.add(&m.failures.Lost, undone, err)
	}
	m.changes.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return m.drain(ctx)
}

// drain waits for what is in flight; what does not arrive is lost.
func (m *mixer) drain(ctx context.Context) error {
	timeout, cancel := context.WithTimeout(ctx, m.cfg.Stall)
	defer cancel()
	for _, r := range m.rooms {
		if err := r.waitIdle(timeout); err == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r.mu.Lock()
		lost := r.inFlight
		r.inFlight, r.reserved = 0, false
		r.mu.Unlock()
		if lost > 0 {
			const format = "%d messages or events of room %s did not arrive within %s"
			err := fmt.Errorf(format, lost, r.id, m.cfg.Stall)
			m.failures.add(&m.failures.Lost, lost, err)
		}
	}
	return nil
}

// anyRoom calls f with one room after the other, beginning at a random one, until it is true.
func (m *mixer) anyRoom(f func(r *room) bool) bool {
	n := len(m.rooms)
	for i, from := 0, rand.IntN(n); i < n; i++ {
		if f(m.rooms[(from+i)%n]) {
			return true
		}
	}
	return false
}

func (m *mixer) send(op operation, due time.Duration) bool {
	return m.anyRoom(func(r *room) bool { return r.send(op, due) })
}

// leaveOne lets one user of a complete room leave it.
func (m *mixer) leaveOne(ctx context.Context, due time.Duration) bool {
	r := m.reserve((*room).complete)
	if r == nil {
		return false
	}
	u := r.users[rand.IntN(len(r.users))]
	answered := u.leave()
	m.change(ctx, r, func(ctx context.Context) error {
		if err := answered(ctx); err != nil {
			return err
		}
		m.took(opLeave, due, m.at(u.link.Answered()))
		m.outside <- u
		return nil
	})
	return true
}

// rejoinOne lets a user join again: the one that has been outside longest and whose room is idle.
func (m *mixer) rejoinOne(ctx context.Context, due time.Duration) bool {
	for range len(m.outside) {
		u := <-m.outside // nobody else takes from it
		if m.busy() || !u.room.reserve(func() bool { return true }) {
			m.outside <- u
			continue
		}
		m.change(ctx, u.room, u.rejoin(due))
		return true
	}
	return false
}

// reconnectOne lets one user lose the connection and resume.
func (m *mixer) reconnectOne(ctx context.Context, due time.Duration) bool {
	r := m.reserve(func(r *room) bool { return r.inside() > 0 })
	if r == nil {
		return false
	}
	u := r.pick(nil)
	m.change(ctx, r, func(ctx context.Context) error {
		if err := u.reconnect(ctx); err != nil {
			return err
		}
		m.took(opResume, due, m.at(u.link.Answered()))
		return nil
	})
	return true
}

// busy tells whether the most changes are already going on. Only the pacer asks and starts changes.
func (m *mixer) busy() bool { return len(m.slots) == cap(m.slots) }

// reserve reserves an idle room that fits. Nil: there is none, or too many changes are going on.
func (m *mixer) reserve(fits func(*room) bool) *room {
	if m.busy() {
		return nil
	}
	var found *room
	m.anyRoom(func(r *room) bool {
		if r.reserve(func() bool { return fits(r) }) {
			found = r
		}
		return found != nil
	})
	return found
}

// change lets a user of a reserved room join, leave or reconnect. A failure is counted, and the
// room stays reserved: nothing is sent in it any more.
func (m *mixer) change(ctx context.Context, r *room, f func(context.Context) error) {
	m.slots <- struct{}{}
	m.changes.Go(func() {
		defer func() { <-m.slots }()
		ctx, cancel := context.WithTimeout(ctx, m.cfg.Stall)
		defer cancel()
		switch err := f(ctx); {
		case errors.Is(err, client.ErrRefused):
			m.failures.count(&m.failures.Refused, err)
		case err != nil && !m.closing.Load():
			m.failures.count(&m.failures.Errors, err)
		case err == nil:
			r.release()
		}
	})
}
