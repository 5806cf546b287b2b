package admin

import "github.com/prometheus/client_golang/prometheus"

var limitsHit = prometheus.NewDesc("ieum_limit_rejections_total", "Requests rejected by a limit.", []string{"limit"}, nil)

// Limits shows how often limits were hit, by their names.
func Limits(hits func() map[string]uint64) prometheus.Collector { return limitsCollector(hits) }

type limitsCollector func() map[string]uint64

// Describe implements prometheus.Collector.
func (c limitsCollector) Describe(ch chan<- *prometheus.Desc) { ch <- limitsHit }

// Collect implements prometheus.Collector.
func (c limitsCollector) Collect(ch chan<- prometheus.Metric) {
	for limit, n := range c() {
		ch <- prometheus.MustNewConstMetric(limitsHit, prometheus.CounterValue, float64(n), limit)
	}
}
