package lease

import (
	"testing"
	"time"
)

func TestALeaseHoldsUntilItsEnd(t *testing.T) {
	var l Lease
	if l.Holds(1) {
		t.Error("the zero lease holds")
	}
	l.Extend(10)
	l.Extend(5) // an answer that was overtaken by a later one
	if !l.Holds(9) || l.Holds(10) || l.Ended(12) != 2 {
		t.Error("it does not end at 10")
	}
	l.End()
	if l.Holds(9) {
		t.Error("it holds after its end")
	}
}

func TestTheClockGoesOn(t *testing.T) {
	a := Now()
	for range 1000 {
		b := Now()
		if b < a {
			t.Fatalf("%v after %v", b, a)
		}
		a = b
	}
	if a <= 0 || a > 100*365*24*time.Hour {
		t.Errorf("%v since the machine started", a)
	}
}
