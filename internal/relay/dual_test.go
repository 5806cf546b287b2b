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

func noEvenPair() stun.Setter { return stun.RawAttribute{Type: stun.AttrEvenPort, Value: []byte{0}} }

func TestDualAllocationHasBothFamilies(t *testing.T) {
	s := startBothFamilies(t)
	four, six := udpPeer(t, peerHost(t)), udpPeer(t, "::1")
	for name, attrs := range map[string][]stun.Setter{"any port": nil, "even ports": {noEvenPair()}} {
		c := dial(t, s, "udp", "t", "s")
		c.challenge()
		answer := c.ask(stun.MethodAllocate, append(attrs, transport(17), additionally(2))...)
		at := relayedOf(t, answer)
		if code(answer) != 0 || at[v4].Addr() != netip.MustParseAddr("127.0.0.1") || at[v6].Addr() != netip.MustParseAddr("::1") {
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
		far := dialTo(t, s, "udp", netip.AddrPortFrom(netip.MustParseAddr("::1"), uint16(s.Port())), "t", "far")
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
	if got := refusedBy(s, panicked); got != 0 {
		t.Errorf("%d messages broke the parser", got)
	}
}

// A family that is missing is named with its code, in the repeated answer too, and costs nothing of the quota.
func TestDualAllocationSaysWhichFamilyIsMissing(t *testing.T) {
	s := start(t, nil)
	for name, attrs := range map[string][]stun.Setter{"any port": nil, "an even port": {noEvenPair()}} {
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
			if value, err := answer.Get(attrAddressErrorCode); err != nil || !bytes.Equal(value, []byte{2, 0, 4, 40}) {
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
	if s.quota.total != 0 || s.Stats().Allocated != 2 || refusedBy(s, panicked) != 0 {
		t.Errorf("the quota counts %d, stats are %+v", s.quota.total, s.Stats())
	}
}
