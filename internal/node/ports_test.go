package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lxzan/gws"
	"github.com/pion/logging"
	"github.com/pion/stun/v4"
	"github.com/pion/turn/v5"

	"github.com/ieum-rtc/ieum/internal/certs"
	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/ice"
)

// failSafe ends a test that would hang; no test depends on its length.
const failSafe = 20 * time.Second

// certFor makes a certificate for the names and addresses, signed by an authority that only this
// test knows.
func certFor(t *testing.T, names ...string) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	authority, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "Laboratory CA"},
		NotAfter:     time.Now().Add(time.Hour),
		IsCA:         true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "leaf"},
		NotAfter:     time.Now().Add(time.Hour),
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	sign := func(c, parent *x509.Certificate, pub any) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, authority)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	caCert, err := x509.ParseCertificate(sign(ca, ca, authority.Public()))
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(
			path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600,
		); err != nil {
			t.Fatal(err)
		}
		return path
	}
	roots = x509.NewCertPool()
	roots.AddCert(caCert)
	return write(
		"cert.pem", "CERTIFICATE", sign(leaf, caCert, leafKey.Public()),
	), write("key.pem", "PRIVATE KEY", pkcs8), roots
}

// caller is a user with an open connection.
type caller struct {
	t   *testing.T
	ws  *gws.Conn
	h   *answers
	ice []struct {
		URLs                 []string
		Username, Credential string
	}
}

// call registers a user at a node and leaves the connection open.
func call(t *testing.T, n *Node, more map[string]any) *caller {
	t.Helper()
	c := &caller{t: t, h: &answers{got: make(chan []byte, 16), done: make(chan struct{})}}
	var err error
	if c.ws, _, err = gws.NewClient(c.h, &gws.ClientOption{
		Addr:      "ws" + strings.TrimPrefix(n.URLs()[0], "http") + "signal",
		TlsConfig: &tls.Config{InsecureSkipVerify: true},
	}); err != nil {
		t.Fatal(err)
	}
	go c.ws.ReadLoop()
	t.Cleanup(func() {
		_ = c.ws.NetConn().Close()
		<-c.h.done
	})
	_, body := get(t, n.URLs()[0]+"dev/license")
	m := map[string]any{"eventOp": "register"}
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatal(err)
	}
	maps.Copy(m, more)
	b, _ := json.Marshal(c.ask(m)["iceServers"])
	if err := json.Unmarshal(b, &c.ice); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask returns the answer to a request, which must be 200.
func (c *caller) ask(m map[string]any) map[string]any {
	c.t.Helper()
	m["reqId"] = "r"
	b, _ := json.Marshal(m)
	if err := c.ws.WriteMessage(gws.OpcodeText, b); err != nil {
		c.t.Fatal(err)
	}
	for {
		var a map[string]any
		if err := json.Unmarshal(<-c.h.got, &a); err != nil {
			c.t.Fatal(err)
		}
		if a["reqId"] == "r" {
			if a["code"] != "200" {
				c.t.Fatalf("%v was answered %v", m, a)
			}
			return a
		}
	}
}

func (c *caller) join() {
	c.t.Helper()
	id := c.ask(map[string]any{"eventOp": "createRoom"})["roomId"]
	c.ask(map[string]any{"eventOp": "joinRoom", "roomId": id})
}

// urls are all URLs of the caller's ICE servers, in order.
func (c *caller) urls() (all []string) {
	for _, s := range c.ice {
		all = append(all, s.URLs...)
	}
	return all
}

// allocate makes an allocation at a URL as a browser does, with the caller's credentials, and ends
// it again.
func (c *caller) allocate(url string, roots *x509.CertPool) error {
	c.t.Helper()
	client, end, err := c.turn(url, roots)
	if err != nil {
		return err
	}
	defer end()
	relayed, err := client.Allocate()
	if err != nil {
		return err
	}
	return relayed.Close()
}

// hold makes an allocation over UDP that lives as long as the test. What it returns asks for a
// permission, which no allocation that has ended grants.
func (c *caller) hold() (permit func() error) {
	c.t.Helper()
	urls := c.urls()
	client, end, err := c.turn(urls[len(urls)-2], nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(end)
	relayed, err := client.Allocate()
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = relayed.Close() }) // which may have ended
	return func() error {
		return client.CreatePermission(
			&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9},
		)
	}
}

// turn is a TURN client with the caller's credentials, until end.
func (c *caller) turn(
	url string, roots *x509.CertPool,
) (client *turn.Client, end func(), err error) {
	c.t.Helper()
	uri, err := stun.ParseURI(url)
	if err != nil {
		c.t.Fatal(err)
	}
	at := net.JoinHostPort(uri.Host, fmt.Sprint(uri.Port))
	var conn net.PacketConn
	switch {
	case uri.Scheme == stun.SchemeTypeTURNS:
		tc, err := tls.Dial("tcp", at, &tls.Config{RootCAs: roots})
		if err != nil {
			return nil, nil, err
		}
		conn = turn.NewSTUNConn(tc)
	case uri.Proto == stun.ProtoTypeTCP:
		tcp, err := net.Dial("tcp", at)
		if err != nil {
			return nil, nil, err
		}
		conn = turn.NewSTUNConn(tcp)
	default:
		if conn, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			return nil, nil, err
		}
	}
	turnServer := c.ice[len(c.ice)-1]
	client, err = turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: at,
		TURNServerAddr: at,
		Conn:           conn,
		Username:       turnServer.Username,
		Password:       turnServer.Credential,
		LoggerFactory: &logging.DefaultLoggerFactory{
			Writer:          c.t.Output(),
			DefaultLogLevel: logging.LogLevelDisabled,
		},
	})
	if err == nil {
		err = client.Listen()
	}
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return client, func() {
		client.Close()
		_ = conn.Close()
	}, nil
}

// binding asks a STUN server over UDP for the mapped address.
func binding(t *testing.T, url string) {
	t.Helper()
	uri, err := stun.ParseURI(url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", net.JoinHostPort(uri.Host, fmt.Sprint(uri.Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(failSafe))
	request := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
	if _, err := conn.Write(request.Raw); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	k, err := conn.Read(buf)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	answer := stun.Message{Raw: buf[:k]}
	var mapped stun.XORMappedAddress
	if err := answer.Decode(); err != nil || mapped.GetFrom(&answer) != nil ||
		answer.TransactionID != request.TransactionID {
		t.Errorf("%s: %v %v", url, answer, err)
	}
	if local := conn.LocalAddr().(*net.UDPAddr); mapped.Port != local.Port {
		t.Errorf("%s: mapped to %v, from %v", url, mapped, local)
	}
}

func TestOnePortServesPagesSignalingAndRelay(t *testing.T) {
	cert, key, roots := certFor(t, "localhost")
	n := start(t, config.Server{Dev: true, TLSCert: cert, TLSKey: key, PublicHost: "localhost"})
	if n.RelayPort() != int(n.Addr().Port()) || n.STUNPort() == 0 || n.STUNPort() == n.RelayPort() {
		t.Errorf("ports: %v, %d, %d", n.Addr(), n.RelayPort(), n.STUNPort())
	}
	if res, _ := get(t, n.URLs()[0]); res.ProtoMajor != 2 {
		t.Errorf("pages by %s", res.Proto)
	}
	c := call(t, n, nil)
	at := fmt.Sprintf("localhost:%d", n.RelayPort())
	want := []string{
		"stun:" + at, fmt.Sprintf("stun:localhost:%d", n.STUNPort()),
		"turn:" + at + "?transport=udp", "turns:" + at + "?transport=tcp",
	}
	if got := c.urls(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("ICE servers %v, want %v", got, want)
	}
	for _, url := range want[:2] {
		binding(t, url)
	}
	forms := append(want[2:], "turn:"+at+"?transport=tcp")
	for _, url := range forms {
		if err := c.allocate(url, roots); err == nil {
			t.Errorf("%s: allocated by a session in no room", url)
		}
	}
	c.join()
	for _, url := range forms {
		if err := c.allocate(url, roots); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	c.ask(map[string]any{"eventOp": "leaveRoom"})
	for _, url := range forms {
		if err := c.allocate(url, roots); err == nil {
			t.Errorf("%s: allocated after leaving", url)
		}
	}
}

func TestPortForTheRelayAlone(t *testing.T) {
	cert, key, roots := certFor(t, "localhost")
	n := start(
		t,
		config.Server{
			Dev:         true,
			PublicHost:  "localhost",
			RelayListen: "127.0.0.1:0",
			TLSCert:     cert,
			TLSKey:      key,
			Relay:       config.RelaySettings{STUNListen: "off"},
		},
	)
	if n.RelayPort() == int(n.Addr().Port()) || n.STUNPort() != 0 {
		t.Errorf("ports: %v, %d, %d", n.Addr(), n.RelayPort(), n.STUNPort())
	}
	c := call(t, n, nil)
	c.join()
	at := fmt.Sprintf("localhost:%d", n.RelayPort())
	if got, want := fmt.Sprint(c.urls()), fmt.Sprintf(
		"[stun:%s turn:%[1]s?transport=udp turns:%[1]s?transport=tcp]",
		at,
	); got != want {
		t.Errorf("ICE servers %s, want %s", got, want)
	}
	binding(t, c.urls()[0])
	for _, url := range append(
		c.urls()[1:], "turn:"+at+"?transport=tcp",
		fmt.Sprintf("turns:localhost:%d?transport=tcp", n.Addr().Port()),
	) {
		if err := c.allocate(url, roots); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	if res, body := get(t, "https://"+at+"/sample"); res.StatusCode != 404 ||
		!strings.Contains(body, "STUN and TURN") {
		t.Errorf("a page of the relay: %d %s", res.StatusCode, body)
	}
}

// A browser takes TURN over TLS only from whom it trusts, and does not ask.
func TestStreamFormGoesByTheCertificate(t *testing.T) {
	cert, key, _ := certFor(t, "calls.example", "2001:db8::7")
	signed, err, keyErr := certs.Load(cert, key)
	if err != nil || keyErr != nil {
		t.Fatal(err, keyErr)
	}
	self, err := certs.SelfSigned("", false)
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, config.Server{Dev: true})
	port := n.RelayPort()
	for name, c := range map[string]struct {
		issuer  ice.Local
		reached string
		want    string
	}{
		"no certificate": {ice.Local{}, "calls.example:7102", "turn:calls.example"},
		"covers the name": {
			ice.Local{Cert: certs.NewSource(signed)},
			"calls.example:7102",
			"turns:calls.example",
		},
		"covers the name, 443": {
			ice.Local{Cert: certs.NewSource(signed)},
			"calls.example",
			"turns:calls.example",
		},
		"covers the address only": {
			ice.Local{Cert: certs.NewSource(signed)},
			"[2001:db8::7]:7102",
			"turn:[2001:db8::7]",
		},
		"covers another name": {
			ice.Local{Cert: certs.NewSource(signed)},
			"other.example:7102",
			"turn:other.example",
		},
		"self-signed": {
			ice.Local{Cert: certs.NewSource(self)},
			"localhost:7102",
			"turn:localhost",
		},
		"covers the public name": {
			ice.Local{Cert: certs.NewSource(signed), PublicHost: "calls.example"},
			"10.0.0.1:7102",
			"turns:calls.example",
		},
		"public address, in brackets": {
			ice.Local{Cert: certs.NewSource(signed), PublicHost: "[2001:db8::7]"},
			"x:1",
			"turn:[2001:db8::7]",
		},
		"covers not the public name": {
			ice.Local{Cert: certs.NewSource(signed), PublicHost: "relay.example"},
			"calls.example:7102",
			"turn:relay.example",
		},
		"bound, reached by its name": {
			ice.Local{Cert: certs.NewSource(signed), Listen: "10.0.0.9:7102"},
			"calls.example:7102",
			"turns:calls.example",
		},
		"bound, reached by another one": {
			ice.Local{Cert: certs.NewSource(signed), Listen: "10.0.0.9:7102"},
			"proxy.example:443",
			"turn:10.0.0.9",
		},
	} {
		c.issuer.Relay = n.relay
		if c.issuer.Listen == "" {
			c.issuer.Listen = ":7102"
		}
		servers := c.issuer.ICEServers(c.reached, "t", "s", true)
		want := fmt.Sprintf("%s:%d?transport=tcp", c.want, port)
		if got := servers[1].URLs[1]; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestRelayHostIsTheOneByWhichTheClientReachedUs(t *testing.T) {
	n := start(t, config.Server{Dev: true})
	for _, c := range []struct{ listen, reached, want string }{
		{":3478", "calls.example:7102", "calls.example"},
		{"0.0.0.0:3478", "calls.example", "calls.example"},
		{"[::]:3478", "[2001:db8::7]:7102", "2001:db8::7"},
		{"[::]:3478", "[2001:db8::7]", "2001:db8::7"},
		{"127.0.0.1:3478", "calls.example", "127.0.0.1"},
		{"10.0.0.9:3478", "calls.example", "10.0.0.9"},
	} {
		i := ice.Local{Relay: n.relay, Listen: c.listen}
		want := "stun:" + net.JoinHostPort(c.want, strconv.Itoa(n.RelayPort()))
		if got := i.ICEServers(c.reached, "t", "s", false)[0].URLs[0]; got != want {
			t.Errorf("listening on %s, reached as %s: %s, want %s", c.listen, c.reached, got, want)
		}
	}
}

// Another server of this machine may have the default port, which must not keep this one from
// starting. What was asked for must be had.
func TestSecondSTUNPortThatIsTaken(t *testing.T) {
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p, err := config.Server{Dev: true, Listen: "127.0.0.1:0"}.Plan(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	p.Relay.STUN = taken.LocalAddr().String()
	if _, _, err := openRelay(p.Relay, true, p.Config.Log); err == nil {
		t.Error("started without the port that was asked for")
	}
	l, r, err := openRelay(p.Relay, false, p.Config.Log)
	if err != nil {
		t.Fatal(err)
	}
	if r.STUNPort() != 0 || r.Port() != l.Addr().(*net.TCPAddr).Port {
		t.Errorf("ports %d, %d, %v", r.STUNPort(), r.Port(), l.Addr())
	}
	_ = l.Close()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
