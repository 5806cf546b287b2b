// Package pair loads a signaling server with pairs of users that exchange one message.
//
// It opens connections in rooms of two, waits until the server's memory is stable, and lets some of
// the pairs pass messages. One message is in flight per pair; its delivery is the signal to send
// the next. In this closed loop a slow server takes longer, but is not overwhelmed. The server's
// CPU time and memory are read from /proc. Competitors are measured too, each in its own protocol.
package pair

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/client"
	"github.com/ieum-rtc/ieum/internal/bench/proc"
	"github.com/ieum-rtc/ieum/internal/bench/report"
	"github.com/ieum-rtc/ieum/internal/bench/schedule"
)

// Config is the load that Run makes. Fields with a default take it when zero.
type Config struct {
	client.Target // only ieum and ieum-socketio need the license; Conns is even
	Protocol      string
	// SecondURL is where the second member of each pair connects; empty: to URL.
	SecondURL string
	// OtherPIDs are further processes of the service, whose CPU time and memory count too.
	OtherPIDs []int
	// Pairs is the number of rooms that pass messages, at most Conns/2. Their messages are lost
	// when none is delivered anywhere for Stall.
	Pairs int
	// Messages is how many deliveries to measure, after a fifth as many to warm up; 0: none, only
	// connections.
	Messages int
	// LatencyRate is how many messages per second follow for ten seconds, to measure latency on a
	// server that is not saturated; 0: none.
	LatencyRate float64
}

// latencyTime is how long messages at the LatencyRate are sent.
const latencyTime = 10 * time.Second

// maxMessages keeps a typing error from running for days.
const maxMessages = 50_000_000

// NeedsLicense tells whether the protocol needs CpCode and AuthKey.
func (c Config) NeedsLicense() bool {
	return c.Protocol == "" || c.Protocol == "ieum" || c.Protocol == "ieum-socketio"
}

// Validate reports every error.
func (c Config) Validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	_, known := dialects[c.Protocol]
	need(known || c.Protocol == "",
		"protocol: %q is none of ieum, ieum-socketio, peerjs, socketio", c.Protocol)
	c.Check(need)
	second := c.second()
	second.Check(func(ok bool, format string, args ...any) {
		need(ok || second.URL == c.URL, "second "+format, args...)
	})
	need(!slices.ContainsFunc(c.OtherPIDs, func(p int) bool { return p <= 0 }) &&
		(len(c.OtherPIDs) == 0 || c.PID != 0), "other-pid: must be positive, and needs pid")
	need(c.Conns >= 2 && c.Conns <= client.MaxConns && c.Conns%2 == 0,
		"conns: must be even, 2 to %d", client.MaxConns)
	need(c.Pairs >= 0 && c.Pairs <= c.Conns/2, "pairs: must be 0 to half of conns")
	need(c.Messages >= 0 && c.Messages <= maxMessages, "messages: must be 0 to %d", maxMessages)
	need(c.Messages == 0 || c.Pairs > 0, "pairs: at least one must pass the messages")
	inRange := c.LatencyRate >= 1 && c.LatencyRate <= schedule.MaxRate
	need(c.LatencyRate == 0 || inRange && c.Messages > 0,
		"latency-rate: must be 1 to %d messages per second, and needs messages", schedule.MaxRate)
	return errors.Join(errs...)
}

func (c *Config) setDefaults() {
	c.SetDefaults()
	if c.Protocol == "" {
		c.Protocol = "ieum"
	}
}

// second is the Target of the second member of each pair.
func (c *Config) second() client.Target {
	t := c.Target
	t.URL = cmp.Or(c.SecondURL, c.URL)
	return t
}

func (c *Config) processes() (g proc.Group) {
	if c.PID == 0 {
		return nil
	}
	for _, pid := range append([]int{c.PID}, c.OtherPIDs...) {
		g = append(g, proc.PID(pid))
	}
	return g
}

// Report is the result of Run. Fields that were not measured are left out of its JSON. Latency is
// from a user's send to the other's receipt, in microseconds.
type Report struct {
	Protocol string `json:"protocol"`
	Conns    int    `json:"conns"`
	Pairs    int    `json:"pairs"`
	Size     int    `json:"size"` // bytes

	ConnectSeconds  float64  `json:"connectSeconds"`            // until all were in their rooms
	CPUPer1kConnect *float64 `json:"cpuPer1kConnect,omitempty"` // seconds, joining a room included

	RSSBeforeKB *int     `json:"rssBeforeKB,omitempty"`
	RSSIdleKB   *int     `json:"rssIdleKB,omitempty"`   // all connections open, no messages
	KBPerConn   *float64 `json:"kbPerConn,omitempty"`   // the difference, per connection
	RSSStable   *bool    `json:"rssStable,omitempty"`   // false: memory still moved after Settle
	RSSLoadedKB *int     `json:"rssLoadedKB,omitempty"` // after the messages

	Messages      int      `json:"messages"` // delivered, with the right content, order and sender
	PerSecond     float64  `json:"perSecond,omitempty"`
	CPUPerMillion *float64 `json:"cpuPerMillion,omitempty"` // seconds, user and system
	P50us         float64  `json:"p50us,omitempty"`
	P99us         float64  `json:"p99us,omitempty"`

	// At the LatencyRate, from when a message was due.
	FixedRateP50us float64 `json:"fixedRateP50us,omitempty"`
	FixedRateP99us float64 `json:"fixedRateP99us,omitempty"`

	// Warm-up included.
	Errors     int    `json:"errors"`               // connections lost; messages refused or wrong
	Lost       int    `json:"lost"`                 // sent and never delivered
	FirstError string `json:"firstError,omitempty"` // the first of both
}

// Run makes the load and measures it. An error means that the load could not be made; the report
// says what failed under load. Run returns when all its connections have ended.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if err := cfg.Validate(); err != nil {
		return Report{}, err
	}
	cfg.setDefaults()
	r := newRun(cfg)
	defer r.close()
	m := &meter{run: r, server: cfg.processes(), report: Report{
		Protocol: cfg.Protocol,
		Conns:    cfg.Conns,
		Pairs:    cfg.Pairs,
		Size:     cfg.Size,
	}}
	err := m.measure(ctx)
	m.report.Errors, m.report.Lost, m.report.FirstError = r.failures.counts()
	return m.report, err
}

// meter measures the server around the parts of a run.
type meter struct {
	run    *run
	server proc.Group
	report Report
}

func (m *meter) measure(ctx context.Context) error {
	cfg := &m.run.cfg
	if err := m.connections(ctx); err != nil {
		return err
	}
	if cfg.Messages == 0 || m.run.failures.any() {
		return ctx.Err()
	}
	if err := m.run.play(ctx, max(1, cfg.Messages/5), 0); err != nil || m.run.failures.any() {
		return err
	}
	if err := m.messages(ctx); err != nil || cfg.LatencyRate == 0 || m.run.failures.any() {
		return err
	}
	n := int(cfg.LatencyRate * latencyTime.Seconds())
	if err := m.run.play(ctx, n, cfg.LatencyRate); err != nil {
		return err
	}
	if latencies := m.run.latencies(); len(latencies) > 0 {
		m.report.FixedRateP50us = quantile(latencies, 0.5)
		m.report.FixedRateP99us = quantile(latencies, 0.99)
	}
	return nil
}

func (m *meter) connections(ctx context.Context) error {
	before, err := m.server.RSS()
	if err != nil {
		return err
	}
	spent, took, err := m.server.During(func() error { return m.run.connect(ctx) })
	if err != nil {
		return err
	}
	m.report.ConnectSeconds = report.Round(took.Seconds())
	if len(m.server) == 0 {
		return nil
	}
	conns := float64(m.run.cfg.Conns)
	m.report.CPUPer1kConnect = report.Rounded(spent.Seconds() * 1000 / conns)
	idle, stable, err := m.server.Settle(ctx, m.run.cfg.Settle)
	if err != nil {
		return err
	}
	m.report.RSSBeforeKB, m.report.RSSIdleKB, m.report.RSSStable = &before, &idle, &stable
	m.report.KBPerConn = report.Rounded(float64(idle-before) / conns)
	return nil
}

func (m *meter) messages(ctx context.Context) error {
	spent, took, err := m.server.During(func() error {
		return m.run.play(ctx, m.run.cfg.Messages, 0)
	})
	if err != nil {
		return err
	}
	latencies := m.run.latencies()
	m.report.Messages = len(latencies)
	if len(latencies) == 0 {
		return nil
	}
	m.report.PerSecond = report.Round(float64(len(latencies)) / took.Seconds())
	m.report.P50us, m.report.P99us = quantile(latencies, 0.5), quantile(latencies, 0.99)
	if len(m.server) == 0 {
		return nil
	}
	m.report.CPUPerMillion = report.Rounded(spent.Seconds() * 1e6 / float64(len(latencies)))
	loaded, err := m.server.RSS()
	m.report.RSSLoadedKB = &loaded
	return err
}

// quantile of sorted latencies, in microseconds: at least q of them do not exceed it.
func quantile(sorted []time.Duration, q float64) float64 {
	i := int(q * float64(len(sorted)))
	return report.Round(float64(sorted[min(i, len(sorted)-1)]) / float64(time.Microsecond))
}
