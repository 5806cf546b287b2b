package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// Thousands of silent connections are live memory, to which Go's default would let as much
	// garbage be added before it collects. A third of that costs little: what runs often, passing
	// messages on, leaves next to no garbage.
	gcPercent = 33

	// When a thousand clients come back at once, their handshakes leave a hundred megabytes of
	// garbage within a second. Collected ten times, it takes half of two processors from those who
	// have something to say. So while collections follow each other this fast, this much garbage
	// may be there before the next.
	gcBusy     = 250 * time.Millisecond
	gcHeadroom = 32 << 20
	// Without a collection for so long it is quiet again: the memory goes back to the system.
	gcQuiet = 2 * time.Second
)

// collector decides how much garbage there may be.
type collector struct {
	live    func() uint64     // bytes that the last collection left
	percent func(percent int) // of these may be added before the next
	giveUp  func()            // collects, and gives free memory back

	collected chan struct{}
	quit      chan struct{}
	done      chan struct{}
}

// keepLittleGarbage does so until stop is called. Whoever sets GOGC decides alone.
func keepLittleGarbage() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(gcPercent)
	c := newCollector(
		liveBytes, func(percent int) { debug.SetGCPercent(percent) }, debug.FreeOSMemory,
	)
	c.watch()
	go c.run()
	return func() {
		c.stop()
		debug.SetGCPercent(before)
	}
}

func newCollector(live func() uint64, percent func(int), giveUp func()) *collector {
	return &collector{
		live: live, percent: percent, giveUp: giveUp,
		collected: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
}

func (c *collector) stop() {
	close(c.quit)
	<-c.done
}

// unreachable is what the next collection finds. It is too large to share its place with others,
// and has a pointer.
type unreachable struct{ _ [4]*byte }

// watch has run told of every collection.
func (c *collector) watch() {
	runtime.AddCleanup(new(unreachable), func(c *collector) {
		select {
		case <-c.quit:
			return
		case c.collected <- struct{}{}:
		default:
		}
		c.watch()
	}, c)
}

func (c *collector) run() {
	defer close(c.done)
	var last time.Time
	busy := false
	quiet := time.NewTimer(gcQuiet)
	quiet.Stop()
	defer quiet.Stop()
	for {
		select {
		case <-c.quit:
			return
		case <-c.collected:
			now := time.Now()
			busy = busy || now.Sub(last) < gcBusy
			if busy {
				c.percent(max(gcPercent, int(gcHeadroom*100/max(c.live(), 1<<20))))
				quiet.Reset(gcQuiet)
			}
			last = now
		case <-quiet.C:
			c.percent(gcPercent)
			c.giveUp()
			busy, last = false, time.Time{} // the next that is told of is our own
		}
	}
}

// liveBytes is what the last collection left.
func liveBytes() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
