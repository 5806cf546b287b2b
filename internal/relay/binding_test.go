package relay

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// The second port answers Binding requests and does nothing else, even for who holds an allocation
// at the first.
func TestSecondPortServesNothingButBinding(t *testing.T) {
	s := start(t, func(c *Config) { c.STUN = "127.0.0.1:0" })
	far := udpPeer(t, peerHost(t))
	c := dial(t, s, "udp", "t", "s")
	c.allocate()
	if got := c.bind(0x4000, localOf(far)); got != 0 {
		t.Fatalf("channel: %d", got)
	}
	// The same socket, to the other port.
	from := addrPort(c.conn.LocalAddr())
	_ = c.conn.Close()
	second := *c
	second.conn = dialFrom(
		t,
		from,
		netip.AddrPortFrom(s.addresses().listening[0], uint16(s.STUNPort())),
	)
	second.channelData(0x4000, "by the second port")
	second.indicate(localOf(far), "by the second port")
	for _, method := range []stun.Method{stun.MethodAllocate, stun.MethodRefresh} {
		second.send(
			stun.MustBuild(
				stun.TransactionID,
				stun.NewType(method, stun.ClassRequest),
				transport(17),
			).Raw,
		)
	}
	if answer := second.ask(stun.MethodBinding); code(answer) != 0 || len(second.data) != 0 {
		t.Errorf("answer %v, and %x", answer, second.data)
	}
	if got := s.Stats().ClientToPeer; got != (Traffic{}) {
		t.Errorf("relayed %+v", got)
	}
	if got := waiting(t, far); got != "" {
		t.Errorf("the peer got %s", got)
	}
}

// dialFrom connects a UDP socket from a given address.
func dialFrom(t testing.TB, from, to netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(failSafe)); err != nil {
		t.Fatal(err)
	}
	return conn
}
