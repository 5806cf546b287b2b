//go:build unix

package node

import "syscall"

// openFiles is how many descriptors this process may have open; Go has raised it as far as it may. 0: nobody knows.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), 1<<24)) // without a limit it is the greatest number there is
}
