package limit

import (
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

func TestAWindowBeginsWithItsFirstEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewFixedWindow[string](3)
		for i := range 3 {
			if c.Exceeded("kim") || !c.Take("kim") {
				t.Fatalf("number %d of 3 is too much", i+1)
			}
			time.Sleep(10 * time.Second)
		}
		c.Add("kim") // was let through before it counted
		if !c.Exceeded("kim") || c.Take("kim") {
			t.Error("there is no limit")
		}
		if c.Exceeded("lee") || !c.Take("lee") {
			t.Error("one key counts for another")
		}
		time.Sleep(30*time.Second - time.Nanosecond)
		if !c.Exceeded("kim") {
			t.Error("forgotten before the minute was over")
		}
		time.Sleep(time.Nanosecond)
		if c.Exceeded("kim") || !c.Take("kim") {
			t.Error("not forgotten")
		}
		if n := c.Rejected(); n != 3 {
			t.Errorf("%d refusals were counted, want 3", n)
		}
		time.Sleep(time.Minute)
		if c.Exceeded("kim"); c.windows != nil || c.chains != nil {
			t.Error("an empty window keeps memory")
		}
	})
}

func TestAWindowWithoutALimitCountsNothing(t *testing.T) {
	c := NewFixedWindow[int](-1)
	for range 10 {
		c.Add(1)
		if c.Exceeded(1) || !c.Take(1) {
			t.Fatal("refused")
		}
	}
	if c.windows != nil {
		t.Error("counted")
	}
}

func TestAFullWindowEvictsTheOldestKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewFixedWindow[int](1)
		for i := range 3 * maxKeys {
			if !c.Take(i) {
				t.Fatalf("number %d was refused because others are many", i)
			}
			if i%1000 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		if c.Len() != maxKeys || len(c.windows) != maxKeys || len(c.chains) != maxKeys {
			t.Errorf("%d keys in a ring of %d", c.Len(), len(c.windows))
		}
		if !c.Exceeded(3*maxKeys-1) || !c.Exceeded(2*maxKeys) {
			t.Error("the newest are forgotten")
		}
		if c.Exceeded(2*maxKeys - 1) {
			t.Error("the oldest is remembered")
		}
	})
}

// A FixedWindow counts as a plain map of times does, whatever comes, expires and is evicted, and
// its ring is never much longer than its keys need.
func TestAWindowCountsAsAMapDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		type counted struct {
			ends time.Time
			n    int
		}
		const limit = 5
		w, want := NewFixedWindow[int](limit), map[int]counted{}
		for step := range 40_000 {
			// Crowds come and go, so that the ring grows and shrinks.
			key := rng.IntN(1 + 500*(step/5000%2))
			now := time.Now()
			c := want[key]
			if !now.Before(c.ends) {
				c = counted{now.Add(Window), 0}
			}
			switch rng.IntN(4) {
			case 0:
				w.Add(key)
				c.n++
				want[key] = c
			case 1:
				if got := w.Take(key); got != (c.n < limit) {
					t.Fatalf("step %d: taken %t after %d", step, got, c.n)
				}
				if c.n < limit {
					c.n++
					want[key] = c
				}
			case 2:
				if got := w.Exceeded(key); got != (c.n >= limit) {
					t.Fatalf("step %d: exceeded %t after %d", step, got, c.n)
				}
			default:
				time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
			}
			live := 0
			for key, c := range want {
				if time.Now().Before(c.ends) {
					live++
				} else {
					delete(want, key)
				}
			}
			if n := w.Len(); n != live || len(w.windows) > max(minWindows, 8*live) {
				t.Fatalf("step %d: %d keys, want %d, in a ring of %d",
					step, n, live, len(w.windows))
			}
		}
		time.Sleep(Window)
		if n := w.Len(); n != 0 || w.windows != nil {
			t.Errorf("%d keys after their windows", n)
		}
	})
}

// Keys whose hashes meet in one chain are counted apart, also after the oldest are evicted.
func TestKeysOfOneChainAreCountedApart(t *testing.T) {
	w := NewFixedWindow[int](1)
	now := time.Now()
	for i := range 40 {
		w.count(uint64(i)<<32, now)
	}
	for i := range 20 {
		w.evict()
		if w.find(uint64(i)<<32) != nil || w.countOf(uint64(i+1)<<32) != 1 {
			t.Fatalf("after %d were evicted", i+1)
		}
	}
	for i := 20; i < 40; i++ {
		if w.countOf(uint64(i)<<32) != 1 {
			t.Errorf("key %d is lost", i)
		}
	}
}

// A full table costs what docs/operating/capacity.md says of it.
func TestAFullWindowIsSmall(t *testing.T) {
	const tables, most = 4, 1_850_000 // bytes each
	var full [tables]*FixedWindow[string]
	before := heap()
	for i := range full {
		full[i] = NewFixedWindow[string](10)
		for n := range 2 * maxKeys {
			full[i].Add(strconv.Itoa(n))
		}
	}
	each := (heap() - before) / tables
	t.Logf("%d bytes for each full table", each)
	if each > most {
		t.Errorf("a full table has %d bytes, at most %d are documented", each, most)
	}
	if n := full[0].Len(); n != maxKeys {
		t.Errorf("%d keys", n)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkFullWindow(b *testing.B) {
	w := NewFixedWindow[int](10)
	for i := range maxKeys {
		w.Add(i)
	}
	b.ReportAllocs()
	n := maxKeys
	for b.Loop() {
		w.Take(n)
		n++
	}
}
