package cluster

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ieum-rtc/ieum/internal/cluster/raftlog"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// stats counts what Watch tells.
type stats struct {
	mu    sync.Mutex
	moves map[engine.NodeState]uint64
}

func newStats() *stats { return &stats{moves: map[engine.NodeState]uint64{}} }

func (s *stats) learn(n engine.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moves[n.State]++
}

var (
	descNodes = prometheus.NewDesc("ieum_cluster_nodes",
		"Nodes that this one knows, by state.", []string{"state"}, nil)
	descChanges = prometheus.NewDesc("ieum_cluster_node_changes_total",
		"Changes of the state of any node, by the new state.", []string{"state"}, nil)
	descQuorum = prometheus.NewDesc("ieum_cluster_quorum",
		"1 while this node can have claims decided.", nil, nil)
	descHeld = prometheus.NewDesc("ieum_cluster_held",
		"User ids and rooms that any node holds.", []string{"kind"}, nil)
	descTerm = prometheus.NewDesc("ieum_cluster_raft_term",
		"Term of raft; it grows with every election.", nil, nil)
	descVoters = prometheus.NewDesc("ieum_cluster_raft_voters",
		"Nodes whose majority decides.", nil, nil)
	descLeader = prometheus.NewDesc("ieum_cluster_raft_leader",
		"1 while this node leads.", nil, nil)
	descLeaders = prometheus.NewDesc("ieum_cluster_raft_leader_changes_total",
		"Changes of the leader that this node has seen.", nil, nil)
	descFrames = prometheus.NewDesc("ieum_cluster_bus_frames_total",
		"Frames to and from other nodes.", []string{"direction"}, nil)
	descGaps = prometheus.NewDesc("ieum_cluster_bus_gaps_total",
		"Losses on the way from other nodes; after each, shared rooms are compared.", nil, nil)
	descRefused = prometheus.NewDesc("ieum_cluster_bus_refused_total",
		"Frames that were malformed, or of a dead node.", nil, nil)
	descOverflows = prometheus.NewDesc("ieum_cluster_bus_overflows_total",
		"Messages that were dropped because too much waited to be sent to a node.", nil, nil)
	descQueued = prometheus.NewDesc("ieum_cluster_bus_queued_bytes",
		"Bytes that wait to be sent to other nodes.", nil, nil)
)

// Describe implements prometheus.Collector.
func (n *Cluster) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(n, ch) }

// Collect implements prometheus.Collector.
func (n *Cluster) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	nodes := map[engine.NodeState]int{}
	for _, c := range n.machine.Nodes() {
		nodes[c.State]++
	}
	n.stats.mu.Lock()
	for _, state := range []engine.NodeState{engine.Up, engine.Draining, engine.Dead} {
		gauge(descNodes, float64(nodes[state]), state.String())
		counter(descChanges, n.stats.moves[state], state.String())
	}
	n.stats.mu.Unlock()
	held := n.machine.Counts()
	gauge(descHeld, float64(held.Users), "user")
	gauge(descHeld, float64(held.Rooms), "room")
	gauge(descQuorum, truth(n.directory.Quorum() == nil))
	if l, ok := n.log.(*raftlog.Log); ok {
		s := l.Stats()
		gauge(descTerm, float64(s.Term))
		gauge(descVoters, float64(s.Voters))
		gauge(descLeader, truth(s.Leader))
		counter(descLeaders, s.Leaders)
	}
	s := n.bus.Stats()
	counter(descFrames, s.Sent, "out")
	counter(descFrames, s.Received, "in")
	counter(descGaps, s.Gaps)
	counter(descRefused, s.Refused)
	counter(descOverflows, s.Overflows)
	gauge(descQueued, float64(s.Queued))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
