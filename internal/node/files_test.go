package node

import (
	"bufio"
	"io"
	"net"
	"net/http"
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
