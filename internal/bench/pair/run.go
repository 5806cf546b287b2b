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
	"github.com/ieum-rtc/ieum/internal/bench/pace"
)

// run is the connections of one Signal and what they do.
type run struct {
	cfg     Config
	dialect dialect
	dialer  *client.Dialer
	url     *url.URL
	epoch   time.Time // latencies are differences of time since it

	pairs   []*pair
	readers sync.WaitGroup // one for each open connection
	closing atomic.Bool    // we end the connections: their end is no fault

	delivered atomic.Int64
	finished  chan struct{} // one for each pair that has played its share, or failed
	faults    faults
}

func newRun(cfg Config) *run {
	r := &run{cfg: cfg, dialect: dialects[cfg.Protocol], epoch: time.Now(), finished: make(chan struct{}, max(1, cfg.Pairs))}
	r.url, r.dialer = cfg.Endpoint()
	name := client.RunID()
	r.pairs = make([]*pair, cfg.Conns/2)
	for i := range r.pairs {
		r.pairs[i] = newPair(r, fmt.Sprintf("%s-%d", name, i))
	}
	return r
}

func (r *run) now() time.Duration { return time.Since(r.epoch) }

// faults counts what went wrong.
type faults struct {
	mu           sync.Mutex
	errors, lost int
	first        string
}

func (f *faults) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errors++
	if f.first == "" {
		f.first = err.Error()
	}
}

func (f *faults) lose(n int, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost += n
	if f.first == "" && n > 0 {
		f.first = why
	}
}

func (f *faults) counts() (errors, lost int, first string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.errors, f.lost, f.first
}

func (f *faults) any() bool {
	e, l, _ := f.counts()
	return e+l > 0
}

// connect brings every pair into its room, some at a time. The first failure ends it.
func (r *run) connect(ctx context.Context) error {
	return pace.Each(ctx, r.cfg.Dials, len(r.pairs), func(ctx context.Context, i int) error { return r.open(ctx, r.pairs[i]) })
}

func (r *run) open(ctx context.Context, p *pair) error {
	ctx, cancel := context.WithTimeout(ctx, client.SetupTimeout)
	defer cancel()
	for _, m := range p.members {
		if err := m.dial(ctx); err != nil {
			return fmt.Errorf("connect %s: %w", m.id, err)
		}
		if err := r.dialect.enter(ctx, m); err != nil {
			return fmt.Errorf("enter %s: %w", m.id, err)
		}
	}
	return nil
}

// play lets the first cfg.Pairs pairs deliver n messages between them: as fast as they arrive, or at a rate, so many a second.
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
		pacing.Go(func() { r.pace(ctx, players, n, rate) })
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

// pace has players send n messages, one after the other, each when it is due.
func (r *run) pace(ctx context.Context, players []*pair, n int, rate float64) {
	p := pace.NewPacer(r.now, r.cfg.Stall)
	next := 0
	p.Run(ctx, pace.Count(n, rate, r.now(), func(due time.Duration) bool {
		if !players[next%len(players)].due(due) {
			return false
		}
		next++
		return true
	}))
}

// giveUp counts what is in flight as lost. The connections go first: a pair whose write blocks holds its lock.
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
		all = append(all, p.took...)
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
