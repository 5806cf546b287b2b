package relay

import "github.com/prometheus/client_golang/prometheus"

// collector exposes Stats as metrics.
type collector struct{ s *Server }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descAllocations = desc("ieum_relay_allocations", "Current relay allocations.")
	descCreated     = desc("ieum_relay_allocations_created_total", "Relay allocations created.")
	descBytes       = desc("ieum_relay_bytes_total",
		"Payload relayed: up from clients, down to them.", "direction")
	descPackets = desc("ieum_relay_packets_total",
		"Packets relayed: up from clients, down to them.", "direction")
	descBatched = desc("ieum_relay_batched_packets_total",
		"Packets received with UDP GRO (in) or sent with UDP GSO (out).", "direction")
	descGSOErrors = desc("ieum_relay_gso_errors_total",
		"Batches that the kernel did not send with UDP GSO; their packets were sent individually.")
	descRejections = desc("ieum_relay_rejections_total",
		"Requests rejected and packets dropped by the relay.", "reason")
	descs = []*prometheus.Desc{
		descAllocations, descCreated, descBytes, descPackets, descBatched, descGSOErrors,
		descRejections,
	}
)

// Collector exposes the relay's metrics.
func (s *Server) Collector() prometheus.Collector { return collector{s} }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	st := c.s.Stats()
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	live := float64(st.Allocations)
	ch <- prometheus.MustNewConstMetric(descAllocations, prometheus.GaugeValue, live)
	counter(descCreated, st.Created)
	counter(descBytes, st.ClientToPeer.Bytes, "up")
	counter(descBytes, st.PeerToClient.Bytes, "down")
	counter(descPackets, st.ClientToPeer.Packets, "up")
	counter(descPackets, st.PeerToClient.Packets, "down")
	counter(descBatched, st.GROPackets, "in")
	counter(descBatched, st.GSOPackets, "out")
	counter(descGSOErrors, st.GSOErrors)
	for reason, n := range st.Rejected {
		counter(descRejections, n, reason)
	}
}
