package transport

import (
	"cmp"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
)

// Backlog limits the memory of queued messages, of all clients and transports together: the limits
// of the single outboxes would add up to gigabytes. A message counts once, however many outboxes it
// waits in. At the limit the connections with the most queued bytes are closed with
// StatusTryAgainLater until enough is free. Clients that read are not affected.
//
// Messages that have arrived in part are limited too, to half as much, at least 1 MiB, and apart:
// clients that never finish theirs take nothing from what is queued.
type Backlog struct {
	limit    int64    // static after construction; negative: none
	arriving *Backlog // static after construction; nil in itself
	bytes    atomic.Int64
	shed     atomic.Uint64
	shedding atomic.Bool

	// Guarded by mu.
	mu     sync.Mutex
	lists  []func(yield func(QueuedBytes))
	closed bool

	wg sync.WaitGroup // of shedLargest
}

// DefaultBacklog is the most that a Backlog without a limit of its own may hold.
const DefaultBacklog = 256 << 20

// minArriving is what messages may take that have arrived in part, however low the limit is: a few
// of the largest.
const minArriving = 1 << 20

// NewBacklog returns a Backlog of limit bytes. 0 is the default: a quarter of the memory limit of
// the Go runtime (GOMEMLIMIT), and 256 MiB at most. Negative: there is no limit.
func NewBacklog(limit int) *Backlog {
	b := &Backlog{limit: int64(limit)}
	if limit == 0 {
		b.limit = min(DefaultBacklog, debug.SetMemoryLimit(-1)/4)
	}
	b.arriving = &Backlog{limit: max(b.limit/2, minArriving)}
	if b.limit < 0 {
		b.arriving.limit = -1
	}
	return b
}

// partial is the Backlog of the messages that have arrived in part.
func (b *Backlog) partial() *Backlog {
	if b == nil {
		return nil
	}
	return b.arriving
}

// BacklogStats has the bytes now, and the connections closed since the start.
type BacklogStats struct {
	Bytes   int64 // queued
	Partial int64 // of messages that have arrived in part
	Shed    uint64
}

// Stats returns the current counts.
func (b *Backlog) Stats() BacklogStats {
	return BacklogStats{
		Bytes:   b.bytes.Load(),
		Partial: b.arriving.bytes.Load(),
		Shed:    b.shed.Load() + b.arriving.shed.Load(),
	}
}

// QueuedBytes is what waits for one connection, which may be closing.
type QueuedBytes struct {
	Total   int
	Writing int    // the part that is being written; it is free a moment after Shed
	Shed    func() // closes the connection and drops what waits; nil: it was called before
}

// Watch adds a transport. list calls yield for each connection with queued bytes.
func (b *Backlog) Watch(list func(yield func(QueuedBytes))) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lists = append(b.lists, list)
}

// Hold counts m until it is released. The caller keeps a reference to it, while others may be
// sending it too.
func (b *Backlog) Hold(m *Message) {
	if b == nil || !m.counted.CompareAndSwap(false, true) {
		return
	}
	m.backlog = b
	b.count(cap(m.B))
}

// Scarce tells whether messages whose senders can be told so are to be refused: half of the limit
// is for the others.
func (b *Backlog) Scarce() bool { return b != nil && b.limit >= 0 && b.bytes.Load() > b.limit/2 }

// count adds bytes, which may be negative. It may be called with any lock held.
func (b *Backlog) count(bytes int) {
	if b == nil {
		return
	}
	now := b.bytes.Add(int64(bytes))
	if b.limit >= 0 && now > b.limit && b.shedding.CompareAndSwap(false, true) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !b.closed {
			b.wg.Go(b.shedLargest)
		}
	}
}

// shedLargest closes connections, those with the most queued bytes first, until an eighth is free.
// What is being written to closing connections counts as free, since it soon is: else others would
// be closed for it.
func (b *Backlog) shedLargest() {
	defer b.shedding.Store(false)
	b.mu.Lock()
	lists := slices.Clone(b.lists)
	b.mu.Unlock()
	var all []QueuedBytes
	var soonFree int64
	for _, list := range lists {
		list(func(q QueuedBytes) {
			if q.Shed == nil {
				soonFree += int64(q.Writing)
			} else {
				all = append(all, q)
			}
		})
	}
	slices.SortFunc(all, func(x, y QueuedBytes) int { return cmp.Compare(y.Total, x.Total) })
	for _, q := range all {
		if b.bytes.Load()-soonFree <= b.limit-b.limit/8 {
			return
		}
		q.Shed()
		soonFree += int64(q.Writing)
		b.shed.Add(1)
	}
}

// Close waits for connections that are being closed. Afterwards none are.
func (b *Backlog) Close() {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.wg.Wait()
	b.arriving.Close()
}
