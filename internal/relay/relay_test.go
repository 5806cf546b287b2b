package relay

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/stun/v4"

	"github.com/ieum-rtc/ieum/internal/logtest"
)

var transports = []string{"udp", "tcp"}

func TestDataPassesBothWaysAndIsCounted(t *testing.T) {
	for _, network := range transports {
		t.Run(network, func(t *testing.T) {
			s := start(t, nil)
			far := udpPeer(t, peerHost(t))
			c := dial(t, s, network, "t", "s")
			relayed := c.allocate()
			if relayed.Addr().String() != "127.0.0.1" || relayed.Port() < DefaultMinPort {
				t.Errorf("relayed address is %v", relayed)
			}
			if got := c.permit(localOf(far).Addr()); got != 0 {
				t.Fatalf("permission: %d", got)
			}
			c.indicate(localOf(far), "hello")
			if data, from := receiveAt(t, far); data != "hello" || from != relayed {
				t.Errorf("peer got %q from %v", data, from)
			}
			sendFrom(t, far, relayed, "hi")
			if data, from := c.receive(); data != "hi" || from != localOf(far) {
				t.Errorf("client got %q from %v", data, from)
			}
			if got := c.bind(0x4000, localOf(far)); got != 0 {
				t.Fatalf("channel: %d", got)
			}
			c.channelData(0x4000, "channel up")
			if data, _ := receiveAt(t, far); data != "channel up" {
				t.Errorf("peer got %q", data)
			}
			sendFrom(t, far, relayed, "channel down, odd")
			if data, _ := c.receive(); data != "channel down, odd" {
				t.Errorf("client got %q", data)
			}
			if got := c.refresh(0); got != 0 {
				t.Fatalf("refresh: %d", got)
			}
			st := s.Stats()
			if want := (Traffic{2, uint64(len("hello" + "channel up"))}); st.ClientToPeer != want {
				t.Errorf("client to peer: %+v, want %+v", st.ClientToPeer, want)
			}
			if want := (Traffic{2, uint64(len("hi" +
				"channel down, odd"))}); st.PeerToClient != want {
				t.Errorf("peer to client: %+v, want %+v", st.PeerToClient, want)
			}
			if st.Allocations != 0 || st.Created != 1 {
				t.Errorf("allocations: %d live, %d in all", st.Allocations, st.Created)
			}
		})
	}
}

func TestPacketsFromUnknownSendersAreNeitherPassedNorCounted(t *testing.T) {
	s := start(t, nil)
	far, unknown := udpPeer(t, peerHost(t)), udpPeer(t, "127.0.0.3")
	c := dial(t, s, "udp", "t", "s")
	relayed := c.allocate()
	c.permit(localOf(far).Addr())
	sendFrom(t, unknown, relayed, "not asked for")
	sendFrom(t, far, relayed, "asked for")
	if data, _ := c.receive(); data != "asked for" {
		t.Errorf("client got %q", data)
	}
	if got := s.Stats().PeerToClient; got != (Traffic{1, 9}) {
		t.Errorf("counted %+v", got)
	}
}

// Two relayed clients on one relay, of each pair of transports and families.
func TestRelayedClientsReachEachOther(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		for _, one := range transports {
			for _, two := range transports {
				t.Run(listen+" "+one+" "+two, func(t *testing.T) {
					s := start(t, func(c *Config) { c.Listen, c.AllowPeers = listen, nil })
					meet(t, s, dial(t, s, one, "t", "a"), dial(t, s, two, "t", "b"))
				})
			}
		}
	}
}

// meet lets two clients exchange data over their relayed addresses.
func meet(t *testing.T, s *Server, a, b *rawClient, attrs ...stun.Setter) {
	t.Helper()
	atA, atB := a.allocate(attrs...), b.allocate(attrs...)
	if got := a.permit(atB.Addr()); got != 0 {
		t.Fatalf("permission: %d", got)
	}
	if got := b.bind(0x4fff, atA); got != 0 {
		t.Fatalf("channel: %d", got)
	}
	a.indicate(atB, "from a")
	if data, _ := b.receive(); data != "from a" {
		t.Errorf("b got %q", data)
	}
	b.channelData(0x4fff, "from b")
	if data, from := a.receive(); data != "from b" || from != atB {
		t.Errorf("a got %q from %v, want %v", data, from, atB)
	}
	// Each packet goes up once and down once.
	if st := s.Stats(); st.ClientToPeer != (Traffic{2, 12}) || st.PeerToClient != (Traffic{2, 12}) {
		t.Errorf("counted %+v and %+v", st.ClientToPeer, st.PeerToClient)
	}
}

// The public half is on no interface here: packets between two relayed clients turn round inside,
// and show the public address.
func TestRelayedClientsMeetBehindOneToOneNAT(t *testing.T) {
	s := start(t, func(c *Config) {
		c.Addresses = []Address{
			{Public: netip.MustParseAddr("203.0.113.7"), Private: netip.MustParseAddr("127.0.0.1")},
		}
		c.AllowPeers = nil
	})
	a, b := dial(t, s, "udp", "t", "a"), dial(t, s, "udp", "t", "b")
	meet(t, s, a, b)
	if got := a.permit(netip.MustParseAddr("127.0.0.1")); got != 403 {
		t.Errorf("the private half as a peer: %d", got)
	}
}

func TestIPv4IsTheDefaultFamilyWhateverTheClientCameBy(t *testing.T) {
	s := start(t, func(c *Config) {
		c.Listen = ":0"
		c.Addresses = []Address{loopback("127.0.0.1"), loopback("::1")}
	})
	for _, host := range []string{"127.0.0.1", "::1"} {
		for _, network := range transports {
			at := netip.AddrPortFrom(netip.MustParseAddr(host), uint16(s.Port()))
			c := dialTo(t, s, network, at, "t", "s")
			if relayed := c.allocate(); !relayed.Addr().Is4() {
				t.Errorf("%s %s: relayed address is %v", network, host, relayed)
			}
			six := dialTo(t, s, network, at, "t", "s")
			if relayed := six.allocate(inFamily(2)); relayed.Addr().String() != "::1" {
				t.Errorf("%s %s: relayed address is %v", network, host, relayed)
			}
			if got := six.permit(netip.MustParseAddr("127.0.0.1")); got != 443 {
				t.Errorf("an IPv4 peer of an IPv6 relay: %d", got)
			}
		}
	}
}

func loopback(s string) Address {
	a := netip.MustParseAddr(s)
	return Address{Public: a, Private: a}
}

// With one socket for all addresses the kernel would answer from the address of the route, here
// 127.0.0.1.
func TestAnswersLeaveFromTheAddressAsked(t *testing.T) {
	s := start(
		t,
		func(c *Config) { c.Listen, c.Addresses = ":0", []Address{loopback("127.0.0.1")} },
	)
	for _, a := range s.addresses().listening {
		conn := udpPeer(t, map[bool]string{true: "127.0.0.1", false: "::1"}[a.Is4()])
		if !a.IsLoopback() {
			conn = udpPeer(t, a.String())
		}
		to := netip.AddrPortFrom(a, uint16(s.Port()))
		sendFrom(t, conn, to, string(stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw))
		if _, from := receiveAt(t, conn); from != to {
			t.Errorf("asked %v, answered by %v", to, from)
		}
	}
}

func TestUDPAndTCPShareANumber(t *testing.T) {
	s := start(t, nil)
	for _, network := range transports {
		c := dial(t, s, network, "t", "s")
		answer := c.ask(stun.MethodBinding)
		var mapped stun.XORMappedAddress
		if err := mapped.GetFrom(answer); err != nil ||
			addrPort(c.conn.LocalAddr()).Port() != uint16(mapped.Port) {
			t.Errorf("%s: mapped address is %v, %v", network, mapped, err)
		}
		if answer.Contains(stun.AttrSoftware) || len(answer.Raw) > 2*stunHeader {
			t.Errorf("%s: the answer has %d bytes: %v", network, len(answer.Raw), answer)
		}
	}
}

func TestChallengeIsSmallAndNamesNoSoftware(t *testing.T) {
	s := start(t, nil)
	c := dial(t, s, "udp", "t", "s")
	m := stun.MustBuild(
		stun.TransactionID,
		stun.NewType(stun.MethodAllocate, stun.ClassRequest),
		transport(17),
	)
	c.send(m.Raw)
	answer := c.answerTo(m)
	const headers = 28 // IPv4 and UDP
	if code(answer) != 401 || answer.Contains(stun.AttrSoftware) ||
		len(answer.Raw)+headers > 3*(len(m.Raw)+headers) {
		t.Errorf("%d bytes ask for %d: %v", len(m.Raw), len(answer.Raw), answer)
	}
}

func TestDeniedPeersGet403AndNothingIsSent(t *testing.T) {
	s := start(t, func(c *Config) { c.AllowPeers = nets("127.0.0.3/32") })
	denied, allowed := udpPeer(t, peerHost(t)), udpPeer(t, "127.0.0.3")
	c := dial(t, s, "udp", "t", "s")
	c.allocate()
	to := localOf(denied)
	mapped := netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	var count uint64
	for _, p := range []netip.AddrPort{to, mapped} {
		if got := c.permit(p.Addr()); got != 403 {
			t.Errorf("%v: permission gives %d", p, got)
		}
		if got := c.bind(0x4001, p); got != 403 {
			t.Errorf("%v: channel gives %d", p, got)
		}
		c.indicate(p, "forbidden")
		c.channelData(0x4001, "forbidden")
		if count += 2; refusedBy(s, reasonDeniedPeer) != count {
			t.Errorf("%d refusals counted, want %d", refusedBy(s, reasonDeniedPeer), count)
		}
	}
	for _, host := range []string{
		"10.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::ffff:10.0.0.1",
		"::ffff:169.254.169.254",
	} {
		if got := c.permit(netip.MustParseAddr(host)); got != 403 {
			t.Errorf("%s: permission gives %d", host, got)
		}
	}
	// What the allowed peer gets was sent after everything forbidden.
	c.permit(localOf(allowed).Addr())
	c.indicate(localOf(allowed), "allowed")
	if data, _ := receiveAt(t, allowed); data != "allowed" {
		t.Errorf("the allowed peer got %q", data)
	}
	if got := s.Stats().ClientToPeer; got != (Traffic{1, 7}) {
		t.Errorf("sent %+v", got)
	}
	if got := waiting(t, denied); got != "" {
		t.Errorf("the denied peer got %q", got)
	}
}

// waiting returns a packet from a socket's queue, or "" if there is none. It does not wait for
// more: a packet that the socket sends to itself marks the end of the queue, on every system.
func waiting(t *testing.T, conn *net.UDPConn) string {
	t.Helper()
	const end = "end of queue"
	if _, err := conn.WriteToUDPAddrPort([]byte(end), localOf(conn)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, from, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	if from.Port() == localOf(conn).Port() && string(buf[:n]) == end {
		return ""
	}
	return fmt.Sprintf("%q from %v", buf[:n], from)
}

func TestOwnPortsAreOutOfReach(t *testing.T) {
	s := start(
		t,
		func(c *Config) { c.Listen, c.Addresses = ":0", []Address{loopback("127.0.0.1")} },
	)
	far, private := udpPeer(t, peerHost(t)), udpPeer(t, "127.0.0.1")
	a, b := dial(t, s, "udp", "t", "a"), dial(t, s, "tcp", "t", "b")
	atA, atB := a.allocate(), b.allocate()
	own := netip.MustParseAddr("127.0.0.1")
	if got := a.permit(own, localOf(far).Addr()); got != 0 {
		t.Fatalf("permission: %d", got)
	}
	control := netip.AddrPortFrom(own, uint16(s.Port()))
	binding := string(stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw)
	a.indicate(control, binding)
	if got := a.bind(0x4002, control); got != 0 {
		t.Fatalf("channel: %d", got)
	}
	a.channelData(0x4002, binding)
	a.indicate(localOf(private), "to a service of this machine")
	// A relay port that is no longer one is closed too.
	b.refresh(0)
	a.indicate(atB, "to nobody")
	// The last one arrives, so the ones before have been dealt with.
	a.indicate(localOf(far), "end")
	if data, _ := receiveAt(t, far); data != "end" {
		t.Errorf("peer got %q", data)
	}
	if got := refusedBy(s, reasonOwnPort); got != 4 {
		t.Errorf("%d packets to our own ports were dropped, want 4", got)
	}
	if got := waiting(t, private); got != "" {
		t.Errorf("a service of this machine got %s", got)
	}
	if got := s.Stats().ClientToPeer; got != (Traffic{1, 3}) {
		t.Errorf("sent %+v", got)
	}
	// Nor does a service of this machine reach the client by the permission that is for relayed
	// clients.
	sendFrom(t, private, atA, "from a service of this machine")
	sendFrom(t, far, atA, "back")
	if data, _ := a.receive(); data != "back" {
		t.Errorf("client got %q", data)
	}
	if got := refusedBy(s, reasonOwnSource); got != 1 {
		t.Errorf("%d packets from our own address were dropped, want 1", got)
	}
}

// The control port is closed on the addresses that are not relayed from as well, exceptions or not.
func TestControlPortOfOtherAddressesIsOutOfReach(t *testing.T) {
	s := start(
		t,
		func(c *Config) { c.Listen, c.Addresses = "127.0.0.1:0", []Address{loopback("127.0.0.9")} },
	)
	far := udpPeer(t, peerHost(t))
	c := dial(t, s, "udp", "t", "s")
	c.allocate()
	c.permit(netip.MustParseAddr("127.0.0.1"), localOf(far).Addr())
	c.indicate(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(s.Port())), "inside")
	c.indicate(localOf(far), "end")
	if data, _ := receiveAt(t, far); data != "end" || refusedBy(s, reasonOwnPort) != 1 {
		t.Errorf("peer got %q, %d dropped", data, refusedBy(s, reasonOwnPort))
	}
}

func TestRequestsOutOfOrderAreRefused(t *testing.T) {
	for _, network := range transports {
		t.Run(network, func(t *testing.T) {
			s := start(t, nil)
			far := udpPeer(t, peerHost(t))
			c := dial(t, s, network, "t", "s")
			c.challenge()
			for name, r := range map[string]struct {
				attrs []stun.Setter
				want  int
			}{
				"TCP relay":     {[]stun.Setter{transport(6)}, 442},
				"unknown relay": {[]stun.Setter{transport(1)}, 442},
				"no transport":  {nil, 400},
				"unknown token": {
					[]stun.Setter{transport(17), token(make([]byte, 8))}, 508,
				},
				"even and token": {
					[]stun.Setter{transport(17), evenPort(), token(make([]byte, 8))}, 400,
				},
				"missing family": {[]stun.Setter{transport(17), inFamily(2)}, 440},
				"unknown family": {[]stun.Setter{transport(17), inFamily(3)}, 440},
				"token and family": {
					[]stun.Setter{transport(17), inFamily(1), token(make([]byte, 8))}, 400,
				},
				"a short token": {
					[]stun.Setter{transport(17), token(make([]byte, 4))}, 400,
				},
				"two families and one": {
					[]stun.Setter{transport(17), inFamily(1), additionally(2)}, 400,
				},
				"IPv4 in addition": {[]stun.Setter{transport(17), additionally(1)}, 400},
				"two families and a pair": {
					[]stun.Setter{transport(17), additionally(2), evenPort()}, 400,
				},
				"unknown to know": {
					[]stun.Setter{transport(17), stun.RawAttribute{Type: 0x7abc}}, 420,
				},
			} {
				if got := code(c.ask(stun.MethodAllocate, r.attrs...)); got != r.want {
					t.Errorf("%s: %d, want %d", name, got, r.want)
				}
			}
			c.allocate()
			for channel, want := range map[uint16]int{
				0: 400, 1: 400, 0x3fff: 400, 0x7fff: 400, 0x8000: 400, 0xffff: 400, 0x4000: 0,
			} {
				if got := c.bind(channel, localOf(far)); got != want {
					t.Errorf("channel %#x: %d, want %d", channel, got, want)
				}
			}
			if got := c.bind(0x4fff, localOf(far)); got != 400 {
				t.Errorf("a second channel for the peer: %d", got)
			}
			// RFC 6062: the next answer is to what follows.
			m := stun.MustBuild(
				stun.TransactionID,
				stun.NewType(stun.MethodConnect, stun.ClassRequest),
				peer(localOf(far)),
				stun.NewUsername(
					c.user,
				),
				stun.NewRealm(c.realm),
				stun.NewNonce(c.nonce),
				stun.NewLongTermIntegrity(c.user, c.realm, c.pass),
			)
			c.send(m.Raw)
			if got := c.ask(stun.MethodBinding); code(got) != 0 || len(c.data) != 0 {
				t.Errorf("Connect is answered: %v %x", got, c.data)
			}
		})
	}
}

func additionally(f byte) stun.Setter {
	return stun.RawAttribute{Type: attrAdditionalAddressFamily, Value: []byte{f, 0, 0, 0}}
}

func manyPeers(n int) []netip.Addr {
	list := make([]netip.Addr, n)
	for i := range list {
		list[i] = netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})
	}
	return list
}

func TestPermissionsAreBounded(t *testing.T) {
	s := start(t, nil)
	c := dial(t, s, "tcp", "t", "s")
	c.allocate()
	all := manyPeers(maxPermissions + 1)
	for i := 0; i < maxPermissions; i += 64 {
		if got := c.permit(all[i : i+64]...); got != 0 {
			t.Fatalf("permissions from %d: %d", i, got)
		}
	}
	if got := c.permit(all[maxPermissions]); got != 508 ||
		refusedBy(s, reasonTooManyPermissions) != 1 {
		t.Errorf("one too many: %d", got)
	}
	if got := c.permit(all[0]); got != 0 {
		t.Errorf("one of those there are: %d", got)
	}
	c.refresh(0)
	c.allocate()
	if got := c.permit(all[maxPermissions]); got != 0 {
		t.Errorf("after a new allocation: %d", got)
	}
}

// A request that names more peers than can be permitted is refused before the rest is looked at.
func TestPeersOfARequestAreBounded(t *testing.T) {
	s := start(t, nil)
	c := dial(t, s, "tcp", "t", "s")
	c.allocate()
	all := manyPeers(maxPermissions + 1)
	denied := netip.MustParseAddr("10.9.8.7")
	if got := c.permit(append(all, denied)...); got != 508 ||
		refusedBy(s, reasonTooManyPermissions) != 1 || refusedBy(s, reasonDeniedPeer) != 0 {
		t.Errorf("one too many, and one that is denied: %d", got)
	}
	if got := c.permit(all[:maxPermissions]...); got != 0 {
		t.Errorf("as many as there may be: %d", got)
	}
}

// What strangers and users do leaves no address in the log above debug, and few lines.
func TestLogHoldsNoAddresses(t *testing.T) {
	var text logtest.Buffer
	s := start(t, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelInfo}))
	})
	c := dial(t, s, "udp", "t", "secretsession")
	c.allocate()
	port := fmt.Sprint(addrPort(c.conn.LocalAddr()).Port())
	for range 50 {
		c.ask(stun.MethodBinding, stun.RawAttribute{Type: 0x7abc})
		c.bind(0x4000, netip.MustParseAddrPort("127.0.0.2:7777"))
		c.bind(0x4001, netip.MustParseAddrPort("127.0.0.2:7777"))
		c.permit(netip.MustParseAddr("10.9.8.7"))
	}
	got := text.String()
	for _, word := range []string{"127.0.0.2", ":" + port, "10.9.8.7", "secretsession", c.pass} {
		if strings.Contains(got, word) {
			t.Errorf("%q is in the log:\n%s", word, got)
		}
	}
	if n := strings.Count(got, "\n"); n < 1 || n > 10 {
		t.Errorf("%d lines in the log:\n%s", n, got)
	}
}
