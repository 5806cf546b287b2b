//go:build unix

package config

import "syscall"

// maxDescriptors is RLIMIT_NOFILE, the soft limit, which the Go runtime has raised to the hard one.
// 0: unknown.
func maxDescriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), 1<<24)) // unlimited is the largest number there is
}
