package relay

import (
	"net/netip"
	"testing"

	"github.com/pion/stun/v4"
)

// Port 0 is no peer. A send to it fails in the kernel as one does that cannot be segmented.
func TestPortZeroIsNoPeer(t *testing.T) {
	s := start(t, nil)
	far := udpPeer(t, peerHost(t))
	c := dial(t, s, "udp", "t", "s")
	c.allocate()
	if got := c.bind(0x4000, netip.AddrPortFrom(localOf(far).Addr(), 0)); got != 400 {
		t.Errorf("channel: %d", got)
	}
	if got := c.permit(localOf(far).Addr()); got != 0 {
		t.Errorf("permission, which has no port: %d", got)
	}
	c.indicate(netip.AddrPortFrom(localOf(far).Addr(), 0), "to nobody")
	if c.ask(stun.MethodBinding); refusedBy(s, reasonMalformed) != 1 ||
		refusedBy(s, reasonUnsent) != 0 {
		t.Errorf("stats are %+v", s.Stats())
	}
}
