package node

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/config"
)

const relaySecret = "a secret that two machines have"

func startRelayAlone(t *testing.T, c config.Relay) *Relay {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	if c.Relay.SecretFile == "" {
		c.Relay.Secret = relaySecret
	}
	if c.Relay.STUNListen == "" {
		c.Relay.STUNListen = "127.0.0.1:0"
	}
	if c.Admin.Listen == "" {
		c.Admin = noAdmin
	}
	r, err := StartRelay(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestRelayAloneServesTheClientsOfAnotherServer(t *testing.T) {
	cert, key, roots := certFor(t, "127.0.0.1")
	r := startRelayAlone(t, config.Relay{TLSCert: cert, TLSKey: key})
	at := fmt.Sprintf("127.0.0.1:%d", r.RelayPort())
	urls := []string{
		"stun:" + at, fmt.Sprintf("stun:127.0.0.1:%d", r.STUNPort()),
		"turn:" + at + "?transport=udp", "turns:" + at + "?transport=tcp",
	}
	n := start(
		t,
		config.Server{
			Dev:           true,
			RelayExternal: urls,
			Relay:         config.RelaySettings{Secret: relaySecret},
		},
	)
	if addrs, _ := n.RelayAddresses(); n.RelayPort() != 0 || n.STUNPort() != 0 || len(addrs) != 0 {
		t.Error("a relay runs here")
	}
	c := call(t, n, nil) // in no room: the relay does not know
	got := c.urls()
	slices.Sort(got[:2])
	slices.Sort(urls[:2])
	if !slices.Equal(got, urls) {
		t.Errorf("ICE servers %v, want %v", got, urls)
	}
	binding(t, urls[0])
	binding(t, urls[1])
	for _, url := range append(urls[2:], "turn:"+at+"?transport=tcp") {
		if err := c.allocate(url, roots); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	if res, body := get(t, "https://"+at+"/"); res.StatusCode != http.StatusNotFound ||
		!strings.Contains(body, "no pages") {
		t.Errorf("a page: %d %s", res.StatusCode, body)
	}
	c.ice[len(c.ice)-1].Credential = "x"
	if err := c.allocate(urls[2], nil); err == nil {
		t.Error("allocated without the secret")
	}
}

func TestACoturnWithTheSameSecretServes(t *testing.T) {
	binary, err := exec.LookPath("turnserver")
	if err != nil {
		if runtime.GOOS == "linux" && os.Geteuid() == 0 {
			t.Fatal("turnserver is missing; install what e2e/packages.txt lists")
		}
		t.Skip("coturn is not installed")
	}
	at := coturn(t, binary)
	udp, tcp := "turn:"+at+"?transport=udp", "turn:"+at+"?transport=tcp"
	n := start(
		t,
		config.Server{
			Dev:           true,
			RelayExternal: []string{"stun:" + at, udp, tcp},
			Relay:         config.RelaySettings{Secret: relaySecret},
		},
	)
	c := call(t, n, nil)
	binding(t, c.urls()[0])
	for _, url := range []string{udp, tcp} {
		if err := c.allocate(url, nil); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	c.ice[len(c.ice)-1].Credential = "x"
	if err := c.allocate(udp, nil); err == nil {
		t.Error("allocated without the secret")
	}
}

// coturn runs Debian's coturn on loopback and returns its address once it listens.
func coturn(t *testing.T, binary string) string {
	t.Helper()
	for range 8 {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := free.Addr().(*net.TCPAddr).Port
		_ = free.Close()
		dir := t.TempDir()
		out := &lockedOutput{listening: make(chan struct{})}
		cmd := exec.Command(
			binary, "-n",
			"--listening-ip", "127.0.0.1",
			"--relay-ip", "127.0.0.1",
			"--listening-port", fmt.Sprint(port),
			"--use-auth-secret",
			"--static-auth-secret", relaySecret,
			"--realm", "coturn.example",
			"--no-tls", "--no-dtls", "--no-cli",
			"--log-file", "stdout",
			"--simple-log",
			"--pidfile", filepath.Join(dir, "pid"),
			"--userdb", filepath.Join(dir, "db"),
			"--verbose",
		)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = cmd.Wait() }()
		t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
		limit := time.NewTimer(failSafe)
		defer limit.Stop()
		select {
		case <-out.listening:
			return fmt.Sprintf("127.0.0.1:%d", port)
		case <-ended: // somebody else has taken the port
		case <-limit.C:
			t.Fatalf("coturn does not listen:\n%s", out.text())
		}
	}
	t.Fatal("coturn found no free port")
	return ""
}

// lockedOutput tells when coturn says that it listens on UDP and TCP.
type lockedOutput struct {
	mu        sync.Mutex
	b         bytes.Buffer
	once      sync.Once
	listening chan struct{}
}

func (o *lockedOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b.Write(p)
	if s := o.b.String(); strings.Contains(s, "UDP listener opened on") &&
		strings.Contains(s, "TCP listener opened on") {
		o.once.Do(func() { close(o.listening) })
	}
	return len(p), nil
}

func (o *lockedOutput) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func TestErrorsOfAStandaloneRelay(t *testing.T) {
	err := config.Relay{
		Listen:  "x",
		TLSCert: "c",
		Relay:   config.RelaySettings{Ports: "9", IPs: []string{"y"}},
	}.Validate()
	for _, part := range []string{"--listen", "--tls-key", "--relay-ports", "--relay-ip"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s is missing in %v", part, err)
		}
	}
	if err := (config.Relay{}).Validate(); err == nil ||
		!strings.Contains(err.Error(), "--relay-secret-file") {
		t.Errorf("without a secret: %v", err)
	}
	if err := (config.Relay{
		Relay: config.RelaySettings{Secret: relaySecret},
	}).Validate(); err != nil {
		t.Error(err)
	}
	r := startRelayAlone(t, config.Relay{})
	taken := config.Relay{
		Listen: fmt.Sprintf("127.0.0.1:%d", r.RelayPort()),
		Relay:  config.RelaySettings{Secret: relaySecret, STUNListen: "off"},
	}
	if _, err := StartRelay(taken); err == nil {
		t.Error("started on a port that is taken")
	}
}
