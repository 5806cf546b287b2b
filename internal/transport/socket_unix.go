//go:build unix

package transport

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// socket reads and writes a plain socket with as few system calls as there can be: one to read a message, one to write it.
//
// The whole reading life of a connection is one RawConn.Read, whose function returns false to wait. The runtime remembers a wake-up
// that comes while the function runs, so it may wait without having seen the socket empty: a read that did not fill the buffer
// has taken all there was. A silent connection owns no buffer, only a goroutine with a flat stack: Go's smallest, 2 KB, must do.
//
// One thing such a read does not see is an end that came with the bytes or right behind them: the wake-up for the end may be the
// one that brought us to read. So whoever waits after a short read is in doubt, and a sweeper asks once, within a second.
//
// For the same reason a whole message goes up through few functions and small ones: what handles it may need the rest of those 2 KB,
// of which some 1,100 bytes are to use, and a stack that has once become 4 KB stays so.
type socket struct {
	c   *wsConn
	raw syscall.RawConn

	take    func(fd uintptr) bool // reads; made once, since it allocates
	err     error                 // why reading ended
	doubted atomic.Bool           // ended must be asked once, later

	put  func(fd uintptr) bool // writes
	out  []byte                // what it is to write
	n    int                   // what it has written
	fail error
}

// a description with its candidates fits; longer messages are read in pieces
const readSize = 8 << 10

var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// newSocket returns nil for connections that are no plain sockets: TLS, pipes in tests.
func newSocket(c *wsConn, nc net.Conn) *socket {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{c: c, raw: raw}
	s.take = func(fd uintptr) bool { return s.read(fd) }
	s.put = func(fd uintptr) bool { return s.write(fd) }
	return s
}

// run reads until a frame or the socket ends it, and returns why. Deadlines hold.
func (s *socket) run() error {
	if err := s.raw.Read(s.take); err != nil {
		return err
	}
	return s.err
}

// read is called by the runtime at once and whenever the socket may have become readable; false: wait.
func (s *socket) read(fd uintptr) bool {
	buf := readBuffers.Get().(*[readSize]byte)
	defer readBuffers.Put(buf)
	for {
		n, err := syscall.Read(int(fd), buf[:])
		switch {
		case n > 0:
			if s.err = s.c.in.feed(buf[:n], s.c); s.err != nil {
				return true
			}
			if n < len(buf) {
				if s.doubted.CompareAndSwap(false, true) {
					s.c.srv.doubt(s.c)
				}
				return false
			}
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			s.err = os.NewSyscallError("read", err)
			return true
		default:
			s.err = io.EOF
			return true
		}
	}
}

// ended settles a doubt: it tells whether the other end has closed and everything it sent was read.
func (s *socket) ended() (over bool) {
	s.doubted.Store(false) // first: who reads from now on may doubt again
	err := s.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		over = n <= 0 && err != syscall.EAGAIN && err != syscall.EINTR
	})
	return over && err == nil
}

// try writes as much of b as the socket takes without waiting. One call at a time.
func (s *socket) try(b []byte) (int, error) {
	s.out, s.n, s.fail = b, 0, nil
	err := s.raw.Write(s.put)
	s.out = nil
	if err == nil {
		err = s.fail
	}
	return s.n, err
}

func (s *socket) write(fd uintptr) bool {
	n, err := syscall.Write(int(fd), s.out)
	switch {
	case n > 0:
		s.n = n
	case err != nil && err != syscall.EAGAIN && err != syscall.EINTR:
		s.fail = os.NewSyscallError("write", err)
	}
	return true
}
