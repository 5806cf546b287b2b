// Package identity lets the nodes of a cluster prove to each other that they belong to it: mutual
// TLS 1.3, with certificates from files or issued by each node itself from a shared secret.
package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ServerName is the DNS name that the certificate of every node carries. A certificate of the same
// CA without it belongs to something else than a node.
const ServerName = "ieum-node"

// MinSecret is the least length of a secret, in bytes.
const MinSecret = 32

// A certificate that a node issues itself is valid for this long before and after its issue, so
// that clocks may differ. It is issued again long before it expires.
const (
	issuedBefore = 7 * 24 * time.Hour
	issuedAfter  = 21 * 24 * time.Hour
	issueAgain   = 24 * time.Hour
)

// Material is what a node proves itself with. It is static.
type Material struct {
	authority *x509.CertPool
	cert      *tls.Certificate // nil: issued on demand
	issuer    *issuer          // nil: cert is from a file
}

// FromSecret derives a CA from a secret that all nodes share. Each node issues its own certificate.
func FromSecret(secret []byte) (*Material, error) {
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("has %d bytes, at least %d are needed: "+
			"`openssl rand -hex 32` makes a secret", len(secret), MinSecret)
	}
	seed, err := hkdf.Key(sha256.New, secret, nil, "ieum cluster CA", ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	key := ed25519.NewKeyFromSeed(seed)
	// All fields are constant: each node must derive the same CA.
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "Ieum cluster"},
		NotBefore:             time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	authority, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	m := &Material{
		authority: x509.NewCertPool(),
		issuer:    &issuer{authority: authority, key: key},
	}
	m.authority.AddCert(authority)
	_, err = m.certificate()
	return m, err
}

// Files are a certificate with its key, and a CA. It is static.
type Files struct {
	Cert *tls.Certificate // nil: no file was named
	CA   *x509.CertPool   // nil: no file was named

	certFile string
}

// ReadFiles reads those of the files that are named, all PEM. The errors are those of each file;
// with any there are no Files.
func ReadFiles(certFile, keyFile, caFile string) (f *Files, certErr, keyErr, caErr error) {
	f = &Files{certFile: certFile}
	if caFile != "" {
		var text []byte
		f.CA = x509.NewCertPool()
		if text, caErr = os.ReadFile(caFile); caErr == nil && !f.CA.AppendCertsFromPEM(text) {
			caErr = fmt.Errorf("%s contains no certificate in PEM", caFile)
		}
	}
	var chain, key []byte
	if certFile != "" {
		chain, certErr = os.ReadFile(certFile)
		if block, _ := pem.Decode(chain); certErr == nil && block == nil {
			certErr = fmt.Errorf("%s contains no certificate in PEM", certFile)
		}
	}
	if keyFile != "" {
		key, keyErr = os.ReadFile(keyFile)
	}
	if chain != nil && key != nil && certErr == nil && keyErr == nil {
		cert, err := tls.X509KeyPair(chain, key)
		if err != nil {
			keyErr = fmt.Errorf("%s does not fit %s: %w", keyFile, certFile, err)
		}
		f.Cert = &cert
	}
	if certErr != nil || keyErr != nil || caErr != nil {
		return nil, certErr, keyErr, caErr
	}
	return f, nil, nil, nil
}

// FromFiles takes a certificate and the CA of the other nodes, both of which must be there. Its
// error is about the certificate.
func FromFiles(f *Files) (*Material, error) {
	m := &Material{authority: f.CA, cert: f.Cert}
	return m, m.verifyOwn(f.certFile)
}

// verifyOwn says what the other nodes would refuse.
func (m *Material) verifyOwn(certFile string) error {
	leaf := m.cert.Leaf
	if err := leaf.VerifyHostname(ServerName); err != nil {
		return fmt.Errorf("%s does not name %s: issue it with the DNS name "+
			"(subject alternative name) %s", certFile, ServerName, ServerName)
	}
	between := x509.NewCertPool()
	for _, der := range m.cert.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	for _, usage := range []struct {
		key  x509.ExtKeyUsage
		name string
	}{{x509.ExtKeyUsageServerAuth, "serverAuth"}, {x509.ExtKeyUsageClientAuth, "clientAuth"}} {
		_, err := leaf.Verify(x509.VerifyOptions{
			Roots:         m.authority,
			Intermediates: between,
			KeyUsages:     []x509.ExtKeyUsage{usage.key},
		})
		if err != nil {
			return fmt.Errorf("other nodes would refuse %s (as %s): %w", certFile, usage.name, err)
		}
	}
	return nil
}

// certificate returns what this node shows.
func (m *Material) certificate() (*tls.Certificate, error) {
	if m.cert != nil {
		return m.cert, nil
	}
	return m.issuer.certificate(time.Now())
}

// NotAfter is when the certificate from a file expires; zero for one that is issued on demand.
func (m *Material) NotAfter() time.Time {
	if m.cert == nil {
		return time.Time{}
	}
	return m.cert.Leaf.NotAfter
}

// issuer makes certificates for this node.
type issuer struct {
	authority *x509.Certificate
	key       crypto.Signer

	mu     sync.Mutex
	cert   *tls.Certificate // guarded by mu
	issued time.Time        // guarded by mu
}

func (i *issuer) certificate(now time.Time) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cert != nil && now.Sub(i.issued) < issueAgain {
		return i.cert, nil
	}
	cert, err := i.issue(now.Add(-issuedBefore), now.Add(issuedAfter), ServerName)
	if err == nil {
		i.cert, i.issued = cert, now
	}
	return cert, err
}

func (i *issuer) issue(from, to time.Time, name string) (*tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    from,
		NotAfter:     to,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{
			x509.ExtKeyUsageServerAuth,
			x509.ExtKeyUsageClientAuth,
		},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.authority, public, i.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: leaf}, nil
}

// Identity makes the TLS configurations of one node. Its material may be replaced at any time.
type Identity struct {
	material atomic.Pointer[Material]
}

// New makes an identity.
func New(m *Material) *Identity {
	i := &Identity{}
	i.Set(m)
	return i
}

// Set replaces the material. Connections that are open stay.
func (i *Identity) Set(m *Material) { i.material.Store(m) }

// Config returns the configuration of both ends of connections between nodes. As a client it trusts
// the CA of the time of the call, as a server that of the time of the connection.
func (i *Identity) Config() *tls.Config {
	c := i.config()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return i.config(), nil
	}
	return c
}

func (i *Identity) config() *tls.Config {
	m := i.material.Load()
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: ServerName,
		RootCAs:    m.authority,
		ClientCAs:  m.authority,
		ClientAuth: tls.RequireAndVerifyClientCert,
		// Each connection is authenticated in full: a ticket would outlive a change of the CA.
		SessionTicketsDisabled: true,
		VerifyConnection:       verifyNode,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return i.own()
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return i.own()
		},
	}
}

func (i *Identity) own() (*tls.Certificate, error) { return i.material.Load().certificate() }

// verifyNode is called after the chain has been verified, by both ends. Go checks the name of a
// server only.
func verifyNode(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	leaf := s.PeerCertificates[0]
	if leaf.VerifyHostname(ServerName) != nil {
		return fmt.Errorf("the certificate of %q does not belong to a node: it does not name %s",
			leaf.Subject.CommonName, ServerName)
	}
	return nil
}
