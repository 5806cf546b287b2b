package turn

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// newTestTraffic is traffic whose config has been given its defaults.
func newTestTraffic(change func(*Config)) *traffic {
	c := Config{Allocations: 4, Burst: 2, Window: 20}
	change(&c)
	c.setDefaults()
	return newTraffic(c)
}

func (f *flow) payload(allocation int, measured bool, at int64) []byte {
	p := make([]byte, f.cfg.Size)
	f.stamp(p, allocation, measured, at)
	return p
}

func TestPayloadsAreCountedOnceInTheRightPlace(t *testing.T) {
	tr := newTestTraffic(func(c *Config) { c.Shape = ShapeBoth })
	up, down := tr.atPeer, tr.atClient
	tr.atThePeer(up.payload(2, false, 100), 200) // warm-up
	tr.atThePeer(up.payload(2, true, 100), 1100)
	tr.atAClient(3, down.payload(3, true, 100), 1100)
	if up.received.Load() != 2 || up.measured.Load() != 1 || down.measured.Load() != 1 ||
		tr.unexpected.Load() != 0 ||
		tr.missing() != 0 ||
		tr.received() != 3 {
		t.Errorf("%+v", tr)
	}
	if got := tr.delays.Quantile(0.5); got < 990 || got > 1010 {
		t.Errorf("delay %v", got)
	}
	lost := up.payload(2, true, 100)
	next := up.payload(2, true, 100)
	tr.atThePeer(next, 200)
	if tr.missing() != 1 || up.reordered.Load() != 0 {
		t.Errorf("%d missing", tr.missing())
	}
	tr.atThePeer(lost, 300)
	if tr.missing() != 0 || up.reordered.Load() != 1 {
		t.Errorf("%d missing, %d reordered", tr.missing(), up.reordered.Load())
	}
}

func TestUnexpectedPacketsAreCounted(t *testing.T) {
	up := newTestTraffic(func(c *Config) { c.Shape = ShapeUp })
	both := newTestTraffic(func(c *Config) { c.Shape = ShapeBoth })
	hairpin := newTestTraffic(func(c *Config) { c.Shape = ShapeHairpin })
	change := func(p []byte, at int, to byte) []byte { p[at] = to; return p }
	for name, c := range map[string]struct {
		in      *traffic
		deliver func()
	}{
		"another run": {up, func() { up.atThePeer(both.atPeer.payload(0, true, 1), 2) }},
		"cut": {up, func() {
			up.atThePeer(up.flows[0].payload(0, true, 1)[:payloadHeader-1], 2)
		}},
		"longer": {up, func() {
			up.atThePeer(append(up.flows[0].payload(0, true, 1), 0), 2)
		}},
		"nothing": {up, func() { up.atThePeer(nil, 2) }},
		"no such allocation": {up, func() {
			up.atThePeer(change(up.flows[0].payload(0, true, 1), 7, 4), 2)
		}},
		"back to a client": {up, func() {
			up.atAClient(0, up.flows[0].payload(0, true, 1), 2)
		}},
		"the other direction": {both, func() {
			both.atAClient(0, both.atPeer.payload(0, true, 1), 2)
		}},
		"another client": {both, func() {
			both.atAClient(1, both.atClient.payload(0, true, 1), 2)
		}},
		"back to its own": {hairpin, func() {
			hairpin.atAClient(1, hairpin.flows[0].payload(1, true, 1), 2)
		}},
		"across pairs": {hairpin, func() {
			hairpin.atAClient(2, hairpin.flows[0].payload(0, true, 1), 2)
		}},
		"at a peer of hairpin": {
			hairpin,
			func() { hairpin.atThePeer(hairpin.flows[0].payload(0, true, 1), 2) },
		},
	} {
		before, received := c.in.unexpected.Load(), c.in.received()
		c.deliver()
		if c.in.unexpected.Load() != before+1 || c.in.received() != received {
			t.Errorf(
				"%s: %d unexpected, %d received",
				name,
				c.in.unexpected.Load()-before,
				c.in.received()-received,
			)
		}
	}
	hairpin.atAClient(1, hairpin.flows[0].payload(0, true, 1), 2)
	if hairpin.received() != 1 {
		t.Error("a packet between the two of a pair is not counted")
	}
}

func TestPacketsThatTheKernelRefusedWereNotSent(t *testing.T) {
	tr := newTestTraffic(func(c *Config) { c.Shape = ShapeUp })
	f := tr.flows[0]
	f.payload(0, true, 1)
	f.payload(0, true, 1)
	f.unsent(1, true, errors.New("first"))
	f.unsent(0, true, errors.New("second"))
	if f.sent != 1 || f.measuredSent != 1 || tr.firstError() != "first" {
		t.Errorf("%d sent, fault %q", f.sent, tr.firstError())
	}
}

func TestWindowIsNeverExceeded(t *testing.T) {
	f := newTestTraffic(func(*Config) {}).flows[0] // window 20, bursts of 2
	send := func(now time.Duration) int {
		n, idle := f.ready(now)
		f.sent += int64(n * 2)
		if n == 0 && idle != lookEvery {
			t.Errorf("nothing to do for %v", idle)
		}
		return n
	}
	if a, b, c := send(0), send(1), send(2); a != 8 || b != 2 || c != 0 {
		t.Errorf("%d, %d, %d bursts", a, b, c)
	}
	f.received.Add(3)
	if n := send(3); n != 1 { // one packet of room is no room for a burst
		t.Errorf("%d bursts after three arrivals", n)
	}
	if n := send(stall); n != 0 {
		t.Errorf("%d bursts before the stall is over", n)
	}
	if n := send(stall + 4); n != 8 {
		t.Errorf("%d bursts after a stall", n)
	}
	// What was given up comes after all: no more than a window is in flight even so.
	f.received.Store(f.sent)
	send(stall + 5)
	send(stall + 6)
	if inFlight := f.sent - f.received.Load(); inFlight != 20 {
		t.Errorf("%d in flight", inFlight)
	}
}

func TestRateIsKeptAndDebtIsBounded(t *testing.T) {
	// a burst each millisecond and flow
	tr := newTestTraffic(func(c *Config) { c.Shape, c.Rate = ShapeBoth, 4000 })
	first, second := tr.flows[0], tr.flows[1]
	if n, idle := first.ready(0); n != 1 || idle != time.Millisecond {
		t.Errorf("%d bursts, then %v", n, idle)
	}
	if n, idle := second.ready(0); n != 0 || idle != time.Millisecond/2 {
		t.Errorf("the second flow: %d bursts, then %v", n, idle)
	}
	if n, _ := first.ready(3 * time.Millisecond); n != 3 {
		t.Errorf("%d bursts in three milliseconds", n)
	}
	total := 0
	for {
		n, _ := first.ready(10 * time.Second)
		if n > burstsAtOnce {
			t.Fatalf("%d bursts at once", n)
		}
		if n == 0 {
			break
		}
		total += n
	}
	if total != int(maxDebt/time.Millisecond)+1 {
		t.Errorf("%d bursts after a long absence", total)
	}
}

// fakeIO delivers what is sent after a time, or never.
type fakeIO struct {
	*traffic
	after time.Duration
	lose  func(number int) bool
	sent  int
	queue []fakePacket
}

type fakePacket struct {
	payload []byte
	due     time.Time
}

func (c *fakeIO) send(f *flow, allocation int, measured bool) {
	for range c.cfg.Burst {
		now := time.Now()
		p := fakePacket{f.payload(allocation, measured, now.UnixNano()), now.Add(c.after)}
		if c.sent++; c.lose == nil || !c.lose(c.sent) {
			c.queue = append(c.queue, p)
		}
	}
}

func (c *fakeIO) receive(after time.Duration, _ bool) {
	time.Sleep(max(after, time.Microsecond)) // virtual; a system call takes time too
	for len(c.queue) > 0 && !c.queue[0].due.After(time.Now()) {
		c.atThePeer(c.queue[0].payload, time.Now().UnixNano())
		c.queue = c.queue[1:]
	}
}

func TestDriverSendsAtItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTestTraffic(func(c *Config) { c.Rate = 1000 })
		d := driver{traffic: tr, io: &fakeIO{traffic: tr, after: 3 * time.Millisecond}}
		warm, play, drain := d.play(
			t.Context(),
			time.Second,
			false,
		), d.play(
			t.Context(),
			2*time.Second,
			true,
		), d.drain(
			t.Context(),
			drainIdle,
			drainLimit,
		)
		if warm != nil || play != nil || drain != nil {
			t.Fatal(warm, play, drain)
		}
		f := tr.flows[0]
		burst := int64(tr.cfg.Burst) // one more or less at the ends
		if n := f.measuredSent; n < 2000-burst || n > 2000+burst || f.measured.Load() != n ||
			f.received.Load() != f.sent ||
			tr.unexpected.Load()+f.reordered.Load() != 0 {
			t.Errorf(
				"%d measured of %d sent, %d arrived",
				f.measuredSent,
				f.sent,
				f.measured.Load(),
			)
		}
		if p50 := time.Duration(tr.delays.Quantile(0.5)); p50 < 3*time.Millisecond ||
			p50 > 5*time.Millisecond {
			t.Errorf("p50 %v", p50)
		}
		if lo, hi := slices.Min(f.numbers), slices.Max(f.numbers); hi-lo > 2 {
			t.Errorf("allocations sent %d to %d packets", lo, hi)
		}
	})
}

func TestDriverWithAWindowIsAsFastAsTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTestTraffic(func(*Config) {})
		d := driver{traffic: tr, io: &fakeIO{traffic: tr, after: time.Millisecond}}
		if err := d.play(t.Context(), time.Second, true); err != nil {
			t.Fatal(err)
		}
		// a window of 20 each millisecond, and a look each 50 µs
		if n := tr.flows[0].measuredSent; n < 17_000 || n > 20_040 {
			t.Errorf("%d sent in a second", n)
		}
	})
}

func TestDriverGoesOnWhenPacketsAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTestTraffic(func(*Config) {})
		d := driver{
			traffic: tr,
			io:      &fakeIO{traffic: tr, lose: func(n int) bool { return n%100 == 0 }},
		}
		if err := d.play(t.Context(), 10*time.Second, true); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := d.drain(t.Context(), drainIdle, drainLimit); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < drainIdle || took > drainIdle+10*time.Millisecond {
			t.Errorf("waited %v for what is lost", took)
		}
		f := tr.flows[0]
		if f.measuredSent < 20_000 || tr.missing() != f.measuredSent/100 {
			t.Errorf("%d of %d missing", tr.missing(), f.measuredSent)
		}
	})
}

func TestDriverEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTestTraffic(func(c *Config) { c.Rate = 1000 })
		d := driver{
			traffic: tr,
			io:      &fakeIO{traffic: tr, lose: func(int) bool { return true }},
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.play(ctx, time.Hour, true); !errors.Is(err, context.DeadlineExceeded) ||
			time.Since(d.start) > time.Second+2*longestIdle {
			t.Errorf("%v after %v", err, time.Since(d.start))
		}
		if err := d.drain(ctx, drainIdle, drainLimit); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("drain: %v", err)
		}
	})
}
