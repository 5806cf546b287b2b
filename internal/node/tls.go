package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	certFile = "self-signed.pem"
	certLife = 397 * 24 * time.Hour // browsers refuse longer
)

// selfSigned makes a certificate for every name and address this machine has, for trying over a network: browsers will warn.
// With a data folder it is kept, so that the warning is accepted once.
func selfSigned(dir string, write bool) (*tls.Certificate, error) {
	path := filepath.Join(dir, certFile)
	if dir != "" {
		if cert, err := tls.LoadX509KeyPair(path, path); err == nil && cert.Leaf != nil && time.Until(cert.Leaf.NotAfter) > 0 {
			return &cert, nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Ieum, self-signed"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, BasicConstraintsValid: true,
	}
	if name, err := os.Hostname(); err == nil {
		template.DNSNames = append(template.DNSNames, name, name+".local")
	}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				template.IPAddresses = append(template.IPAddresses, n.IP)
			}
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
	cert, err := tls.X509KeyPair(text, text)
	if err == nil && dir != "" && write {
		err = os.WriteFile(path, text, 0o600)
	}
	return &cert, errors.Join(err)
}

// loadCert reads a certificate from its two files; nil without files. The key is asked only when the certificate can be read, and for
// itself, so that the right file is blamed.
func loadCert(cert, key string) (*tls.Certificate, error) {
	switch {
	case cert == "" && key == "":
		return nil, nil
	case key == "":
		return nil, blamef("--tls-cert", "needs --tls-key too")
	case cert == "":
		return nil, blamef("--tls-key", "needs --tls-cert too")
	}
	certPEM, certErr := os.ReadFile(cert)
	keyPEM, keyErr := os.ReadFile(key)
	if certErr == nil {
		certErr = checkChain(certPEM)
	}
	if keyErr == nil && !holdsKey(keyPEM) {
		keyErr = errors.New("there is no private key in it, in PEM")
	}
	if err := errors.Join(blame("--tls-cert", certErr), blame("--tls-key", keyErr)); err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, blame("--tls-key", errors.New(strings.TrimPrefix(err.Error(), "tls: ")))
	}
	return &c, blame("--tls-cert", inTime(c.Leaf, time.Now()))
}

// inTime refuses what every browser would refuse.
func inTime(leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate has expired, on %s: renew it", leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s: is the clock of this machine right?", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkChain tells whether there is a certificate first, and nothing that cannot be read after it.
func checkChain(text []byte) error {
	for n := 0; ; n++ {
		block, rest := pem.Decode(text)
		if block == nil {
			if n == 0 {
				return errors.New("there is no certificate in it, in PEM")
			}
			return nil
		}
		text = rest
		if block.Type != "CERTIFICATE" {
			n--
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("certificate %d: %s", n+1, strings.TrimPrefix(err.Error(), "x509: "))
		}
	}
}

func holdsKey(text []byte) bool {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return false
		}
		if block.Type == "PRIVATE KEY" || strings.HasSuffix(block.Type, " PRIVATE KEY") {
			return true
		}
		text = rest
	}
}

// certificate is the one in force. Connections that are there keep what they were shown; nil: there is none, and never will be.
type certificate struct {
	current atomic.Pointer[tls.Certificate]
}

func newCertificate(c *tls.Certificate) *certificate {
	if c == nil {
		return nil
	}
	n := &certificate{}
	n.current.Store(c)
	return n
}

// get returns nil when there is none.
func (c *certificate) get() *tls.Certificate {
	if c == nil {
		return nil
	}
	return c.current.Load()
}

// set replaces a certificate that there is.
func (c *certificate) set(to *tls.Certificate) {
	if c != nil && to != nil {
		c.current.Store(to)
	}
}

// ends is for the log.
func (c *certificate) ends() string {
	if current := c.get(); current != nil && current.Leaf != nil {
		return current.Leaf.NotAfter.UTC().Format(time.RFC3339)
	}
	return "none"
}

// register shows when the certificate in force ends. Without one there is nothing to show.
func (c *certificate) register(r *prometheus.Registry) error {
	if c == nil {
		return nil
	}
	return prefix("metrics", r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ieum_tls_certificate_not_after_timestamp_seconds",
		Help: "When the certificate in force ends, in seconds since 1970.",
	}, func() float64 {
		if current := c.get(); current.Leaf != nil {
			return float64(current.Leaf.NotAfter.Unix())
		}
		return 0
	})))
}

// tlsConfig allows TLS 1.2 with AEAD suites and TLS 1.3.
func tlsConfig(cert *certificate) *tls.Config {
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert.get(), nil },
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
}
