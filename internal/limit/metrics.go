package limit

import "github.com/prometheus/client_golang/prometheus"

// Rejections exports the requests that a limit has rejected since the start. Each package exports
// those of its own limits. docs/operating/secure.md lists their names.
func Rejections(name string, count func() uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name:        "ieum_limit_rejections_total",
		Help:        "Requests rejected by a limit.",
		ConstLabels: prometheus.Labels{"limit": name},
	}, func() float64 { return float64(count()) })
}
