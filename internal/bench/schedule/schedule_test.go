package schedule

import (
	"context"
	"slices"
	"testing"
	"time"
)

// virtual is a pacer whose time passes while it sleeps.
func virtual(now *time.Duration, stall time.Duration) *Pacer {
	p := NewPacer(func() time.Duration { return *now }, stall)
	p.sleep = func(d time.Duration) { *now += d }
	return p
}

// A load that waits for a server that stalls would measure few slow messages instead of many.
func TestWhatIsLateCountsFromWhenItWasDue(t *testing.T) {
	var now time.Duration
	p := virtual(&now, time.Hour)
	const stall, ends = 300 * time.Millisecond, 500 * time.Millisecond
	var late []time.Duration
	slow := PerSecond(100, 0, time.Second, func(due time.Duration) bool {
		if now >= stall && now < ends {
			return false
		}
		late = append(late, now-due)
		return true
	})
	n := 0
	other := PerSecond(100, 0, time.Second, func(due time.Duration) bool {
		if now-due > retryAfter {
			t.Errorf("what was due at %s waited for the other until %s", due, now)
		}
		n++
		return true
	})
	if undone := p.Run(t.Context(), slow, other); undone != 0 || len(late) != 100 || n != 100 {
		t.Fatalf("%d undone, %d and %d done", undone, len(late), n)
	}
	if most := slices.Max(late); most < ends-stall || most > ends-stall+retryAfter {
		t.Errorf("the latest was %s late", most)
	}
	if waited := slices.IndexFunc(late, func(d time.Duration) bool {
		return d > time.Millisecond
	}); waited != 30 ||
		late[49] < time.Millisecond ||
		late[51] > time.Millisecond {
		t.Errorf("late were %v", late)
	}
	if p.Late.Quantile(0) != 0 || p.Late.Quantile(1) < float64(ends-stall)*0.98 {
		t.Errorf("late from %v to %v", p.Late.Quantile(0), p.Late.Quantile(1))
	}
}

func TestWhatCannotBeDoneIsGivenUpAndCounted(t *testing.T) {
	var now time.Duration
	p := virtual(&now, time.Second)
	done := 0
	never := PerSecond(
		10,
		0,
		10*time.Second,
		func(time.Duration) bool { done++; return done <= 30 },
	)
	if undone := p.Run(t.Context(), never); undone != 70 || now > 5*time.Second {
		t.Errorf("%d undone at %s", undone, now)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if undone := p.Run(ctx, PerSecond(10, now, now+time.Second, func(time.Duration) bool {
		return true
	})); undone != 10 {
		t.Errorf("%d undone of 10, when nobody wanted them any more", undone)
	}
}
