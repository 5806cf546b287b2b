package relay

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/pion/stun/v4"
	"golang.org/x/sys/unix"

	"github.com/ieum-rtc/ieum/internal/logtest"
)

// fewDescriptors lets this process open n descriptors more, until the test ends.
func fewDescriptors(t *testing.T, n int) {
	t.Helper()
	var usual unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &usual); err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	taken := map[int]bool{}
	for _, entry := range open {
		fd, _ := strconv.Atoi(entry.Name())
		taken[fd] = true
	}
	limit := 0 // whoever started this process may have left it some that are above
	for ; n > 0; limit++ {
		if !taken[limit] {
			n--
		}
	}
	few := usual
	few.Cur = uint64(limit)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &usual); err != nil {
			t.Error(err)
		}
	})
}

// Without a descriptor for a relay socket a client is told 508, and those that have one are served.
// Neither is an address lost then. As soon as one is back there is an allocation again.
func TestNoDescriptorsLeft(t *testing.T) {
	var said logtest.Buffer
	s := start(
		t,
		func(c *Config) { c.Workers, c.Log = 1, slog.New(slog.NewTextHandler(&said, nil)) },
	)
	far := udpPeer(t, peerHost(t))
	here := s.addresses().relays[0]
	var clients []*rawClient
	for range 40 {
		c := dial(t, s, "udp", "t", "s")
		c.challenge()
		clients = append(clients, c)
	}
	fewDescriptors(t, 4)
	served := 0
	for ; served < len(clients); served++ {
		if got := code(clients[served].ask(stun.MethodAllocate, transport(17))); got == 508 {
			break
		} else if got != 0 {
			t.Fatalf("refused with %d", got)
		}
	}
	if served == 0 || served == len(clients) {
		t.Fatalf("%d of %d clients are served", served, len(clients))
	}
	late := clients[served]
	if err := s.SelfTest(t.Context()); err == nil ||
		strings.Contains(err.Error(), "no address of this machine") {
		t.Errorf("the self-test says %v", err)
	}
	for _, c := range clients[:served] {
		c.permit(localOf(far).Addr())
		c.indicate(localOf(far), "goes on")
		if data, _ := receiveAt(t, far); data != "goes on" {
			t.Fatalf("%q", data)
		}
	}
	clients[0].refresh(0)
	eventually(t, func() bool { return code(late.ask(stun.MethodAllocate, transport(17))) == 0 })
	if text := said.String(); s.addresses().relays[0] != here || strings.Contains(text, "lost") ||
		strings.Contains(text, "have changed") {
		t.Errorf("addresses are %v, the log says\n%s", s.Addresses(), text)
	}
}

// An address at which no socket can be opened for a while, though the machine has it, stays what it
// is: the relayed clients there reach each other through it.
func TestAnAddressThatIsThereIsNotLost(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	network(t, `link set lo up
		link add e0 type veth peer name e1
		addr add 10.9.0.1/24 dev e0
		link set e0 up`)
	defer network(t, "link del e0") // for the second driver
	at := netip.MustParseAddr("10.9.0.1")
	var all []*Server
	for _, addresses := range [][]Address{nil, {{at, at}}} {
		all = append(
			all,
			start(
				t,
				func(c *Config) { c.Listen, c.AllowPeers, c.Addresses = ":0", nil, addresses },
			),
		)
	}
	const ephemeral = "/proc/sys/net/ipv4/ip_local_port_range"
	usual, err := os.ReadFile(ephemeral)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(ephemeral, usual, 0); err != nil {
			t.Error(err)
		}
	}()
	if err := os.WriteFile(ephemeral, []byte("61000 61001"), 0); err != nil {
		t.Fatal(err)
	}
	for port := 61000; port <= 61001; port++ { // no socket gets a port of the kernel's choice there
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: at.AsSlice(), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	for _, s := range all {
		before := s.addresses().relays[0]
		if err := before.probe(); err == nil {
			t.Fatal("there is a port")
		}
		if err := s.RefreshAddresses(); err != nil {
			t.Fatal(err)
		}
		if now := s.addresses(); len(now.relays) != 1 || now.relays[0] != before ||
			len(now.lost) != 0 {
			t.Errorf("relays from %v, lost are %v", s.Addresses(), now.lost)
		}
	}
}
