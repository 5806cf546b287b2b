// Package adversary attacks a signaling server while another load test measures its users: sockets
// that never log in, a reconnect storm, senders that flood, readers that are slow or stop reading.
package adversary

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/bench/client"
	"github.com/ieum-rtc/ieum/internal/bench/proc"
	"github.com/ieum-rtc/ieum/internal/bench/report"
)

// Config says how many adversaries there are, and which server they are for. Conns and Size of the
// target do not matter.
type Config struct {
	client.Target
	HalfOpen int // sockets that never log in
	Storm    int // clients whose connections are cut simultaneously, and that resume
}

// The number of other adversaries is fixed.
const (
	flooders       = 8
	slowReaders    = 8
	stoppedReaders = 8
)

// Sockets is how many connections all adversaries have open at a time.
func (c Config) Sockets() int {
	return c.HalfOpen + c.Storm + 2*(flooders+slowReaders+stoppedReaders)
}

// CheckCounts reports every error to need, except those of the target.
func (c Config) CheckCounts(need func(ok bool, format string, args ...any)) {
	for name, n := range map[string]int{"half-open": c.HalfOpen, "reconnect-storm": c.Storm} {
		need(n >= 0 && n <= client.MaxConns, "%s: must be 0 to %d", name, client.MaxConns)
	}
}

// validate reports every error.
func (c Config) validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	c.Check(need)
	c.CheckCounts(need)
	return errors.Join(append(errs, proc.EnoughFiles(c.Sockets(), 0))...)
}

// Report is what the adversaries did, and what the server did about it.
type Report struct {
	HalfOpen       int   `json:"halfOpen"`       // sockets at a time that never log in
	HalfOpenDialed int64 `json:"halfOpenDialed"` // in total: the server ends them, others follow
	HalfOpenFailed int64 `json:"halfOpenFailed"` // could not even connect

	Storm        int            `json:"storm"`        // clients cut at once, every 5 s
	StormResume  report.Latency `json:"stormResume"`  // from the cut to the resumed session
	StormRetries int64          `json:"stormRetries"` // after failed attempts
	StormTickets int64          `json:"stormTickets"` // TLS handshakes with a session ticket
	StormLost    int64          `json:"stormLost"`    // sessions that could not be resumed

	Flooders       int              `json:"flooders"`       // send continuously
	SlowReaders    int              `json:"slowReaders"`    // read 10 of 20 messages per second
	StoppedReaders int              `json:"stoppedReaders"` // stop reading for a while
	Closes         map[string]int64 `json:"closes"`         // of these three, by close code
}

// startTimeout bounds how long the adversaries may take to start.
const startTimeout = 2 * time.Minute

// adversaries is all of them.
type adversaries struct {
	// Static after construction.
	cfg     Config
	id      string // begins all ids
	url     *url.URL
	dialer  *client.Dialer
	dialing chan struct{} // a semaphore for half-open sockets
	started chan struct{} // closed when the measured load begins

	start time.Time // when it began; static after started is closed

	readers sync.WaitGroup // of connections that speak our protocol
	wg      sync.WaitGroup // of adversaries

	dialed, failed         atomic.Int64
	resumed                report.Histogram
	retries, tickets, lost atomic.Int64

	mu     sync.Mutex       // guards the fields below
	closes map[string]int64 // by close code
	err    error            // the first that kept an adversary from starting
}

// Run runs adversaries in this process while f runs.
func Run(ctx context.Context, cfg Config, f func(context.Context) error) (Report, error) {
	cfg.SetDefaults()
	a := &adversaries{
		cfg:     cfg,
		id:      client.RunID(),
		dialing: make(chan struct{}, maxDials),
		started: make(chan struct{}),
		closes:  map[string]int64{},
	}
	a.url, a.dialer = cfg.Endpoint()
	adversaryCtx, stop := context.WithCancel(ctx)
	defer a.wait()
	defer stop()
	if err := a.startAll(adversaryCtx); err != nil {
		return Report{}, err
	}
	a.start = time.Now()
	close(a.started)
	if err := f(ctx); err != nil {
		return Report{}, err
	}
	stop()
	a.wait()
	return a.report(), nil
}

// wait waits for all goroutines. It may be called twice.
func (a *adversaries) wait() {
	a.wg.Wait()
	a.readers.Wait()
}

func (a *adversaries) report() Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Report{
		HalfOpen:       a.cfg.HalfOpen,
		HalfOpenDialed: a.dialed.Load(),
		HalfOpenFailed: a.failed.Load(),
		Storm:          a.cfg.Storm,
		StormResume:    a.resumed.Latency(),
		StormRetries:   a.retries.Load(),
		StormTickets:   a.tickets.Load(),
		StormLost:      a.lost.Load(),
		Flooders:       flooders,
		SlowReaders:    slowReaders,
		StoppedReaders: stoppedReaders,
		Closes:         maps.Clone(a.closes),
	}
}

// startAll returns when every adversary has started.
func (a *adversaries) startAll(ctx context.Context) error {
	var pending sync.WaitGroup
	start := func(f func(ready func())) {
		pending.Add(1)
		a.wg.Go(func() {
			ready := sync.OnceFunc(pending.Done)
			defer ready()
			f(ready)
		})
	}
	for i := range a.cfg.Storm {
		start(func(ready func()) { a.reconnectStorm(ctx, i, ready) })
	}
	for i := range flooders {
		start(func(ready func()) { a.repeat(ctx, fmt.Sprintf("flood-%d", i), a.flood, ready) })
	}
	for i := range slowReaders {
		start(func(ready func()) { a.repeat(ctx, fmt.Sprintf("slow-%d", i), a.readSlowly, ready) })
	}
	for i := range stoppedReaders {
		start(func(ready func()) { a.repeat(ctx, fmt.Sprintf("stop-%d", i), a.stopReading, ready) })
	}
	for i := range a.cfg.HalfOpen {
		start(func(ready func()) { a.halfOpen(ctx, i, ready) })
	}
	all := make(chan struct{})
	go func() { pending.Wait(); close(all) }() // ends with the adversaries, which Run waits for
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-all:
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return fmt.Errorf("the adversaries did not start within %s", startTimeout)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// failedToStart records why an adversary cannot do its part.
func (a *adversaries) failedToStart(ctx context.Context, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil && ctx.Err() == nil {
		a.err = fmt.Errorf("adversary: %w", err)
	}
}

// ended counts how the server ended a connection.
func (a *adversaries) ended(err error) {
	how := "lost"
	if closed := new(gws.CloseError); errors.As(err, &closed) {
		how = fmt.Sprint(closed.Code)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closes[how]++
}

// pause waits, and tells whether ctx is still open.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return ctx.Err() == nil
}
