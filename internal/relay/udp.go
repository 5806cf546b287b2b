package relay

import (
	"errors"
	"net"
	"net/netip"
	"sync"
)

const (
	listenerBuffer = 2 << 20
	// maxFaults ends a socket that only fails: a single failed read, such as Windows reports for an unreachable client, must not.
	maxFaults = 64
)

// udpConn is a control socket as the library sees it.
type udpConn struct {
	net.PacketConn // for the methods the library does not use
	endpoint
	conn  *net.UDPConn
	ended sync.Once
}

func newUDPConn(s *Server, conn *net.UDPConn) *udpConn {
	// The kernel caps it; a smaller buffer only means earlier loss.
	_ = conn.SetReadBuffer(listenerBuffer)
	return &udpConn{
		PacketConn: conn,
		conn:       conn,
		endpoint:   endpoint{server: s, transport: "udp", clients: map[netip.AddrPort]*client{}, changed: func(int) {}},
	}
}

func (c *udpConn) serve() error { return c.endpoint.serve(c) }

// ReadFrom returns the next message that is for the library. Its failure ends the library's goroutine.
func (c *udpConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.server.receive(c.conn, p)
		if err != nil {
			c.ended.Do(c.server.quiet.Done)
			return 0, nil, err
		}
		pass, reply := c.server.inspect(p[:n])
		if reply != nil {
			_, _ = c.conn.WriteToUDPAddrPort(reply, from)
		}
		if pass {
			return n, net.UDPAddrFromAddrPort(from), nil
		}
	}
}

// receive returns the next whole packet. It fails when the socket is closed or fails again and again.
func (s *Server) receive(conn *net.UDPConn, p []byte) (int, netip.AddrPort, error) {
	for faults := 0; ; {
		n, from, err := conn.ReadFromUDPAddrPort(p)
		if err != nil {
			if faults++; errors.Is(err, net.ErrClosed) || faults > maxFaults {
				return 0, from, err
			}
			continue
		}
		faults = 0
		// A full buffer may be a packet cut short.
		if n == len(p) {
			s.stats.refuse(oversize)
			continue
		}
		return n, from, nil
	}
}

// WriteTo sends an answer or relayed data to a client.
func (c *udpConn) WriteTo(p []byte, to net.Addr) (int, error) {
	correct(p)
	return c.server.countDown(p, func() (int, error) { return c.conn.WriteToUDPAddrPort(p, addrPort(to)) })
}

func (c *udpConn) Close() error { return c.conn.Close() }

// countDown counts relayed data that write sends to a client.
func (s *Server) countDown(p []byte, write func() (int, error)) (int, error) {
	n := payload(p)
	if n < 0 {
		return write()
	}
	return s.stats.down.count(n, write)
}
