package relay

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/pion/stun/v4"
)

// inNamespace runs a test again in a process with a network of its own, and tells whether this is
// that process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const mark = "IEUM_TEST_NAMESPACE"
	if os.Getenv(mark) != "" {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network namespace")
	}
	run := exec.CommandContext(
		t.Context(),
		os.Args[0],
		"-test.run=^"+t.Name()+"$",
		"-test.timeout=60s",
	)
	run.Env = append(os.Environ(), mark+"=1")
	run.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if out, err := run.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// network runs commands of iproute2, one a line.
func network(t *testing.T, script string) {
	t.Helper()
	for line := range strings.Lines(strings.TrimSpace(script)) {
		args := strings.Fields(line)
		if out, err := exec.CommandContext(
			t.Context(), "ip", args...,
		).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.TrimSpace(line), err, out)
		}
	}
}

// Two links have the same addresses at both ends, as link-local ones may be. A client on each is
// answered on its link, has an allocation of its own, and a budget of its own.
func TestClientsWithLinkLocalAddresses(t *testing.T) {
	if !inNamespace(t) || plainDriver { // which listens at the addresses that candidates name
		return
	}
	network(t, `link set lo up
		link add a0 type veth peer name a1
		link add b0 type veth peer name b1`)
	for _, link := range []string{"a0", "a1", "b0", "b1"} {
		network(t, "link set "+link+" up")
		network(t, "addr add fe80::"+string(link[1]+1)+"/64 dev "+link+" nodad")
	}
	s := start(t, func(c *Config) {
		c.Listen, c.Addresses, c.Workers, c.Quota = ":0", []Address{
			loopback("127.0.0.1"),
		}, 1, Quota{
			Source: 1,
		}
	})
	far := udpPeer(t, "127.0.0.2")
	client := func(link, session string, port uint16) *rawClient {
		local, remote := netip.MustParseAddr("fe80::2%"+link), netip.MustParseAddr("fe80::1%"+link)
		conn, err := net.DialUDP(
			"udp6",
			net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, port)),
			net.UDPAddrFromAddrPort(netip.AddrPortFrom(remote, uint16(s.Port()))),
		)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		stillFailSafe(t, conn)
		c := &rawClient{t: t, conn: conn}
		c.user, c.pass = s.Credentials("t", session)
		return c
	}
	const port = 5000
	a, b := client("a1", "a", port), client("b1", "b", port)
	for _, c := range []*rawClient{a, b} {
		answer := c.ask(stun.MethodBinding)
		var mapped stun.XORMappedAddress
		if err := mapped.GetFrom(answer); err != nil || mapped.IP.String() != "fe80::2" ||
			mapped.Port != port {
			t.Fatalf("mapped to %v, %v", mapped, err)
		}
	}
	atA, atB := a.allocate(), b.allocate() // of each source there may be one
	if atA == atB {
		t.Fatalf("one allocation for two clients at %v", atA)
	}
	for c, at := range map[*rawClient]netip.AddrPort{a: atA, b: atB} {
		if got := c.permit(localOf(far).Addr()); got != 0 {
			t.Fatalf("permission: %d", got)
		}
		sendFrom(t, far, at, "by indication")
		if data, _ := c.receive(); data != "by indication" {
			t.Errorf("%q", data)
		}
		if got := c.bind(0x4000, localOf(far)); got != 0 {
			t.Fatalf("channel: %d", got)
		}
		c.channelData(0x4000, "by channel")
		if data, from := receiveAt(t, far); data != "by channel" || from != at {
			t.Errorf("%q from %v", data, from)
		}
		sendFrom(t, far, at, "by channel")
		if data, _ := c.receive(); data != "by channel" {
			t.Errorf("%q", data)
		}
	}
	if n := refusedBy(s, reasonUnsent); n != 0 {
		t.Errorf("%d packets were not sent", n)
	}
}
