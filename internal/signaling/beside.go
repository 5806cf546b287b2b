package signaling

import "sync"

const (
	// maxBeside bounds the requests of other nodes that wait or are carried out.
	maxBeside = 4096
	// maxBesideKey bounds those for one room or session.
	maxBesideKey = 1024
)

// beside carries out requests of other nodes beside the stream they came in: one at a time for a
// key, in order; different keys at the same time. The zero value is ready.
type beside struct {
	mu     sync.Mutex
	queues map[string][]func() // Guarded by mu. The first one of each is being carried out.
	count  int                 // Guarded by mu.
	wg     sync.WaitGroup
}

// do queues f; false: too much waits.
func (b *beside) do(key string, f func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[key]
	if b.count >= maxBeside || len(q) >= maxBesideKey {
		return false
	}
	if b.queues == nil {
		b.queues = map[string][]func(){}
	}
	b.count++
	b.queues[key] = append(q, f)
	if len(q) == 0 {
		b.wg.Go(func() { b.run(key, f) })
	}
	return true
}

// run carries out what is queued for a key, and ends.
func (b *beside) run(key string, f func()) {
	for f != nil {
		f()
		f = b.next(key)
	}
}

func (b *beside) next(key string) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count--
	q := b.queues[key][1:]
	if len(q) == 0 {
		delete(b.queues, key)
		return nil
	}
	b.queues[key] = q
	return q[0]
}

// busy tells whether a request is being carried out.
func (b *beside) busy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count > 0
}

// wait returns when all is done. Nothing may be queued any more.
func (b *beside) wait() { b.wg.Wait() }
