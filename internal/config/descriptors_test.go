package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// Whatever the limit of descriptors is, the shares fit into it, none is nothing, and none is more
// than the default.
func TestSharesOfDescriptors(t *testing.T) {
	for limit := 16; limit < 300_000; limit += 1 + limit/50 {
		for _, signaling := range []bool{true, false} {
			f := shareDescriptors(limit, signaling)
			used := f.Pending + f.HTTP + f.Connections + f.Connections/8 + f.Allocations + f.Streams
			if used > limit-limit/16 {
				t.Errorf("%d descriptors: %+v are %d", limit, f, used)
			}
			if f.Pending < 1 || f.HTTP < 1 || f.Allocations < 1 || f.Streams < 1 ||
				(f.Connections < 1) == signaling {
				t.Errorf("%d descriptors: %+v", limit, f)
			}
		}
	}
	if f := shareDescriptors(0, true); f != (Descriptors{}) {
		t.Errorf("without a limit: %+v", f)
	}
	for _, c := range []struct{ n, byDefault, share, want int }{
		{0, 50, 0, 0}, {0, 50, 100, 0}, {0, 50, 40, 40}, {-1, 50, 40, 40},
		{-1, 50, 0, -1}, {30, 50, 40, 30}, {45, 50, 40, 40}, {45, 50, 0, 45},
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
		{nil, transport.DefaultConnections, false, false},
		{nil, transport.DefaultConnections - 1, false, true},
		{nil, 100, true, false}, // for development it is enough
		{new(100), 100, false, false},
		{new(101), 100, false, true},
		{new(-1), 100, false, true},
		{new(-1), 0, false, false},
	} {
		p := &ServerPlan{
			Config:      Server{Dev: c.dev, Limits: LimitSettings{Connections: c.asked}},
			Descriptors: Descriptors{Connections: c.granted},
		}
		err := p.fewDescriptors()
		if (err != nil) != c.want {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil {
			continue
		}
		for _, part := range []string{
			"--max-connections: ",
			fmt.Sprintf("enough for %d connections", c.granted),
			"ulimit -n",
			"LimitNOFILE=",
		} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q is not said in %v", part, err)
			}
		}
		if found := Errors(p.Warnings()); !slices.ContainsFunc(
			found, func(f error) bool { return f.Error() == err.Error() },
		) {
			t.Errorf("not among the warnings %v", found)
		}
	}
}
