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

// mmsgIO sends and receives many datagrams per system call, on one thread, without an allocation
// per packet. Times of arrival are the kernel's, so they do not depend on when it polls.
type mmsgIO struct {
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

// Datagrams per call, and calls for one socket before the next socket.
const (
	batchSize = 64
	callsEach = 16
)

func (p *parties) withMmsgIO(_ context.Context, t *traffic, f func(packetIO) error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// so that pauses of 50 µs do not become 100 µs
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err == nil {
		defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }() // 0 is the default
	}
	c := &mmsgIO{traffic: t, peer: -1, epoll: -1, events: make([]unix.EpollEvent, 256)}
	c.in, c.up, c.out = newBatch(batchSize), newBatch(maxBurst), newBatch(batchSize)
	for _, b := range c.up.buffers {
		putChannel(b, t.cfg.Size)
	}
	// Every packet would wake Go's netpoller, so the sockets leave it meanwhile.
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

func (c *mmsgIO) watch() error {
	for i, fd := range c.clients {
		event := &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if err := unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, fd, event); err != nil {
			return err
		}
	}
	if c.peer < 0 {
		return nil
	}
	return unix.EpollCtl(
		c.epoll,
		unix.EPOLL_CTL_ADD,
		c.peer,
		&unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1},
	)
}

// takeOver turns a socket into a non-blocking descriptor with large buffers and times of arrival.
func takeOver(conn *net.UDPConn, buffer int) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd = -1
	e := raw.Control(func(own uintptr) {
		fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0)
	})
	if e != nil {
		return -1, e
	}
	if err != nil {
		return -1, err
	}
	// beyond the limit of the system, which needs root; package net has set what others may have
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

// send sends a client's burst at once. The peer's packets are batched, since one socket sends them
// all.
func (c *mmsgIO) send(f *flow, allocation int, measured bool) {
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

func (c *mmsgIO) flush(measured bool) {
	if c.filled == 0 {
		return
	}
	if n, err := c.out.send(c.peer, c.filled); err != nil {
		c.atClient.unsent(c.filled-n, measured, fmt.Errorf("peer: %w", err))
	}
	c.filled = 0
}

// receive sleeps by the clock and does not wait for packets: waking it up would be work of the
// server.
func (c *mmsgIO) receive(after time.Duration, measured bool) {
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

// take reads the socket of a client, or of the peer (-1).
func (c *mmsgIO) take(client, fd int) {
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
