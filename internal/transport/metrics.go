package transport

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ieum-rtc/ieum/internal/limit"
)

// collectors are exported together.
type collectors []prometheus.Collector

// Describe implements prometheus.Collector.
func (all collectors) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range all {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (all collectors) Collect(ch chan<- prometheus.Metric) {
	for _, c := range all {
		c.Collect(ch)
	}
}

// Collector exports the number of open connections, and how many were rejected.
func (l *ConnLimiter) Collector() prometheus.Collector {
	return collectors{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ieum_signaling_connections",
			Help: "Open signaling connections of all transports.",
		}, func() float64 { return float64(l.Open()) }),
		limit.Rejections("connections", l.rejected.connections.Load),
		limit.Rejections("unregistered", l.rejected.unregistered.Load),
		limit.Rejections("closed", l.rejected.closed.Load),
	}
}

// Collector exports the queued bytes, and how many connections were closed because of them.
func (b *Backlog) Collector() prometheus.Collector {
	return collectors{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ieum_signaling_queued_bytes",
			Help: "Bytes sent to clients and not yet acknowledged, or waiting for them.",
		}, func() float64 { return float64(b.bytes.Load()) }),
		limit.Rejections("queued_bytes", b.shed.Load),
	}
}

// Collector exports the number of panics.
func (p *Panics) Collector() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "ieum_signaling_panics_total",
		Help: "Message handlers that panicked; each closed its connection and session.",
	}, func() float64 { return float64(p.Count()) })
}

// Collector exports the number of open connections, how many were evicted or not accepted, and the
// rejected requests.
func (h *HTTPConns) Collector() prometheus.Collector {
	return collectors{
		httpCollector{h},
		limit.Rejections("http_connections", h.shed.Load),
		limit.Rejections("http_requests", h.requests.rejected.Load),
	}
}

type httpCollector struct{ conns *HTTPConns }

var httpConnections = prometheus.NewDesc(
	"ieum_http_connections",
	"Open HTTP connections: active with a request, or idle. WebSockets are not counted.",
	[]string{"state"}, nil,
)

// Describe implements prometheus.Collector.
func (c httpCollector) Describe(ch chan<- *prometheus.Desc) { ch <- httpConnections }

// Collect implements prometheus.Collector.
func (c httpCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.conns.Stats()
	for state, n := range map[string]int{"active": s.Active, "idle": s.Idle} {
		ch <- prometheus.MustNewConstMetric(
			httpConnections, prometheus.GaugeValue, float64(n), state,
		)
	}
}

// muxCollector exports the connections that a mux has accepted.
type muxCollector struct {
	mux            *Mux
	pending, total *prometheus.Desc
}

// Collector exports the connections of the mux, with the name of its port as a label.
func (m *Mux) Collector(port string) prometheus.Collector {
	labels := prometheus.Labels{"port": port}
	return muxCollector{
		mux: m,
		pending: prometheus.NewDesc(
			"ieum_port_pending_connections",
			"Accepted connections whose protocol is not yet detected.",
			nil, labels,
		),
		total: prometheus.NewDesc(
			"ieum_port_connections_total",
			"Accepted connections by result: http, turn, failed, slow (detection timed out) "+
				"or shed (too many).",
			[]string{"result"}, labels,
		),
	}
}

// Describe implements prometheus.Collector.
func (c muxCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.pending
	ch <- c.total
}

// Collect implements prometheus.Collector.
func (c muxCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.mux.Stats()
	ch <- prometheus.MustNewConstMetric(c.pending, prometheus.GaugeValue, float64(s.Pending))
	for result, n := range map[string]uint64{
		"http":   s.HTTP,
		"turn":   s.TURN,
		"failed": s.Failed,
		"slow":   s.TimedOut,
		"shed":   s.Shed,
	} {
		ch <- prometheus.MustNewConstMetric(
			c.total, prometheus.CounterValue, float64(n), result,
		)
	}
}
