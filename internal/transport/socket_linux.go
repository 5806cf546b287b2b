package transport

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// socket is the descriptor of a connection, plain or below TLS. While nothing comes it has no goroutine and no buffer: a poller tells
// when there is something, and a worker then reads it, in a turn.
//
// A message takes one system call to read: a read that did not fill the buffer has taken all there was, and what comes later brings
// an event of its own. Only where an event has announced the end, or an urgent byte, before which a read stops, does a turn read until
// there is nothing or it sees the end.
type socket struct {
	c     *wsConn
	raw   syscall.RawConn
	tls   *handshakeConn // what TLS is spoken over; nil: plain
	state atomic.Uint32
	fd    int32

	// owned by the reader
	op      *readOp // what a turn reads with
	drained bool    // the last read of this turn took all there was
	hangup  bool    // the end was announced, or an urgent byte, and has not been read yet

	next *socket // in the poller's queue, guarded by its mu
}

// Bits of a socket's state. Whoever sets busy where it was not set owns the reading, until it is cleared again.
const (
	stateBusy     = 1 << iota // a worker reads or will; or a goroutine does, and then it stays set
	stateAgain                // something has happened since the turn began
	stateHangup               // the end was announced since, or an urgent byte
	stateBlocking             // the reading is to go to a goroutine that may wait
)

// how often one connection is read in a turn before it is the others' turn
const maxReadsPerPass = 8

// errWait says that nothing is there now. crypto/tls keeps what has come of a record when an error is temporary, and goes on from there.
var errWouldBlock net.Error = wouldBlockError{}

type wouldBlockError struct{}

func (wouldBlockError) Error() string   { return "nothing has come yet" }
func (wouldBlockError) Timeout() bool   { return false }
func (wouldBlockError) Temporary() bool { return true }

// hand is what a turn needs, for as long as it takes.
type readOp struct {
	buf  [8 << 10]byte // a description with its candidates fits; longer messages are read in pieces
	into []byte
	n    int
	err  error
	read func(fd uintptr) // reads once; made once, since it allocates
}

var readOps = sync.Pool{New: func() any {
	h := new(readOp)
	h.read = func(fd uintptr) {
		h.n, h.err = syscall.Read(int(fd), h.into)
		for h.err == syscall.EINTR {
			h.n, h.err = syscall.Read(int(fd), h.into)
		}
	}
	return h
}}

// push is the same for writing.
type writeOp struct {
	out   []byte
	n     int
	err   error
	write func(fd uintptr) bool
}

var writeOps = sync.Pool{New: func() any {
	p := new(writeOp)
	p.write = func(fd uintptr) bool {
		p.n, p.err = syscall.Write(int(fd), p.out)
		return true
	}
	return p
}}

// newSocket returns nil for what can only be read by a goroutine that waits: pipes in tests, TLS that is not over a connection of ours.
// try writes to a plain socket without waiting.
func newSocket(c *wsConn, nc net.Conn) (k *socket, try func([]byte) (int, error)) {
	k = &socket{c: c}
	k.state.Store(stateBusy) // until it is polled
	if over, is := nc.(interface{ NetConn() net.Conn }); is {
		if k.tls, is = over.NetConn().(*handshakeConn); is {
			nc = k.tls
		}
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, nil
	}
	if k.raw = raw; k.tls != nil {
		return k, nil
	}
	return k, k.writeNow
}

// wake says that something has happened. If it returns true the reading is the caller's.
func (k *socket) notify(what uint32) bool {
	return k.state.Or(stateBusy|stateAgain|what)&stateBusy == 0
}

// rest gives the reading back, unless something has happened since the turn began.
func (k *socket) tryRelease() bool {
	for {
		old := k.state.Load()
		if old&stateAgain != 0 {
			return false
		}
		if k.state.CompareAndSwap(old, old&^stateBusy) {
			return true
		}
	}
}

// release has the connection read by a goroutine that waits, with deadlines: it was closed, and no event may come any more.
func (k *socket) handOver() {
	if k.notify(stateBlocking) {
		k.startReader()
	}
}

func (k *socket) startReader() {
	k.unpoll()
	go k.c.readLoop()
}

// detach lets reads wait.
func (k *socket) unpoll() {
	if k.tls != nil {
		k.tls.polled = nil
	}
}

// turn reads what is there. It returns true when there may be more: then another turn is due.
func (k *socket) readPass() (more bool) {
	what := k.state.And(^uint32(stateAgain | stateHangup)) // both at once, lest an end that is announced from now on be taken for an old one
	if what&stateBlocking != 0 {
		k.startReader()
		return false
	}
	k.op, k.drained, k.hangup = readOps.Get().(*readOp), false, k.hangup || what&stateHangup != 0
	err := k.read(k.op.buf[:])
	readOps.Put(k.op)
	k.op = nil
	switch err {
	case nil:
		return true
	case errWouldBlock:
		return !k.tryRelease()
	}
	k.unpoll()
	go k.c.teardown(err)
	return false
}

func (k *socket) read(b []byte) error {
	for range maxReadsPerPass {
		var n int
		var err error
		if k.tls != nil {
			n, err = k.c.net.Read(b)
		} else {
			n, err = k.readNow(b)
		}
		if n > 0 {
			if fault := k.c.scanner.scan(b[:n], k.c); fault != nil {
				return fault
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// now reads without waiting.
func (k *socket) readNow(b []byte) (int, error) {
	if k.drained && !k.hangup {
		return 0, errWouldBlock
	}
	h := k.op
	h.into = b
	err := k.raw.Control(h.read)
	h.into = nil
	switch {
	case err != nil:
		return 0, err
	case h.err == syscall.EAGAIN:
		k.drained, k.hangup = true, false // it was an urgent byte, or the end of another connection, which had the descriptor before
		return 0, errWouldBlock
	case h.err != nil:
		return 0, os.NewSyscallError("read", h.err)
	case h.n == 0:
		return 0, io.EOF
	}
	k.drained = h.n < len(b)
	return h.n, nil
}

// try writes as much of b as the socket takes without waiting. One call at a time.
func (k *socket) writeNow(b []byte) (int, error) {
	p := writeOps.Get().(*writeOp)
	defer writeOps.Put(p)
	p.out, p.n, p.err = b, 0, nil
	err := k.raw.Write(p.write)
	p.out = nil
	switch {
	case err != nil:
		return 0, err
	case p.n > 0:
		return p.n, nil
	case p.err != nil && p.err != syscall.EAGAIN && p.err != syscall.EINTR:
		return 0, os.NewSyscallError("write", p.err)
	}
	return 0, nil
}
