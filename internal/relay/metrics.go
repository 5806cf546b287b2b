package relay

import "github.com/prometheus/client_golang/prometheus"

// collector shows Stats as metrics.
type collector struct{ s *Server }

var (
	descAllocations = prometheus.NewDesc("ieum_relay_allocations", "Relay allocations now.", nil, nil)
	descCreated     = prometheus.NewDesc("ieum_relay_allocations_total", "Relay allocations made.", nil, nil)
	descBytes       = prometheus.NewDesc("ieum_relay_bytes_total", "Relayed payload.", []string{"direction"}, nil)
	descPackets     = prometheus.NewDesc("ieum_relay_packets_total", "Relayed packets.", []string{"direction"}, nil)
	descBatched     = prometheus.NewDesc("ieum_relay_batched_packets_total", "Packets received or sent several at a time as one (UDP_GRO, UDP_SEGMENT).", []string{"direction"}, nil)
	descGSOErrors   = prometheus.NewDesc("ieum_relay_segment_faults_total", "Times that the system refused to send several packets as one; after the first they go one by one.", nil, nil)
	descRejections  = prometheus.NewDesc("ieum_relay_refused_total", "What the relay refused or dropped.", []string{"reason"}, nil)
)

// Collector shows the relay's figures.
func (s *Server) Collector() prometheus.Collector { return collector{s} }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descAllocations, descCreated, descBytes, descPackets, descBatched, descGSOErrors, descRejections} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	st := c.s.Stats()
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	ch <- prometheus.MustNewConstMetric(descAllocations, prometheus.GaugeValue, float64(st.Allocations))
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
