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

// startAdmin starts the admin listener, if there is one. Unless its address was configured it may
// be in use, most likely by another server of this machine.
func startAdmin(
	c *admin.Config, configured bool, metrics prometheus.Gatherer,
	ready func(context.Context) error,
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
