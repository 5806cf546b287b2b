package main

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestGarbageIsAllowedWhileCollectionsFollowEachOther(t *testing.T) {
	const live = 16 << 20
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var did []int // percents; 0: memory was given up
		note := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			did = append(did, n)
		}
		c := newCollector(func() uint64 { return live }, note, func() { note(0) })
		go c.run()
		defer c.stop()
		collect := func(after time.Duration) {
			time.Sleep(after)
			c.collected <- struct{}{}
		}
		expect := func(when string, want ...int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(did, want) {
				t.Fatalf("%s: %v, want %v", when, did, want)
			}
		}

		for range 10 {
			collect(gcBusy)
		}
		expect("seldom enough")
		collect(gcBusy - time.Millisecond)
		expect("busy", 200)
		collect(gcQuiet - time.Millisecond)
		expect("still busy", 200, 200)
		time.Sleep(gcQuiet - time.Millisecond)
		expect("not quiet for long enough", 200, 200)
		time.Sleep(time.Millisecond)
		expect("quiet", 200, 200, gcPercent, 0)
		collect(time.Millisecond) // which giving up has caused
		time.Sleep(2 * gcQuiet)
		expect("after its own", 200, 200, gcPercent, 0)
	})
}

func TestLittleLiveMemoryMeansNoUnboundedPercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0:        3200,
		1 << 20:  3200,
		32 << 20: 100,
		1 << 30:  gcPercent,
	} {
		synctest.Test(t, func(t *testing.T) {
			var got atomic.Int64
			c := newCollector(
				func() uint64 { return live }, func(p int) { got.Store(int64(p)) }, func() {},
			)
			go c.run()
			defer c.stop()
			c.collected <- struct{}{}
			synctest.Wait()
			c.collected <- struct{}{}
			synctest.Wait()
			if got := int(got.Load()); got != want {
				t.Errorf("%d bytes live: %d %%, want %d", live, got, want)
			}
		})
	}
}

func TestEveryCollectionIsTold(t *testing.T) {
	c := newCollector(liveBytes, func(int) {}, func() {})
	c.watch()
	for range 3 {
		runtime.GC()
		<-c.collected
	}
	close(c.quit)
	if liveBytes() == 0 {
		t.Error("nothing is live")
	}
}
