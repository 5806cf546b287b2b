// Package certs loads TLS certificates, makes self-signed ones, and replaces the certificate in
// force while connections go on.
package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"
)

// Load reads a certificate chain and its private key, both PEM. certErr and keyErr say what is
// wrong with which file; a key that does not match counts as wrong.
func Load(certFile, keyFile string) (cert *tls.Certificate, certErr, keyErr error) {
	certPEM, certErr := os.ReadFile(certFile)
	keyPEM, keyErr := os.ReadFile(keyFile)
	if certErr == nil {
		certErr = checkChain(certPEM)
	}
	if keyErr == nil && !containsKey(keyPEM) {
		keyErr = errors.New("no private key found (PEM)")
	}
	if certErr != nil || keyErr != nil {
		return nil, certErr, keyErr
	}
	c, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, nil, errors.New(strings.TrimPrefix(err.Error(), "tls: "))
	}
	return &c, checkValidity(c.Leaf, time.Now()), nil
}

// checkValidity refuses what every browser would refuse.
func checkValidity(leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf(
			"the certificate has expired, on %s: renew it",
			leaf.NotAfter.UTC().Format(time.RFC3339),
		)
	case now.Before(leaf.NotBefore):
		return fmt.Errorf(
			"the certificate is not valid before %s: is the clock of this machine right?",
			leaf.NotBefore.UTC().Format(time.RFC3339),
		)
	}
	return nil
}

// checkChain requires at least one certificate, and that all can be parsed. pem.Decode passes over
// what is damaged or cut off: a chain without its end would work in some browsers only.
func checkChain(text []byte) error {
	blocks := bytes.Count(text, []byte("-----BEGIN "))
	for n := 0; ; n++ {
		block, rest := pem.Decode(text)
		if block == nil {
			switch {
			case n == 0:
				return errors.New("no certificate found (PEM)")
			case blocks > 0:
				return errors.New("incomplete: part of it is cut off or damaged (PEM)")
			}
			return nil
		}
		blocks--
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

func containsKey(text []byte) bool {
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

// Covers reports whether a browser may accept the certificate for TURN over TLS to host. Otherwise
// such a connection fails silently, so clients are given TURN over TCP instead. An IP address does
// not do, whatever the certificate says: Firefox connects TURN over TLS to names only.
func Covers(cert *tls.Certificate, host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	if cert == nil || cert.Leaf == nil || bytes.Equal(cert.Leaf.RawIssuer, cert.Leaf.RawSubject) {
		return false
	}
	return cert.Leaf.VerifyHostname(host) == nil
}
