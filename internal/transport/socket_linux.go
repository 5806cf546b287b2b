package transport

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// socket is the descriptor of a connection, plain or below TLS. While the connection is idle it
// has neither a goroutine nor a buffer: the poller learns when there is data, and a worker reads
// it in a read pass.
//
// A message takes one system call to read. A read that did not fill the buffer has taken all there
// was, and later data causes an event of its own. There are two exceptions: when an event has
// announced the end of the stream, or urgent data, before which a read stops. Then a pass reads
// until there is nothing more or it has seen the end.
type socket struct {
	// Static after construction; fd is set by poller.add.
	c   *wsConn
	raw syscall.RawConn
	tls *handshakeConn // the connection below TLS; nil: plain
	fd  int32

	state atomic.Uint32 // see below

	// Owned by the reader.
	op      *readOp // of the current pass
	drained bool    // the last read of this pass took all there was
	hangup  bool    // the end or urgent data was announced, and has not been read yet

	next *socket // in the poller's queue; guarded by poller.mu
}

// Bits of socket.state. Setting stateBusy where it was not set gives ownership of the reading until
// it is cleared.
const (
	// stateBusy: a worker reads or will. It stays set where a goroutine of the connection reads.
	stateBusy = 1 << iota
	// stateAgain: there was an event since the pass began.
	stateAgain
	// stateHangup: one of these events announced the end or urgent data.
	stateHangup
	// stateBlocking: a goroutine that may wait is to take over the reading.
	stateBlocking
)

// maxReadsPerPass limits the reads of one connection before others are read.
const maxReadsPerPass = 8

// errWouldBlock says that there is no data now. It is temporary: crypto/tls then keeps what has
// arrived of a record and continues later.
var errWouldBlock net.Error = wouldBlockError{}

type wouldBlockError struct{}

func (wouldBlockError) Error() string   { return "read would block" }
func (wouldBlockError) Timeout() bool   { return false }
func (wouldBlockError) Temporary() bool { return true }

// readOp is what a read pass needs.
type readOp struct {
	// buf is large enough for a description with its candidates. Longer messages are read in
	// pieces.
	buf  [8 << 10]byte
	into []byte
	n    int
	err  error
	read func(fd uintptr) // reads once; made once, since a closure allocates
}

var readOps = sync.Pool{New: func() any {
	op := new(readOp)
	op.read = func(fd uintptr) {
		op.n, op.err = syscall.Read(int(fd), op.into)
		for op.err == syscall.EINTR {
			op.n, op.err = syscall.Read(int(fd), op.into)
		}
	}
	return op
}}

// writeOp is what a write needs.
type writeOp struct {
	out   []byte
	n     int
	err   error
	write func(fd uintptr) bool // writes once
}

var writeOps = sync.Pool{New: func() any {
	op := new(writeOp)
	op.write = func(fd uintptr) bool {
		op.n, op.err = syscall.Write(int(fd), op.out)
		return true
	}
	return op
}}

// newSocket returns nil where only a goroutine that waits can read: pipes in tests, TLS over
// another connection. tryWrite writes to a plain socket without waiting; nil: the socket is not
// plain.
func newSocket(c *wsConn, nc net.Conn) (k *socket, tryWrite func([]byte) (int, error)) {
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

// notify notes an event, with the bits of it. If it returns true the caller owns the reading.
func (k *socket) notify(bits uint32) bool {
	return k.state.Or(stateBusy|stateAgain|bits)&stateBusy == 0
}

// tryRelease gives up the reading, unless there was an event since the pass began.
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

// handOver has a goroutine that waits, with deadlines, do the reading: the connection was closed,
// and there may be no further event.
func (k *socket) handOver() {
	if k.notify(stateBlocking) {
		k.startReader()
	}
}

func (k *socket) startReader() {
	k.unpoll()
	go k.c.readLoop()
}

// unpoll lets reads wait.
func (k *socket) unpoll() {
	if k.tls != nil {
		k.tls.polled = nil
	}
}

// readPass reads what is there. It returns true when there may be more: then another pass is due.
func (k *socket) readPass() (more bool) {
	// Both bits at once: an end that is announced from now on belongs to the next pass.
	bits := k.state.And(^uint32(stateAgain | stateHangup))
	if bits&stateBlocking != 0 {
		k.startReader()
		return false
	}
	k.op = readOps.Get().(*readOp)
	k.drained = false
	k.hangup = k.hangup || bits&stateHangup != 0
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
			if err := k.c.scan(b[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readNow reads without waiting.
func (k *socket) readNow(b []byte) (int, error) {
	if k.drained && !k.hangup {
		return 0, errWouldBlock
	}
	op := k.op
	op.into = b
	err := k.raw.Control(op.read)
	op.into = nil
	switch {
	case err != nil:
		return 0, err
	case op.err == syscall.EAGAIN:
		// The announcement was urgent data, or the end of the connection that had the descriptor
		// before this one.
		k.drained, k.hangup = true, false
		return 0, errWouldBlock
	case op.err != nil:
		return 0, os.NewSyscallError("read", op.err)
	case op.n == 0:
		return 0, io.EOF
	}
	k.drained = op.n < len(b)
	return op.n, nil
}

// writeNow writes as much of b as the socket takes without waiting. One call at a time.
func (k *socket) writeNow(b []byte) (int, error) {
	op := writeOps.Get().(*writeOp)
	defer writeOps.Put(op)
	op.out, op.n, op.err = b, 0, nil
	err := k.raw.Write(op.write)
	op.out = nil
	switch {
	case err != nil:
		return 0, err
	case op.n > 0:
		return op.n, nil
	case op.err != nil && op.err != syscall.EAGAIN && op.err != syscall.EINTR:
		return 0, os.NewSyscallError("write", op.err)
	}
	return 0, nil
}
