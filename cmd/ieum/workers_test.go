package main

import (
	"os"
	"runtime"
	"testing"
)

func TestTheRelaysWorkersLeaveAThreadToOthers(t *testing.T) {
	if set, ok := os.LookupEnv("GOMAXPROCS"); ok {
		t.Setenv("GOMAXPROCS", set) // is set back when the test ends
		os.Unsetenv("GOMAXPROCS")
	}
	before := runtime.GOMAXPROCS(0)
	for _, asked := range []int{0, before + 3} {
		n := workers(asked)
		undo := makeRoomFor(n)
		if got := runtime.GOMAXPROCS(0); got != n+1 {
			t.Errorf("%d workers get %d threads", n, got)
		}
		undo()
	}
	t.Setenv("GOMAXPROCS", "1") // whoever says so must know
	undo := makeRoomFor(before + 3)
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("%d threads, though the environment says how many", got)
	}
	undo()
}
