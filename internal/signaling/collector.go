package signaling

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ieum-rtc/ieum/internal/limit"
)

var (
	sessionsDesc = prometheus.NewDesc(
		"ieum_signaling_sessions",
		"Sessions, connected or disconnected.",
		nil, nil,
	)
	roomsDesc = prometheus.NewDesc(
		"ieum_signaling_rooms",
		"Rooms that this node holds.",
		nil, nil,
	)
	relayedDesc = prometheus.NewDesc(
		"ieum_signaling_relayed_messages_total",
		"Messages passed from one member to another.",
		nil, nil,
	)
	refusedDesc = prometheus.NewDesc(
		"ieum_signaling_refused_total",
		"Refused: spoofed, messages that named another sender; "+
			"flooded, connections closed because they sent too much.",
		[]string{"reason"}, nil,
	)
	messagesDesc = prometheus.NewDesc(
		"ieum_signaling_messages_total",
		"Messages of clients by operation and by the code of the response, sent or not.",
		[]string{"op", "code"}, nil,
	)
	loginsDesc = prometheus.NewDesc(
		"ieum_signaling_logins_refused_total",
		"Logins refused.",
		[]string{"reason"}, nil,
	)
	resumedDesc = prometheus.NewDesc(
		"ieum_signaling_sessions_resumed_total",
		"Sessions resumed by a new connection.",
		nil, nil,
	)
	slowDesc = prometheus.NewDesc(
		"ieum_signaling_slow_consumer_disconnects_total",
		"Connections closed with 1013: their clients read too slowly.",
		nil, nil,
	)
)

// newJoinTimes returns the histogram of successful joins. Most take less than a millisecond.
func newJoinTimes() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "ieum_signaling_join_duration_seconds",
		Help: "From joinRoom to its response; successful joins only.",
		Buckets: []float64{
			0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
			0.01, 0.025, 0.05, 0.1, 0.25, 1, 5,
		},
	})
}

// Collector exports the metrics of signaling, and the rejections of its limits.
func (h *Hub) Collector() prometheus.Collector {
	c := collector{hub: h, more: []prometheus.Collector{h.counters.joins}}
	for name, count := range h.rejections() {
		c.more = append(c.more, limit.Rejections(name, count))
	}
	return c
}

type collector struct {
	hub  *Hub
	more []prometheus.Collector // that collect for themselves
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		sessionsDesc,
		roomsDesc,
		relayedDesc,
		refusedDesc,
		messagesDesc,
		loginsDesc,
		resumedDesc,
		slowDesc,
	} {
		ch <- d
	}
	for _, m := range c.more {
		m.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.hub.Stats()
	gauge := func(d *prometheus.Desc, v int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(sessionsDesc, s.Sessions)
	gauge(roomsDesc, s.Rooms)
	counter(relayedDesc, s.Relayed)
	counter(refusedDesc, s.Spoofed, "spoofed")
	counter(refusedDesc, s.Flooded, "flooded")
	counter(resumedDesc, s.Resumed)
	counter(slowDesc, s.Overflowed)
	for _, m := range s.Handled {
		counter(messagesDesc, m.Count, m.Op, m.Code)
	}
	for reason, n := range s.Refused {
		counter(loginsDesc, n, reason)
	}
	for _, m := range c.more {
		m.Collect(ch)
	}
}
