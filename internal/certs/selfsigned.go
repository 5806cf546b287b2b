package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	selfSignedFile = "self-signed.pem"
	selfSignedLife = 397 * 24 * time.Hour // browsers refuse longer
)

// SelfSigned returns a certificate for every name and address of this machine, for testing over a
// network: browsers warn. With a directory it is kept there, if write is set, and reused until it
// expires, so that users accept the warning once.
func SelfSigned(dir string, write bool) (*tls.Certificate, error) {
	path := filepath.Join(dir, selfSignedFile)
	if dir != "" {
		cert, err := tls.LoadX509KeyPair(path, path)
		if err == nil && cert.Leaf != nil && time.Until(cert.Leaf.NotAfter) > 0 {
			return &cert, nil
		}
	}
	text, err := generate()
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	if dir != "" && write {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
	}
	return &cert, nil
}

// generate returns a certificate and its private key, PEM.
func generate() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Ieum, self-signed"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(selfSignedLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              []string{"localhost"},
		BasicConstraintsValid: true,
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
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...), nil
}
