package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func material(t *testing.T, secret string) *Material {
	t.Helper()
	m, err := FromSecret([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var secretA, secretB = strings.Repeat("a", MinSecret), strings.Repeat("b", MinSecret)

// connect has a client and a server shake hands over TCP, and returns the error of each.
func connect(t *testing.T, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var wg sync.WaitGroup
	wg.Go(func() {
		raw, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		c := tls.Server(raw, server)
		defer func() { _ = c.Close() }()
		if serverErr = c.Handshake(); serverErr == nil {
			_, serverErr = c.Write([]byte("x"))
		}
	})
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, client)
	if clientErr = c.Handshake(); clientErr == nil {
		// a server of TLS 1.3 refuses a client after the client is done
		_, clientErr = io.ReadFull(c, make([]byte, 1))
	}
	_ = c.Close()
	wg.Wait()
	return clientErr, serverErr
}

func TestNodesWithTheSameSecretConnect(t *testing.T) {
	a, b := New(material(t, secretA)).Config(), New(material(t, secretA)).Config()
	if clientErr, serverErr := connect(t, a, b); clientErr != nil || serverErr != nil {
		t.Fatalf("client: %v, server: %v", clientErr, serverErr)
	}
}

func TestAForeignSecretIsRefusedByBothEnds(t *testing.T) {
	a, b := New(material(t, secretA)).Config(), New(material(t, secretB)).Config()
	clientErr, serverErr := connect(t, a, b)
	if clientErr == nil || serverErr == nil {
		t.Fatalf("client: %v, server: %v, want an error at both", clientErr, serverErr)
	}
	// a client that does not look at the server is refused all the same
	a.InsecureSkipVerify, a.VerifyConnection = true, nil
	if _, serverErr = connect(t, a, b); serverErr == nil {
		t.Fatal("the server took a client of another secret")
	}
}

func TestAClientWithoutCertificateOrWithOldTLSIsRefused(t *testing.T) {
	server := New(material(t, secretA)).Config()
	bare := &tls.Config{InsecureSkipVerify: true}
	if _, err := connect(t, bare, server); err == nil {
		t.Error("a client without a certificate was taken")
	}
	old := New(material(t, secretA)).Config()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, err := connect(t, old, server); err == nil {
		t.Error("a client of TLS 1.2 was taken")
	}
}

func TestACertificateOutsideItsTimeIsRefused(t *testing.T) {
	now := time.Now()
	for name, of := range map[string]struct{ from, to time.Time }{
		"expired":       {now.Add(-2 * time.Hour), now.Add(-time.Hour)},
		"not yet valid": {now.Add(time.Hour), now.Add(2 * time.Hour)},
	} {
		m := material(t, secretA)
		cert, err := m.issuer.issue(of.from, of.to, ServerName)
		if err != nil {
			t.Fatal(err)
		}
		bad := New(&Material{authority: m.authority, cert: cert}).Config()
		good := New(material(t, secretA)).Config()
		if _, err := connect(t, bad, good); err == nil {
			t.Errorf("%s: the server took it", name)
		}
		if err, _ := connect(t, good, bad); err == nil {
			t.Errorf("%s: the client took it", name)
		}
	}
}

// The CA of a company signs more than nodes.
func TestACertificateOfTheCAThatNamesNoNodeIsRefused(t *testing.T) {
	m := material(t, secretA)
	now := time.Now()
	cert, err := m.issuer.issue(now.Add(-time.Hour), now.Add(time.Hour), "printer.example")
	if err != nil {
		t.Fatal(err)
	}
	other := New(&Material{authority: m.authority, cert: cert}).Config()
	good := New(material(t, secretA)).Config()
	if _, err := connect(t, other, good); err == nil || !strings.Contains(err.Error(), ServerName) {
		t.Errorf("as a client: %v", err)
	}
	if err, _ := connect(t, good, other); err == nil {
		t.Error("as a server it was taken")
	}
}

// Whoever recorded a connection cannot use the recording: each handshake has fresh keys.
func TestARecordedHandshakeIsOfNoUse(t *testing.T) {
	server := New(material(t, secretA)).Config()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	handshakes := make(chan error, 2)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 2 {
			raw, err := l.Accept()
			if err != nil {
				handshakes <- err
				return
			}
			c := tls.Server(raw, server)
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			handshakes <- c.Handshake()
			_ = c.Close()
		}
	})
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	recorded := &recorder{Conn: raw}
	c := tls.Client(recorded, New(material(t, secretA)).Config())
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-handshakes; err != nil {
		t.Fatalf("the first time: %v", err)
	}
	_ = c.Close()
	again, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Write(recorded.sent.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := <-handshakes; err == nil {
		t.Fatal("the recording was taken for a node")
	}
	_ = again.Close()
	wg.Wait()
}

type recorder struct {
	net.Conn
	sent bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.sent.Write(p)
	return r.Conn.Write(p)
}

func TestASecretMustBeLong(t *testing.T) {
	if _, err := FromSecret([]byte("short")); err == nil {
		t.Fatal("no error")
	}
}

func TestCertificatesAreIssuedAgainBeforeTheyExpire(t *testing.T) {
	m := material(t, secretA)
	now := time.Now()
	first, err := m.issuer.certificate(now)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := m.issuer.certificate(now.Add(time.Hour)); again != first {
		t.Error("issued again within the hour")
	}
	later, err := m.issuer.certificate(now.Add(25 * time.Hour))
	if err != nil || later == first {
		t.Fatalf("not issued again after a day: %v", err)
	}
	if !first.Leaf.NotAfter.After(now.Add(48 * time.Hour)) {
		t.Error("a certificate expires before the next one is issued")
	}
}

// authority is a CA as an operator would make one.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "test CA"},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// files writes a certificate for names, its key and the CA.
func (a *authority) files(t *testing.T, to time.Time, names ...string) (cert, key, ca string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "a node"},
		DNSNames:     names,
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: to,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", pkcs8),
		write("ca.pem", "CERTIFICATE", a.cert.Raw)
}

func fromFiles(t *testing.T, a *authority) *Material {
	t.Helper()
	files, certErr, keyErr, caErr := ReadFiles(a.files(t, time.Now().Add(time.Hour), ServerName))
	if err := errors.Join(certErr, keyErr, caErr); err != nil {
		t.Fatal(err)
	}
	m, err := FromFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNodesWithCertificatesOfOneCAConnect(t *testing.T) {
	ca := newAuthority(t)
	a, b := New(fromFiles(t, ca)), New(fromFiles(t, ca))
	clientErr, serverErr := connect(t, a.Config(), b.Config())
	if clientErr != nil || serverErr != nil {
		t.Fatalf("client: %v, server: %v", clientErr, serverErr)
	}
	foreign := New(fromFiles(t, newAuthority(t)))
	if _, err := connect(t, foreign.Config(), b.Config()); err == nil {
		t.Fatal("a certificate of another CA was taken")
	}
	// with a secret instead
	if _, err := connect(t, New(material(t, secretA)).Config(), b.Config()); err == nil {
		t.Fatal("a certificate of a secret was taken")
	}
}

func TestMaterialIsReplacedWhileItIsInUse(t *testing.T) {
	before, after := newAuthority(t), newAuthority(t)
	a, b := New(fromFiles(t, before)), New(fromFiles(t, before))
	server := b.Config() // made once, as a listener does
	a.Set(fromFiles(t, after))
	b.Set(fromFiles(t, after))
	clientErr, serverErr := connect(t, a.Config(), server)
	if clientErr != nil || serverErr != nil {
		t.Fatalf("client: %v, server: %v", clientErr, serverErr)
	}
	if _, err := connect(t, New(fromFiles(t, before)).Config(), server); err == nil {
		t.Fatal("a certificate of the former CA was taken")
	}
}

func TestFilesThatOtherNodesWouldRefuse(t *testing.T) {
	ca := newAuthority(t)
	hour := time.Now().Add(time.Hour)
	cert, key, authority := ca.files(t, hour, ServerName)
	otherCert, otherKey, _ := ca.files(t, hour, "printer.example")
	lateCert, lateKey, _ := ca.files(t, time.Now().Add(-time.Minute), ServerName)
	_, _, otherCA := newAuthority(t).files(t, hour, ServerName)
	const noPEM = "contains no certificate"
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, of := range map[string]struct{ cert, key, ca, certHas, keyHas, caHas string }{
		"a key of another":  {cert, otherKey, authority, "", "does not fit", ""},
		"another name":      {otherCert, otherKey, authority, "does not name ieum-node", "", ""},
		"expired":           {lateCert, lateKey, authority, "expired", "", ""},
		"another CA":        {cert, key, otherCA, "other nodes would refuse", "", ""},
		"nothing in them":   {empty, key, empty, noPEM, "", noPEM},
		"files are missing": {"none", "none", "none", "none", "none", "none"},
	} {
		files, certErr, keyErr, caErr := ReadFiles(of.cert, of.key, of.ca)
		if files != nil {
			_, certErr = FromFiles(files)
		}
		for _, e := range []struct {
			err  error
			want string
		}{{certErr, of.certHas}, {keyErr, of.keyHas}, {caErr, of.caHas}} {
			if (e.err == nil) != (e.want == "") ||
				(e.err != nil && !strings.Contains(e.err.Error(), e.want)) {
				t.Errorf("%s: %v, want %q", name, e.err, e.want)
			}
		}
	}
}
