package relay

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/pion/stun/v4"
)

func startBothFamilies(t *testing.T) *Server {
	return start(t, func(c *Config) {
		c.Listen = ":0"
		c.Addresses = []Address{loopback("127.0.0.1"), loopback("::1")}
	})
}

// relayedOf are the relayed addresses of an answer, by family.
func relayedOf(t *testing.T, answer *stun.Message) (at [families]netip.AddrPort) {
	t.Helper()
	for _, attr := range answer.Attributes {
		if attr.Type != stun.AttrXORRelayedAddress {
			continue
		}
		e, f, ok := readAddress(attr.Value, answer.Raw[4:stunHeader])
		if !ok || at[f].IsValid() {
			t.Fatalf("relayed addresses of %v", answer)
		}
		at[f] = e.addrPort()
	}
	return at
}

func noEvenPair() stun.Setter {
	return stun.RawAttribute{Type: stun.AttrEvenPort, Value: []byte{0}}
}

func TestDualAllocationHasBothFamilies(t *testing.T) {
	s := startBothFamilies(t)
	four, six := udpPeer(t, peerHost(t)), udpPeer(t, "::1")
	for name, attrs := range map[string][]stun.Setter{
		"any port": nil, "even ports": {noEvenPair()},
	} {
		c := dial(t, s, "udp", "t", "s")
		c.challenge()
		answer := c.ask(stun.MethodAllocate, append(attrs, transport(17), additionally(2))...)
		at := relayedOf(t, answer)
		if code(answer) != 0 || at[v4].Addr() != netip.MustParseAddr("127.0.0.1") ||
			at[v6].Addr() != netip.MustParseAddr("::1") {
			t.Fatalf("%s: code %d, %v", name, code(answer), at)
		}
		if attrs != nil && (at[v4].Port()%2 != 0 || at[v6].Port()%2 != 0) {
			t.Errorf("%s: %v", name, at)
		}
		if answer.Contains(attrAddressErrorCode) {
			t.Errorf("%s: an address error in %v", name, answer)
		}
		if got := c.permit(localOf(four).Addr()); got != 0 {
			t.Fatalf("%s: permission: %d", name, got)
		}
		c.indicate(localOf(four), "by IPv4")
		if data, from := receiveAt(t, four); data != "by IPv4" || from != at[v4] {
			t.Errorf("%s: peer got %q from %v", name, data, from)
		}
		// ::1 is our own address: another relayed client must be there.
		far := dialTo(
			t,
			s,
			"udp",
			netip.AddrPortFrom(netip.MustParseAddr("::1"), uint16(s.Port())),
			"t",
			"far",
		)
		farAt := far.allocate(inFamily(2))
		if got, back := c.bind(0x4000, farAt), far.permit(at[v6].Addr()); got != 0 || back != 0 {
			t.Fatalf("%s: IPv6: %d, %d", name, got, back)
		}
		c.channelData(0x4000, "by IPv6")
		if data, from := far.receive(); data != "by IPv6" || from != at[v6] {
			t.Errorf("%s: far client got %q from %v", name, data, from)
		}
		c.refresh(0)
		far.refresh(0)
	}
	if got := waiting(t, six); got != "" {
		t.Errorf("a service of this machine got %s", got)
	}
	if got := refusedBy(s, reasonPanic); got != 0 {
		t.Errorf("%d messages broke the parser", got)
	}
}

// A family that is missing is named with its code, in the repeated answer too, and costs nothing of
// the quota.
func TestDualAllocationSaysWhichFamilyIsMissing(t *testing.T) {
	s := start(t, nil)
	for name, attrs := range map[string][]stun.Setter{
		"any port": nil, "an even port": {noEvenPair()},
	} {
		c := dial(t, s, "udp", "t", "s")
		c.challenge()
		m := c.signed(stun.MethodAllocate, append(attrs, transport(17), additionally(2))...)
		c.send(m.Raw)
		first := c.answerTo(m)
		c.send(m.Raw)
		again := c.answerTo(m)
		for _, answer := range []*stun.Message{first, again} {
			at := relayedOf(t, answer)
			if code(answer) != 0 || !at[v4].IsValid() || at[v6].IsValid() {
				t.Fatalf("%s: code %d, %v", name, code(answer), at)
			}
			if value, err := answer.Get(attrAddressErrorCode); err != nil ||
				!bytes.Equal(value, []byte{2, 0, 4, 40}) {
				t.Errorf("%s: address error %x, %v", name, value, err)
			}
		}
		if relayedOf(t, first) != relayedOf(t, again) {
			t.Errorf("%s: %v, repeated %v", name, relayedOf(t, first), relayedOf(t, again))
		}
		c.refresh(0)
	}
	s.quota.mu.Lock()
	defer s.quota.mu.Unlock()
	if s.quota.total != 0 || s.Stats().Created != 2 || refusedBy(s, reasonPanic) != 0 {
		t.Errorf("the quota counts %d, stats are %+v", s.quota.total, s.Stats())
	}
}

// With one half of a dual allocation go its channels and permissions: its port may be another
// client's by now, whose packets would seem to come from there.
func TestRefreshEndsOneHalf(t *testing.T) {
	s := startBothFamilies(t)
	four := udpPeer(t, peerHost(t))
	far := dialTo(
		t,
		s,
		"udp",
		netip.AddrPortFrom(netip.MustParseAddr("::1"), uint16(s.Port())),
		"t",
		"far",
	)
	farAt := far.allocate(inFamily(2))
	c := dial(t, s, "udp", "t", "s")
	c.challenge()
	at := relayedOf(t, c.ask(stun.MethodAllocate, transport(17), additionally(2)))
	if one, two, back := c.bind(0x4000, farAt), c.bind(
		0x4001, localOf(four),
	), far.permit(at[v6].Addr()); one != 0 ||
		two != 0 ||
		back != 0 {
		t.Fatalf("channels: %d, %d, permission: %d", one, two, back)
	}
	c.channelData(0x4000, "before")
	if data, from := far.receive(); data != "before" || from != at[v6] {
		t.Errorf("far client got %q from %v", data, from)
	}
	if got := code(c.ask(stun.MethodRefresh, life(0), inFamily(2))); got != 0 {
		t.Fatalf("refresh: %d", got)
	}
	if s.addresses().relays[1].socketAt(at[v6].Port()) != nil ||
		s.addresses().relays[0].socketAt(at[v4].Port()) == nil ||
		s.Stats().Allocations != 2 {
		t.Error("not the one half is closed")
	}
	c.channelData(0x4000, "after")
	c.indicate(farAt, "after")
	c.channelData(0x4001, "the other half")
	if data, from := receiveAt(t, four); data != "the other half" || from != at[v4] {
		t.Errorf("peer got %q from %v", data, from)
	}
	if far.ask(stun.MethodBinding); len(far.data) != 0 {
		t.Errorf("far client got %q by an address that is closed", far.data)
	}
	if got := refusedBy(s, reasonNoPermission); got != 2 {
		t.Errorf("%d packets dropped, want 2", got)
	}
	for name, got := range map[string]int{
		"refresh again": code(c.ask(stun.MethodRefresh, life(0), inFamily(2))),
		"permission":    c.permit(farAt.Addr()), "channel": c.bind(0x4002, farAt),
	} {
		if got != 443 {
			t.Errorf("%s: %d", name, got)
		}
	}
	if got := code(c.ask(stun.MethodRefresh, life(0), inFamily(1))); got != 0 ||
		s.Stats().Allocations != 1 {
		t.Errorf("the other half: %d, %d allocations", got, s.Stats().Allocations)
	}
}

// The quota, which keeps the descriptors of other uses free, bounds the sockets of a relay: also of
// clients that ask for two addresses, or reserve a port.
func TestTheQuotaCountsSockets(t *testing.T) {
	const total = 16
	for name, attrs := range map[string][]stun.Setter{
		"one address":   {transport(17)},
		"two addresses": {transport(17), additionally(2)},
		"a pair of ports": {
			transport(17), stun.RawAttribute{Type: stun.AttrEvenPort, Value: []byte{0x80}},
		},
	} {
		s := start(t, func(c *Config) {
			c.Listen = ":0"
			c.Addresses = []Address{loopback("127.0.0.1"), loopback("::1")}
			c.Quota = Quota{Total: total, Tenant: -1}
		})
		var clients []*rawClient
		for range total + 1 {
			c := dial(t, s, "udp", "t", "s")
			c.challenge()
			if got := code(c.ask(stun.MethodAllocate, attrs...)); got != 0 && got != 486 &&
				got != 508 {
				t.Fatalf("%s: code %d", name, got)
			} else if got == 0 {
				clients = append(clients, c)
			}
		}
		sockets := int(s.reserved.n.Load())
		for _, r := range s.addresses().relays {
			for i := range r.sockets {
				if r.sockets[i].Load() != nil {
					sockets++
				}
			}
		}
		// A reservation lasts 30 s and costs nothing: there are few.
		if sockets > total+total/16+1 || len(clients) < 2 {
			t.Errorf("%s: %d sockets of %d clients", name, sockets, len(clients))
		}
		for _, c := range clients {
			c.refresh(0)
		}
		if !s.quota.empty() {
			t.Errorf("%s: the quota is not empty", name)
		}
	}
}
