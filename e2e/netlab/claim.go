//go:build linux

package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ieum-rtc/ieum/e2e/netlab/netns"
)

// Each laboratory has a lock file here, named by its prefix. The lock is held by netlab and its
// guard; when it is free although the file is there, both are dead and the namespaces are left
// over.
const runDir = "/run/ieum-netlab"

const guardCommand = "guard"

// claim is the right to a prefix, and the guard that cleans up behind it.
type claim struct {
	prefix string
	guard  *exec.Cmd
	alive  io.Closer // the guard sees this close, also when this process is killed
}

func claimPath(prefix string) string { return filepath.Join(runDir, prefix+"lock") }

func (c *claim) socket() string { return filepath.Join(runDir, c.prefix+"control") }

func claimPrefix() (string, *os.File, error) {
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return "", nil, err
	}
	for range 10 {
		prefix := "ieum" + strings.ToLower(rand.Text()[:8]) + "-"
		f, err := os.OpenFile(claimPath(prefix), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return "", nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			// Between create and lock a sweep may have taken the file for a left-over one and
			// removed it.
			if _, err := os.Stat(claimPath(prefix)); err == nil {
				return prefix, f, nil
			}
		}
		if err := f.Close(); err != nil {
			return "", nil, err
		}
	}
	return "", nil, errors.New("no prefix could be claimed")
}

// newClaim takes a fresh prefix and starts the guard, a process of its own that waits for this one
// to let go and then removes everything of the prefix. So the way of a crash is the way of every
// end.
func newClaim() (*claim, error) {
	prefix, lock, err := claimPrefix()
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	g := exec.Command(self, guardCommand, prefix)
	g.Stderr = os.Stderr
	g.ExtraFiles = []*os.File{lock}
	// Not in the terminal's group: Ctrl-C ends netlab, and the guard after it.
	g.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	alive, err := g.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := g.Start(); err != nil {
		return nil, errors.Join(err, os.Remove(claimPath(prefix)))
	}
	return &claim{prefix: prefix, guard: g, alive: alive}, nil
}

func (c *claim) release() error {
	return errors.Join(c.alive.Close(), c.guard.Wait())
}

// guard is the process that cleans up. Its standard input is netlab's pipe, its first extra file
// the lock.
func guard(args []string) error {
	if len(args) != 1 {
		return errors.New("guard is netlab's own")
	}
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return remove(args[0])
}

func remove(prefix string) error {
	if err := netns.Remove(prefix); err != nil {
		return fmt.Errorf("take down %s: %w", prefix, err)
	}
	for _, f := range []string{filepath.Join(runDir, prefix+"control"), claimPath(prefix)} {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// sweep removes the laboratories whose netlab and guard are both dead.
func sweep() error {
	locks, err := filepath.Glob(claimPath("ieum*-"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range locks {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue // removed by its owner just now
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			errs = append(errs, remove(strings.TrimSuffix(filepath.Base(path), "lock")))
		}
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
