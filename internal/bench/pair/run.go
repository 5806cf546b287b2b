package pair

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/client"
	"github.com/ieum-rtc/ieum/internal/bench/schedule"
)

// run is the connections of one Run and what they do.
type run struct {
	// Static after construction.
	cfg     Config
	dialect dialect
	dialer  *client.Dialer
	urls    [2]*url.URL // of each pair's members
	epoch   time.Time   // latencies are differences of time since it
	pairs   []*pair

	readers sync.WaitGroup // one per open connection
	closing atomic.Bool    // we end the connections: their end is no failure

	delivered atomic.Int64
	finished  chan struct{} // gets a value for each pair that has played its share, or failed
	failures  failures
}

func newRun(cfg Config) *run {
	r := &run{
		cfg:      cfg,
		dialect:  dialects[cfg.Protocol],
		epoch:    time.Now(),
		pairs:    make([]*pair, cfg.Conns/2),
		finished: make(chan struct{}, max(1, cfg.Pairs)),
	}
	r.urls[0], r.dialer = cfg.Endpoint()
	r.urls[1], _ = cfg.second().Endpoint()
	id := client.RunID()
	for i := range r.pairs {
		r.pairs[i] = newPair(r, fmt.Sprintf("%s-%d", id, i))
	}
	return r
}

func (r *run) now() time.Duration { return time.Since(r.epoch) }

// failures counts what went wrong.
type failures struct {
	mu           sync.Mutex // guards the fields below
	errors, lost int
	first        string
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errors++
	if f.first == "" {
		f.first = err.Error()
	}
}

func (f *failures) lose(reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost++
	if f.first == "" {
		f.first = reason
	}
}

func (f *failures) counts() (errors, lost int, first string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.errors, f.lost, f.first
}

func (f *failures) any() bool {
	errors, lost, _ := f.counts()
	return errors+lost > 0
}

// connect brings every pair into its room, some concurrently. The first error ends it.
func (r *run) connect(ctx context.Context) error {
	return schedule.Each(ctx, r.cfg.Dials, len(r.pairs), func(ctx context.Context, i int) error {
		return r.open(ctx, r.pairs[i])
	})
}

func (r *run) open(ctx context.Context, p *pair) error {
	ctx, cancel := context.WithTimeout(ctx, client.SetupTimeout)
	defer cancel()
	for _, m := range p.members {
		if err := m.dial(ctx); err != nil {
			return fmt.Errorf("connect %s: %w", m.id, err)
		}
		if err := r.dialect.join(ctx, m); err != nil {
			return fmt.Errorf("join %s: %w", m.id, err)
		}
	}
	return nil
}

// play lets the first cfg.Pairs pairs deliver n messages between them: as fast as they arrive, or
// at a rate per second.
func (r *run) play(ctx context.Context, n int, rate float64) error {
	players := r.pairs[:r.cfg.Pairs]
	for i, p := range players {
		share := n / len(players)
		if i < n%len(players) {
			share++
		}
		p.play(share, rate > 0)
	}
	if rate > 0 {
		var pacing sync.WaitGroup
		ctx, cancel := context.WithCancel(ctx)
		defer pacing.Wait()
		defer cancel()
		pacing.Go(func() { r.sendAtRate(ctx, players, n, rate) })
	}
	stall := time.NewTicker(r.cfg.Stall)
	defer stall.Stop()
	before := r.delivered.Load()
	for open := len(players); open > 0; {
		select {
		case <-r.finished:
			open--
		case <-ctx.Done():
			return ctx.Err()
		case <-stall.C:
			now := r.delivered.Load()
			if now == before {
				r.giveUp(players)
				return nil
			}
			before = now
		}
	}
	return nil
}

// sendAtRate has players send n messages, one after the other, each when it is due.
func (r *run) sendAtRate(ctx context.Context, players []*pair, n int, rate float64) {
	p := schedule.NewPacer(r.now, r.cfg.Stall)
	next := 0
	p.Run(ctx, schedule.Count(n, rate, r.now(), func(due time.Duration) bool {
		if !players[next%len(players)].sendDue(due) {
			return false
		}
		next++
		return true
	}))
}

// giveUp counts what is in flight as lost. It ends the connections first: a pair whose write blocks
// holds its lock.
func (r *run) giveUp(players []*pair) {
	r.close()
	for _, p := range players {
		p.fail("nothing was delivered for " + r.cfg.Stall.String())
	}
}

// latencies of the last play, of all pairs, sorted.
func (r *run) latencies() []time.Duration {
	var all []time.Duration
	for _, p := range r.pairs[:r.cfg.Pairs] {
		p.mu.Lock()
		all = append(all, p.latencies...)
		p.mu.Unlock()
	}
	slices.Sort(all)
	return all
}

// close ends every connection and waits until they have ended. It may be called twice.
func (r *run) close() {
	r.closing.Store(true)
	for _, p := range r.pairs {
		for _, m := range p.members {
			m.close()
		}
	}
	r.readers.Wait()
}
