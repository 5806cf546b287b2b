package transport

import (
	"cmp"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
)

// Backlog bounds the memory of what is sent and not yet read, of all clients and carriers together: the bounds of single outboxes
// would add up to gigabytes. A message counts once, however many outboxes it waits in. When there is too much, the connections
// with the most unread bytes are closed with 1013 until enough is free; those who read are not concerned.
type Backlog struct {
	limit    int64 // negative: none
	bytes    atomic.Int64
	shed     atomic.Uint64
	shedding atomic.Bool

	mu     sync.Mutex // guards what follows
	lists  []func(tell func(QueuedBytes))
	closed bool
	wg     sync.WaitGroup
}

const defaultBacklog = 256 << 20

// NewBacklog makes one of limit bytes. 0 is the default: a quarter of the memory limit of the Go runtime (GOMEMLIMIT), and without
// one 256 MiB. Negative: there is no limit.
func NewBacklog(limit int) *Backlog {
	b := &Backlog{limit: int64(limit)}
	if limit == 0 {
		b.limit = min(defaultBacklog, debug.SetMemoryLimit(-1)/4)
	}
	return b
}

// BacklogStats are figures of the moment.
type BacklogStats struct {
	Bytes int64  // waiting
	Shed  uint64 // connections that were closed
}

// Stats counts.
func (b *Backlog) Stats() BacklogStats { return BacklogStats{b.bytes.Load(), b.shed.Load()} }

// QueuedBytes is what one connection has not read, also one that is being closed.
type QueuedBytes struct {
	Total   int
	Writing int    // of them: on their way, and free a moment after Shed
	Shed    func() // closes the connection, and lets go of what waits; nil: it was called before
}

// Watch adds a carrier. list calls tell for each connection with unread bytes.
func (b *Backlog) Watch(list func(tell func(QueuedBytes))) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lists = append(b.lists, list)
}

// Hold counts m until it is released, for whoever keeps a reference to it while others may be sending.
func (b *Backlog) Hold(m *Message) {
	if b == nil || !m.counted.CompareAndSwap(false, true) {
		return
	}
	m.backlog = b
	b.count(cap(m.B))
}

// Scarce tells whether there is none to spare for messages whose senders can be told so: half of it is for clients who are connected.
func (b *Backlog) Scarce() bool { return b != nil && b.limit >= 0 && b.bytes.Load() > b.limit/2 }

// add counts bytes, also negative ones. It may be called with any lock held.
func (b *Backlog) count(bytes int) {
	if b == nil {
		return
	}
	if now := b.bytes.Add(int64(bytes)); b.limit >= 0 && now > b.limit && b.shedding.CompareAndSwap(false, true) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !b.closed {
			b.wg.Go(b.shedLargest)
		}
	}
}

// relieve closes connections, those with the most first, until an eighth is free, or will be in a moment: others must not pay for what is
// on its way already.
func (b *Backlog) shedLargest() {
	defer b.shedding.Store(false)
	b.mu.Lock()
	sources := slices.Clone(b.lists)
	b.mu.Unlock()
	var all []QueuedBytes
	var soon int64
	for _, list := range sources {
		list(func(u QueuedBytes) {
			if u.Shed == nil {
				soon += int64(u.Writing)
			} else {
				all = append(all, u)
			}
		})
	}
	slices.SortFunc(all, func(x, y QueuedBytes) int { return cmp.Compare(y.Total, x.Total) })
	for _, u := range all {
		if b.bytes.Load()-soon <= b.limit-b.limit/8 {
			return
		}
		u.Shed()
		soon += int64(u.Writing)
		b.shed.Add(1)
	}
}

// Close waits until nothing is being closed. Nothing is closed any more afterwards.
func (b *Backlog) Close() {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.wg.Wait()
}
