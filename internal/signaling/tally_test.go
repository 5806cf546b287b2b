package signaling

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestATallyCountsAMinuteFromTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTally[string](3)
		for i := range 3 {
			if c.spent("kim") || !c.take("kim") {
				t.Fatalf("number %d of 3 is too much", i+1)
			}
			time.Sleep(10 * time.Second)
		}
		c.add("kim") // was let through before it counted
		if !c.spent("kim") || c.take("kim") {
			t.Error("there is no limit")
		}
		if c.spent("lee") || !c.take("lee") {
			t.Error("one key counts for another")
		}
		time.Sleep(30*time.Second - time.Nanosecond)
		if !c.spent("kim") {
			t.Error("forgotten before the minute was over")
		}
		time.Sleep(time.Nanosecond)
		if c.spent("kim") || !c.take("kim") {
			t.Error("not forgotten")
		}
		if n := c.hits.Load(); n != 3 {
			t.Errorf("%d refusals were counted, want 3", n)
		}
		time.Sleep(time.Minute)
		if c.spent("kim"); c.counts != nil || c.ends != nil {
			t.Error("an empty tally keeps memory")
		}
	})
}

func TestATallyWithoutALimitCountsNothing(t *testing.T) {
	c := newTally[int](-1)
	for range 10 {
		c.add(1)
		if c.spent(1) || !c.take(1) {
			t.Fatal("refused")
		}
	}
	if c.counts != nil {
		t.Error("counted")
	}
}

func TestAFullTallyForgetsTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTally[int](1)
		for i := range 3 * maxTally {
			if !c.take(i) {
				t.Fatalf("number %d was refused because others are many", i)
			}
			if i%1000 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		if len(c.counts) != maxTally || len(c.ends)-c.first != maxTally || cap(c.ends) > 4*maxTally {
			t.Errorf("%d counts, %d ends in a list of %d", len(c.counts), len(c.ends)-c.first, cap(c.ends))
		}
		if !c.spent(3*maxTally-1) || !c.spent(2*maxTally) {
			t.Error("the newest are forgotten")
		}
		if c.spent(2*maxTally - 1) {
			t.Error("the oldest is remembered")
		}
	})
}
