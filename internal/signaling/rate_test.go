package signaling

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestAMeterTakesABurstAndThenTheRate(t *testing.T) {
	var m meter
	f := newFlood(30, 300)
	take := func(at time.Duration, want int) {
		t.Helper()
		n := 0
		for m.take(at, f, 1) {
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

func TestAMeterStandsAnyRate(t *testing.T) {
	for _, c := range []struct{ rate, burst float64 }{{1e12, 1e12}, {1e-12, 2}, {math.SmallestNonzeroFloat64, math.MaxFloat64}, {math.Inf(1), 1}} {
		var m meter
		f := newFlood(c.rate, c.burst)
		for i := range 2 {
			if !m.take(time.Duration(i)*time.Hour, f, 1) && c.burst > 1 {
				t.Errorf("rate %g, burst %g: number %d refused", c.rate, c.burst, i+1)
			}
		}
	}
}

// A message of an old connection may come while the new one's is counted.
func TestAMeterCountsEveryMessageOnce(t *testing.T) {
	var m meter
	var taken atomic.Int64
	f := newFlood(30, 300)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				if m.take(time.Hour, f, 1) {
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

func TestComingBackDoesNotRefillTheRate(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		lee := w.user(0, "lee")
		kim := w.user(0, "kim")
		w.room("K1", lee, kim)
		secret := kim.secret
		for range 249 { // and the joinRoom; register counts for the connection
			kim.want("200", msg{"eventOp": "keepAlive"})
		}
		kim.lose()
		kim = w.connect(0)
		kim.register("kim", "resume", secret)
		for range 50 {
			kim.want("200", msg{"eventOp": "keepAlive"})
		}
		for range 1200 { // four times as many are refused
			w.says(kim.want("429", msg{"eventOp": "keepAlive"}), "too many messages")
		}
		w.hits("messages", 0)
		kim.ask(msg{"eventOp": "keepAlive"})
		if c := kim.closeCode(); c != 1008 {
			t.Errorf("closed with %d, want 1008", c)
		}
		w.hits("messages", 1)
		w.hits("messages_refused", 1200)
		lee.want("200", msg{"eventOp": "keepAlive"})
		lee.saw("") // nobody has left

		kim = w.connect(0) // a session is not lost by it
		kim.register("kim", "resume", secret)
		time.Sleep(time.Second)
		for range 30 {
			kim.want("200", msg{"eventOp": "keepAlive"})
		}
		for range 120 {
			kim.want("429", msg{"eventOp": "keepAlive"})
		}
		kim.ask(msg{"eventOp": "keepAlive"})
		if c := kim.closeCode(); c != 1008 {
			t.Errorf("closed with %d, want 1008", c)
		}
	})
}
