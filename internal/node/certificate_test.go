package node

import (
	"crypto/tls"
	"strconv"
	"strings"
	"testing"
)

// Operators alert on the end of the certificate that clients are shown.
func TestTheEndOfTheCertificateIsAMetric(t *testing.T) {
	r := startReloadable(t)
	conn, err := tls.Dial(
		"tcp", r.Addr().String(), &tls.Config{RootCAs: r.roots, ServerName: "localhost"},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const name = "ieum_tls_certificate_not_after_timestamp_seconds "
	_, text := get(t, r.metrics)
	_, rest, found := strings.Cut(text, "\n"+name)
	value, _, _ := strings.Cut(rest, "\n")
	got, err := strconv.ParseFloat(value, 64)
	if want := conn.ConnectionState().PeerCertificates[0].NotAfter.Unix(); !found || err != nil ||
		int64(got) != want {
		t.Errorf("%q, %v, want %d", value, err, want)
	}
}
