package relay

import (
	"errors"
	"iter"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/pion/turn/v5"
)

const (
	relayBuffer = 512 << 10
	// maxBinds bounds the work of one Allocate when other programs hold ports of the range.
	maxBinds = 64
)

var (
	errNoPort   = errors.New("no relay port free")
	errNoFamily = errors.New("no relay address of this family")
	errNoTCP    = errors.New("TCP relays are not offered")
)

// relayAddress is an address we relay from, with the ports in use: one bit each, read for every packet to or from ourselves.
type relayAddress struct {
	Address
	live [1 << 16 / 32]atomic.Uint32
}

func (r *relayAddress) isLive(port uint16) bool {
	return r.live[port/32].Load()&(1<<(port%32)) != 0
}

func (r *relayAddress) setLive(port uint16, yes bool) {
	if bit := uint32(1) << (port % 32); yes {
		r.live[port/32].Or(bit)
	} else {
		r.live[port/32].And(^bit)
	}
}

func (r *relayAddress) has(a netip.Addr) bool { return a == r.Public || a == r.Private }

// generator makes relay sockets for the library.
type generator Server

func (g *generator) Validate() error { return nil }

// AllocatePacketConn opens the relay socket of an allocation. The slot of the session's quota goes with it.
func (g *generator) AllocatePacketConn(want turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	s := (*Server)(g)
	if want.UserID == "" {
		port, err := s.evenPort()
		if err != nil {
			s.stats.refuse(noPort)
			return nil, nil, err
		}
		return noSocket{}, &net.UDPAddr{Port: int(port)}, nil
	}
	conn, err := s.openRelay(want.Network == "udp4", want.UserID, want.RequestedPort)
	if err != nil {
		s.quota.give(want.UserID)
		s.stats.refuse(noPort)
		return nil, nil, err
	}
	return conn, net.UDPAddrFromAddrPort(netip.AddrPortFrom(conn.relay.Public, conn.port)), nil
}

// AllocateListener refuses RFC 6062 relays; inspect keeps them away from here.
func (g *generator) AllocateListener(want turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	(*Server)(g).quota.give(want.UserID)
	return nil, nil, errNoTCP
}

// AllocateConn refuses RFC 6062 connections.
func (g *generator) AllocateConn(turn.AllocateConnConfig) (net.Conn, error) { return nil, errNoTCP }

// openRelay binds the port wanted, which evenPort has found or held before, or for 0 any.
func (s *Server) openRelay(v4 bool, session string, wanted int) (*relayConn, error) {
	r := s.relayFor(v4)
	if r == nil {
		return nil, errNoFamily
	}
	if wanted != 0 {
		port := uint16(wanted)
		s.reserved.remove(port)
		if wanted < int(s.cfg.MinPort) || wanted > int(s.cfg.MaxPort) || port == s.port {
			return nil, errNoPort
		}
		return s.bindRelay(r, port, session)
	}
	binds := 0
	for port := range s.candidates() {
		if r.isLive(port) || s.reserved.has(port) {
			continue
		}
		if conn, err := s.bindRelay(r, port, session); err == nil {
			return conn, nil
		}
		if binds++; binds == maxBinds {
			break
		}
	}
	return nil, errNoPort
}

// candidates are the ports of the range. They begin at a random one, since a port that can be guessed is half of a spoofed packet,
// and go round, so that every free port is found.
func (s *Server) candidates() iter.Seq[uint16] {
	span := int(s.cfg.MaxPort) - int(s.cfg.MinPort) + 1
	start := rand.IntN(span)
	return func(yield func(uint16) bool) {
		for i := range span {
			if port := s.cfg.MinPort + uint16((start+i)%span); port != s.port && !yield(port) {
				return
			}
		}
	}
}

func (s *Server) bindRelay(r *relayAddress, port uint16, session string) (*relayConn, error) {
	conn, err := net.ListenUDP(udpNetwork(r.Private), net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.Private, port)))
	if err != nil {
		return nil, errNoPort
	}
	_ = conn.SetReadBuffer(relayBuffer)
	r.setLive(port, true)
	return &relayConn{PacketConn: conn, server: s, relay: r, conn: conn, port: port, session: session}, nil
}

// relayConn is the relay socket of one allocation as the library sees it.
type relayConn struct {
	net.PacketConn // for the methods the library does not use
	server         *Server
	relay          *relayAddress
	conn           *net.UDPConn
	port           uint16
	session        string
	closed, ended  sync.Once
}

// WriteTo sends a client's packet to a peer. The permission was for the peer's address at any port; here our own address is narrowed
// to the ports on which we relay, and our other addresses to anything but the control port. What is dropped counts as sent, as on
// any network.
func (c *relayConn) WriteTo(p []byte, to net.Addr) (int, error) {
	s, dst := c.server, addrPort(to)
	if c.relay.has(dst.Addr()) {
		if !c.relay.isLive(dst.Port()) {
			s.stats.refuse(ownPort)
			return len(p), nil
		}
		// Behind a 1:1 NAT our public address is not on this machine: go straight to the socket.
		dst = netip.AddrPortFrom(c.relay.Private, dst.Port())
	} else if dst.Port() == s.port && s.isLocal(dst.Addr()) {
		s.stats.refuse(ownPort)
		return len(p), nil
	}
	return s.stats.up.count(len(p), func() (int, error) { return c.conn.WriteToUDPAddrPort(p, dst) })
}

// ReadFrom returns the next packet from a peer. One from our own address is from another relay socket, and is then seen as coming
// from the public address that its client was told, or it is not for us.
func (c *relayConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.server.receive(c.conn, p)
		if err != nil {
			c.ended.Do(c.server.quiet.Done)
			return 0, nil, err
		}
		if c.relay.has(from.Addr()) {
			if !c.relay.isLive(from.Port()) {
				c.server.stats.refuse(ownSource)
				continue
			}
			from = netip.AddrPortFrom(c.relay.Public, from.Port())
		}
		return n, net.UDPAddrFromAddrPort(from), nil
	}
}

// Close gives port and quota back. It never fails: the library would leave the other allocations of the transport open.
func (c *relayConn) Close() error {
	c.closed.Do(func() {
		c.relay.setLive(c.port, false)
		_ = c.conn.Close()
		c.server.quota.give(c.session)
	})
	return nil
}

func (s *Server) isLocal(a netip.Addr) bool {
	for _, own := range s.listening {
		if own == a {
			return true
		}
	}
	return false
}
