package turn

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"time"

	"github.com/pion/stun/v4"

	"github.com/ieum-rtc/ieum/internal/bench/schedule"
	"github.com/ieum-rtc/ieum/internal/relay"
)

// parties are the clients with their allocations, and the peer.
type parties struct {
	cfg     Config
	clients []*client
	peer    *net.UDPConn // nil for hairpin and idle
}

// Socket buffers, so that this generator does not lose relayed packets. The kernel may grant less.
const (
	clientBuffer = 1 << 20
	peerBuffer   = 4 << 20
)

// Bounds of the set-up, and of the release at the end: what is not released expires.
const (
	setUpWithin   = 2 * time.Minute
	releaseWithin = 5 * time.Second
)

// newParties makes the allocations and binds their channels.
func newParties(ctx context.Context, cfg Config) (*parties, error) {
	ctx, cancel := context.WithTimeout(ctx, setUpWithin)
	defer cancel()
	p := &parties{cfg: cfg, clients: make([]*client, cfg.Allocations)}
	if err := p.setUp(ctx); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *parties) setUp(ctx context.Context) error {
	peer, err := p.findPeer(ctx)
	if err != nil {
		return err
	}
	var at netip.AddrPort // of the peer; idle allocations have a channel to one that is not there
	switch p.cfg.Shape {
	case ShapeIdle:
		at = netip.AddrPortFrom(peer, 9)
	case ShapeUp, ShapeDown, ShapeBoth:
		local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(peer, 0))
		if p.peer, err = net.ListenUDP("udp", local); err != nil {
			return fmt.Errorf("peer: %w", err)
		}
		_ = p.peer.SetReadBuffer(peerBuffer)
		_ = p.peer.SetWriteBuffer(peerBuffer)
		at = addrPortOf(p.peer.LocalAddr())
	}
	err = schedule.Each(ctx, p.cfg.Dials, len(p.clients), func(ctx context.Context, i int) error {
		if err := p.allocate(ctx, i, peer); err != nil || !at.IsValid() {
			return err
		}
		return p.clients[i].bind(ctx, at)
	})
	if err != nil || p.cfg.Shape != ShapeHairpin {
		return err
	}
	return schedule.Each(ctx, p.cfg.Dials, len(p.clients), func(ctx context.Context, i int) error {
		return p.clients[i].bind(ctx, p.clients[i^1].relayed)
	})
}

// allocate makes client i. A server that still knows an earlier allocation of the same port answers
// 437 (coturn does for some seconds after its release). Then the client uses another port, as RFC
// 8656 section 7.4 demands.
func (p *parties) allocate(ctx context.Context, i int, peer netip.Addr) (err error) {
	for range 3 {
		c, failed := p.dial(ctx, i)
		if failed != nil {
			return fmt.Errorf("client %d: %w", i, failed)
		}
		var r refusal
		if err = c.allocate(ctx, peer); err == nil || !errors.As(err, &r) ||
			r.code != stun.CodeAllocMismatch {
			p.clients[i] = c
			return err
		}
		// the socket stays open until the next one has its port, which must differ
		defer func() { _ = c.conn.Close() }()
	}
	return err
}

// findPeer is the address of the peer. Connecting a UDP socket sends nothing, and tells the local
// address on the route to the server.
func (p *parties) findPeer(ctx context.Context) (netip.Addr, error) {
	if p.cfg.Peer.IsValid() {
		return p.cfg.Peer.Unmap(), nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", p.cfg.Server)
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = conn.Close() }()
	return addrPortOf(conn.LocalAddr()).Addr(), nil
}

// dial connects client i to the server.
func (p *parties) dial(ctx context.Context, i int) (*client, error) {
	c := &client{user: p.cfg.User, password: p.cfg.Password}
	if len(p.cfg.Secret) > 0 {
		c.user = fmt.Sprintf("%d:bench.s%d", time.Now().Add(10*time.Minute).Unix(), i)
		c.password = relay.RESTPassword(p.cfg.Secret, c.user)
	}
	d := &net.Dialer{}
	network := "tcp"
	if p.cfg.Transport == "udp" {
		network = "udp"
	}
	if n := len(p.cfg.Clients); n > 0 {
		from := netip.AddrPortFrom(p.cfg.Clients[i%n], 0)
		if d.LocalAddr = net.Addr(net.TCPAddrFromAddrPort(from)); network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(from)
		}
	}
	var err error
	if p.cfg.Transport == "tls" {
		secure := &tls.Dialer{
			NetDialer: d,
			Config:    &tls.Config{InsecureSkipVerify: p.cfg.Insecure},
		}
		c.conn, err = secure.DialContext(ctx, network, p.cfg.Server)
	} else {
		c.conn, err = d.DialContext(ctx, network, p.cfg.Server)
	}
	if err != nil {
		return nil, err
	}
	if u, ok := c.conn.(*net.UDPConn); ok {
		_ = u.SetReadBuffer(clientBuffer)
		_ = u.SetWriteBuffer(clientBuffer)
	} else {
		c.frames = bufio.NewReaderSize(c.conn, 16<<10)
	}
	return c, nil
}

func addrPortOf(a net.Addr) netip.AddrPort {
	ap := a.(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// close releases the allocations and closes the sockets.
func (p *parties) close() {
	ctx, cancel := context.WithTimeout(context.Background(), releaseWithin)
	defer cancel()
	_ = schedule.Each(ctx, p.cfg.Dials, len(p.clients), func(ctx context.Context, i int) error {
		c := p.clients[i]
		// an abandoned request may have made an allocation too; the end of a stream deletes its own
		if c != nil && c.nonce != "" && c.frames == nil {
			_ = c.release(ctx)
		}
		return nil
	})
	for _, c := range p.clients {
		if c != nil {
			_ = c.conn.Close()
		}
	}
	if p.peer != nil {
		_ = p.peer.Close()
	}
}
