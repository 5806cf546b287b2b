package node

import (
	"context"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/ieum-rtc/ieum/internal/admin"
	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/transport"
)

const adminConnections = 64 // at a time; monitoring keeps one or two

// startAdmin starts the admin listener, if there is one. Unless its address was configured it may be in use,
// most likely by another server of this machine.
func startAdmin(
	c *admin.Config, configured bool, metrics prometheus.Gatherer, ready func(context.Context) error,
) (*admin.Server, error) {
	if c == nil {
		return nil, nil
	}
	cfg := *c
	cfg.Metrics, cfg.Ready = metrics, ready
	cfg.Watch = transport.NewHTTPConns(transport.HTTPLimits{
		Connections:    adminConnections,
		PerAddress:     32,
		IdlePerAddress: 16,
	}).Watch
	s, err := admin.Start(cfg)
	if err != nil && !configured {
		c.Log.Warn("metrics are not served", "listen", c.Listen, "error", err)
		return nil, nil
	}
	return s, config.ListenError("--admin-listen", err)
}

// newRegistry registers the collectors, and those of the process.
func newRegistry(version string, more ...prometheus.Collector) (*prometheus.Registry, error) {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "ieum_build_info",
		Help:        "1, with the version.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	all := append([]prometheus.Collector{
		build,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}, more...)
	for _, c := range all {
		if err := r.Register(c); err != nil {
			return nil, wrap("metrics", err)
		}
	}
	return r, nil
}

// ports shows what came through the switches of TCP ports.
type portCollector map[string]*transport.Mux // by what is served there: "all" or "relay"

var (
	portDeciding = prometheus.NewDesc("ieum_port_pending_connections", "Accepted connections whose protocol is not yet detected.", []string{"port"}, nil)
	portTaken    = prometheus.NewDesc("ieum_port_connections_total",
		"Accepted connections by result: http, turn, failed, slow (detection timed out) or shed (too many).",
		[]string{"port", "result"}, nil)
)

// Describe implements prometheus.Collector.
func (c portCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- portDeciding
	ch <- portTaken
}

// Collect implements prometheus.Collector.
func (c portCollector) Collect(ch chan<- prometheus.Metric) {
	for port, mux := range c {
		s := mux.Stats()
		ch <- prometheus.MustNewConstMetric(portDeciding, prometheus.GaugeValue, float64(s.Pending), port)
		for as, n := range map[string]uint64{"http": s.HTTP, "turn": s.TURN, "failed": s.Failed, "slow": s.TimedOut, "shed": s.Shed} {
			ch <- prometheus.MustNewConstMetric(portTaken, prometheus.CounterValue, float64(n), port, as)
		}
	}
}

// httpCollector shows the connections of the HTTP servers of all ports.
type httpCollector struct{ conns *transport.HTTPConns }

var httpConnections = prometheus.NewDesc("ieum_http_connections",
	"Open HTTP connections: active with a request, or idle. WebSockets are none.", []string{"state"}, nil)

// Describe implements prometheus.Collector.
func (c httpCollector) Describe(ch chan<- *prometheus.Desc) { ch <- httpConnections }

// Collect implements prometheus.Collector.
func (c httpCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.conns.Stats()
	ch <- prometheus.MustNewConstMetric(httpConnections, prometheus.GaugeValue, float64(s.Active), "active")
	ch <- prometheus.MustNewConstMetric(httpConnections, prometheus.GaugeValue, float64(s.Idle), "idle")
}
