package turn

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// loop makes parties whose server is the peer's own socket: what clients send arrives there with
// the channel's header in front, and what the peer sends arrives at the clients without one.
func loop(t testing.TB, host string, n int) *parties {
	t.Helper()
	peer, err := net.ListenUDP(
		"udp",
		net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), 0)),
	)
	if err != nil {
		t.Skip(err)
	}
	p := &parties{cfg: Config{Transport: "udp"}, peer: peer}
	for range n {
		conn, err := net.Dial("udp", peer.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		p.clients = append(p.clients, &client{conn: conn, relayed: addrPortOf(conn.LocalAddr())})
	}
	return p
}

func TestMmsgIOMovesEachDatagramWithItsTimeOfArrival(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		p := loop(t, host, 3)
		tr := newTestTraffic(func(c *Config) { c.Shape, c.Allocations, c.Burst = ShapeBoth, 3, 5 })
		before := time.Now().UnixNano()
		err := p.withIO(t.Context(), tr, func(c packetIO) error {
			fast := c.(*mmsgIO)
			c.send(tr.atPeer, 1, true)
			// More than one batch for the peer, so that it is sent in two.
			for i := range 15 {
				c.send(tr.atClient, i%3, true)
			}
			if fast.filled != 75-batchSize {
				t.Errorf("%d gathered", fast.filled)
			}
			fast.flush(true)
			count := func(fd int) (n int) {
				for {
					k, err := fast.in.receive(fd)
					if err != nil {
						t.Fatal(err)
					}
					if k == 0 {
						return n
					}
					for i := range k {
						data, at := fast.in.got(i)
						if at < before || at > time.Now().UnixNano() {
							t.Errorf("arrived at %d", at)
						}
						if fd == fast.peer {
							data = channelPayload(data)
						}
						if len(data) != tr.cfg.Size || data[0] != 0x80 || data[2] != 1 {
							t.Errorf("%d bytes: %.8x", len(data), data)
						}
					}
					n += k
				}
			}
			if n := count(fast.peer); n != 5 {
				t.Errorf("the peer received %d", n)
			}
			for _, fd := range fast.clients {
				if n := count(fd); n != 25 {
					t.Errorf("a client received %d", n)
				}
			}
			return nil
		})
		if err != nil || tr.firstError() != "" {
			t.Error(err, tr.firstError())
		}
		// The sockets are Go's again.
		for _, c := range p.clients {
			if err := c.conn.SetDeadline(time.Now()); err != nil {
				t.Error(err)
			}
			_ = c.conn.Close()
		}
	}
}

func TestMmsgIOTakesInWhatArrives(t *testing.T) {
	p := loop(t, "127.0.0.1", 2)
	tr := newTestTraffic(func(c *Config) { c.Shape, c.Allocations, c.Burst = ShapeBoth, 2, 3 })
	err := p.withIO(t.Context(), tr, func(c packetIO) error {
		c.send(tr.atPeer, 0, false)
		c.send(tr.atClient, 1, false)
		c.receive(0, false)
		return nil
	})
	// Every packet is unexpected here: at the peer by its header, at the client, without
	// one, it is not counted at all.
	if err != nil || tr.unexpected.Load() != 3 || tr.received() != 0 {
		t.Errorf("%v, %d unexpected, %d received", err, tr.unexpected.Load(), tr.received())
	}
	closeAll(p)
}

func closeAll(p *parties) {
	for _, c := range p.clients {
		_ = c.conn.Close()
	}
}

// What the kernel refuses is not counted as sent, and is said.
func TestMmsgIOReportsWhatItCannotSend(t *testing.T) {
	p := loop(t, "127.0.0.1", 1)
	tr := newTestTraffic(func(c *Config) { c.Shape, c.Allocations = ShapeDown, 1 })
	p.clients[0].relayed = netip.MustParseAddrPort("127.0.0.1:0")
	err := p.withIO(t.Context(), tr, func(c packetIO) error {
		c.send(tr.atClient, 0, true)
		c.receive(0, true)
		return nil
	})
	if err != nil || tr.firstError() == "" || tr.flows[0].sent != 0 ||
		tr.flows[0].measuredSent != 0 {
		t.Errorf("%v, fault %q, %d sent", err, tr.firstError(), tr.flows[0].sent)
	}
	closeAll(p)
}

// The generator is to spend its time in the kernel.
func TestNothingIsAllocatedForAPacket(t *testing.T) {
	p := loop(t, "127.0.0.1", 2)
	tr := newTestTraffic(func(c *Config) { c.Shape, c.Allocations, c.Burst = ShapeBoth, 2, 6 })
	err := p.withIO(t.Context(), tr, func(c packetIO) error {
		if n := testing.AllocsPerRun(200, func() {
			c.send(tr.atPeer, 0, true)
			c.send(tr.atClient, 1, true)
			c.receive(time.Microsecond, true)
		}); n != 0 {
			t.Errorf("sending and receiving: %v allocations", n)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	closeAll(p)
	up := newTestTraffic(func(c *Config) { c.Shape = ShapeUp })
	payload := make([]byte, up.cfg.Size)
	if n := testing.AllocsPerRun(200, func() {
		up.flows[0].ready(time.Millisecond)
		up.flows[0].stamp(payload, 1, true, 1)
		up.atThePeer(payload, 2)
	}); n != 0 || up.received() != 201 {
		t.Errorf("counting: %v allocations, %d received", n, up.received())
	}
}

func TestSocketAddresses(t *testing.T) {
	for text, size := range map[string]uint32{
		"192.0.2.1:4660":     unix.SizeofSockaddrInet4,
		"[2001:db8::1]:4660": unix.SizeofSockaddrInet6,
	} {
		if s := newSockaddr(netip.MustParseAddrPort(text)); s.length != size ||
			s.raw.Port != 0x3412 && s.raw.Port != 0x1234 {
			t.Errorf("%s: %+v", text, s)
		}
	}
}
