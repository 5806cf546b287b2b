//go:build linux

package link

import (
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cable joins two sockets that keep packet borders, as TUN devices do, and returns the outer ends.
func cable(t *testing.T, p Params) (left, right *os.File, l *Link) {
	t.Helper()
	var outer, inner [2]*os.File
	for i := range outer {
		fds, err := syscall.Socketpair(
			syscall.AF_UNIX,
			syscall.SOCK_SEQPACKET|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC,
			0,
		)
		if err != nil {
			t.Fatal(err)
		}
		outer[i] = os.NewFile(uintptr(fds[0]), "outer")
		inner[i] = os.NewFile(uintptr(fds[1]), "inner")
		t.Cleanup(func() { _ = outer[i].Close() })
	}
	return outer[0], outer[1], Start(inner[0], inner[1], p)
}

func send(t *testing.T, f *os.File, s string) {
	t.Helper()
	if _, err := f.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, f *os.File) string {
	t.Helper()
	if err := f.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := f.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestPacketsPassBothWaysInOrder(t *testing.T) {
	left, right, l := cable(t, Params{Delay: ms, Jitter: ms})
	for _, s := range []string{"one", "two", "three"} {
		send(t, left, s)
		send(t, right, "answer "+s)
	}
	for _, s := range []string{"one", "two", "three"} {
		if got := receive(t, right); got != s {
			t.Errorf("right got %q, want %q", got, s)
		}
		if got := receive(t, left); got != "answer "+s {
			t.Errorf("left got %q, want the answer to %q", got, s)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []Direction{Up, Down} {
		if _, n := l.Get(d); n != (Counters{Passed: 3}) {
			t.Errorf("direction %d counted %+v", d, n)
		}
	}
}

func TestDownIsOneDirectionOnlyAndCanBeUndone(t *testing.T) {
	left, right, l := cable(t, Params{})
	l.Set(Up, Params{Down: true})
	send(t, left, "lost")
	send(t, right, "passes")
	if got := receive(t, left); got != "passes" {
		t.Errorf("left got %q", got)
	}
	for { // the lost packet is counted when it has been read
		if _, n := l.Get(Up); n.Lost == 1 {
			break
		}
	}
	l.Set(Up, Params{})
	send(t, left, "back")
	if got := receive(t, right); got != "back" {
		t.Errorf("right got %q", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCloseDoesNotWaitForPacketsOnTheirWay(t *testing.T) {
	left, _, l := cable(t, Params{Delay: maxDelay})
	send(t, left, "late")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, n := l.Get(Up); n.Passed != 0 {
		t.Errorf("counted %+v", n)
	}
}

func TestBrokenDeviceIsReported(t *testing.T) {
	_, right, l := cable(t, Params{})
	if err := right.Close(); err != nil {
		t.Fatal(err)
	}
	// A read of the other end of a closed socket is io.EOF.
	if err := <-l.Failed(); err == nil {
		t.Error("no reason given")
	}
	_ = l.Close()
}
