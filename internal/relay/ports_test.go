package relay

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/pion/stun/v4"
)

func TestFullPortRange(t *testing.T) {
	s := start(t, func(c *Config) { c.MinPort, c.MaxPort = freeRange(t) })
	first, second := dial(t, s, "udp", "t", "s"), dial(t, s, "udp", "t", "s")
	one, two := first.allocate(), second.allocate()
	if one.Port() == two.Port() || min(one.Port(), two.Port()) != s.cfg.MinPort ||
		max(one.Port(), two.Port()) != s.cfg.MaxPort {
		t.Errorf("relay ports are %d and %d", one.Port(), two.Port())
	}
	third := dial(t, s, "udp", "t", "s")
	third.challenge()
	if got := code(third.ask(stun.MethodAllocate, transport(17))); got != 508 {
		t.Errorf("a third one: %d", got)
	}
	first.refresh(0)
	if again := third.allocate(); again.Port() != one.Port() {
		t.Errorf("the port that became free is %d, got %d", one.Port(), again.Port())
	}
	if s.quota.of("t.s") != 2 {
		t.Errorf("the quota counts %v", s.quota.sessions)
	}
}

// A client that asks for an even port (RTP) gets the next one (RTCP) with the token of the answer,
// and nobody else does meanwhile.
func TestEvenPortAndTheOneReserved(t *testing.T) {
	s := start(t, nil)
	for range 20 {
		c := dial(t, s, "udp", "t", "s")
		c.challenge()
		answer := c.ask(stun.MethodAllocate, transport(17), evenPort())
		var relayed stun.XORMappedAddress
		if code(answer) != 0 || relayed.GetFromAs(answer, stun.AttrXORRelayedAddress) != nil ||
			relayed.Port%2 != 0 {
			t.Fatalf("code %d, port %d", code(answer), relayed.Port)
		}
		reserved, err := answer.Get(stun.AttrReservationToken)
		if err != nil || !s.reserved.contains(s.addresses().relays[0], uint16(relayed.Port+1)) {
			t.Fatalf("nothing is reserved: %v", err)
		}
		next := dial(t, s, "udp", "t", "s")
		if at := next.allocate(token(reserved)); int(at.Port()) != relayed.Port+1 {
			t.Errorf("the port beside %d is %d", relayed.Port, at.Port())
		}
		if s.reserved.contains(s.addresses().relays[0], uint16(relayed.Port+1)) {
			t.Error("still reserved")
		}
	}
	if s.quota.of("t.s") != 40 || len(s.quota.sessions) != 1 {
		t.Errorf("the quota counts %v", s.quota.sessions)
	}
}

func TestEvenPortsOfBothFamilies(t *testing.T) {
	s := start(
		t,
		func(c *Config) { c.Addresses = []Address{loopback("127.0.0.1"), loopback("::1")} },
	)
	for range 20 {
		c := dial(t, s, "udp", "t", "s")
		c.challenge()
		answer := c.ask(
			stun.MethodAllocate,
			transport(17),
			additionally(2),
			stun.RawAttribute{Type: stun.AttrEvenPort, Value: []byte{0}},
		)
		var got [families]endpoint
		for _, a := range answer.Attributes {
			if a.Type == stun.AttrXORRelayedAddress {
				e, f, _ := readAddress(a.Value, answer.Raw[4:stunHeader])
				got[f] = e
			}
		}
		if code(answer) != 0 || got[v4].port == 0 || got[v6].port == 0 || got[v4].port%2 != 0 ||
			got[v6].port%2 != 0 {
			t.Fatalf("code %d, ports %d and %d", code(answer), got[v4].port, got[v6].port)
		}
		if answer.Contains(stun.AttrReservationToken) {
			t.Error("something is reserved")
		}
	}
}

func TestReservedPortIsNotGivenToOthers(t *testing.T) {
	s := start(t, func(c *Config) { c.MinPort, c.MaxPort = freeRange(t) })
	first := dial(t, s, "udp", "t", "s")
	first.challenge()
	answer := first.ask(stun.MethodAllocate, transport(17), evenPort())
	reserved, err := answer.Get(stun.AttrReservationToken)
	if code(answer) != 0 || err != nil {
		t.Fatalf("code %d, %v", code(answer), err)
	}
	for name, attrs := range map[string][]stun.Setter{
		"any port": nil, "an even port": {evenPort()},
	} {
		c := dial(t, s, "udp", "t", "s")
		c.challenge()
		if got := code(c.ask(stun.MethodAllocate, append(attrs, transport(17))...)); got != 508 {
			t.Errorf("%s: %d", name, got)
		}
	}
	other := dial(t, s, "udp", "t", "other")
	other.challenge()
	if got := code(other.ask(stun.MethodAllocate, transport(17), token(reserved))); got != 508 {
		t.Errorf("another session's token: %d", got)
	}
}

func TestReservationsEndAndAreBounded(t *testing.T) {
	s := start(t, nil)
	w := s.workers[0]
	var r reservations
	open := func() *relaySocket {
		// The port of the socket does not matter here.
		socket, err := w.driver.bind(s.addresses().relays[0], 0)
		if err != nil {
			t.Fatal(err)
		}
		return socket
	}
	var first []byte
	for i := range maxReserved {
		got := r.add(open(), fmt.Sprint("t.s", i/maxReservedEach), -1, 0)
		if got == nil {
			t.Fatal("refused too early")
		}
		if first == nil {
			first = got
		}
	}
	extra := open()
	defer w.driver.closeSocket(extra)
	if r.add(extra, "t.other", -1, 0) != nil {
		t.Error("not bounded")
	}
	socket := r.claim(first, "t.s0", reserveTime-1)
	if socket == nil || r.claim(first, "t.s0", 0) != nil {
		t.Error("a token is good once")
	} else {
		w.driver.closeSocket(socket)
	}
	// One place is free, but not for a session that has its share.
	if r.add(extra, "t.s1", -1, 0) != nil {
		t.Error("not bounded for each session")
	}
	last := r.list[0]
	if r.claim(last.token[:], "t.s0", reserveTime) != nil {
		t.Error("a token is good after its time")
	}
	r.sweep(w, reserveTime-1)
	if r.empty() {
		t.Error("swept too early")
	}
	r.sweep(w, reserveTime)
	if !r.empty() || last.socket.fd != -1 {
		t.Error("not swept")
	}
}

func evenPort() stun.Setter {
	return stun.RawAttribute{Type: stun.AttrEvenPort, Value: []byte{0x80}}
}

func token(value []byte) stun.Setter {
	return stun.RawAttribute{Type: stun.AttrReservationToken, Value: value}
}

// freeRange finds two neighbouring ports that are free.
func freeRange(t *testing.T) (uint16, uint16) {
	t.Helper()
	one, two := neighbours(t, "127.0.0.1")
	_, _ = one.Close(), two.Close()
	port := localOf(one).Port()
	return port, port + 1
}

// neighbours opens two UDP sockets with one port after the other, the first even.
func neighbours(t *testing.T, host string) (one, two *net.UDPConn) {
	t.Helper()
	for range 200 {
		one = udpPeer(t, host)
		at := localOf(one)
		if at.Port()%2 == 0 {
			two, err := net.ListenUDP(
				"udp4",
				net.UDPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), at.Port()+1)),
			)
			if err == nil {
				return one, two
			}
		}
		_ = one.Close()
	}
	t.Fatal("no two neighbouring ports are free")
	return nil, nil
}
