//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/e2e/netlab/netns"
)

// The test binary is netlab itself when it is told so, guard included.
const asNetlab = "NETLAB_TEST_IS_NETLAB"

func TestMain(m *testing.M) {
	if os.Getenv(asNetlab) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// limit is how long anything here may take before it counts as broken; nothing is measured against
// it.
const limit = 30 * time.Second

type running struct {
	announcement
	cmd   *exec.Cmd
	stdin io.Closer
}

func command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	// A race-enabled binary would otherwise linger for a second at each end.
	cmd.Env = append(os.Environ(), asNetlab+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	r := &running{cmd: command(append([]string{"up"}, args...)...)}
	var err error
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.stdin.Close()
		_ = r.cmd.Wait() // the tests that care have waited before
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("no announcement: %v", err)
	}
	if err := json.Unmarshal(line, &r.announcement); err != nil {
		t.Fatalf("announcement %q: %v", line, err)
	}
	return r
}

// left returns what still exists of a laboratory.
func left(t *testing.T, prefix string) []string {
	t.Helper()
	var all []string
	for _, dir := range []string{netns.Dir, runDir} {
		names, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, names...)
	}
	return all
}

// until polls a condition that another process brings about.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !done(); {
		if time.Now().After(end) {
			t.Fatalf("not %s after %v", what, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func in[T any](t *testing.T, ns string, f func() (T, error)) T {
	t.Helper()
	var v T
	err := netns.Do(ns, func() (err error) {
		v, err = f()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func udp(t *testing.T, ns, addr string) *net.UDPConn {
	t.Helper()
	c := in(t, ns, func() (net.PacketConn, error) { return net.ListenPacket("udp", addr) })
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UDPConn)
}

func send(t *testing.T, c *net.UDPConn, text, to string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort(to)); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c *net.UDPConn) (text, from string) {
	t.Helper()
	buf := make([]byte, 100)
	n, addr, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n]), netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()).String()
}

func TestNATs(t *testing.T) {
	for _, c := range []struct {
		nat               string
		oneMapping        bool // the same public port towards two servers
		unknownPeersEnter bool
		public            string
	}{
		{"none", true, true, "198.51.100.1"},
		{"full", true, true, "198.51.100.1"},
		{"cone", true, false, "198.51.100.1"},
		{"sym", false, false, "198.51.100.1"},
	} {
		t.Run(c.nat, func(t *testing.T) {
			l := start(t, "--a", c.nat, "--rtt", "2ms")
			client := udp(t, l.A.NS, ":40000")
			one, two := udp(t, l.Server.NS, ":5001"), udp(t, l.Server.NS, ":5002")
			unknown := udp(t, l.Server.NS, ":5003")
			send(t, client, "to one", l.Server.V4+":5001")
			send(t, client, "to two", l.Server.V4+":5002")
			_, seenByOne := receive(t, one)
			_, seenByTwo := receive(t, two)
			if got := seenByOne == seenByTwo; got != c.oneMapping {
				t.Errorf(
					"seen as %s and %s: one mapping %v, want %v",
					seenByOne,
					seenByTwo,
					got,
					c.oneMapping,
				)
			}
			if a := netip.MustParseAddrPort(seenByOne).Addr().String(); a != c.public ||
				a != l.A.Public {
				t.Errorf("seen as %s, announced as %s, want %s", a, l.A.Public, c.public)
			}
			// The cable keeps the order: what has not come before the answer was dropped.
			send(t, unknown, "unknown", seenByOne)
			send(t, one, "answer", seenByOne)
			first, _ := receive(t, client)
			if got := first == "unknown"; got != c.unknownPeersEnter {
				t.Errorf("first to enter was %q", first)
			}
		})
	}
}

func TestNATKeepsItsMappingAfterAnUnknownPeer(t *testing.T) {
	l := start(t, "--a", "cone", "--rtt", "2ms")
	one, unknown := udp(t, l.Server.NS, ":5001"), udp(t, l.Server.NS, ":5003")
	// An unknown peer sends to the very port that the client is about to use towards it, as ICE
	// does from the other side.
	send(t, unknown, "knock", l.A.Public+":40000")
	client := udp(t, l.A.NS, ":40000")
	send(t, client, "to unknown", l.Server.V4+":5003")
	send(t, client, "to one", l.Server.V4+":5001")
	_, a := receive(t, unknown)
	_, b := receive(t, one)
	if a != b || a != l.A.Public+":40000" {
		t.Errorf("seen as %s and %s, want %s:40000", a, b, l.A.Public)
	}
}

func TestSecondClientOfOneHome(t *testing.T) {
	l := start(t, "--a", "sym", "--b", "same", "--rtt", "2ms")
	a, b := udp(t, l.A.NS, ":40000"), udp(t, l.B.NS, ":40000")
	send(t, a, "neighbour", l.B.Address+":40000")
	if text, from := receive(t, b); text != "neighbour" || from != l.A.Address+":40000" {
		t.Errorf("got %q from %s", text, from)
	}
}

func TestPrivateAddressesDoNotCrossTheInternet(t *testing.T) {
	l := start(t, "--a", "none", "--b", "none", "--rtt", "2ms")
	err := netns.Run("", "ip", "-n", l.B.NS, "addr", "add", "192.168.7.7/32", "dev", "lo")
	if err != nil {
		t.Fatal(err)
	}
	core := l.Prefix + "core"
	err = netns.Run("", "ip", "-n", core, "route", "add", "192.168.7.7/32", "dev", "to-b")
	if err != nil {
		t.Fatal(err)
	}
	a, b := udp(t, l.A.NS, ":40000"), udp(t, l.B.NS, ":40000")
	send(t, a, "private", "192.168.7.7:40000")
	send(t, a, "public", l.B.Public+":40000")
	if text, _ := receive(t, b); text != "public" {
		t.Errorf("got %q", text)
	}
}

func TestUDPBlocked(t *testing.T) {
	l := start(t, "--a", "udpblock", "--tcp-ports", "80,3478", "--rtt", "2ms")
	tcp := func(port string) *net.TCPListener {
		ln := in(
			t,
			l.Server.NS,
			func() (net.Listener, error) { return net.Listen("tcp", ":"+port) },
		)
		t.Cleanup(func() { _ = ln.Close() })
		return ln.(*net.TCPListener)
	}
	open, shut := tcp("3478"), tcp("5000")
	server, client := udp(t, l.Server.NS, ":3478"), udp(t, l.A.NS, ":40000")

	send(t, client, "blocked", l.Server.V4+":3478")
	knock := in(t, l.A.NS, func() (int, error) {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			return 0, err
		}
		err = syscall.Connect(
			fd,
			&syscall.SockaddrInet4{Port: 5000, Addr: netip.MustParseAddr(l.Server.V4).As4()},
		)
		if errors.Is(err, syscall.EINPROGRESS) {
			err = nil
		}
		return fd, err
	})
	defer syscall.Close(knock)
	// Both were sent before this connection, whose packets come after them.
	conn := in(
		t,
		l.A.NS,
		func() (net.Conn, error) { return net.DialTimeout("tcp", l.Server.V4+":3478", limit) },
	)
	defer conn.Close()
	accepted, err := open.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if waits(t, server) {
		t.Error("UDP came through")
	}
	if waits(t, shut) {
		t.Error("a TCP port that is not asked for is open")
	}
	// The question itself is right: here there is something to read.
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	until(t, "readable", func() bool { return waits(t, accepted.(*net.TCPConn)) })
}

// waits asks the kernel whether there is something to read or to accept now.
func waits(t *testing.T, c syscall.Conn) bool {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var ready bool
	if err := raw.Control(func(fd uintptr) {
		var set syscall.FdSet
		set.Bits[fd/64] |= 1 << (fd % 64)
		n, err := syscall.Select(int(fd)+1, &set, nil, nil, &syscall.Timeval{})
		ready = err == nil && n == 1
	}); err != nil {
		t.Fatal(err)
	}
	return ready
}

func TestIPv6Only(t *testing.T) {
	l := start(t, "--a", "v6", "--b", "v6", "--rtt", "2ms")
	a, b, server := udp(t, l.A.NS, ":40000"), udp(t, l.B.NS, ":40000"), udp(t, l.Server.NS, ":5001")
	send(t, a, "to b", "["+l.B.Public+"]:40000")
	send(t, a, "to server", "["+l.Server.V6+"]:5001")
	if _, from := receive(t, b); from != "["+l.A.Public+"]:40000" {
		t.Errorf("b saw %s", from)
	}
	if _, from := receive(t, server); from != "["+l.A.Public+"]:40000" {
		t.Errorf("the server saw %s", from)
	}
	addrs := in(t, l.A.NS, net.InterfaceAddrs)
	for _, x := range addrs {
		if p := netip.MustParsePrefix(x.String()); !p.Addr().IsLoopback() &&
			p.Addr().String() != l.A.Public {
			t.Errorf("a has the address %s too", x)
		}
	}
}

func TestRoundTripIsAtLeastAsAsked(t *testing.T) {
	const rtt = 60 * time.Millisecond
	l := start(t, "--a", "cone", "--b", "none", "--rtt", rtt.String())
	a := udp(t, l.A.NS, ":40000")
	for _, far := range []struct{ ns, addr string }{
		{l.Server.NS, l.Server.V4},
		{l.B.NS, l.B.Public},
	} {
		c := udp(t, far.ns, ":5001")
		begin := time.Now()
		send(t, a, "ping", far.addr+":5001")
		_, from := receive(t, c)
		send(t, c, "pong", from)
		receive(t, a)
		if took := time.Since(begin); took < rtt {
			t.Errorf("%s answered after %v", far.addr, took)
		}
	}
}

func TestControl(t *testing.T) {
	l := start(t, "--a", "none", "--rtt", "0s")
	conn, err := net.Dial("unix", l.Control)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	ask := func(line string) (r reply) {
		t.Helper()
		if _, err := io.WriteString(conn, line+"\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := in.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(answer, &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := ask(`{"link":"a","dir":"up","set":{"down":"true"}}`); r.Error != "" ||
		!r.Up.Params.Down ||
		r.Down != nil {
		t.Fatalf("answer %+v", r)
	}
	a, server := udp(t, l.A.NS, ":40000"), udp(t, l.Server.NS, ":5001")
	send(t, a, "lost", l.Server.V4+":5001")
	send(t, server, "other direction", l.A.Public+":40000")
	if text, _ := receive(t, a); text != "other direction" {
		t.Errorf("got %q", text)
	}
	until(t, "counted as lost", func() bool { return ask(`{"link":"a"}`).Up.Lost == 1 })
	if r := ask(`{"link":"a","set":{"down":"false","delay":"1ms"}}`); r.Error != "" ||
		r.Up.Params.Down ||
		r.Down.Delay != time.Millisecond {
		t.Fatalf("answer %+v", r)
	}
	send(t, a, "back", l.Server.V4+":5001")
	if text, _ := receive(t, server); text != "back" {
		t.Errorf("got %q", text)
	}
	for _, bad := range []string{
		`{"link":"x"}`,
		`no`,
		`{"link":"a","dir":"left"}`,
		`{"link":"a","set":{"delay":"9ms","loss":"7"}}`,
	} {
		if r := ask(bad); r.Error == "" {
			t.Errorf("%s was accepted", bad)
		}
	}
	if r := ask(`{"link":"a"}`); r.Up.Delay != time.Millisecond {
		t.Errorf("a refused change left a trace: %+v", r.Up)
	}
}

func TestTakenDown(t *testing.T) {
	signal := func(s os.Signal) func(*running) error {
		return func(r *running) error { return r.cmd.Process.Signal(s) }
	}
	for name, end := range map[string]func(*running) error{
		"when standard input closes": func(r *running) error { return r.stdin.Close() },
		"on SIGTERM":                 signal(syscall.SIGTERM),
		"on SIGINT":                  signal(syscall.SIGINT),
	} {
		t.Run(name, func(t *testing.T) {
			l := start(t, "--a", "cone", "--b", "sym")
			if len(left(t, l.Prefix)) < 6 {
				t.Fatalf("only %v stand", left(t, l.Prefix))
			}
			inside := tenant(t, l.A.NS)
			if err := end(l); err != nil {
				t.Fatal(err)
			}
			if err := l.cmd.Wait(); err != nil {
				t.Errorf("netlab: %v", err)
			}
			if x := left(t, l.Prefix); len(x) != 0 {
				t.Errorf("left over: %v", x)
			}
			if err := inside.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Errorf("the process inside ended with %v", err)
			}
		})
	}
}

func TestTakenDownAfterKill(t *testing.T) {
	l := start(t, "--a", "cone", "--b", "same")
	inside := tenant(t, l.B.NS)
	if err := l.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = l.cmd.Wait()
	until(t, "taken down by the guard", func() bool { return len(left(t, l.Prefix)) == 0 })
	if err := inside.Wait(); err == nil {
		t.Error("the process inside was not ended")
	}
}

func TestSweepTakesDownWhatACrashLeft(t *testing.T) {
	l, other := start(t), start(t)
	// netlab has one child: its guard.
	pid := l.cmd.Process.Pid
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var guard *os.Process
	for _, c := range children {
		b, err := os.ReadFile(c)
		if err != nil || len(b) == 0 {
			continue
		}
		child, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		if guard, err = os.FindProcess(child); err != nil {
			t.Fatal(err)
		}
	}
	if guard == nil {
		t.Fatal("netlab has no guard")
	}
	if err := errors.Join(guard.Kill(), l.cmd.Process.Kill()); err != nil {
		t.Fatal(err)
	}
	_ = l.cmd.Wait()
	// The guard's parent is gone too, so that nobody here can wait for it; its lock is free when it
	// is.
	until(t, "swept", func() bool {
		if out, err := command("sweep").Output(); err != nil {
			t.Fatalf("sweep: %v, %s", err, out)
		}
		return len(left(t, l.Prefix)) == 0
	})
	if len(left(t, other.Prefix)) == 0 {
		t.Error("sweep took a living laboratory down")
	}
}

// tenant starts a process inside a namespace and returns when it is there.
func tenant(t *testing.T, ns string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("ip", "netns", "exec", ns, "sh", "-c", "echo here; exec sleep 600")
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestRefusedArguments(t *testing.T) {
	for _, args := range [][]string{
		nil,
		{"down"},
		{"guard"},
		{"up", "--a", "wide"},
		{"up", "--b", "sym", "--a", "same"},
		{"up", "--rtt", "-1s"},
		{"up", "--tcp-ports", "x"},
		{"up", "extra"},
	} {
		if err := run(args); err == nil {
			t.Errorf("netlab %s was accepted", strings.Join(args, " "))
		}
	}
}
