package transport

import (
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller waits for the sockets of a server, all at once, and has workers read those that have something. A silent connection costs
// neither a goroutine nor its stack.
//
// The sockets stay in Go's own poller too, which serves writes and deadlines. It also watches the epoll instance, so that one goroutine
// waits for it, and no thread.
type poller struct {
	epoll *os.File
	fd    int
	raw   syscall.RawConn
	quiet sync.WaitGroup // the goroutine that waits, and the workers

	mu      sync.Mutex // guards what follows
	sockets []*socket  // by descriptor
	// A queue, since handlers may wait for locks: whoever takes a socket from it first sees to it that somebody comes for the next.
	first, last *socket
	idle        int  // workers that wait for work
	coming      bool // a worker was called, and has not looked yet
	stopped     bool
	work        sync.Cond
}

// newPoller returns nil where there is no descriptor left for it.
func newPoller() *poller {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	_ = unix.SetNonblock(fd, true) // tells os to have Go's poller watch it
	p := &poller{epoll: os.NewFile(uintptr(fd), "epoll"), fd: fd}
	p.work.L = &p.mu
	if p.raw, err = p.epoll.SyscallConn(); err != nil {
		_ = p.epoll.Close()
		return nil
	}
	p.quiet.Go(p.wait)
	return p
}

// close returns when all is quiet. No socket may be left.
func (p *poller) close() {
	_ = p.epoll.Close()
	p.mu.Lock()
	p.stopped = true
	p.work.Broadcast()
	p.mu.Unlock()
	p.quiet.Wait()
}

// add takes k in; what has come before is read too. It returns false when k has to be read by a goroutine of its own.
func (p *poller) add(k *socket) bool {
	var fault error
	err := k.raw.Control(func(fd uintptr) {
		k.fd = int32(fd)
		p.mu.Lock()
		for int(fd) >= len(p.sockets) {
			p.sockets = append(p.sockets, nil)
		}
		p.sockets[fd] = k
		p.mu.Unlock()
		fault = unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{
			Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd)})
	})
	if err != nil || fault != nil {
		return false
	}
	if k.below != nil {
		k.below.polled = k
	}
	for k.turn() { // TLS may have read more than it has given, and there is no event for that
		continue
	}
	return true
}

// remove forgets k, before its descriptor is closed or after: it may belong to another by now.
func (p *poller) remove(k *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(k.fd) < len(p.sockets) && p.sockets[k.fd] == k {
		p.sockets[k.fd] = nil
	}
}

// wait hands events on until the poller is closed. All of it is one read: Go's poller remembers what comes while the function runs, so
// it may wait without having seen that there is nothing.
func (p *poller) wait() {
	var events [128]unix.EpollEvent
	_ = p.raw.Read(func(fd uintptr) bool {
		for {
			n, err := unix.EpollWait(int(fd), events[:], 0)
			if err == unix.EINTR {
				continue
			}
			p.dispatch(events[:max(n, 0)])
			if n < len(events) {
				return false
			}
		}
	})
}

// dispatch queues the sockets that have something. An event of a descriptor that has gone to another socket meanwhile makes that one look
// in vain.
func (p *poller) dispatch(events []unix.EpollEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range events {
		what := uint32(0)
		if e.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			what = ending
		}
		if k := p.sockets[e.Fd]; k != nil && k.wake(what) {
			p.queue(k)
		}
	}
	p.call()
}

// What follows is called with mu held.

func (p *poller) queue(k *socket) {
	if p.first == nil {
		p.first = k
	} else {
		p.last.next = k
	}
	p.last = k
}

func (p *poller) take() *socket {
	k := p.first
	p.first, k.next = k.next, nil
	return k
}

// call calls a worker if there is work, one at a time: each calls the next before it begins, and those who are at work come back for
// more by themselves.
func (p *poller) call() {
	if p.first == nil || p.coming {
		return
	}
	p.coming = true
	if p.idle > 0 {
		p.idle--
		p.work.Signal()
		return
	}
	p.quiet.Go(p.serve)
}

// serve is a worker's life. A panic in a handler goes on its way, so nothing is deferred here.
func (p *poller) serve() {
	most := 2 * runtime.GOMAXPROCS(0) // who waits keeps a stack that has grown to what messages need
	p.mu.Lock()
	p.coming = false
	for {
		for p.first == nil {
			if p.stopped || p.idle >= most {
				p.mu.Unlock()
				return
			}
			p.idle++
			p.work.Wait()
			p.coming = false
		}
		k := p.take()
		p.call()
		p.mu.Unlock()
		more := k.turn()
		p.mu.Lock()
		if more {
			p.queue(k)
		}
	}
}
