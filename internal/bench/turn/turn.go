// Package turn loads a TURN server with packets or idle allocations, and measures their cost.
package turn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/proc"
	"github.com/ieum-rtc/ieum/internal/bench/report"
)

// Shapes of the load. A client holds an allocation. The peer is a plain UDP socket.
const (
	ShapeUp      = "up"      // from clients to the peer
	ShapeDown    = "down"    // from the peer to clients
	ShapeBoth    = "both"    // half of the packets each way
	ShapeHairpin = "hairpin" // between two clients of the server: both ends are relayed
	ShapeIdle    = "idle"    // no packets: the memory of an allocation
)

var (
	shapes     = []string{ShapeUp, ShapeDown, ShapeBoth, ShapeHairpin, ShapeIdle}
	transports = []string{"udp", "tcp", "tls"}
)

// Config is the load that Run makes on a TURN server. Fields with a default take it when zero.
type Config struct {
	Server    string       // host:port
	Transport string       // between clients and server: udp (default), tcp or tls
	Insecure  bool         // tls: accept any certificate
	Clients   []netip.Addr // addresses of clients, used in rotation; none: the route decides
	// Peer is the address of the peer, which the server must relay to. Invalid: the local address
	// on the route to the server.
	Peer netip.Addr

	// Credentials: one user for all allocations, or the TURN REST secret, which makes each
	// allocation a session of its own.
	User, Password string
	Secret         []byte

	Shape       string        // default up
	Allocations int           // default 100; even for hairpin
	Burst       int           // consecutive packets, as of a video frame; default 6
	Size        int           // bytes of a packet's payload, default 1100
	Rate        int           // packets per second in all; 0: closed loop, limited by the window
	Window      int           // closed loop: packets in flight in all, default 1024
	Duration    time.Duration // measured, default 5 s
	WarmUp      time.Duration // before that, default 1 s

	PID    int           // of the server, if it runs here; 0: its CPU and memory are not measured
	Dials  int           // allocations made concurrently, default 16
	Settle time.Duration // idle: the longest wait for stable memory, default 30 s

	portable bool // use package net even where there is something faster: for tests
}

// Bounds that keep a typing error from exhausting the machine. Permissions live five minutes (RFC
// 8656 section 9) and are not renewed here, so a run ends before that.
const (
	maxAllocations = 50_000
	maxBurst       = 64
	maxRate        = 10_000_000
	maxWindow      = 1 << 20
	maxPayload     = 1400 // fits in an Ethernet frame, with the headers of IPv6 and a channel
	maxRun         = 4 * time.Minute
)

// Validate reports every error.
func (c Config) Validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	within := func(name string, n, low, high int) {
		need(n >= low && n <= high, "%s: must be %d to %d", name, low, high)
	}
	c.setDefaults()
	host, port, err := net.SplitHostPort(c.Server)
	need(err == nil && host != "" && port != "",
		"server: %q is not of the form host:port", c.Server)
	need(slices.Contains(transports, c.Transport),
		"transport: %q is none of %v", c.Transport, transports)
	need(slices.Contains(shapes, c.Shape), "shape: %q is none of %v", c.Shape, shapes)
	need((c.User != "") != (len(c.Secret) > 0), "credentials: give a user or a secret, one of them")
	need(c.User == "" || c.Password != "", "password: the user needs one")
	within("allocations", c.Allocations, 1, maxAllocations)
	need(c.Shape != ShapeHairpin || c.Allocations%2 == 0,
		"allocations: must be even, two are one call")
	within("burst", c.Burst, 1, maxBurst)
	within("size", c.Size, payloadHeader, maxPayload)
	within("rate", c.Rate, 0, maxRate)
	within("window", c.Window, 2*c.Burst, maxWindow)
	need(c.Duration >= 0 && c.WarmUp >= 0 && c.Duration+c.WarmUp <= maxRun,
		"duration: must not be longer than %v, with the warm-up", maxRun)
	need(c.PID >= 0 && c.Dials >= 0 && c.Settle >= 0, "pid, dials and settle must not be negative")
	return errors.Join(errs...)
}

func (c *Config) setDefaults() {
	c.Transport = cmp.Or(c.Transport, "udp")
	c.Shape = cmp.Or(c.Shape, ShapeUp)
	c.Allocations = cmp.Or(c.Allocations, 100)
	c.Burst = cmp.Or(c.Burst, 6)
	c.Size = cmp.Or(c.Size, 1100)
	c.Window = cmp.Or(c.Window, 1024)
	c.Duration = cmp.Or(c.Duration, 5*time.Second)
	c.WarmUp = cmp.Or(c.WarmUp, time.Second)
	c.Dials = cmp.Or(c.Dials, 16)
	c.Settle = cmp.Or(c.Settle, 30*time.Second)
}

// Report is the result of Run. Fields that were not measured are left out of its JSON. Packets are
// those of the measured time.
type Report struct {
	Shape       string `json:"shape"`
	Transport   string `json:"transport"`
	Allocations int    `json:"allocations"`
	Burst       int    `json:"burst,omitempty"`
	Size        int    `json:"size,omitempty"`   // bytes
	Rate        int    `json:"rate,omitempty"`   // asked for, packets per second
	Window      int    `json:"window,omitempty"` // of the closed loop

	SetupSeconds float64 `json:"setupSeconds"` // until all allocations had their channel

	Sent        int64   `json:"sent"`
	Received    int64   `json:"received"` // at the far end, complete and in the right place
	Lost        int64   `json:"lost"`
	LossPercent float64 `json:"lossPercent"`

	// Warm-up included.
	Reordered  int64 `json:"reordered"`  // within their allocation, or duplicates
	Unexpected int64 `json:"unexpected"` // not as sent, or in the wrong place

	PerSecond float64 `json:"perSecond,omitempty"` // packets received
	P50us     float64 `json:"p50us,omitempty"`     // from send to arrival, microseconds
	P99us     float64 `json:"p99us,omitempty"`

	// Seconds of CPU per million packets received at the far end. When the generator's own CPU is
	// near a second per second, it is the limit and not the server.
	CPUPerMillion *float64 `json:"cpuPerMillion,omitempty"` // of the server
	OwnPerMillion float64  `json:"ownPerMillion,omitempty"` // of the generator
	Cores         *float64 `json:"cores,omitempty"`         // that the server kept busy
	RSSKB         *int     `json:"rssKB,omitempty"`         // of the server, at the end

	// Of idle allocations.
	RSSBeforeKB     *int     `json:"rssBeforeKB,omitempty"` // before the first allocation
	RSSIdleKB       *int     `json:"rssIdleKB,omitempty"`
	KBPerAllocation *float64 `json:"kbPerAllocation,omitempty"` // the difference, per allocation
	RSSStable       *bool    `json:"rssStable,omitempty"`       // false: memory still moved

	FirstError string `json:"firstError,omitempty"` // while sending or receiving
}

// Run makes the load and measures it. An error means that the load could not be made; the report
// says what failed under load. Run returns when its sockets are closed and its allocations are
// released.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if err := cfg.Validate(); err != nil {
		return Report{}, err
	}
	cfg.setDefaults()
	m := meter{cfg: cfg, server: proc.PID(cfg.PID), report: Report{
		Shape:       cfg.Shape,
		Transport:   cfg.Transport,
		Allocations: cfg.Allocations,
	}}
	err := m.measure(ctx)
	return m.report, err
}

// meter measures the server around the parts of a run.
type meter struct {
	cfg    Config
	server proc.PID
	report Report
}

func (m *meter) measure(ctx context.Context) error {
	before, err := m.server.RSS()
	if err != nil {
		return err
	}
	start := time.Now()
	p, err := newParties(ctx, m.cfg)
	if err != nil {
		return err
	}
	defer p.close()
	m.report.SetupSeconds = report.Round(time.Since(start).Seconds())
	if m.cfg.Shape == ShapeIdle {
		return m.idle(ctx, before)
	}
	return m.busy(ctx, p)
}

func (m *meter) idle(ctx context.Context, before int) error {
	if m.server == 0 {
		return nil
	}
	after, stable, err := m.server.Settle(ctx, m.cfg.Settle)
	if err != nil {
		return err
	}
	m.report.RSSBeforeKB, m.report.RSSIdleKB, m.report.RSSStable = &before, &after, &stable
	m.report.KBPerAllocation = report.Rounded(float64(after-before) / float64(m.cfg.Allocations))
	return nil
}

// Missing packets are lost when none arrives for drainIdle, or after drainLimit.
const (
	drainIdle  = 300 * time.Millisecond
	drainLimit = 5 * time.Second
)

func (m *meter) busy(ctx context.Context, p *parties) error {
	r := &m.report
	r.Burst, r.Size, r.Rate = m.cfg.Burst, m.cfg.Size, m.cfg.Rate
	if r.Rate == 0 {
		r.Window = m.cfg.Window
	}
	t := newTraffic(m.cfg)
	err := p.withIO(ctx, t, func(io packetIO) error {
		d := driver{traffic: t, io: io}
		if err := d.play(ctx, m.cfg.WarmUp, false); err != nil {
			return err
		}
		before, err := m.sample(t)
		if err != nil {
			return err
		}
		if err := d.play(ctx, m.cfg.Duration, true); err != nil {
			return err
		}
		after, err := m.sample(t)
		if err != nil {
			return err
		}
		m.differ(before, after)
		return d.drain(ctx, drainIdle, drainLimit)
	})
	m.packets(t)
	return err
}

// sample is the state of the counters at one time.
type sample struct {
	at          time.Time
	server, own time.Duration // CPU time
	received    int64
}

func (m *meter) sample(t *traffic) (s sample, err error) {
	if s.server, err = m.server.Scheduled(); err != nil {
		return s, err
	}
	s.own = proc.OwnCPU()
	s.at, s.received = time.Now(), t.received()
	return s, nil
}

// differ reports what happened between two samples. The packets in flight at both cancel out.
func (m *meter) differ(a, b sample) {
	took, packets := b.at.Sub(a.at).Seconds(), float64(b.received-a.received)
	if m.server != 0 {
		m.report.Cores = report.Rounded((b.server - a.server).Seconds() / took)
	}
	if packets == 0 {
		return
	}
	m.report.PerSecond = report.Round(packets / took)
	m.report.OwnPerMillion = report.Round((b.own - a.own).Seconds() * 1e6 / packets)
	if m.server != 0 {
		m.report.CPUPerMillion = report.Rounded((b.server - a.server).Seconds() * 1e6 / packets)
	}
}

func (m *meter) packets(t *traffic) {
	r := &m.report
	for _, f := range t.flows {
		r.Sent += f.measuredSent
		r.Received += f.measured.Load()
		r.Reordered += f.reordered.Load()
	}
	r.Unexpected = t.unexpected.Load()
	r.Lost = max(0, r.Sent-r.Received)
	if r.Sent > 0 {
		r.LossPercent = report.Round(100 * float64(r.Lost) / float64(r.Sent))
	}
	r.P50us, r.P99us = t.delays.Microseconds(0.5), t.delays.Microseconds(0.99)
	r.FirstError = t.firstError()
	if rss, err := m.server.RSS(); err == nil && m.server != 0 {
		r.RSSKB = &rss
	}
}
