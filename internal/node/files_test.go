package node

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The listener of the metrics has the same bounds, with numbers of its own.
func TestConnectionsForMetricsAreBounded(t *testing.T) {
	n := start(t, Config{Dev: true, Admin: AdminSettings{Listen: "127.0.0.1:0"}})
	var all []net.Conn
	for i := range 2 * adminConnections {
		c, err := net.Dial("tcp", n.AdminAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(failSafe))
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != http.StatusOK {
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

// Whatever the limit of descriptors is, the shares fit into it, none is nothing, and none is more than the default.
func TestSharesOfDescriptors(t *testing.T) {
	for limit := 16; limit < 300_000; limit += 1 + limit/50 {
		for _, signaling := range []bool{true, false} {
			f := shareFiles(limit, signaling)
			used := f.deciding + f.http + f.connections + f.connections/8 + f.allocations + f.streams
			if used > limit-limit/16 {
				t.Errorf("%d descriptors: %+v are %d", limit, f, used)
			}
			if f.deciding < 1 || f.http < 1 || f.allocations < 1 || f.streams < 1 || (f.connections < 1) == signaling {
				t.Errorf("%d descriptors: %+v", limit, f)
			}
		}
	}
	if f := shareFiles(0, true); f != (files{}) {
		t.Errorf("without a limit: %+v", f)
	}
	for _, c := range []struct{ n, byDefault, share, want int }{
		{0, 50, 0, 0}, {0, 50, 100, 0}, {0, 50, 40, 40}, {-1, 50, 40, 40}, {-1, 50, 0, -1}, {30, 50, 40, 30}, {45, 50, 40, 40}, {45, 50, 0, 45},
	} {
		if got := atMost(c.n, c.byDefault, c.share); got != c.want {
			t.Errorf("%d of %d, share %d: %d, want %d", c.n, c.byDefault, c.share, got, c.want)
		}
	}
}

// A process that may open fewer files than its connections need is told so, with what it may do.
func TestTooFewOpenFilesAreWarnedOf(t *testing.T) {
	for _, c := range []struct {
		asked   *int
		granted int
		dev     bool
		want    bool
	}{
		{nil, 0, false, false}, // there is no limit
		{nil, defaultConnections, false, false},
		{nil, defaultConnections - 1, false, true},
		{nil, 100, true, false}, // for trying it is enough
		{new(100), 100, false, false},
		{new(101), 100, false, true},
		{new(-1), 100, false, true},
		{new(-1), 0, false, false},
	} {
		p := &plan{Config: Config{Dev: c.dev, Limits: LimitSettings{Connections: c.asked}}, files: files{connections: c.granted}}
		err := p.tooFewFiles()
		if (err != nil) != c.want {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil {
			continue
		}
		for _, part := range []string{"--max-connections: ", fmt.Sprintf("do for %d connections", c.granted), "ulimit -n", "LimitNOFILE="} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q is not said in %v", part, err)
			}
		}
		if found := Faults(p.warnings()); !slices.ContainsFunc(found, func(f error) bool { return f.Error() == err.Error() }) {
			t.Errorf("not among the warnings %v", found)
		}
	}
}

// Operators alert on the end of the certificate that clients are shown.
func TestTheEndOfTheCertificateIsAMetric(t *testing.T) {
	r := startReloadable(t)
	conn, err := tls.Dial("tcp", r.Addr().String(), &tls.Config{RootCAs: r.roots, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const name = "ieum_tls_certificate_not_after_timestamp_seconds "
	_, text := get(t, r.metrics)
	_, rest, found := strings.Cut(text, "\n"+name)
	value, _, _ := strings.Cut(rest, "\n")
	got, err := strconv.ParseFloat(value, 64)
	if want := conn.ConnectionState().PeerCertificates[0].NotAfter.Unix(); !found || err != nil || int64(got) != want {
		t.Errorf("%q, %v, want %d", value, err, want)
	}
}
