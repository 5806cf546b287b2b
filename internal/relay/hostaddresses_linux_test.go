package relay

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/stun/v4"
	"golang.org/x/sys/unix"
)

// An address of the machine is replaced while the relay runs. One that it found by itself follows:
// allocations work again, from the new address, without anybody asking. One that it was told does
// not, but its self-test names what is lost, and all is well when it is back.
func TestAddressesThatChange(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	network(t, `link set lo up
		link add e0 type veth peer name e1
		addr add 10.9.0.1/24 dev e0
		link set e0 up`)
	defer network(t, "link del e0") // for the second driver
	told := netip.MustParseAddr("10.9.0.1")
	found := start(t, func(c *Config) { c.Listen, c.AllowPeers = ":0", nil })
	given := start(
		t,
		func(c *Config) {
			c.Listen, c.AllowPeers, c.Addresses = ":0", nil, []Address{{told, told}}
		},
	)
	client := func(s *Server) *rawClient {
		return dialTo(
			t,
			s,
			"udp",
			netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(s.Port())),
			"t",
			"s",
		)
	}
	try := func(s *Server) (netip.Addr, int) {
		c := client(s)
		c.challenge()
		answer := c.ask(stun.MethodAllocate, transport(17))
		if got := code(answer); got != 0 {
			return netip.Addr{}, got
		}
		at := relayedOf(t, answer)[v4].Addr()
		c.refresh(0)
		return at, 0
	}
	for _, s := range []*Server{found, given} {
		if at, got := try(s); at != told || got != 0 {
			t.Fatalf("at first: %v, %d", at, got)
		}
		if err := s.SelfTest(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	network(t, `addr del 10.9.0.1/24 dev e0
		addr add 10.9.0.2/24 dev e0`)
	// The first Allocate fails, and has the relay look.
	other := netip.MustParseAddr("10.9.0.2")
	eventually(t, func() bool { at, got := try(found); return at == other && got == 0 })
	// Which listens where it did at first.
	if err := found.SelfTest(t.Context()); err != nil && !plainDriver {
		t.Errorf("after the change: %v", err)
	}
	if list := found.Addresses(); len(list) != 1 || list[0].Public != other {
		t.Errorf("addresses are %v", list)
	}
	// The new address is no way into this machine.
	c := client(found)
	c.allocate()
	if got := c.permit(other, told); got != 403 {
		t.Errorf("a permission for an address that is another's now: %d", got)
	}
	if _, got := try(given); got != 508 {
		t.Errorf("at an address that is lost: %d", got)
	}
	if err := given.SelfTest(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "address 10.9.0.1 is no address of this machine") {
		t.Errorf("the self-test says %v", err)
	}
	network(t, "addr add 10.9.0.1/24 dev e0")
	if at, got := try(given); at != told || got != 0 {
		t.Errorf("when it is back: %v, %d", at, got)
	}
	if err := given.SelfTest(t.Context()); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

// Routers may cut what leaves over IPv4, unless a client asks that they do not, and after that
// again.
func TestWhatIsRelayedMayBeFragmented(t *testing.T) {
	if plainDriver { // the sockets are the net package's
		return
	}
	s := start(t, func(c *Config) { c.Workers = 1 })
	far := udpPeer(t, peerHost(t))
	c := dial(t, s, "udp", "t", "s")
	port := c.allocate().Port()
	c.permit(localOf(far).Addr())
	m := stun.MustBuild(
		stun.TransactionID,
		stun.NewType(stun.MethodSend, stun.ClassIndication),
		peer(localOf(far)),
		dontFragment(),
		stun.RawAttribute{Type: stun.AttrData, Value: []byte("whole")},
	)
	c.send(m.Raw)
	if data, _ := receiveAt(t, far); data != "whole" {
		t.Fatalf("%q", data)
	}
	c.ask(stun.MethodBinding) // the worker has done with it
	driver := s.workers[0].driver.(*epollDriver)
	for _, fd := range []int{driver.listeners[0].fd, s.addresses().relays[0].socketAt(port).fd} {
		if got, err := unix.GetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER); err != nil ||
			got != unix.IP_PMTUDISC_DONT {
			t.Errorf("path MTU discovery is %d, %v", got, err)
		}
	}
}
