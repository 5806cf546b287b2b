package relay

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/pion/stun/v4"
)

// Where we listen says nothing about which addresses are ours: services listen at the others too.
func TestEveryAddressOfThisMachineIsOurs(t *testing.T) {
	// An address that is on no interface as such, like those of a network that is routed to this
	// machine.
	const listen = "127.0.0.77"
	s := start(
		t,
		func(c *Config) { c.Listen, c.Addresses = listen+":0", []Address{loopback("127.0.0.9")} },
	)
	all, err := localAddresses()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range append(all, netip.MustParseAddr(listen)) {
		if !slices.Contains(s.addresses().policy.local, a) {
			t.Errorf("%s is not known as ours", a)
		}
	}
}

// Neither the address listened at, if it is on no interface as such, nor the rest of 127.0.0.0/8,
// which is this machine as well, leads to the control ports.
func TestControlPortsAreOutOfReachByEveryLoopbackAddress(t *testing.T) {
	for listen, hosts := range map[string][]string{
		"127.0.0.77:0": {"127.0.0.77", "127.0.0.1"},
		":0":           {"127.0.0.1", "127.0.0.5", "127.255.255.254"},
	} {
		s := start(t, func(c *Config) {
			c.Listen, c.STUN, c.Addresses = listen, listen, []Address{loopback("127.0.0.9")}
		})
		far := udpPeer(t, peerHost(t))
		c := dial(t, s, "udp", "t", "s")
		c.allocate()
		binding := string(stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw)
		sent := uint64(0)
		for _, host := range hosts {
			a := netip.MustParseAddr(host)
			if got := c.permit(a); got != 0 {
				t.Fatalf("permission for %s: %d", host, got)
			}
			for i, port := range []int{s.Port(), s.STUNPort()} {
				to := netip.AddrPortFrom(a, uint16(port))
				if got := c.bind(uint16(minChannel+2*int(sent)+i), to); got != 0 {
					t.Fatalf("channel to %s: %d", to, got)
				}
				c.channelData(uint16(minChannel+2*int(sent)+i), binding)
				c.indicate(to, binding)
			}
			sent += 4
		}
		c.permit(localOf(far).Addr())
		c.indicate(localOf(far), "end")
		if data, _ := receiveAt(t, far); data != "end" || len(c.data) != 0 {
			t.Errorf("listening at %s: peer got %q, client %q", listen, data, c.data)
		}
		if got := refusedBy(s, reasonOwnPort); got != sent {
			t.Errorf("listening at %s: %d packets dropped, want %d", listen, got, sent)
		}
	}
}

// An exception opens an address of ours, not the same by way of a translator: it would come back
// past the check of its port.
func TestOwnAddressInAnotherDressIsRefusedInSpiteOfExceptions(t *testing.T) {
	own := netip.MustParseAddr("10.0.0.5")
	p := newPolicy(nets("10.0.0.0/8"), nil, []netip.Addr{own})
	for name, form := range forms(own) {
		if want := name == "itself" || name == "mapped"; p.allows(form) != want {
			t.Errorf("%s (%s): allowed is %v", form, name, !want)
		}
	}
}
