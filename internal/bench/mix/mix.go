package mix

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/adversary"
	"github.com/ieum-rtc/ieum/internal/bench/client"
	"github.com/ieum-rtc/ieum/internal/bench/proc"
	"github.com/ieum-rtc/ieum/internal/bench/report"
	"github.com/ieum-rtc/ieum/internal/bench/schedule"
)

// mixer is the load of one Run.
type mixer struct {
	// Static after construction.
	cfg    Config
	url    *url.URL
	dialer *client.Dialer
	epoch  time.Time
	server proc.PID
	bodies [operations][]byte // what messages carry, the same in all of an operation
	rooms  []*room
	pacer  *schedule.Pacer

	readers sync.WaitGroup // one per open connection
	closing atomic.Bool    // we end the connections: their end is no failure
	changes sync.WaitGroup // users that join, leave or reconnect
	slots   chan struct{}  // a semaphore for them
	outside chan *user     // users that left their room, oldest first; at most one per room

	latencies atomic.Pointer[latencies]
	delivered atomic.Int64
	joins     atomic.Int64
	failures  failures

	report Report // owned by Run
}

// latencies of each operation.
type latencies [operations]report.Histogram

func (l *latencies) byName() map[string]report.Latency {
	all := map[string]report.Latency{}
	for op := range l {
		if h := &l[op]; h.Count() > 0 {
			all[operationNames[op]] = h.Latency()
		}
	}
	return all
}

// Run makes the load and measures it. An error means that the load could not be made; the report
// says what failed under load. Run returns when all its connections have ended.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if err := cfg.Validate(); err != nil {
		return Report{}, err
	}
	cfg.setDefaults()
	m := newMixer(cfg)
	defer m.close()
	err := m.measure(ctx)
	m.report.Failures = m.failures.snapshot()
	return m.report, err
}

func newMixer(cfg Config) *mixer {
	m := &mixer{
		cfg:    cfg,
		epoch:  time.Now(),
		server: proc.PID(cfg.PID),
		bodies: bodies(cfg.Size),
		slots:  make(chan struct{}, maxChanges),
	}
	m.url, m.dialer = cfg.Endpoint()
	m.pacer = schedule.NewPacer(m.now, cfg.Stall)
	m.latencies.Store(new(latencies))
	id := client.RunID()
	for i, n := range roomSizesFor(cfg.Conns) {
		r := &room{mix: m, id: fmt.Sprintf("%s-%d", id, i)}
		for j := range n {
			r.users = append(r.users, &user{room: r, index: j, sdk: (i+j)%2 == 0})
		}
		m.rooms = append(m.rooms, r)
	}
	m.outside = make(chan *user, len(m.rooms))
	m.report = Report{
		Conns:   cfg.Conns,
		Rooms:   len(m.rooms),
		Rate:    cfg.Rate,
		Joins:   cfg.Joins,
		Seconds: cfg.Duration.Seconds(),
	}
	return m
}

func (m *mixer) now() time.Duration { return m.at(time.Now()) }

func (m *mixer) at(t time.Time) time.Duration { return t.Sub(m.epoch) }

func (m *mixer) took(op operation, due, now time.Duration) {
	m.latencies.Load()[op].Add(int64(now - due))
}

// ended is called when a connection ended that this side did not end.
func (m *mixer) ended(u *user, err error) {
	if !m.closing.Load() {
		err = fmt.Errorf("the connection of %s ended: %w", u.id, client.CloseError(err))
		m.failures.count(&m.failures.Closed, err)
	}
}

func (m *mixer) measure(ctx context.Context) error {
	if err := m.connect(ctx); err != nil {
		return err
	}
	cpu, err := m.server.CPU()
	if err != nil {
		return err
	}
	third := m.cfg.Duration / 3
	if err := m.play(ctx, third); err != nil {
		return err
	}
	if m.report.Before, err = m.footprint(ctx); err != nil {
		return err
	}
	if err := m.play(ctx, m.cfg.Duration-third); err != nil {
		return err
	}
	after, err := m.server.CPU()
	if err != nil {
		return err
	}
	if m.report.After, err = m.footprint(ctx); err != nil {
		return err
	}
	m.report.Delivered = m.delivered.Load()
	m.report.Operations = m.latencies.Load().byName()
	m.report.LateP99us = m.pacer.Late.Microseconds(0.99)
	if m.server != 0 && m.report.Delivered > 0 {
		perMillion := (after - cpu).Seconds() * 1e6 / float64(m.report.Delivered)
		m.report.CPUPerMillion = report.Rounded(perMillion)
	}
	if m.cfg.Adversaries == nil {
		return nil
	}
	m.report.Adversaries, err = m.withAdversaries(ctx)
	return err
}

// withAdversaries plays the load again, beside adversaries.
func (m *mixer) withAdversaries(ctx context.Context) (*AdversaryReport, error) {
	cfg := *m.cfg.Adversaries
	cfg.Target = m.cfg.Target
	var r AdversaryReport
	play := func(ctx context.Context) error {
		m.latencies.Store(new(latencies))
		m.pacer.Late = new(report.Histogram)
		err := m.play(ctx, m.cfg.Duration)
		r.Operations = m.latencies.Load().byName()
		r.LateP99us = m.pacer.Late.Microseconds(0.99)
		return err
	}
	var err error
	if m.cfg.AdversaryProcess != nil {
		r.Report, err = adversary.RunProcess(ctx, m.cfg.AdversaryProcess, cfg, play)
	} else {
		r.Report, err = adversary.Run(ctx, cfg, play)
	}
	return &r, err
}

// connect brings all users into their rooms, and measures what an idle connection costs.
func (m *mixer) connect(ctx context.Context) error {
	before, err := m.footprint(ctx)
	if err != nil {
		return err
	}
	spent, took, err := m.server.During(func() error {
		fill := func(ctx context.Context, i int) error { return m.rooms[i].fill(ctx) }
		return schedule.Each(ctx, m.cfg.Dials, len(m.rooms), fill)
	})
	if err != nil {
		return err
	}
	m.report.ConnectSeconds = report.Round(took.Seconds())
	conns := float64(m.cfg.Conns)
	if m.server != 0 {
		m.report.CPUPer1kConnect = report.Rounded(spent.Seconds() * 1000 / conns)
	}
	if before == nil {
		return nil
	}
	idle, err := m.footprint(ctx)
	if err != nil {
		return err
	}
	if m.server != 0 {
		m.report.KBPerConn = report.Rounded(float64(idle.RSSKB-before.RSSKB) / conns)
	}
	if m.cfg.Admin != "" {
		m.report.HeapKBPerConn = report.Rounded(float64(idle.HeapKB-before.HeapKB) / conns)
	}
	return nil
}

// close ends every connection and waits until they have ended. It may be called twice.
func (m *mixer) close() {
	m.closing.Store(true)
	m.changes.Wait()
	for _, r := range m.rooms {
		for _, u := range r.users {
			if u.link != nil {
				u.link.Leave()
			}
		}
	}
	m.readers.Wait()
}
