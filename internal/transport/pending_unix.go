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
// back when they have been taken. So a silent connection costs no buffer, and one system call still brings a whole message.
//
// It also keeps the stack of a waiting reader flat. Go's smallest stack, 2 KB, has about 1,100 bytes to use; a waiting reader
// needs 1,064 of them here, and once a stack is 4 KB it stays so. Hence no large frame between gws and the socket.
type pending struct {
	raw  syscall.RawConn
	try  func(fd uintptr) bool // p.read, made once: a method value allocates
	buf  *[pendingSize]byte    // nil unless it holds bytes of [r:w], or is about to
	r, w int
	err  error // of the last read
}

// a description with its candidates fits; longer messages are read in pieces
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
	if len(into) == 0 {
		return 0, nil
	}
	for p.r == p.w {
		if p.err != nil {
			return 0, p.err
		}
		if p.buf == nil {
			p.buf = pendingBuffers.Get().(*[pendingSize]byte)
		}
		if err := p.raw.Read(p.try); err != nil {
			return 0, err
		}
	}
	n := copy(into, p.buf[p.r:p.w])
	if p.r += n; p.r == p.w {
		p.r, p.w = 0, 0
		p.giveBack()
	}
	return n, nil
}

// read is called by the runtime at once and whenever the socket may have become readable; false: wait. It waits without a buffer,
// and returns when waiting is over: Read then borrows one and comes again, nearer to the top of the stack.
func (p *pending) read(fd uintptr) bool {
	if p.buf == nil {
		return true
	}
	n, err := syscall.Read(int(fd), p.buf[:])
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), p.buf[:])
	}
	switch {
	case n > 0:
		p.w = n
		return true
	case err == syscall.EAGAIN:
		p.giveBack()
		return false
	case err != nil:
		p.err = os.NewSyscallError("read", err)
	default:
		p.err = io.EOF
	}
	p.giveBack()
	return true
}

func (p *pending) giveBack() {
	pendingBuffers.Put(p.buf)
	p.buf = nil
}
