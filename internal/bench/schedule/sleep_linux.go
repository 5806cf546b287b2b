package schedule

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleep leaves the wake-up to the kernel: Go's own timers wake with the netpoller, whose timeout is
// in whole milliseconds.
func sleep(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil) // a signal ends it early, which does no harm
}
