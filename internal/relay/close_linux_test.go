package relay

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A stream may be about to wake a worker that has stopped. Until the streams have ended, the
// descriptor it writes to must stay the worker's own.
func TestDescriptorsOutliveWhoWritesToThem(t *testing.T) {
	s, err := Start(Config{Listen: "127.0.0.1:0", Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	s.closed.Do(func() {
		close(s.done)
		for _, w := range s.workers {
			w.driver.wake()
		}
		s.wg.Wait()
		for _, w := range s.workers {
			if _, err := unix.FcntlInt(
				uintptr(w.driver.(*epollDriver).wakeFD), unix.F_GETFD, 0,
			); err != nil {
				t.Errorf("closed while it may be used: %v", err)
			}
			w.driver.wake()
		}
		s.release()
	})
	for _, w := range s.workers {
		if _, err := unix.FcntlInt(
			uintptr(w.driver.(*epollDriver).wakeFD), unix.F_GETFD, 0,
		); err == nil {
			t.Error("still open")
		}
	}
}

// A start that fails for want of descriptors, wherever it fails, leaves none open.
func TestStartThatFailsLeavesNothingOpen(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}()
	const enough = 64
	failed := 0
	for most := range uint64(enough) {
		before := descriptors(t)
		if err := syscall.Setrlimit(
			syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: most, Max: limit.Max},
		); err != nil {
			t.Fatal(err)
		}
		s, err := Start(
			Config{
				Listen:    "127.0.0.1:0",
				STUN:      "127.0.0.1:0",
				Addresses: []Address{loopback("127.0.0.1")},
				Secret:    secret,
				Workers:   2,
				plain:     plainDriver,
			},
		)
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		if err == nil {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		} else {
			failed++
		}
		if after := descriptors(t); after != before {
			t.Errorf("with %d descriptors, %v: %d open, before %d", most, err, after, before)
		}
	}
	if failed == 0 || failed == enough {
		t.Errorf("%d of %d starts failed", failed, enough)
	}
}

// descriptors counts those that this process has open.
func descriptors(t testing.TB) (n int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range list {
		// The directory itself was open while it was read.
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil &&
			!strings.HasSuffix(target, "/fd") {
			n++
		}
	}
	return n
}
