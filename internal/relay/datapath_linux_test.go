package relay

import (
	"bytes"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/pion/stun/v4"
	"golang.org/x/sys/unix"
)

// end is a UDP socket with one place to send to, and one packet to send. Using it costs no memory.
type end struct {
	t   testing.TB
	fd  int
	in  []byte
	out []byte
}

// newEnd takes over the socket of a connection.
func newEnd(t testing.TB, conn net.Conn, to netip.AddrPort, out []byte) *end {
	t.Helper()
	file, err := conn.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	e := &end{t: t, fd: int(file.Fd()), in: make([]byte, 2048), out: out}
	limit := unix.NsecToTimeval(failSafe.Nanoseconds())
	for _, err := range []error{
		unix.SetNonblock(e.fd, false),
		unix.SetsockoptTimeval(e.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.Connect(e.fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// pass sends packets and waits until they have come out at the other end.
func pass(from, to *end, packets int) (last int) {
	// So many fit into every buffer on the way.
	const atOnce = 16
	for packets > 0 {
		n := min(packets, atOnce)
		for range n {
			if _, err := again(unix.Write, from.fd, from.out); err != nil {
				from.t.Fatal(err)
			}
		}
		for range n {
			var err error
			if last, err = again(unix.Read, to.fd, to.in); err != nil {
				to.t.Fatal(err)
			}
		}
		packets -= n
	}
	return last
}

// again repeats a system call that a signal of the runtime has ended.
func again(call func(int, []byte) (int, error), fd int, b []byte) (int, error) {
	for {
		if n, err := call(fd, b); err != unix.EINTR {
			return n, err
		}
	}
}

// lane is a way through the relay.
type lane struct {
	name     string
	from, to *end
	overhead int // of what comes out over the payload
}

var payload = bytes.Repeat([]byte{'p'}, 1100)

// lanes opens all ways a packet may take over UDP: up and down by channels and by indications, and
// between clients with channels at both ends, at one and at none.
func lanes(t *testing.T, s *Server) []lane {
	server := netip.AddrPortFrom(s.addresses().listening[0], uint16(s.Port()))
	far, plain := udpPeer(t, peerHost(t)), udpPeer(t, "127.0.0.3")
	c := dial(t, s, "udp", "t", "s")
	relayed := c.allocate()
	if one, two := c.bind(0x4000, localOf(far)), c.permit(localOf(plain).Addr()); one != 0 ||
		two != 0 {
		t.Fatalf("channel: %d, permission: %d", one, two)
	}
	send := func(to netip.AddrPort) []byte {
		return stun.MustBuild(
			stun.TransactionID,
			stun.NewType(stun.MethodSend, stun.ClassIndication),
			peer(to),
			stun.RawAttribute{Type: stun.AttrData, Value: payload},
		).Raw
	}
	list := []lane{
		{
			"up by a channel",
			newEnd(t, c.conn, server, channelMessage(0x4000, payload)),
			newEnd(t, far, relayed, payload),
			0,
		},
		{
			"up by indications",
			newEnd(t, c.conn, server, send(localOf(plain))),
			newEnd(t, plain, relayed, payload),
			0,
		},
	}
	list = append(
		list,
		lane{"down by a channel", list[0].to, list[0].from, channelHeader},
		lane{"down by indications", list[1].to, list[1].from, 36},
	)
	for name, ends := range map[string][2]bool{
		"between clients with channels": {true, true}, "between clients to a channel": {
			false, true,
		},
		"between clients from a channel": {true, false}, "between clients by indications": {
			false, false,
		},
	} {
		a, b := dial(t, s, "udp", "t", "a"), dial(t, s, "udp", "t", "b")
		atA, atB := a.allocate(), b.allocate()
		open := func(c *rawClient, to netip.AddrPort, channel bool) ([]byte, int) {
			got, message, overhead := 0, send(to), 36
			if channel {
				got, message, overhead = c.bind(
					0x4000,
					to,
				), channelMessage(
					0x4000,
					payload,
				), channelHeader
			} else {
				got = c.permit(to.Addr())
			}
			if got != 0 {
				t.Fatalf("%s: %d", name, got)
			}
			return message, overhead
		}
		out, _ := open(a, atB, ends[0])
		back, overhead := open(b, atA, ends[1])
		list = append(
			list,
			lane{name, newEnd(t, a.conn, server, out), newEnd(t, b.conn, server, back), overhead},
		)
	}
	return list
}

func TestDataPathAllocatesNothing(t *testing.T) {
	s := start(t, nil)
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	const packets = 3000
	for _, l := range lanes(t, s) {
		// Maps and buffers grow to their size with the first packets.
		if got := pass(l.from, l.to, 200); got != len(payload)+l.overhead {
			t.Fatalf("%s: a packet of %d bytes", l.name, got)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		pass(l.from, l.to, packets)
		runtime.ReadMemStats(&after)
		// The race detector lets pools forget some of what they get, and the driver for all systems
		// uses one.
		if n := after.Mallocs - before.Mallocs; n >= packets/100 && !(underRace && plainDriver) {
			t.Errorf("%s: %d allocations for %d packets", l.name, n, packets)
		}
	}
}

// Everything passes while somebody holds every lock there is.
func TestDataPathTakesNoLock(t *testing.T) {
	s := start(t, nil)
	all := lanes(t, s)
	s.quota.mu.Lock()
	defer s.quota.mu.Unlock()
	s.reserved.mu.Lock()
	defer s.reserved.mu.Unlock()
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	for _, l := range all {
		pass(l.from, l.to, 200)
	}
}
