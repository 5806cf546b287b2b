package main

import (
	"os"
	"runtime"
)

// workers is how many threads the relay gets: one a core unless told otherwise.
func workers(asked int) int {
	if asked == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return asked
}

// makeRoomFor lets Go run one thread more than the relay has workers, unless the environment says how many: a handler that is busy
// must find a thread of its own and not take a worker's, or packets wait for it. undo sets back what was.
func makeRoomFor(workers int) (undo func()) {
	if os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) > workers {
		return func() {}
	}
	before := runtime.GOMAXPROCS(workers + 1)
	return func() { runtime.GOMAXPROCS(before) }
}
