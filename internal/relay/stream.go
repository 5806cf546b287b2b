package relay

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	// frameLimit is the time for a message to become complete, and for a connection to do without allocation and message.
	frameLimit = 30 * time.Second
	// writeLimit ends a client that does not read.
	writeLimit = 10 * time.Second
	// maxStreams bounds all TCP connections, maxIdleStreams those of one address that have no allocation.
	maxStreams     = 8192
	maxIdleStreams = 64
	streamBuffer   = 4096
	magicCookie    = 0x2112a442
)

var errFraming = errors.New("neither STUN nor ChannelData")

// streamSet holds the TCP connections.
type streamSet struct {
	mu     sync.Mutex
	open   map[*streamConn]struct{} // guarded by mu
	idle   map[netip.Prefix]int     // guarded by mu: connections without allocation by source; has no zeros
	closed bool                     // guarded by mu
}

func (t *streamSet) init() {
	t.open, t.idle = map[*streamConn]struct{}{}, map[netip.Prefix]int{}
}

// add takes a connection in unless there are too many.
func (t *streamSet) add(c *streamConn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.open) >= maxStreams || t.idle[c.source] >= maxIdleStreams {
		return false
	}
	t.open[c] = struct{}{}
	t.idle[c.source]++
	c.server.quiet.Add(1) // with closed looked at under the same lock
	return true
}

func (t *streamSet) remove(c *streamConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
	if !c.busy {
		t.less(c.source)
	}
}

// allocated keeps the number of idle connections right when an allocation comes or goes.
func (t *streamSet) allocated(c *streamConn, busy bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.open[c]; !ok || c.busy == busy {
		return
	}
	if c.busy = busy; busy {
		t.less(c.source)
	} else {
		t.idle[c.source]++
	}
}

func (t *streamSet) less(source netip.Prefix) {
	if t.idle[source]--; t.idle[source] <= 0 {
		delete(t.idle, source)
	}
}

func (t *streamSet) isBusy(c *streamConn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return c.busy
}

// close ends all connections; false: they were closed before.
func (t *streamSet) close() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.closed = true
	for c := range t.open {
		_ = c.conn.Close()
	}
	return true
}

// ServeConn serves TURN over a connection and returns at once.
func (s *Server) ServeConn(conn net.Conn) {
	c := newStreamConn(s, conn)
	if !s.streams.add(c) {
		s.stats.refuse(manyStreams)
		_ = conn.Close()
		return
	}
	if err := c.endpoint.serve(c); err != nil {
		c.end()
	}
}

// streamConn cuts a TCP connection into messages and shows it to the library as a packet socket. Framing is ours: the library's has
// no time limits and its length arithmetic overflows.
type streamConn struct {
	net.Conn
	endpoint
	conn   net.Conn
	remote *net.TCPAddr
	source netip.Prefix
	busy   bool // guarded by streamSet.mu: has an allocation
	ended  sync.Once

	// Owned by the reader.
	in    *bufio.Reader
	first time.Time // when the first message must be complete; zero once it is
}

func newStreamConn(s *Server, conn net.Conn) *streamConn {
	remote := addrPort(conn.RemoteAddr())
	c := &streamConn{
		Conn:   conn,
		conn:   conn,
		remote: net.TCPAddrFromAddrPort(remote),
		source: sourceOf(remote.Addr()),
		in:     bufio.NewReaderSize(conn, streamBuffer),
		first:  time.Now().Add(frameLimit),
	}
	transport := "tcp"
	if _, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		transport = "tls"
	}
	c.endpoint = endpoint{server: s, transport: transport, clients: map[netip.AddrPort]*client{}, changed: func(n int) { s.streams.allocated(c, n > 0) }}
	return c
}

// sourceOf is whom a limit by source counts: an IPv4 address, or the /64 of an IPv6 address.
func sourceOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}

// ReadFrom returns the next message that is for the library. Its failure ends the connection and the library's goroutine.
func (c *streamConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, err := c.readFrame(p)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.server.stats.refuse(slowStream)
			} else if errors.Is(err, errFraming) {
				c.server.stats.refuse(malformed)
			}
			c.end()
			return 0, nil, err
		}
		if n == 0 {
			c.server.stats.refuse(oversize)
			continue
		}
		pass, reply := c.server.inspect(p[:n])
		if reply != nil {
			if _, err := c.write(reply); err != nil {
				c.end()
				return 0, nil, err
			}
		}
		if pass {
			return n, c.remote, nil
		}
	}
}

// readFrame reads one message into p; 0: it was too large and is skipped (RFC 8656 section 12.5 for the padding of ChannelData). The
// first message must be STUN: "GET " has the shape of ChannelData.
func (c *streamConn) readFrame(p []byte) (int, error) {
	if err := c.await(); err != nil {
		return 0, err
	}
	// A connection that is closed fails at the next read, not where its deadline is set: what has come before is still read.
	head, err := c.in.Peek(channelHeader)
	if err != nil {
		return 0, err
	}
	size := int(binary.BigEndian.Uint16(head[2:]))
	switch {
	case isChannelData(head) && c.first.IsZero():
		size = channelHeader + (size+3)&^3
	case head[0] <= 3 && size%4 == 0:
		if head, err = c.in.Peek(8); err != nil {
			return 0, err
		}
		if binary.BigEndian.Uint32(head[4:]) != magicCookie {
			return 0, errFraming
		}
		size += stunHeader
	default:
		return 0, errFraming
	}
	// The library takes a message that fills its buffer for one cut short.
	if size >= len(p) {
		_, err = c.in.Discard(size)
		size = 0
	} else {
		_, err = io.ReadFull(c.in, p[:size])
	}
	if err == nil {
		c.first = time.Time{}
	}
	return size, err
}

// await waits for the first byte of a message and sets the time by which the message must be complete. The first message has one
// limit from the beginning of the connection. Later a connection may be silent as long as its allocation lives.
func (c *streamConn) await() error {
	if !c.first.IsZero() {
		_ = c.conn.SetReadDeadline(c.first)
		return nil
	}
	for c.in.Buffered() == 0 {
		_ = c.conn.SetReadDeadline(time.Now().Add(frameLimit))
		if _, err := c.in.Peek(1); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && c.server.streams.isBusy(c) {
				continue
			}
			return err
		}
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(frameLimit))
	return nil
}

// WriteTo sends an answer or relayed data to the client.
func (c *streamConn) WriteTo(p []byte, _ net.Addr) (int, error) {
	correct(p)
	return c.server.countDown(p, func() (int, error) { return c.write(p) })
}

// write ends the connection when it fails, since a message may be out in part.
func (c *streamConn) write(p []byte) (int, error) {
	err := c.conn.SetWriteDeadline(time.Now().Add(writeLimit))
	if err != nil {
		return 0, err
	}
	n, err := c.conn.Write(p)
	if err != nil {
		_ = c.conn.Close()
	}
	return n, err
}

// end closes the connection; the library ends the allocation when ReadFrom has failed.
func (c *streamConn) end() {
	c.ended.Do(func() {
		_ = c.conn.Close()
		c.server.streams.remove(c)
		c.server.quiet.Done()
	})
}
