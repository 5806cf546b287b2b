package relay

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/pion/stun/v4"
)

// forbidden are addresses that no stranger may reach through us, in every form in which they can
// travel.
func forbidden(t *testing.T) (list []netip.Addr) {
	t.Helper()
	for _, host := range []string{
		"127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "0.0.0.1", "10.0.0.1", "172.16.0.1",
		"172.31.255.255", "192.168.0.1",
		"169.254.1.1", "169.254.169.254", "100.64.0.1", "100.127.255.254", "224.0.0.1",
		"239.255.255.250", "240.0.0.1", "255.255.255.255",
	} {
		for _, form := range forms(netip.MustParseAddr(host)) {
			list = append(list, form)
		}
	}
	for _, host := range []string{
		"::", "::1", "fe80::1", "fe80::a9fe:a9fe", "fd00::1", "fd00:ec2::254", "ff02::1", "ff0e::1",
		"::2", "fec0::1",
	} {
		list = append(list, netip.MustParseAddr(host))
	}
	all, err := localAddresses()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		list = append(list, a.WithZone(""))
	}
	return list
}

// No way leads to a service of this machine or its network: over UDP and TCP, IPv4 and IPv6, by
// permission, channel and indication. Our own address is permitted, for relayed clients to meet,
// and none of its other ports is reached.
func TestNothingForbiddenIsReached(t *testing.T) {
	s := start(t, func(c *Config) {
		c.Listen, c.STUN, c.AllowPeers = ":0", ":0", nil
		c.Addresses = []Address{loopback("127.0.0.1"), loopback("::1")}
	})
	// It gets whatever reaches this machine by any address.
	service := udpPeer(t, "::")
	port := localOf(service).Port()
	binding := string(stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw)
	targets := forbidden(t)
	sentinels := uint64(0)
	for _, network := range transports {
		for _, host := range []string{"127.0.0.1", "::1"} {
			for f := range families {
				name := fmt.Sprintf("%s client by %s, relayed in family %d", network, host, f)
				at := netip.AddrPortFrom(netip.MustParseAddr(host), s.port)
				a, b, gone := dialTo(
					t,
					s,
					network,
					at,
					"t",
					"a",
				), dialTo(
					t,
					s,
					network,
					at,
					"t",
					"b",
				), dialTo(
					t,
					s,
					network,
					at,
					"t",
					"c",
				)
				own := a.allocate(inFamily(byte(f + 1))).Addr()
				atB, atGone := b.allocate(inFamily(byte(f+1))), gone.allocate(inFamily(byte(f+1)))
				gone.refresh(0)
				if got := b.permit(own); got != 0 {
					t.Fatalf("%s: permission for us: %d", name, got)
				}
				number := uint16(minChannel)
				try := func(to netip.AddrPort, want int) {
					t.Helper()
					if got := a.permit(to.Addr()); got != want {
						t.Errorf("%s: permission for %s: %d, want %d", name, to.Addr(), got, want)
					}
					if got := a.bind(number, to); got != want {
						t.Errorf("%s: channel to %s: %d, want %d", name, to, got, want)
					}
					a.indicate(to, binding)
					a.channelData(number, binding)
					number++
				}
				for _, target := range targets {
					want := 403
					switch {
					case target == own:
						continue
					case target.Unmap() == netip.MustParseAddr("127.0.0.1") ||
						target == netip.MustParseAddr("::1"):
						want = 443
					}
					try(netip.AddrPortFrom(target, port), want)
				}
				// The service, our control ports, and a relay port that is none any more.
				for _, p := range []uint16{port, s.port, s.stunPort, atGone.Port()} {
					try(netip.AddrPortFrom(own, p), 0)
				}
				// The last to be sent arrives: all before has been dealt with.
				a.indicate(atB, "end")
				if data, _ := b.receive(); data != "end" {
					t.Errorf("%s: the other client got %q", name, data)
				}
				sentinels++
				a.ask(stun.MethodBinding)
				if len(a.data) != 0 {
					t.Errorf("%s: the client got %q", name, a.data)
				}
				if got := waiting(t, service); got != "" {
					t.Fatalf("%s: a service of this machine got %s", name, got)
				}
				// Nor does the service reach the client by the permission for our own address.
				sendFrom(t, service, netip.AddrPortFrom(own, atB.Port()), "from a service")
				a.indicate(atB, "again")
				if data, _ := b.receive(); data != "again" {
					t.Errorf("%s: the other client got %q", name, data)
				}
				sentinels++
				a.refresh(0)
				b.refresh(0)
			}
		}
	}
	// It does get what is sent to it.
	sendFrom(
		t,
		udpPeer(t, "127.0.0.1"),
		netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port),
		"open",
	)
	if data, _ := receiveAt(t, service); data != "open" {
		t.Errorf("the service got %q", data)
	}
	st := s.Stats()
	want := Traffic{sentinels, sentinels / 2 * uint64(len("end"+"again"))}
	if st.ClientToPeer != want || st.PeerToClient != want {
		t.Errorf("relayed %+v up and %+v down, want %+v", st.ClientToPeer, st.PeerToClient, want)
	}
	if got := refusedBy(s, reasonOwnPort); got != sentinels/2*8 {
		t.Errorf("%d packets to our own ports, want %d", got, sentinels/2*8)
	}
}
