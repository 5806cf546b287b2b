package relay

import "github.com/prometheus/client_golang/prometheus"

// collector shows Stats as metrics.
type collector struct{ s *Server }

var (
	descLive      = prometheus.NewDesc("ieum_relay_allocations", "Relay allocations now.", nil, nil)
	descAllocated = prometheus.NewDesc("ieum_relay_allocations_total", "Relay allocations made.", nil, nil)
	descBytes     = prometheus.NewDesc("ieum_relay_bytes_total", "Relayed payload.", []string{"direction"}, nil)
	descPackets   = prometheus.NewDesc("ieum_relay_packets_total", "Relayed packets.", []string{"direction"}, nil)
	descMerged    = prometheus.NewDesc("ieum_relay_batched_packets_total", "Packets received or sent several at a time as one (UDP_GRO, UDP_SEGMENT).", []string{"direction"}, nil)
	descFaults    = prometheus.NewDesc("ieum_relay_segment_faults_total", "Times that the system refused to send several packets as one; after the first they go one by one.", nil, nil)
	descRefused   = prometheus.NewDesc("ieum_relay_refused_total", "What the relay refused or dropped.", []string{"reason"}, nil)
)

// Collector shows the relay's figures.
func (s *Server) Collector() prometheus.Collector { return collector{s} }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descLive, descAllocated, descBytes, descPackets, descMerged, descFaults, descRefused} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	st := c.s.Stats()
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	ch <- prometheus.MustNewConstMetric(descLive, prometheus.GaugeValue, float64(st.Allocations))
	counter(descAllocated, st.Created)
	counter(descBytes, st.ClientToPeer.Bytes, "up")
	counter(descBytes, st.PeerToClient.Bytes, "down")
	counter(descPackets, st.ClientToPeer.Packets, "up")
	counter(descPackets, st.PeerToClient.Packets, "down")
	counter(descMerged, st.GROPackets, "in")
	counter(descMerged, st.GSOPackets, "out")
	counter(descFaults, st.GSOErrors)
	for reason, n := range st.Rejected {
		counter(descRefused, n, reason)
	}
}
