package transport

import (
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// panicLogInterval limits the log of panics that a client can cause at will. All are counted.
const panicLogInterval = time.Second

// Panics counts and logs the panics of message handlers, of all transports together. A transport
// recovers at the boundary of a message, and closes the connection concerned with
// StatusInternalError: the state of its session is unknown (docs/decisions/0010-panics.md).
type Panics struct {
	// Static after construction.
	log     *slog.Logger
	started time.Time

	count   atomic.Uint64
	nextLog atomic.Int64 // a time.Duration since started
}

// NewPanics returns a Panics without any.
func NewPanics(log *slog.Logger) *Panics { return &Panics{log: log, started: time.Now()} }

// Count is the number of panics since the start.
func (p *Panics) Count() uint64 { return p.count.Load() }

// Report counts a recovered value, and logs it with the stack, which is that of the panic when a
// deferred function calls Report.
func (p *Panics) Report(v any) {
	p.count.Add(1)
	now := int64(time.Since(p.started))
	next := p.nextLog.Load()
	if now < next || !p.nextLog.CompareAndSwap(next, now+int64(panicLogInterval)) {
		return
	}
	p.log.Error("panic while handling a message; its connection is closed",
		slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
}
