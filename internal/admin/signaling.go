package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ieum-rtc/ieum/internal/signaling"
)

var (
	sessions = prometheus.NewDesc("ieum_signaling_sessions", "Sessions, live and waiting for their connection.", nil, nil)
	rooms    = prometheus.NewDesc("ieum_signaling_rooms", "Rooms that this node holds.", nil, nil)
	relayed  = prometheus.NewDesc("ieum_signaling_relayed_messages_total", "Messages passed from one member to another.", nil, nil)
	refused  = prometheus.NewDesc("ieum_signaling_refused_total",
		"What was refused: spoofed, messages that named another sender; flooded, connections closed because they sent too much.",
		[]string{"reason"}, nil)
	handled    = prometheus.NewDesc("ieum_signaling_messages_total", "Messages of clients by what their answer said, or would have.", []string{"op", "code"}, nil)
	logins     = prometheus.NewDesc("ieum_signaling_logins_refused_total", "Registers that were refused.", []string{"reason"}, nil)
	resumed    = prometheus.NewDesc("ieum_signaling_sessions_resumed_total", "Sessions that got another connection.", nil, nil)
	overflowed = prometheus.NewDesc("ieum_signaling_slow_consumer_disconnects_total", "Connections closed with 1013: their clients read too slowly.", nil, nil)
	joinTime   = prometheus.NewDesc("ieum_signaling_join_duration_seconds", "From a joinRoom to its answer, of those that joined.", nil, nil)
)

// Signaling shows the figures of a node's signaling.
func Signaling(stats func() signaling.Stats) prometheus.Collector { return signalingCollector(stats) }

type signalingCollector func() signaling.Stats

// Describe implements prometheus.Collector.
func (c signalingCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sessions, rooms, relayed, refused, handled, logins, resumed, overflowed, joinTime} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c signalingCollector) Collect(ch chan<- prometheus.Metric) {
	s := c()
	gauge := func(d *prometheus.Desc, v int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(sessions, s.Sessions)
	gauge(rooms, s.Rooms)
	counter(relayed, s.Relayed)
	counter(refused, s.Spoofed, "spoofed")
	counter(refused, s.Flooded, "flooded")
	counter(resumed, s.Resumed)
	counter(overflowed, s.Overflowed)
	for _, m := range s.Handled {
		counter(handled, m.Count, m.Op, m.Code)
	}
	for reason, n := range s.Refused {
		counter(logins, n, reason)
	}
	within := make(map[float64]uint64, len(s.Joins.Within))
	for d, n := range s.Joins.Within {
		within[d.Seconds()] = n
	}
	ch <- prometheus.MustNewConstHistogram(joinTime, s.Joins.Count, s.Joins.Sum.Seconds(), within)
}
