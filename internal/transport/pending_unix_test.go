//go:build unix

package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// sockets is a connection on loopback, from both ends.
func sockets(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if far, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if near, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far
}

func TestPendingReadsWhatCameEarlyThenTheSocketThenTheEnd(t *testing.T) {
	near, far := sockets(t)
	early, rest := bytes.Repeat([]byte("e"), 100), bytes.Repeat([]byte("0123456789"), 5000) // rest is many buffers long
	p := newPending(near, early)
	go func() {
		_, _ = far.Write(rest)
		_ = far.Close()
	}()
	var got bytes.Buffer
	for n := 1; ; n = n*3%701 + 1 { // reads of all lengths
		b := make([]byte, n)
		k, err := p.Read(b)
		got.Write(b[:k])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || k == 0 {
			t.Fatal(k, err)
		}
		if (p.buf == nil) != (p.r == p.w) {
			t.Fatal("a buffer that holds nothing is kept, or one that holds something was given back")
		}
	}
	if want := append(early, rest...); !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes, want %d", got.Len(), len(want))
	}
	if _, err := p.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || p.buf != nil {
		t.Errorf("after the end: %v", err)
	}
}

func TestPendingHeedsDeadlinesAndWaitsWithoutABuffer(t *testing.T) {
	near, far := sockets(t)
	p := newPending(near, nil)
	if err := near.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if err := near.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	// the first try finds nothing and gives its buffer back, which the second try sees
	tries := 0
	try := p.try
	p.try = func(fd uintptr) bool {
		if tries++; tries == 1 {
			ready := try(fd)
			if ready || p.buf != nil {
				t.Errorf("ready %v, buffer kept %v", ready, p.buf != nil)
			}
			_, _ = far.Write([]byte("x"))
			return ready
		}
		return try(fd)
	}
	b := make([]byte, 10)
	if n, err := p.Read(b); err != nil || string(b[:n]) != "x" || tries < 3 {
		t.Errorf("%q, %v after %d tries", b[:n], err, tries)
	}
}

func TestPendingIsForPlainSocketsOnly(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if newPending(a, nil) != nil {
		t.Error("a pipe has no descriptor to read")
	}
	near, _ := sockets(t)
	if newPending(near, make([]byte, pendingSize+1)) != nil {
		t.Error("more came early than the buffer holds")
	}
}
