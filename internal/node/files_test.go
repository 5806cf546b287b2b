package node

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/config"
)

// The listener of the metrics has the same bounds, with numbers of its own.
func TestConnectionsForMetricsAreBounded(t *testing.T) {
	n := start(t, config.Server{Dev: true, Admin: config.AdminSettings{Listen: "127.0.0.1:0"}})
	var all []net.Conn
	for i := range 2 * adminConnections {
		c, err := net.Dial("tcp", n.AdminAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(failSafe))
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil ||
			res.StatusCode != http.StatusOK {
			t.Fatalf("the %dth: %v", i, err)
		}
		all = append(all, c)
	}
	ended := make(chan error, len(all))
	for _, c := range all {
		go func() {
			_, err := io.Copy(io.Discard, c) // the rest of the answer, and then the end
			ended <- err
		}()
	}
	for i := range adminConnections {
		if err := <-ended; err != nil {
			t.Fatalf("only %d were closed: %v", i, err)
		}
	}
}

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
