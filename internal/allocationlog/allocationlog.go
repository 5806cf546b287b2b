// Package allocationlog counts and logs the relay allocations that have ended.
package allocationlog

import (
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ieum-rtc/ieum/internal/relay"
)

const (
	// maxRecords bounds the records that wait to be logged. Beyond it records are counted but not
	// logged: the relay does not wait for a disk.
	maxRecords = 4096
	// maxReasons bounds the values of a label, which the relay chooses.
	maxReasons = 24
)

// Log logs in a goroutine of its own.
type Log struct {
	// Static after New.
	log     *slog.Logger
	records chan relay.Record
	metrics

	closing sync.Once
	wg      sync.WaitGroup

	mu      sync.Mutex
	reasons map[string]bool // Guarded by mu. Values of the label so far.
}

type metrics struct {
	ended, seconds, bytes *prometheus.CounterVec
	dropped               prometheus.Counter
}

// New starts the goroutine that logs, until Close.
func New(log *slog.Logger) *Log {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	l := &Log{
		log:     log,
		records: make(chan relay.Record, maxRecords),
		reasons: map[string]bool{},
		metrics: metrics{
			ended: vec("ieum_relay_allocations_closed_total",
				"Closed relay allocations.", "transport", "reason"),
			seconds: vec("ieum_relay_closed_allocation_seconds_total",
				"Sum of lifetimes of closed allocations, in seconds.", "transport"),
			bytes: vec(
				"ieum_relay_closed_allocation_bytes_total",
				"Payload relayed by closed allocations: up from the client, down to it.",
				"direction",
			),
			dropped: prometheus.NewCounter(prometheus.CounterOpts{
				Name: "ieum_relay_allocation_logs_dropped_total",
				Help: "Closed allocations counted but not logged, because the log was too slow.",
			}),
		},
	}
	l.wg.Go(func() {
		for r := range l.records {
			l.write(r)
		}
	})
	return l
}

// Collector exports the number, lifetimes and traffic of closed allocations.
func (l *Log) Collector() prometheus.Collector { return &l.metrics }

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.ended, m.seconds, m.bytes, m.dropped}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}

// Add is called by the relay for each closed allocation. It does not block.
func (l *Log) Add(r relay.Record) {
	transport := r.Transport
	switch transport {
	case "udp", "tcp", "tls":
	default:
		transport = "other"
	}
	l.ended.WithLabelValues(transport, l.reason(r.Reason)).Inc()
	l.seconds.WithLabelValues(transport).Add(max(0, r.Duration.Seconds()))
	l.bytes.WithLabelValues("up").Add(float64(r.Up.Bytes))
	l.bytes.WithLabelValues("down").Add(float64(r.Down.Bytes))
	select {
	case l.records <- r:
	default:
		l.dropped.Inc()
	}
}

// reason returns the value of the label for a reason: "other" once there are too many.
func (l *Log) reason(reason string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.reasons[reason] {
		if len(l.reasons) >= maxReasons {
			return "other"
		}
		l.reasons[reason] = true
	}
	return reason
}

// write logs no address: the session has log lines of its own, with which this can be correlated.
func (l *Log) write(r relay.Record) {
	attrs := []any{
		"reason", r.Reason,
		"transport", r.Transport,
		"seconds", int64(r.Duration.Seconds()),
		"upBytes", r.Up.Bytes,
		"downBytes", r.Down.Bytes,
		"upPackets", r.Up.Packets,
		"downPackets", r.Down.Packets,
	}
	if r.Holder != (relay.Holder{}) { // not known to a standalone relay
		attrs = append(attrs, "license", r.License, "user", r.User, "room", r.Room)
	}
	var dropped uint64
	for _, n := range r.Dropped {
		dropped += n
	}
	if dropped > 0 {
		attrs = append(attrs, "dropped", dropped)
	}
	l.log.Info("relay allocation ended", attrs...)
}

// Close logs the remaining records. The relay must be closed before: Add must not be called any
// more.
func (l *Log) Close() {
	l.closing.Do(func() { close(l.records) })
	l.wg.Wait()
}
