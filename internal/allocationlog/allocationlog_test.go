package allocationlog

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/ieum-rtc/ieum/internal/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestARecordIsCountedAndLogged(t *testing.T) {
	log := &strings.Builder{}
	a := New(slog.New(slog.NewTextHandler(log, nil)))
	a.Add(relay.Record{
		Holder:    relay.Holder{License: "KP-1", User: "kim", Room: "K1"},
		Transport: "tls",
		Duration:  90 * time.Second,
		Up:        relay.Traffic{Packets: 2, Bytes: 30},
		Down:      relay.Traffic{Packets: 4, Bytes: 50},
		Dropped:   map[string]uint64{"own-port": 1, "bandwidth": 2},
		Reason:    "left",
	})
	a.Add(relay.Record{Transport: "udp", Duration: time.Second, Reason: "closed"})
	a.Close()
	for _, want := range []string{
		`msg="relay allocation ended" reason=left transport=tls seconds=90 upBytes=30 ` +
			`downBytes=50 upPackets=2 downPackets=4 license=KP-1 user=kim room=K1 dropped=3`,
		`reason=closed transport=udp seconds=1 upBytes=0 downBytes=0 upPackets=0 ` +
			"downPackets=0\n",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%s\nis not in\n%s", want, log)
		}
	}
	for want, got := range map[float64]float64{
		1:  testutil.ToFloat64(a.ended.WithLabelValues("tls", "left")),
		90: testutil.ToFloat64(a.seconds.WithLabelValues("tls")),
		30: testutil.ToFloat64(a.bytes.WithLabelValues("up")),
		50: testutil.ToFloat64(a.bytes.WithLabelValues("down")),
		0:  testutil.ToFloat64(a.dropped),
	} {
		if got != want {
			t.Errorf("counted %v, want %v", got, want)
		}
	}
}

// stuck is a log that takes nothing until it is let go.
type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) { <-s; return len(p), nil }

func TestASlowLogHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(stuck)
		a := New(slog.New(slog.NewTextHandler(release, nil)))
		a.Add(relay.Record{Transport: "udp"})
		synctest.Wait() // it is being written
		for range maxRecords + 7 {
			a.Add(relay.Record{Transport: "udp"})
		}
		if got := testutil.ToFloat64(a.dropped); got != 7 {
			t.Errorf("%v not logged, want 7", got)
		}
		if got := testutil.ToFloat64(a.ended.WithLabelValues("udp", "")); got != maxRecords+8 {
			t.Errorf("%v counted", got)
		}
		close(release)
		a.Close()
	})
}

func TestLabelsAreBounded(t *testing.T) {
	a := New(slog.New(slog.DiscardHandler))
	for i := range 1000 {
		a.Add(relay.Record{Transport: fmt.Sprint(i), Reason: fmt.Sprint(i)})
	}
	a.Close()
	r := prometheus.NewRegistry()
	r.MustRegister(a.Collector())
	if n, err := testutil.GatherAndCount(r, "ieum_relay_allocations_closed_total"); err != nil ||
		n != maxReasons+1 {
		t.Errorf("%d series, %v", n, err)
	}
}
