package transport

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits for the sockets of a server, all at once, and reads those that have something. A silent connection costs neither a
// goroutine nor its stack.
//
// The first goroutine that waits reads by itself: to wake another for one message would cost more than to look for it. But what it
// reads may wait for a lock, so as long as it is busy a second one waits in its place, which never reads and calls workers.
//
// The sockets stay in Go's own poller too, which serves writes and deadlines.
type poller struct {
	sockets, standby *epoll         // reserve watches sockets, while the first goroutine is busy
	primaryWG        sync.WaitGroup // who waits and reads
	wg               sync.WaitGroup // who waits in its place, and the workers

	mu   sync.Mutex // guards what follows
	byFD []*socket
	// A queue: whoever takes a socket from it first sees to it that somebody comes for the next, for it may be kept.
	queueHead, queueTail *socket
	idleWorkers          int  // workers that wait for work
	workerCalled         bool // a worker was called, and has not looked yet
	stopped              bool
	workAvailable        sync.Cond
}

// epoll is an instance that Go's own poller watches: a goroutine waits for it, and no thread.
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
	_ = unix.SetNonblock(fd, true) // by this os knows that Go's poller is to watch it
	e := &epoll{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if e.raw, err = e.file.SyscallConn(); err == nil {
		err = e.file.SetDeadline(time.Time{}) // is refused where Go's poller has not taken it: nobody could wait for it
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

// newPoller returns nil where there is no descriptor left for it.
func newPoller() *poller {
	s, err := newEpoll()
	if err != nil {
		return nil
	}
	r, err := newEpoll()
	if err == nil {
		err = r.control(unix.EPOLL_CTL_ADD, int32(s.fd), 0)
	}
	if err != nil {
		s.close()
		if r != nil {
			r.close()
		}
		return nil
	}
	p := &poller{sockets: s, standby: r}
	p.workAvailable.L = &p.mu
	p.primaryWG.Go(func() { p.wait(s, p.readEvents) })
	p.wg.Go(func() { p.wait(r, p.dispatchEvents) })
	return p
}

// close returns when all is quiet. No socket may be left.
func (p *poller) close() {
	_ = p.sockets.file.SetReadDeadline(time.Unix(1, 0)) // who leads switches reserve, so it ends first
	p.primaryWG.Wait()
	p.standby.close() // who waits there asks sockets
	p.sockets.close()
	p.mu.Lock()
	p.stopped = true
	p.workAvailable.Broadcast()
	p.mu.Unlock()
	p.wg.Wait()
}

// add takes k in; what has come before is read too. It returns false when k has to be read by a goroutine of its own.
func (p *poller) add(k *socket) bool {
	var fault error
	err := k.raw.Control(func(fd uintptr) {
		k.fd = int32(fd)
		p.mu.Lock()
		for int(fd) >= len(p.byFD) {
			p.byFD = append(p.byFD, nil)
		}
		p.byFD[fd] = k
		p.mu.Unlock()
		fault = p.sockets.control(unix.EPOLL_CTL_ADD, k.fd, unix.EPOLLIN|unix.EPOLLPRI|unix.EPOLLRDHUP|unix.EPOLLET)
	})
	if err != nil || fault != nil {
		return false
	}
	if k.tls != nil {
		k.tls.polled = k
	}
	for k.readPass() { // TLS may have read more than it has given, and there is no event for that
		continue
	}
	return true
}

// remove forgets k, before its descriptor is closed or after: it may be another's by now.
func (p *poller) remove(k *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(k.fd) < len(p.byFD) && p.byFD[k.fd] == k {
		p.byFD[k.fd] = nil
	}
}

// wait has events of the sockets handled when e says that there are some, until e is closed. All of it is one read: Go's poller
// remembers what comes while the function runs, so it may wait without having seen that there is nothing.
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

// lead reads what has come.
func (p *poller) readEvents(events []unix.EpollEvent) {
	_ = p.standby.control(unix.EPOLL_CTL_MOD, int32(p.sockets.fd), unix.EPOLLIN|unix.EPOLLET)
	p.mu.Lock()
	p.enqueue(events)
	p.drainQueue()
	p.mu.Unlock()
	_ = p.standby.control(unix.EPOLL_CTL_MOD, int32(p.sockets.fd), 0)
}

// dispatch has workers read what has come.
func (p *poller) dispatchEvents(events []unix.EpollEvent) {
	p.mu.Lock()
	p.enqueue(events)
	p.callWorker()
	p.mu.Unlock()
}

// serve is a worker's life.
func (p *poller) worker() {
	most := 2 * runtime.GOMAXPROCS(0) // who waits keeps a stack that has grown to what messages need
	p.mu.Lock()
	p.workerCalled = false
	for p.drainQueue(); !p.stopped && p.idleWorkers < most; p.drainQueue() {
		p.idleWorkers++
		p.workAvailable.Wait()
		p.workerCalled = false
	}
	p.mu.Unlock()
}

// What follows is called with mu held. A panic in a handler goes on its way, so nothing here is deferred.

// enqueue puts the sockets that have something into the queue. An event of a descriptor that has gone to another socket meanwhile makes
// that one look in vain.
func (p *poller) enqueue(events []unix.EpollEvent) {
	for _, e := range events {
		what := uint32(0)
		if e.Events&(unix.EPOLLPRI|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			what = stateHangup
		}
		if k := p.byFD[e.Fd]; k != nil && k.notify(what) {
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

// read empties the queue.
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

// call calls a worker if there is something to read, one at a time: it calls the next before it begins, and those who are at work come
// back for more by themselves.
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
