package signaling

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ieum-rtc/ieum/internal/protocol"
)

// compare wants a collector to export, of the metrics named, exactly what text says.
func compare(t *testing.T, c prometheus.Collector, names, text string) {
	t.Helper()
	reader := strings.NewReader(text)
	if err := testutil.CollectAndCompare(c, reader, strings.Fields(names)...); err != nil {
		t.Error(err)
	}
}

// joinTimes is the histogram of joins: the sum in seconds, the number, and the joins within the
// first bounds. The last of them holds for the other bounds, too.
func joinTimes(sum float64, count int, within ...int) string {
	const name = "ieum_signaling_join_duration_seconds"
	var b strings.Builder
	fmt.Fprintf(&b, "# HELP %s From joinRoom to its response; successful joins only.\n", name)
	fmt.Fprintf(&b, "# TYPE %s histogram\n", name)
	for i, bound := range strings.Fields(
		"0.0001 0.00025 0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 1 5",
	) {
		fmt.Fprintf(&b, "%s_bucket{le=%q} %d\n", name, bound, within[min(i, len(within)-1)])
	}
	fmt.Fprintf(&b, "%s_bucket{le=\"+Inf\"} %d\n", name, count)
	fmt.Fprintf(&b, "%s_sum %v\n%s_count %d\n", name, sum, name, count)
	return b.String()
}

func TestMetricsOfSignaling(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		hub := w.nodes[0].hub
		w.room("R", w.user(0, "kim"), w.user(0, "lee"))
		c := &hub.counters
		c.relayed.Store(9)
		c.spoofed.Store(4)
		c.flooded.Store(5)
		c.overflowed.Store(6)
		c.resumed.Store(7)
		for range 8 {
			c.answer([]byte("chat"), protocol.Missing)
		}
		for range 10 {
			c.login(ErrLicenseFull)
		}
		registry := prometheus.NewRegistry()
		registry.MustRegister(hub.Collector())
		all, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, family := range all {
			for _, m := range family.GetMetric() {
				name := family.GetName()
				for _, l := range m.GetLabel() {
					name += " " + l.GetName() + "=" + l.GetValue()
				}
				got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() +
					float64(m.GetHistogram().GetSampleCount())
			}
		}
		for name, want := range map[string]float64{
			"ieum_signaling_sessions":                                2,
			"ieum_signaling_rooms":                                   1,
			"ieum_signaling_relayed_messages_total":                  9,
			"ieum_signaling_refused_total reason=spoofed":            4,
			"ieum_signaling_refused_total reason=flooded":            5,
			"ieum_signaling_slow_consumer_disconnects_total":         6,
			"ieum_signaling_sessions_resumed_total":                  7,
			"ieum_signaling_messages_total code=421 op=chat":         8,
			"ieum_signaling_logins_refused_total reason=full":        10,
			"ieum_signaling_join_duration_seconds":                   2,
			"ieum_limit_rejections_total limit=outbox":               6,
			"ieum_limit_rejections_total limit=message_flood":        5,
			"ieum_limit_rejections_total limit=sessions_per_address": 0,
			"ieum_limit_rejections_total limit=failed_joins":         0,
		} {
			if have, ok := got[name]; !ok || have != want {
				t.Errorf("%s is %v (%v), want %v", name, have, ok, want)
			}
		}
	})
}
