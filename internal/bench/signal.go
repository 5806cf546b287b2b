// Package bench makes load on a server and tells what the load cost it: the programs behind `ieum bench`.
//
// Signal opens connections in rooms of two, waits until the server's memory has come to rest, and lets some of the pairs pass
// messages to and fro: one in flight a pair, the delivery of one being the signal to send the next (a closed loop, so that a slow
// server is not buried but takes longer). What the server used is read from /proc. It speaks our protocol and those of the
// servers that we compare ourselves with; what differs between them stands in a dialect.
package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// SignalConfig says what load Signal makes. Fields with a default take it when zero.
type SignalConfig struct {
	Target          // the license is for ieum and ieum-socketio only, Conns is even: rooms are of two
	Protocol string // ieum (default), ieum-socketio, peerjs or socketio
	Pairs    int    // rooms whose members pass messages, at most Conns/2; what they have in flight is lost when nothing is delivered anywhere for Stall
	Messages int    // deliveries to measure, after a fifth as many to warm up; 0: connections only
	// Pace is how many messages a second follow then, for paceLasts, to see how long one takes on a server that has time; 0: none.
	Pace float64
}

const paceLasts = 10 * time.Second

// Bounds, so that a typing error does not eat the machine.
const (
	maxConns    = 100_000
	maxMessages = 50_000_000
	minSize     = 500
	maxSize     = 60_000
)

// NeedsLicense tells whether the protocol wants CpCode and AuthKey.
func (c SignalConfig) NeedsLicense() bool {
	return c.Protocol == "" || c.Protocol == "ieum" || c.Protocol == "ieum-socketio"
}

// Validate reports every fault.
func (c SignalConfig) Validate() error {
	var faults []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	_, known := dialects[c.Protocol]
	need(known || c.Protocol == "", "protocol: %q is none of ieum, ieum-socketio, peerjs, socketio", c.Protocol)
	c.check(need)
	need(c.Conns >= 2 && c.Conns <= maxConns && c.Conns%2 == 0, "conns: must be even, 2 to %d", maxConns)
	need(c.Pairs >= 0 && c.Pairs <= c.Conns/2, "pairs: must be 0 to half of conns")
	need(c.Messages >= 0 && c.Messages <= maxMessages, "messages: must be 0 to %d", maxMessages)
	need(c.Messages == 0 || c.Pairs > 0, "pairs: at least one must pass the messages")
	need(c.Pace == 0 || c.Pace >= 1 && c.Pace <= mixRateMost && c.Messages > 0, "pace: must be 1 to %d messages a second, behind those at full speed", mixRateMost)
	return errors.Join(faults...)
}

func (c *SignalConfig) defaults() {
	c.Target.defaults()
	if c.Protocol == "" {
		c.Protocol = "ieum"
	}
}

// SignalReport is what came out. Fields that were not measured are left out of its JSON.
type SignalReport struct {
	Protocol string `json:"protocol"`
	Conns    int    `json:"conns"`
	Pairs    int    `json:"pairs"`
	Size     int    `json:"size"` // bytes

	ConnectSeconds  float64  `json:"connectSeconds"`            // until all were in their rooms
	CPUPer1kConnect *float64 `json:"cpuPer1kConnect,omitempty"` // seconds for 1,000 connections, room included

	RSSBeforeKB *int     `json:"rssBeforeKB,omitempty"`
	RSSIdleKB   *int     `json:"rssIdleKB,omitempty"`   // all connections open, nobody says anything
	KBPerConn   *float64 `json:"kbPerConn,omitempty"`   // the difference, for one connection
	RSSStable   *bool    `json:"rssStable,omitempty"`   // false: memory still moved when patience ended
	RSSLoadedKB *int     `json:"rssLoadedKB,omitempty"` // after the messages

	Messages      int      `json:"messages"` // delivered, right in content, order and sender
	PerSecond     float64  `json:"perSecond,omitempty"`
	CPUPerMillion *float64 `json:"cpuPerMillion,omitempty"` // seconds, user and system
	P50us         float64  `json:"p50us,omitempty"`         // from one member's send to the other's receipt, microseconds
	P99us         float64  `json:"p99us,omitempty"`

	PacedP50us float64 `json:"pacedP50us,omitempty"` // of those at the fixed pace: from when one was due to its receipt
	PacedP99us float64 `json:"pacedP99us,omitempty"`

	Errors int    `json:"errors"`          // connections lost, messages refused, unexpected or damaged; warm-up included
	Lost   int    `json:"lost"`            // sent and never delivered; warm-up included
	Fault  string `json:"fault,omitempty"` // the first of them
}

// Signal makes the load and measures it. An error means that the load could not be made; what went wrong under load is in the
// report. It returns when all its connections have ended.
func Signal(ctx context.Context, cfg SignalConfig) (SignalReport, error) {
	if err := cfg.Validate(); err != nil {
		return SignalReport{}, err
	}
	cfg.defaults()
	r := newRun(cfg)
	defer r.close()
	m := &meter{run: r, server: process(cfg.PID)}
	m.report = SignalReport{Protocol: cfg.Protocol, Conns: cfg.Conns, Pairs: cfg.Pairs, Size: cfg.Size}
	err := m.measure(ctx)
	m.report.Errors, m.report.Lost, m.report.Fault = r.faults.counts()
	return m.report, err
}

// meter takes the server's figures around the parts of a run.
type meter struct {
	run    *run
	server process
	report SignalReport
}

func (m *meter) measure(ctx context.Context) error {
	if err := m.connections(ctx); err != nil {
		return err
	}
	if m.run.cfg.Messages == 0 || m.run.faults.any() {
		return ctx.Err()
	}
	if err := m.run.play(ctx, max(1, m.run.cfg.Messages/5), 0); err != nil || m.run.faults.any() {
		return err
	}
	if err := m.messages(ctx); err != nil || m.run.cfg.Pace == 0 || m.run.faults.any() {
		return err
	}
	if err := m.run.play(ctx, int(m.run.cfg.Pace*paceLasts.Seconds()), m.run.cfg.Pace); err != nil {
		return err
	}
	if latencies := m.run.latencies(); len(latencies) > 0 {
		m.report.PacedP50us, m.report.PacedP99us = quantile(latencies, 0.5), quantile(latencies, 0.99)
	}
	return nil
}

func (m *meter) connections(ctx context.Context) error {
	before, err := m.server.rss()
	if err != nil {
		return err
	}
	spent, took, err := m.server.during(func() error { return m.run.connect(ctx) })
	if err != nil {
		return err
	}
	m.report.ConnectSeconds = round(took.Seconds())
	if m.server == 0 {
		return nil
	}
	conns := float64(m.run.cfg.Conns)
	m.report.CPUPer1kConnect = ptr(round(spent.Seconds() * 1000 / conns))
	idle, stable, err := m.server.settle(ctx, m.run.cfg.Settle)
	if err != nil {
		return err
	}
	m.report.RSSBeforeKB, m.report.RSSIdleKB, m.report.RSSStable = &before, &idle, &stable
	m.report.KBPerConn = ptr(round(float64(idle-before) / conns))
	return nil
}

func (m *meter) messages(ctx context.Context) error {
	spent, took, err := m.server.during(func() error { return m.run.play(ctx, m.run.cfg.Messages, 0) })
	if err != nil {
		return err
	}
	latencies := m.run.latencies()
	m.report.Messages = len(latencies)
	if len(latencies) == 0 {
		return nil
	}
	m.report.PerSecond = round(float64(len(latencies)) / took.Seconds())
	m.report.P50us, m.report.P99us = quantile(latencies, 0.5), quantile(latencies, 0.99)
	if m.server == 0 {
		return nil
	}
	m.report.CPUPerMillion = ptr(round(spent.Seconds() * 1e6 / float64(len(latencies))))
	loaded, err := m.server.rss()
	m.report.RSSLoadedKB = &loaded
	return err
}

// quantile of sorted latencies, in microseconds: the smallest that at least q of them do not exceed.
func quantile(sorted []time.Duration, q float64) float64 {
	i := int(q * float64(len(sorted)))
	return round(float64(sorted[min(i, len(sorted)-1)]) / float64(time.Microsecond))
}

// round keeps three digits behind the point: more would be noise.
func round(f float64) float64 {
	return float64(int64(f*1000+0.5)) / 1000
}

func ptr(f float64) *float64 { return &f }
