package limit

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestGCRATakesABurstAndThenTheRate(t *testing.T) {
	var g GCRA
	r := NewRate(30, 300)
	take := func(at time.Duration, want int) {
		t.Helper()
		n := 0
		for g.Take(at, r, 1) {
			if n++; n > 1000 {
				t.Fatal("without end")
			}
		}
		if n != want {
			t.Errorf("%d at %v, want %d", n, at, want)
		}
	}
	take(time.Hour, 300)
	take(time.Hour+time.Second, 30)
	take(time.Hour+time.Second+34*time.Millisecond, 1)
	take(2*time.Hour, 300)
}

func TestGCRATakesAnyRate(t *testing.T) {
	for _, c := range []struct{ rate, burst float64 }{
		{1e12, 1e12},
		{1e-12, 2},
		{math.SmallestNonzeroFloat64, math.MaxFloat64},
		{math.Inf(1), 1},
	} {
		var g GCRA
		r := NewRate(c.rate, c.burst)
		for i := range 2 {
			if !g.Take(time.Duration(i)*time.Hour, r, 1) && c.burst > 1 {
				t.Errorf("rate %g, burst %g: number %d refused", c.rate, c.burst, i+1)
			}
		}
	}
}

// A message of an old connection may come while the new one's is counted.
func TestGCRACountsEveryUnitOnce(t *testing.T) {
	var g GCRA
	var taken atomic.Int64
	r := NewRate(30, 300)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				if g.Take(time.Hour, r, 1) {
					taken.Add(1)
				}
			}
		})
	}
	all.Wait()
	if n := taken.Load(); n != 300 {
		t.Errorf("%d were taken, want 300", n)
	}
}
