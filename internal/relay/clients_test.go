package relay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
)

// Clients of others: the library's own and coturn's.

func TestLibraryClientRelays(t *testing.T) {
	for _, network := range transports {
		t.Run(network, func(t *testing.T) {
			s := start(t, nil)
			far := udpPeer(t, peerHost(t))
			at := fmt.Sprintf("127.0.0.1:%d", s.Port())
			var conn net.PacketConn
			if network == "tcp" {
				tcp, err := net.Dial("tcp", at)
				if err != nil {
					t.Fatal(err)
				}
				conn = turn.NewSTUNConn(tcp)
			} else {
				conn = udpPeer(t, "127.0.0.1")
			}
			user, password := s.Credentials("t", "s")
			client, err := turn.NewClient(&turn.ClientConfig{
				STUNServerAddr: at, TURNServerAddr: at, Conn: conn, Username: user,
				Password: password, Realm: defaultRealm,
				LoggerFactory: &logging.DefaultLoggerFactory{
					Writer:          t.Output(),
					DefaultLogLevel: logging.LogLevelWarn,
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				client.Close()
				_ = conn.Close()
			}()
			if err := client.Listen(); err != nil {
				t.Fatal(err)
			}
			relayed, err := client.Allocate()
			if err != nil {
				t.Fatal(err)
			}
			if err := relayed.SetDeadline(time.Now().Add(failSafe)); err != nil {
				t.Fatal(err)
			}
			const rounds = 50
			buf := make([]byte, 2000)
			for i := range rounds {
				up, down := strings.Repeat("u", 1+i*20), strings.Repeat("d", 1000-i)
				if _, err := relayed.WriteTo(
					[]byte(up), net.UDPAddrFromAddrPort(localOf(far)),
				); err != nil {
					t.Fatal(err)
				}
				data, from := receiveAt(t, far)
				if data != up || from != addrPort(relayed.LocalAddr()) {
					t.Fatalf("round %d: peer got %d bytes from %v", i, len(data), from)
				}
				sendFrom(t, far, from, down)
				n, back, err := relayed.ReadFrom(buf)
				if err != nil || string(buf[:n]) != down || addrPort(back) != localOf(far) {
					t.Fatalf("round %d: client got %d bytes from %v, %v", i, n, back, err)
				}
			}
			st := s.Stats()
			if want := (Traffic{rounds, rounds + 20*rounds*(rounds-1)/2}); st.ClientToPeer != want {
				t.Errorf("client to peer: %+v, want %+v", st.ClientToPeer, want)
			}
			want := Traffic{rounds, 1000*rounds - rounds*(rounds-1)/2}
			if st.PeerToClient != want {
				t.Errorf("peer to client: %+v, want %+v", st.PeerToClient, want)
			}
			if err := relayed.Close(); err != nil {
				t.Error(err)
			}
			eventually(t, func() bool { return s.Stats().Allocations == 0 })
		})
	}
}

// coturn's client by every way it knows that we offer. It takes channel numbers at random from
// 0x4000 to 0x7fff, and gives up when one is refused. RFC 5766 allows all but the last; a run that
// happened to draw it is repeated, once.
func TestCoturnClientRelays(t *testing.T) {
	tool, err := exec.LookPath("turnutils_uclient")
	if err != nil {
		if runtime.GOOS == "linux" && os.Geteuid() == 0 {
			t.Fatal("turnutils_uclient is missing: install coturn")
		}
		t.Skip("turnutils_uclient (Debian package coturn) is missing, and only root can install it")
	}
	var runs sync.WaitGroup
	defer runs.Wait()
	// Each relay has ports of its own: another one would be another program that takes a port
	// between its choice and its use.
	const share = 1000
	low := uint16(DefaultMinPort)
	for name, c := range map[string]struct {
		listen  string
		clients int
		args    []string
	}{
		"TLS, indications, a peer": {"127.0.0.1:0", 4, []string{"-c", "-s", "-t", "-S"}},
		"TLS, indications, both relayed": {
			"127.0.0.1:0", 4, []string{"-c", "-s", "-y", "-t", "-S"},
		},
		"IPv6, TLS, both relayed": {
			"[::1]:0", 4, []string{"-c", "-s", "-y", "-x", "-t", "-S"},
		},
		"TLS, channels, a peer":          {"127.0.0.1:0", 4, []string{"-c", "-t", "-S"}},
		"TLS, channels, both relayed":    {"127.0.0.1:0", 4, []string{"-c", "-y", "-t", "-S"}},
		"UDP, indications, a peer":       {"127.0.0.1:0", 4, []string{"-c", "-s"}},
		"TCP, indications, a peer":       {"127.0.0.1:0", 4, []string{"-c", "-s", "-t"}},
		"UDP, indications, both relayed": {"127.0.0.1:0", 4, []string{"-c", "-s", "-y"}},
		"TCP, indications, both relayed": {"127.0.0.1:0", 4, []string{"-c", "-s", "-y", "-t"}},
		"UDP, with RTCP at the odd port": {"127.0.0.1:0", 2, []string{"-s"}},
		"IPv6, UDP, both relayed":        {"[::1]:0", 4, []string{"-c", "-s", "-y", "-x"}},
		"IPv6, TCP, both relayed":        {"[::1]:0", 4, []string{"-c", "-s", "-y", "-x", "-t"}},
		"UDP, channels, a peer":          {"127.0.0.1:0", 4, []string{"-c"}},
		"TCP, channels, a peer":          {"127.0.0.1:0", 4, []string{"-c", "-t"}},
		"UDP, channels, both relayed":    {"127.0.0.1:0", 4, []string{"-c", "-y"}},
		"TCP, channels, both relayed":    {"127.0.0.1:0", 4, []string{"-c", "-y", "-t"}},
	} {
		ends := &records{}
		transport := "udp"
		if slices.Contains(c.args, "-S") {
			transport = "tls"
		} else if slices.Contains(c.args, "-t") {
			transport = "tcp"
		}
		// It runs when the relay is closed, and so everything has ended.
		t.Cleanup(func() {
			if by := ends.transports(); len(by) != 1 || by[transport] < c.clients {
				t.Errorf("%s: clients came by %v", name, by)
			}
		})
		s := start(t, func(cfg *Config) {
			cfg.Listen, cfg.MinPort, cfg.MaxPort, cfg.Closed = c.listen, low, low+share-1, ends.add
		})
		low += share
		port := s.Port()
		if transport == "tls" {
			port = acceptTLS(t, s)
		}
		far := echo(t)
		args := append(
			c.args,
			"-p",
			fmt.Sprint(port),
			"-e",
			far.Addr().String(),
			"-r",
			fmt.Sprint(far.Port()),
			"-m",
			fmt.Sprint(c.clients),
			"-n",
			"10",
			"-l",
			"500",
		)
		const tries = 2
		// The client mostly waits, so all run at once.
		runs.Go(func() {
			for try := range tries {
				before := refusedBy(s, reasonBadChannel)
				user, password := s.Credentials("t", fmt.Sprint("s", try))
				ctx, cancel := context.WithTimeout(t.Context(), 3*failSafe)
				run := exec.CommandContext(
					ctx,
					tool,
					append(
						slices.Clone(args),
						"-u",
						user,
						"-w",
						password,
						s.addresses().listening[0].String(),
					)...)
				out, err := run.CombinedOutput()
				cancel()
				if refusedBy(s, reasonBadChannel) > before {
					continue
				}
				if err != nil || !strings.Contains(string(out), "Total lost packets 0 ") {
					t.Errorf("%s: %v\n%s", name, err, out)
				}
				st, want := s.Stats(), uint64(c.clients*10)
				if st.ClientToPeer.Packets < want || st.PeerToClient.Packets < want ||
					st.ClientToPeer.Bytes < want*500 {
					t.Errorf("%s: counted %+v", name, st)
				}
				return
			}
			t.Errorf("%s: a channel number was refused in each of %d runs", name, tries)
		})
	}
}

// records keeps how allocations ended.
type records struct {
	mu   sync.Mutex
	list []Record
}

func (r *records) add(one Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, one)
}

// transports counts the allocations by how their clients came.
func (r *records) transports() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	by := map[string]int{}
	for _, one := range r.list {
		by[one.Transport]++
	}
	return by
}

// acceptTLS hands TLS connections to the relay once they have shaken hands, as the node does. It
// returns the port.
func acceptTLS(t *testing.T, s *Server) int {
	t.Helper()
	tcp, err := net.Listen("tcp", net.JoinHostPort(s.addresses().listening[0].String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate(t)},
		MinVersion:   tls.VersionTLS12,
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				secure := tls.Server(conn, config)
				_ = secure.SetDeadline(time.Now().Add(failSafe))
				if secure.Handshake() != nil {
					_ = secure.Close()
					return
				}
				_ = secure.SetDeadline(time.Time{})
				s.ServeConn(secure)
			})
		}
	})
	t.Cleanup(func() {
		_ = tcp.Close()
		group.Wait()
	})
	return int(addrPort(tcp.Addr()).Port())
}

// certificate makes one for this test, signed by itself.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// echo is a peer that sends back what it gets, at the port returned and the next one.
func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	first, second := neighbours(t, peerHost(t))
	at := addrPort(first.LocalAddr())
	var group sync.WaitGroup
	for _, conn := range []*net.UDPConn{first, second} {
		// It ends when it is closed.
		_ = conn.SetDeadline(time.Time{})
		group.Go(func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := conn.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = conn.WriteToUDPAddrPort(buf[:n], from)
			}
		})
	}
	t.Cleanup(func() {
		_, _ = first.Close(), second.Close()
		group.Wait()
	})
	return at
}
