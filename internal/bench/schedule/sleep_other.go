//go:build !linux

package schedule

import "time"

func sleep(d time.Duration) { time.Sleep(d) }
