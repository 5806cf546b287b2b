package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// nap is a sleep whose end the kernel decides: Go's own waits for sockets by whole milliseconds, and would be that late.
func nap(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil) // a signal ends it early, which does no harm
}

// giveWay lets other processes of the machine run before this one.
func giveWay() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10) }
