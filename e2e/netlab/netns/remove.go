//go:build linux

package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How long killed processes may take to be gone, and how often that is looked at.
const (
	endLimit = 10 * time.Second
	endPause = 5 * time.Millisecond
)

// Remove ends every process inside the namespaces whose names begin with prefix and removes the
// namespaces. Nothing else can be in them but what was started there. It may be called again after
// a failure.
func Remove(prefix string) error {
	if len(prefix) < 4 {
		return fmt.Errorf("prefix %q is too short to be one run's", prefix)
	}
	names, err := filepath.Glob(filepath.Join(Dir, prefix+"*"))
	if err != nil {
		return err
	}
	inodes := map[uint64]bool{}
	for _, n := range names {
		var st syscall.Stat_t
		if syscall.Stat(n, &st) == nil {
			inodes[st.Ino] = true
		}
	}
	errs := []error{end(inodes)}
	for _, n := range names {
		errs = append(errs, Run("", "ip", "netns", "del", filepath.Base(n)))
	}
	return errors.Join(errs...)
}

// end kills the processes of these namespaces until none is left: a browser may be starting a
// helper just now.
func end(inodes map[uint64]bool) error {
	deadline := time.Now().Add(endLimit)
	for {
		left, err := killAll(inodes)
		if err != nil || left == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes in the namespaces do not end", left)
		}
		time.Sleep(endPause)
	}
}

func killAll(inodes map[uint64]bool) (found int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !inside(pid, inodes) {
			continue
		}
		// The handle is a pidfd. Its namespace is read again after it was opened, so that a number
		// given to another process in between is not mistaken.
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		if inside(pid, inodes) {
			found++
			_ = p.Kill() // gone already is as good
		}
		_ = p.Release()
	}
	return found, nil
}

func inside(pid int, inodes map[uint64]bool) bool {
	// A zombie has no namespace any more: the link cannot be read.
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return false
	}
	ino, err := strconv.ParseUint(
		strings.TrimSuffix(strings.TrimPrefix(target, "net:["), "]"),
		10,
		64,
	)
	return err == nil && inodes[ino]
}
