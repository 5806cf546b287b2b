package turn

import (
	"context"
	"time"
)

// packetIO moves packets between sockets and traffic. One goroutine calls it.
type packetIO interface {
	// send sends a burst for an allocation, now or at the next receive.
	send(f *flow, allocation int, measured bool)
	// receive takes in what has arrived, after the time given, and sends what send left.
	receive(after time.Duration, measured bool)
}

// driver decides when the next burst leaves.
type driver struct {
	*traffic
	io    packetIO
	start time.Time
}

// longest time without a look at the clock and the context
const longestIdle = 10 * time.Millisecond

// play sends and receives for a time.
func (d *driver) play(ctx context.Context, length time.Duration, measured bool) error {
	if d.start.IsZero() {
		d.start = time.Now()
	}
	end := time.Since(d.start) + length
	for {
		now := time.Since(d.start)
		if now >= end {
			d.io.receive(0, measured)
			return ctx.Err()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		idle := min(longestIdle, end-now)
		for _, f := range d.flows {
			n, wait := f.ready(now)
			for range n {
				d.io.send(f, f.next, measured)
				f.next = (f.next + 1) % d.cfg.Allocations
			}
			if n > 0 {
				wait = 0
			}
			idle = min(idle, wait)
		}
		d.io.receive(idle, measured)
	}
}

// drain receives until nothing measured is missing, or nothing has come for a time, or the limit.
func (d *driver) drain(ctx context.Context, quiet, limit time.Duration) error {
	start := time.Now()
	missing, since := d.missing(), start
	for missing > 0 && time.Since(since) < quiet && time.Since(start) < limit {
		if err := ctx.Err(); err != nil {
			return err
		}
		d.io.receive(time.Millisecond, false)
		if now := d.missing(); now != missing {
			missing, since = now, time.Now()
		}
	}
	return nil
}
