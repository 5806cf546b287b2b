package relay

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/stun/v4"
	"github.com/pion/turn/v5"
)

// Servers of others, with our secret and realm, to be asked what ours is asked. Each relays from
// ports of its own.

const (
	coturnMinPort = 20000
	pionMinPort   = 21000
	othersPorts   = 1000
)

// startCoturn runs Debian's turnserver on loopback and returns where it listens for UDP and TCP.
func startCoturn(t *testing.T) netip.AddrPort {
	t.Helper()
	tool, err := exec.LookPath("turnserver")
	if err != nil {
		if runtime.GOOS == "linux" && os.Geteuid() == 0 {
			t.Fatal("turnserver is missing: install coturn")
		}
		t.Skip("turnserver (Debian package coturn) is missing, and only root can install it")
	}
	// Another program may take the port before coturn does.
	for range 16 {
		udp, tcp, at := bothListen(t)
		_, _ = udp.Close(), tcp.Close()
		dir := t.TempDir()
		run := exec.Command(
			tool,
			"-n",
			"--no-cli",
			"--no-tls",
			"--no-dtls",
			"--no-rfc5780",
			"--no-software-attribute",
			"--no-stun-backward-compatibility",
			"--response-origin-only-with-rfc5780",
			"--no-multicast-peers",
			"--allow-loopback-peers",
			"--use-auth-secret",
			"--static-auth-secret="+string(secret),
			"--realm="+defaultRealm,
			"--relay-threads=0",
			"--listening-ip="+at.Addr().
				String(),
			fmt.Sprint("--listening-port=", at.Port()),
			"--relay-ip=127.0.0.1",
			"--relay-ip=::1",
			fmt.Sprint(
				"--min-port=",
				coturnMinPort,
			),
			fmt.Sprint("--max-port=", coturnMinPort+othersPorts-1),
			"--log-file=stdout",
			"--pidfile="+filepath.Join(dir, "pid"),
			"--userdb="+filepath.Join(dir, "db"),
		)
		run.Dir = dir
		out, err := os.Create(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		run.Stdout, run.Stderr = out, out
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = run.Wait()
			close(ended)
		}()
		stop := func() {
			_ = run.Process.Kill()
			<-ended
			_ = out.Close()
		}
		if answers(at, ended) {
			t.Cleanup(stop)
			return at
		}
		stop()
		text, _ := os.ReadFile(out.Name())
		t.Logf("turnserver does not run: %s", text)
	}
	t.Fatal("turnserver does not start")
	return netip.AddrPort{}
}

// answers waits until a server answers Binding requests over TCP and UDP; false: it has ended, or
// never does.
func answers(at netip.AddrPort, ended <-chan struct{}) bool {
	for limit := time.Now().Add(failSafe); time.Now().Before(limit); {
		if binds("tcp", at) && binds("udp", at) {
			return true
		}
		tick := time.NewTimer(10 * time.Millisecond)
		select {
		case <-ended:
			return false
		case <-tick.C:
		}
	}
	return false
}

func binds(network string, at netip.AddrPort) bool {
	conn, err := net.Dial(network, at.String())
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write(
		stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw,
	); err != nil {
		return false
	}
	_, err = conn.Read(make([]byte, 2048))
	return err == nil
}

// bothListen listens at a number that is free for UDP and TCP.
func bothListen(t *testing.T) (net.PacketConn, net.Listener, netip.AddrPort) {
	t.Helper()
	for range 200 {
		tcp, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if udp, err := net.ListenPacket("udp4", tcp.Addr().String()); err == nil {
			return udp, tcp, addrPort(tcp.Addr())
		}
		_ = tcp.Close()
	}
	t.Fatal("no number is free for UDP and TCP")
	return nil, nil, netip.AddrPort{}
}

// startPion runs the server of pion/turn in this process and returns where it listens for UDP and
// TCP.
func startPion(t *testing.T) netip.AddrPort {
	t.Helper()
	udp, tcp, at := bothListen(t)
	// It logs every refused request.
	logs := &logging.DefaultLoggerFactory{
		Writer:          t.Output(),
		DefaultLogLevel: logging.LogLevelDisabled,
	}
	permit := func(_ net.Addr, peer net.IP) bool { return !peer.IsMulticast() }
	s, err := turn.NewServer(turn.ServerConfig{
		Realm: defaultRealm, AuthHandler: turn.LongTermTURNRESTAuthHandler(
			string(secret), logs.NewLogger("auth"),
		),
		LoggerFactory: logs, StrictAddressFamily: true,
		PacketConnConfigs: []turn.PacketConnConfig{
			{PacketConn: udp, RelayAddressGenerator: evenPorts{}, PermissionHandler: permit},
		},
		ListenerConfigs: []turn.ListenerConfig{
			{Listener: tcp, RelayAddressGenerator: evenPorts{}, PermissionHandler: permit},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return at
}

// evenPorts lets pion relay from 127.0.0.1 and ::1, at even ports: it does not hold the odd one
// that it promises with a token.
type evenPorts struct{}

func (evenPorts) Validate() error { return nil }

func (evenPorts) AllocatePacketConn(
	c turn.AllocateListenerConfig,
) (net.PacketConn, net.Addr, error) {
	host := "127.0.0.1"
	if c.Network == "udp6" {
		host = "::1"
	}
	ports := []int{c.RequestedPort}
	if c.RequestedPort == 0 {
		ports = nil
		for _, i := range rand.Perm(othersPorts / 2) {
			ports = append(ports, pionMinPort+2*i)
		}
	}
	for _, port := range ports {
		if conn, err := net.ListenPacket(
			c.Network, net.JoinHostPort(host, fmt.Sprint(port)),
		); err == nil {
			return conn, conn.LocalAddr(), nil
		}
	}
	return nil, nil, errNoPort
}

func (evenPorts) AllocateListener(turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	return nil, nil, errors.ErrUnsupported
}

func (evenPorts) AllocateConn(turn.AllocateConnConfig) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}
