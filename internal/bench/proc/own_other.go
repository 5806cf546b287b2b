//go:build !linux

package proc

import "time"

// Renice works on Linux only.
func Renice() {}

// OwnCPU is measured on Linux only.
func OwnCPU() time.Duration { return 0 }
