package node

import (
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ieum-rtc/ieum/internal/relay"
)

const (
	// maxRecords bounds what waits to be logged. Beyond it records are counted and not logged: the relay does not wait for a disk.
	maxRecords = 4096
	// maxReasons bounds the values of a label, which are the relay's words.
	maxReasons = 24
)

// accounts takes the record of each allocation that has ended: counts it, and logs it in a goroutine of its own.
type accounts struct {
	log     *slog.Logger
	records chan relay.Record
	quiet   sync.WaitGroup
	closed  sync.Once

	mu      sync.Mutex
	reasons map[string]bool // seen so far

	ended, seconds, bytes *prometheus.CounterVec
	unlogged              prometheus.Counter
}

func newAccounts(log *slog.Logger) *accounts {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	a := &accounts{
		log: log, records: make(chan relay.Record, maxRecords), reasons: map[string]bool{},
		ended:    vec("ieum_relay_ended_total", "Relay allocations that have ended.", "transport", "why"),
		seconds:  vec("ieum_relay_ended_seconds_total", "How long they had lived, together.", "transport"),
		bytes:    vec("ieum_relay_ended_bytes_total", "Payload that they had relayed: up from the client, down to it.", "direction"),
		unlogged: prometheus.NewCounter(prometheus.CounterOpts{Name: "ieum_relay_records_not_logged_total", Help: "Records counted but not logged, since the log was slow."}),
	}
	a.quiet.Go(func() {
		for r := range a.records {
			a.write(r)
		}
	})
	return a
}

func (a *accounts) register(r *prometheus.Registry) error {
	for _, c := range []prometheus.Collector{a.ended, a.seconds, a.bytes, a.unlogged} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// take is relay.Config.Ended. It does not block.
func (a *accounts) take(r relay.Record) {
	transport := r.Transport
	switch transport {
	case "udp", "tcp", "tls":
	default:
		transport = "other"
	}
	a.ended.WithLabelValues(transport, a.reason(r.Reason)).Inc()
	a.seconds.WithLabelValues(transport).Add(max(0, r.Duration.Seconds()))
	a.bytes.WithLabelValues("up").Add(float64(r.Up.Bytes))
	a.bytes.WithLabelValues("down").Add(float64(r.Down.Bytes))
	select {
	case a.records <- r:
	default:
		a.unlogged.Inc()
	}
}

func (a *accounts) reason(why string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.reasons[why] {
		if len(a.reasons) >= maxReasons {
			return "other"
		}
		a.reasons[why] = true
	}
	return why
}

// write says what an allocation was, without an address: its session had a line of its own when it began and ends with another.
func (a *accounts) write(r relay.Record) {
	what := []any{"why", r.Reason, "transport", r.Transport, "seconds", int64(r.Duration.Seconds()),
		"upBytes", r.Up.Bytes, "downBytes", r.Down.Bytes, "upPackets", r.Up.Packets, "downPackets", r.Down.Packets}
	if r.Holder != (relay.Holder{}) { // a relay alone does not know
		what = append(what, "license", r.License, "user", r.User, "room", r.Room)
	}
	var dropped uint64
	for _, n := range r.Dropped {
		dropped += n
	}
	if dropped > 0 {
		what = append(what, "dropped", dropped)
	}
	a.log.Info("relay allocation ended", what...)
}

// close logs what waits. The relay has been closed, or take would have nowhere to put its records.
func (a *accounts) close() {
	a.closed.Do(func() { close(a.records) })
	a.quiet.Wait()
}
