package turn

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// fastCarrier sends and receives many datagrams in one system call, on one thread, and allocates nothing a packet. It takes the
// times of arrival from the kernel, so that they do not depend on when it looks.
type fastCarrier struct {
	*traffic
	clients []int // descriptors
	relayed []sockaddr
	peer    int // -1: none
	epoll   int // of everything that may receive; -1: only the peer does
	events  []unix.EpollEvent

	in     *batch
	up     *batch // a burst of one client
	out    *batch // what the peer sends to several allocations; filled of them
	filled int
}

// most datagrams in one call, and most calls for one socket before others have their turn
const (
	batchSize = 64
	callsEach = 16
)

func (p *parties) carryFast(_ context.Context, t *traffic, f func(carrier) error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// pauses of 50 µs are not to become 100
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err == nil {
		defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }() // 0 is the default
	}
	c := &fastCarrier{traffic: t, peer: -1, epoll: -1, events: make([]unix.EpollEvent, 256)}
	c.in, c.up, c.out = newBatch(batchSize), newBatch(maxBurst), newBatch(batchSize)
	for _, b := range c.up.buffers {
		putChannel(b, t.cfg.Size)
	}
	// Out of the hands of Go's own poller, which would be woken by every packet.
	defer func() {
		for i, fd := range c.clients {
			conn, e := giveBack(fd)
			if e == nil {
				p.clients[i].conn = conn
			} else if err == nil {
				err = e
			}
		}
	}()
	for _, client := range p.clients {
		fd, err := takeOver(client.conn.(*net.UDPConn), clientBuffer)
		if err != nil {
			return err
		}
		c.clients = append(c.clients, fd)
		c.relayed = append(c.relayed, newSockaddr(client.relayed))
	}
	if p.peer != nil {
		fd, err := takeOver(p.peer, peerBuffer)
		if err != nil {
			return err
		}
		p.peer = nil
		c.peer = fd
		defer func() { _ = unix.Close(fd) }()
	}
	if t.atClient != nil {
		if c.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
			return err
		}
		defer func() { _ = unix.Close(c.epoll) }()
		if err := c.watch(); err != nil {
			return err
		}
	}
	return f(c)
}

func (c *fastCarrier) watch() error {
	for i, fd := range c.clients {
		if err := unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return err
		}
	}
	if c.peer < 0 {
		return nil
	}
	return unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, c.peer, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1})
}

// takeOver turns a socket into a bare non-blocking descriptor with large buffers and times of arrival.
func takeOver(conn *net.UDPConn, buffer int) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd = -1
	if e := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return -1, e
	}
	if err != nil {
		return -1, err
	}
	// as root beyond what the system allows; for others the net package has set what may be had
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("times of arrival: %w", err)
	}
	return fd, conn.Close()
}

// giveBack undoes takeOver.
func giveBack(fd int) (net.Conn, error) {
	file := os.NewFile(uintptr(fd), "")
	defer func() { _ = file.Close() }()
	return net.FileConn(file)
}

// send sends a client's burst at once; the peer's packets gather, as one socket sends them all.
func (c *fastCarrier) send(f *flow, allocation int, measured bool) {
	now := time.Now().UnixNano()
	size := c.cfg.Size
	if f == c.down() {
		for range c.cfg.Burst {
			if c.filled == batchSize {
				c.flush(measured)
			}
			p := c.out.buffers[c.filled][:size]
			f.stamp(p, allocation, measured, now)
			c.out.put(c.filled, p, &c.relayed[allocation])
			c.filled++
		}
		return
	}
	for i := range c.cfg.Burst {
		p := c.up.buffers[i][:channelHeader+size]
		f.stamp(p[channelHeader:], allocation, measured, now)
		c.up.put(i, p, nil)
	}
	if n, err := c.up.send(c.clients[allocation], c.cfg.Burst); err != nil {
		f.unsent(c.cfg.Burst-n, measured, fmt.Errorf("client: %w", err))
	}
}

func (c *fastCarrier) flush(measured bool) {
	if c.filled == 0 {
		return
	}
	if n, err := c.out.send(c.peer, c.filled); err != nil {
		c.atClient.unsent(c.filled-n, measured, fmt.Errorf("peer: %w", err))
	}
	c.filled = 0
}

// receive pauses by the clock and not by waiting for packets: waking it would cost the server.
func (c *fastCarrier) receive(after time.Duration, measured bool) {
	c.flush(measured)
	if after > 0 {
		pause := unix.NsecToTimespec(int64(after))
		_ = unix.Nanosleep(&pause, nil) // a signal ends it early, which does no harm
	}
	if c.epoll < 0 {
		c.take(-1, c.peer)
		return
	}
	n, err := unix.EpollWait(c.epoll, c.events, 0)
	if err != nil {
		return // a signal; there is a next time
	}
	for _, e := range c.events[:n] {
		if e.Fd < 0 {
			c.take(-1, c.peer)
		} else {
			c.take(int(e.Fd), c.clients[e.Fd])
		}
	}
}

// take reads what waits in the socket of a client, or of the peer.
func (c *fastCarrier) take(client, fd int) {
	for range callsEach {
		n, err := c.in.receive(fd)
		if err != nil {
			c.fail(fmt.Errorf("receive: %w", err))
			return
		}
		for i := range n {
			p, at := c.in.got(i)
			if client < 0 {
				c.atThePeer(p, at)
			} else if p = channelPayload(p); p != nil { // else a late answer
				c.atAClient(client, p, at)
			}
		}
		if n < batchSize {
			return
		}
	}
}
