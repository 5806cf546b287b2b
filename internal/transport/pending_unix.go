//go:build unix

package transport

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// pending reads a socket without owning a buffer while the socket is silent: it borrows one when bytes have come, and gives it
// back when they have been taken. So a silent connection costs no buffer, and one system call still brings a whole message. It
// also keeps the waiting reader's stack flat enough to stay in the smallest that Go has.
type pending struct {
	raw  syscall.RawConn
	try  func(fd uintptr) bool // p.read, made once: a method value allocates
	buf  *[pendingSize]byte    // nil unless it holds bytes of [r:w]
	r, w int
	err  error // of the last read
}

// a description with its candidates fits; longer messages are read in pieces, the rest straight into their place
const pendingSize = 4 << 10

var pendingBuffers = sync.Pool{New: func() any { return new([pendingSize]byte) }}

// newPending returns nil for connections that are no plain sockets: TLS, pipes in tests. The first bytes it reads are early.
func newPending(c net.Conn, early []byte) *pending {
	s, ok := c.(syscall.Conn)
	if !ok || len(early) > pendingSize {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	p := &pending{raw: raw}
	p.try = p.read
	if len(early) > 0 {
		p.buf = pendingBuffers.Get().(*[pendingSize]byte)
		p.w = copy(p.buf[:], early)
	}
	return p
}

// Read implements io.Reader. Deadlines of the socket hold.
func (p *pending) Read(into []byte) (int, error) {
	if p.buf == nil {
		if len(into) == 0 {
			return 0, nil
		}
		if err := p.raw.Read(p.try); err != nil {
			return 0, err
		}
		if p.buf == nil {
			return 0, p.err
		}
	}
	n := copy(into, p.buf[p.r:p.w])
	if p.r += n; p.r == p.w {
		pendingBuffers.Put(p.buf)
		p.buf = nil
	}
	return n, nil
}

// read is called by the runtime when the socket may be readable; false: it is not, wait.
func (p *pending) read(fd uintptr) bool {
	buf := pendingBuffers.Get().(*[pendingSize]byte)
	n, err := syscall.Read(int(fd), buf[:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), buf[:])
	}
	switch {
	case n > 0:
		p.buf, p.r, p.w = buf, 0, n
		return true
	case err == syscall.EAGAIN:
		pendingBuffers.Put(buf)
		return false
	case err != nil:
		p.err = os.NewSyscallError("read", err)
	default:
		p.err = io.EOF
	}
	pendingBuffers.Put(buf)
	return true
}
