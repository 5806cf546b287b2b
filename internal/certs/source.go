package certs

import (
	"crypto/tls"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Source holds the certificate in force. Set replaces it for new handshakes; open connections are
// not affected. A nil Source is a server without TLS.
type Source struct {
	current atomic.Pointer[tls.Certificate]
}

// NewSource returns nil for a nil certificate.
func NewSource(cert *tls.Certificate) *Source {
	if cert == nil {
		return nil
	}
	s := &Source{}
	s.current.Store(cert)
	return s
}

// Get returns the certificate in force; nil without TLS.
func (s *Source) Get() *tls.Certificate {
	if s == nil {
		return nil
	}
	return s.current.Load()
}

// Set replaces the certificate. It does nothing without TLS, or if cert is nil.
func (s *Source) Set(cert *tls.Certificate) {
	if s != nil && cert != nil {
		s.current.Store(cert)
	}
}

// NotAfter is when the certificate in force expires, for the log: RFC 3339, or "none".
func (s *Source) NotAfter() string {
	if c := s.Get(); c != nil && c.Leaf != nil {
		return c.Leaf.NotAfter.UTC().Format(time.RFC3339)
	}
	return "none"
}

// Collector exports when the certificate in force expires. Without TLS it exports nothing.
func (s *Source) Collector() prometheus.Collector { return collector{s} }

type collector struct{ source *Source }

var notAfter = prometheus.NewDesc("ieum_tls_certificate_not_after_timestamp_seconds",
	"Expiry of the certificate in force, in seconds since 1970.", nil, nil)

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { ch <- notAfter }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	if cert := c.source.Get(); cert != nil && cert.Leaf != nil {
		at := float64(cert.Leaf.NotAfter.Unix())
		ch <- prometheus.MustNewConstMetric(notAfter, prometheus.GaugeValue, at)
	}
}

// TLSConfig serves the certificate in force by TLS 1.3, and by TLS 1.2 with AEAD cipher suites.
func (s *Source) TLSConfig() *tls.Config {
	return &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.Get(), nil
		},
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
}
