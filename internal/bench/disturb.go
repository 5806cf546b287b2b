package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"
)

// Disturbed is how the members of the rooms fared while others did what they should not.
type Disturbed struct {
	Operations map[string]Latency `json:"operations"` // of the members
	LateP99us  float64            `json:"lateP99us"`

	Others
}

// Others are those who disturb.
type Others struct {
	HalfOpen       int   `json:"halfOpen"`       // sockets at a time that never log in
	HalfOpenDialed int64 `json:"halfOpenDialed"` // so many, since the server ends them, and others follow
	HalfOpenFailed int64 `json:"halfOpenFailed"` // could not even connect

	Herd        int     `json:"herd"`        // clients whose connections are cut all at once, every five seconds
	HerdBack    Latency `json:"herdBack"`    // from the cut to the resumed session
	HerdTries   int64   `json:"herdTries"`   // attempts that failed, each followed by another
	HerdTickets int64   `json:"herdTickets"` // TLS handshakes that a session ticket shortened
	HerdLost    int64   `json:"herdLost"`    // sessions that could not be resumed

	Flooders int              `json:"flooders"` // send as fast as they can, and come again when they are closed
	Slow     int              `json:"slow"`     // read ten messages a second, of the twenty that come
	Stopped  int              `json:"stopped"`  // read nothing any more for a time
	Closes   map[string]int64 `json:"closes"`   // how the server ended connections of these three
}

// How many of the others there are, beside those that the configuration says.
const (
	flooders = 8
	slow     = 8
	stopped  = 8
)

// readyWithin is how long the others may take to be there before the load begins.
const readyWithin = 2 * time.Minute

// disturbance is all those others.
type disturbance struct {
	mix   *mixer
	group sync.WaitGroup
	begun chan struct{} // closed when the load begins, at since
	since time.Time

	dialing        chan struct{} // one for each half-open socket that is being dialed
	dialed, failed atomic.Int64

	back                 histogram
	tries, tickets, lost atomic.Int64

	mu     sync.Mutex // guards what follows
	closes map[string]int64
	fault  error // the first that kept one of them from beginning
}

// disturbed plays the load again, with the others beside it. They run in a process of their own, if there is a command for it: in this
// one a thousand handshakes at once would delay the members themselves, and not only the server's answers.
func (m *mixer) disturbed(ctx context.Context) error {
	run := m.disturbHere
	if m.cfg.Disturber != nil {
		run = m.disturbElsewhere
	}
	var d Disturbed
	others, err := run(ctx, func(ctx context.Context) error {
		m.times.Store(new(clocks))
		m.pacer.late = new(histogram)
		err := m.play(ctx, m.cfg.Duration)
		d.Operations, d.LateP99us = m.times.Load().operations(), m.lateness()
		return err
	})
	if err != nil {
		return err
	}
	d.Others = others
	m.report.Disturbed = &d
	return nil
}

// disturbHere runs the others in this process while f plays.
func (m *mixer) disturbHere(ctx context.Context, f func(context.Context) error) (Others, error) {
	ctxOthers, stop := context.WithCancel(ctx)
	d := &disturbance{mix: m, begun: make(chan struct{}), dialing: make(chan struct{}, dialsMost), closes: map[string]int64{}}
	defer d.group.Wait()
	defer stop()
	if err := d.begin(ctxOthers); err != nil {
		return Others{}, err
	}
	d.since = time.Now()
	close(d.begun)
	if err := f(ctx); err != nil {
		return Others{}, err
	}
	stop()
	d.group.Wait()
	return Others{
		HalfOpen: m.cfg.HalfOpen, HalfOpenDialed: d.dialed.Load(), HalfOpenFailed: d.failed.Load(),
		Herd: m.cfg.Herd, HerdBack: d.back.latency(), HerdTries: d.tries.Load(), HerdTickets: d.tickets.Load(), HerdLost: d.lost.Load(),
		Flooders: flooders, Slow: slow, Stopped: stopped, Closes: maps.Clone(d.closes),
	}, nil
}

// begin returns when all of them are there.
func (d *disturbance) begin(ctx context.Context) error {
	var ready sync.WaitGroup
	start := func(f func(ready func())) {
		ready.Add(1)
		d.group.Go(func() {
			once := sync.OnceFunc(ready.Done)
			defer once()
			f(once)
		})
	}
	for i := range d.mix.cfg.Herd {
		start(func(ready func()) { d.herd(ctx, i, ready) })
	}
	for i := range flooders {
		start(func(ready func()) { d.repeat(ctx, fmt.Sprintf("flood-%d", i), d.flood, ready) })
	}
	for i := range slow {
		start(func(ready func()) { d.repeat(ctx, fmt.Sprintf("slow-%d", i), d.readSlowly, ready) })
	}
	for i := range stopped {
		start(func(ready func()) { d.repeat(ctx, fmt.Sprintf("stopped-%d", i), d.readNothing, ready) })
	}
	for i := range d.mix.cfg.HalfOpen {
		start(func(ready func()) { d.halfOpen(ctx, i, ready) })
	}
	all := make(chan struct{})
	go func() { ready.Wait(); close(all) }() // ends with the group, which the caller waits for
	patience := time.NewTimer(readyWithin)
	defer patience.Stop()
	select {
	case <-all:
	case <-ctx.Done():
		return ctx.Err()
	case <-patience.C:
		return fmt.Errorf("those who disturb did not get to the server within %s", readyWithin)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault
}

// failedToBegin is told why one of them cannot do its part.
func (d *disturbance) failedToBegin(ctx context.Context, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault == nil && ctx.Err() == nil {
		d.fault = fmt.Errorf("one of those who disturb: %w", err)
	}
}

// ended counts how the server ended a connection.
func (d *disturbance) ended(err error) {
	how := "lost"
	if closed := new(gws.CloseError); errors.As(err, &closed) {
		how = fmt.Sprint(closed.Code)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closes[how]++
}

// pause waits, and tells whether ctx is still open.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return ctx.Err() == nil
}
