package main

import (
	"os"
	"runtime"
)

// workers is the number of threads of the relay, one per core by default.
func workers(asked int) int {
	if asked == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return asked
}

// makeRoomFor lets Go run one thread more than the relay has workers, unless GOMAXPROCS is set: a
// busy handler must not take the thread of a worker, whose packets would wait. undo restores the
// former number.
func makeRoomFor(workers int) (undo func()) {
	if os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) > workers {
		return func() {}
	}
	before := runtime.GOMAXPROCS(workers + 1)
	return func() { runtime.GOMAXPROCS(before) }
}
