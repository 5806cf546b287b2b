package lease

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now is the time since the machine started, suspended or not (CLOCK_BOOTTIME).
func Now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // Linux has had this clock since 2.6.39
	}
	return time.Duration(t.Nano())
}
