//go:build !linux

package lease

import "time"

var start = time.Now()

// Now is the time since the process started. Whether it counts while the machine is suspended
// depends on the system.
func Now() time.Duration { return time.Since(start) + 1 }
