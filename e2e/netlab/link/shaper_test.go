package link

import (
	"testing"
	"time"
)

const ms = time.Millisecond

func TestSchedule(t *testing.T) {
	type arrival struct {
		at     time.Duration
		size   int
		random float64
		due    time.Duration
		lost   bool
	}
	for _, c := range []struct {
		name     string
		params   Params
		arrivals []arrival
	}{
		{"nothing asked, nothing done", Params{}, []arrival{{at: 3 * ms, size: 1500, due: 3 * ms}}},
		{"delay", Params{Delay: 20 * ms}, []arrival{
			{at: 0, due: 20 * ms},
			{at: 5 * ms, due: 25 * ms},
		}},
		{"jitter keeps the order", Params{Delay: 20 * ms, Jitter: 10 * ms}, []arrival{
			{at: 0, random: 0.9, due: 29 * ms},
			{at: 1 * ms, random: 0, due: 29 * ms},
			{at: 20 * ms, random: 0.5, due: 45 * ms},
		}},
		{"loss", Params{Loss: 0.5}, []arrival{{random: 0.4, lost: true}, {random: 0.5}}},
		{"down", Params{Down: true}, []arrival{{random: 0.99, lost: true}}},
		// 1000 bytes at 1 Mbit/s take 8 ms on the wire.
		{"rate spaces packets", Params{Rate: 1e6, Delay: ms}, []arrival{
			{at: 0, size: 1000, due: 9 * ms},
			{at: 0, size: 1000, due: 17 * ms},
			{at: 100 * ms, size: 1000, due: 109 * ms},
		}},
		{"rate drops the tail beyond the queue", Params{Rate: 1e6, Queue: 10 * ms}, []arrival{
			{size: 1000, due: 8 * ms},
			{size: 1000, due: 16 * ms},
			{size: 1000, lost: true},
			{at: 7 * ms, size: 1000, due: 24 * ms},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s shaper
			base := time.Unix(1000, 0)
			for i, a := range c.arrivals {
				due, ok := s.schedule(
					c.params,
					base.Add(a.at),
					a.size,
					func() float64 { return a.random },
				)
				if ok == a.lost {
					t.Fatalf("packet %d: passed %v, want %v", i, ok, !a.lost)
				}
				if ok && due.Sub(base) != a.due {
					t.Errorf("packet %d: due after %v, want %v", i, due.Sub(base), a.due)
				}
			}
		})
	}
}
