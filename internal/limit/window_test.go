package limit

import (
	"math/rand/v2"
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
		if c.Exceeded("kim"); c.counts != nil || c.ends != nil {
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
	if c.counts != nil {
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
		if len(c.counts) != maxKeys || len(c.ends)-c.first != maxKeys || cap(c.ends) > 4*maxKeys {
			t.Errorf(
				"%d counts, %d ends in a list of %d",
				len(c.counts), len(c.ends)-c.first, cap(c.ends),
			)
		}
		if !c.Exceeded(3*maxKeys-1) || !c.Exceeded(2*maxKeys) {
			t.Error("the newest are forgotten")
		}
		if c.Exceeded(2*maxKeys - 1) {
			t.Error("the oldest is remembered")
		}
	})
}

// At any time as many windows are remembered as keys, however they are counted, expire and are
// evicted.
func TestEveryKeyHasOneWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		w := NewFixedWindow[int](5)
		for range 20_000 {
			key := rng.IntN(500)
			switch rng.IntN(4) {
			case 0:
				w.Add(key)
			case 1:
				w.Take(key)
			case 2:
				w.Exceeded(key)
			default:
				time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
			}
			if n := w.Len(); n != len(w.ends)-w.first || n > 500 {
				t.Fatalf("%d keys, %d windows", n, len(w.ends)-w.first)
			}
		}
		time.Sleep(Window)
		if n := w.Len(); n != 0 {
			t.Errorf("%d keys after their windows", n)
		}
	})
}
