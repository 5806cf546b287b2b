package transport

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits for all sockets of a server by epoll, and reads those that have data. An idle
// connection costs neither a goroutine nor its stack.
//
// The primary goroutine waits and reads by itself: to wake another goroutine for one message would
// cost more than to read it. But a handler may wait for a lock. So while the primary goroutine
// reads, the standby goroutine waits for events in its place. It never reads but calls workers.
//
// The sockets stay registered with Go's own poller too, which serves writes and deadlines.
type poller struct {
	// Static after construction.
	sockets *epoll
	standby *epoll // watches sockets while the primary goroutine is busy

	primaryWG sync.WaitGroup // the primary goroutine
	wg        sync.WaitGroup // the standby goroutine and the workers

	// Guarded by mu.
	mu   sync.Mutex
	byFD []*socket // index: descriptor
	// The queue of sockets to read. Whoever takes one calls a worker for the next, since its own
	// read pass may wait.
	queueHead, queueTail *socket
	idleWorkers          int
	workerCalled         bool // and has not looked at the queue yet
	stopped              bool
	workAvailable        sync.Cond
}

// epoll is an instance that Go's own poller watches: it takes a goroutine to wait for it, no
// thread.
type epoll struct {
	fd   int
	file *os.File
	raw  syscall.RawConn
}

func newEpoll() (*epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // os.NewFile polls non-blocking files
		_ = unix.Close(fd)
		return nil, err
	}
	e := &epoll{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if e.raw, err = e.file.SyscallConn(); err == nil {
		err = e.file.SetDeadline(time.Time{}) // fails where Go's poller does not watch the file
	}
	if err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *epoll) close() { _ = e.file.Close() }

func (e *epoll) control(op int, fd int32, events uint32) error {
	return unix.EpollCtl(e.fd, op, int(fd), &unix.EpollEvent{Events: events, Fd: fd})
}

// newPoller returns nil where no descriptor is left for it.
func newPoller() *poller {
	sockets, err := newEpoll()
	if err != nil {
		return nil
	}
	standby, err := newEpoll()
	if err == nil {
		err = standby.control(unix.EPOLL_CTL_ADD, int32(sockets.fd), 0)
	}
	if err != nil {
		sockets.close()
		if standby != nil {
			standby.close()
		}
		return nil
	}
	p := &poller{sockets: sockets, standby: standby}
	p.workAvailable.L = &p.mu
	p.primaryWG.Go(func() { p.wait(sockets, p.readEvents) })
	p.wg.Go(func() { p.wait(standby, p.dispatchEvents) })
	return p
}

// close returns when all goroutines have ended. No socket may be left.
func (p *poller) close() {
	// The primary goroutine uses standby, and the standby goroutine uses sockets.
	_ = p.sockets.file.SetReadDeadline(time.Unix(1, 0))
	p.primaryWG.Wait()
	p.standby.close()
	p.sockets.close()
	p.mu.Lock()
	p.stopped = true
	p.workAvailable.Broadcast()
	p.mu.Unlock()
	p.wg.Wait()
}

// add begins to poll k, and reads what has arrived before. It returns false when a goroutine has to
// read k.
func (p *poller) add(k *socket) bool {
	const events = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET
	var addErr error
	err := k.raw.Control(func(fd uintptr) {
		k.fd = int32(fd)
		p.mu.Lock()
		for int(fd) >= len(p.byFD) {
			p.byFD = append(p.byFD, nil)
		}
		p.byFD[fd] = k
		p.mu.Unlock()
		addErr = p.sockets.control(unix.EPOLL_CTL_ADD, k.fd, events)
	})
	if err != nil || addErr != nil {
		return false
	}
	if k.tls != nil {
		k.tls.polled = k
	}
	for k.readPass() { // TLS may have buffered data, for which there is no event
		continue
	}
	return true
}

// remove forgets k, before its descriptor is closed or after: then another socket may have it.
func (p *poller) remove(k *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(k.fd) < len(p.byFD) && p.byFD[k.fd] == k {
		p.byFD[k.fd] = nil
	}
}

// wait waits for e until it is closed, and has the events of the sockets handled. All of it is one
// call of Read: Go's poller remembers events that arrive while the function runs, so it may return
// without having seen that no event is left.
func (p *poller) wait(e *epoll, handle func([]unix.EpollEvent)) {
	var events [128]unix.EpollEvent
	_ = e.raw.Read(func(uintptr) bool {
		for {
			n, err := unix.EpollWait(p.sockets.fd, events[:], 0)
			if err == unix.EINTR {
				continue
			}
			if n > 0 {
				handle(events[:n])
			}
			if n < len(events) {
				return false
			}
		}
	})
}

// readEvents reads the sockets that have events. Of the primary goroutine.
func (p *poller) readEvents(events []unix.EpollEvent) {
	p.setStandby(unix.EPOLLIN | unix.EPOLLET)
	p.mu.Lock()
	p.enqueue(events)
	p.drainQueue()
	p.mu.Unlock()
	p.setStandby(0)
}

// setStandby sets for which events of sockets the standby goroutine wakes up. An error is ignored:
// the call changes an existing entry, and needs no memory.
func (p *poller) setStandby(events uint32) {
	_ = p.standby.control(unix.EPOLL_CTL_MOD, int32(p.sockets.fd), events)
}

// dispatchEvents has workers read the sockets that have events. Of the standby goroutine.
func (p *poller) dispatchEvents(events []unix.EpollEvent) {
	p.mu.Lock()
	p.enqueue(events)
	p.callWorker()
	p.mu.Unlock()
}

// worker is a worker goroutine.
func (p *poller) worker() {
	maxIdle := 2 * runtime.GOMAXPROCS(0) // an idle worker keeps a stack that has grown
	p.mu.Lock()
	p.workerCalled = false
	for p.drainQueue(); !p.stopped && p.idleWorkers < maxIdle; p.drainQueue() {
		p.idleWorkers++
		p.workAvailable.Wait()
		p.workerCalled = false
	}
	p.mu.Unlock()
}

// mu is held for all that follows.

// enqueue queues the sockets that have events. An event of a descriptor that another socket has by
// now makes that one read without finding data.
func (p *poller) enqueue(events []unix.EpollEvent) {
	const hangup = unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	for _, e := range events {
		bits := uint32(0)
		if e.Events&hangup != 0 {
			bits = stateHangup
		}
		if k := p.byFD[e.Fd]; k != nil && k.notify(bits) {
			p.push(k)
		}
	}
}

func (p *poller) push(k *socket) {
	if p.queueHead == nil {
		p.queueHead = k
	} else {
		p.queueTail.next = k
	}
	p.queueTail = k
}

// drainQueue reads until the queue is empty. It unlocks mu for each read pass.
func (p *poller) drainQueue() {
	for p.queueHead != nil {
		k := p.queueHead
		p.queueHead, k.next = k.next, nil
		p.callWorker()
		p.mu.Unlock()
		more := k.readPass()
		p.mu.Lock()
		if more {
			p.push(k)
		}
	}
}

// callWorker calls a worker if the queue is not empty, one at a time. A worker calls the next one
// before it reads, and looks for more after it has read.
func (p *poller) callWorker() {
	switch {
	case p.queueHead == nil || p.workerCalled:
		return
	case p.idleWorkers > 0:
		p.idleWorkers--
		p.workAvailable.Signal()
	default:
		p.wg.Go(p.worker)
	}
	p.workerCalled = true
}
