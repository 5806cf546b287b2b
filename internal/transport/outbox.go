package transport

import "sync"

// outbox is the bounded queue before a connection's writer. A sender writes by itself as much as
// the socket takes at once, if nobody else writes. For the rest there is a goroutine, which exists
// only while there is something to write: thousands of idle connections need none, and most
// messages need none either.
type outbox struct {
	// Static after construction.
	maxCount, maxBytes int
	tryWrite           func(b []byte) (int, error) // writes without waiting; nil: not possible
	write              func(b []byte) error        // writes all, with a deadline
	// onDrained ends the connection. It writes a close frame, unless code is StatusAbnormalClosure.
	onDrained  func(code StatusCode, reason string)
	abortWrite func()   // ends a write that waits
	backlog    *Backlog // counts what waits; may be nil

	// Guarded by mu.
	mu          sync.Mutex
	queue       []*Message
	count       int    // messages queued or being written
	bytes       int    // bytes queued or being written
	control     []byte // frames that go before the queue: a ping, pongs
	writing     bool   // a sender or the goroutine writes
	closing     bool
	overflowed  bool
	aborted     bool // abortWrite was called, or is about to be
	closeCode   StatusCode
	closeReason string

	writers sync.WaitGroup // the sender or goroutine that writes
}

// chunk is frames on their way into the socket: several small messages become one write.
type chunk struct {
	b     []byte
	count int
	bytes int // of messages
}

// chunkSize is the size from which on no further message is added to a chunk.
const chunkSize = 16 << 10

// maxWaitingControl limits the frames that go before the queue. Pongs beyond the answer to one ping
// are dropped (RFC 6455, section 5.5.3).
const maxWaitingControl = 2 * (maxControl + 2)

var chunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, 0, 2048)} }}

// add appends m as a frame and releases it.
func (k *chunk) add(m *Message) {
	k.b = appendFrame(k.b, opText, m.B)
	k.count++
	k.bytes += len(m.B)
	m.Release()
}

func (k *chunk) free() {
	if cap(k.b) <= 2*chunkSize {
		k.b, k.count, k.bytes = k.b[:0], 0, 0
		chunks.Put(k)
	}
}

// fits tells whether m may be queued. A message that finds the outbox empty always may: the state
// of a room may be larger than the limit, and a client that has read everything is not slow. mu is
// held.
func (o *outbox) fits(m *Message, count, bytes int) bool {
	return o.count == 0 || o.count < count && o.bytes+len(m.B) <= bytes
}

// send takes over one reference to m; see Conn.Send.
func (o *outbox) send(m *Message) bool {
	o.mu.Lock()
	if o.closing {
		o.mu.Unlock()
		m.Release()
		return false
	}
	if !o.fits(m, o.maxCount, o.maxBytes) {
		o.overflow()
		m.Release()
		return false
	}
	o.writeOrQueue(m)
	return true
}

// overflow closes the connection of a slow consumer. It is called with mu held, and unlocks it.
func (o *outbox) overflow() {
	dropped := o.queue
	o.uncount(dropped)
	o.overflowed, o.aborted = true, true
	o.beginClose(StatusTryAgainLater, "outbox full: reconnect and resume")
	o.mu.Unlock()
	o.abortWrite()
	for _, m := range dropped {
		m.Release()
	}
}

// queuedBytes is what waits, for the backlog.
func (o *outbox) queuedBytes() QueuedBytes {
	o.mu.Lock()
	defer o.mu.Unlock()
	q := QueuedBytes{Total: o.bytes, Writing: o.bytes, Shed: o.shed}
	for _, m := range o.queue {
		q.Writing -= len(m.B)
	}
	if o.aborted {
		q.Shed = nil
	}
	return q
}

// shed closes the connection because all outboxes together are too full. Where it is closing
// already, what waits is dropped.
func (o *outbox) shed() {
	o.mu.Lock()
	if !o.closing {
		o.overflow()
		return
	}
	dropped := o.queue
	o.uncount(dropped)
	o.aborted = true
	o.mu.Unlock()
	o.abortWrite()
	for _, m := range dropped {
		m.Release()
	}
}

// offer takes over one reference to m; see Conn.Offer.
func (o *outbox) offer(m *Message, share Share) error {
	o.mu.Lock()
	var err error
	switch {
	case o.closing:
		err = ErrClosed
	case !o.fits(m, share.Of(o.maxCount), share.Of(o.maxBytes)):
		err = ErrFull
	default:
		o.writeOrQueue(m)
		return nil
	}
	o.mu.Unlock()
	m.Release()
	return err
}

// writeOrQueue is called with mu held, and unlocks it.
func (o *outbox) writeOrQueue(m *Message) {
	o.count++
	o.bytes += len(m.B)
	if o.tryWrite == nil || o.writing {
		o.backlog.Hold(m)
		o.queue = append(o.queue, m)
		o.startWriter()
		o.mu.Unlock()
		return
	}
	o.writing = true
	o.writers.Add(1)
	o.mu.Unlock()
	o.writeNow(m)
}

// writeNow writes m without waiting. What the socket does not take, and what has been queued
// meanwhile, is left to a goroutine.
func (o *outbox) writeNow(m *Message) {
	k := chunks.Get().(*chunk)
	k.add(m)
	n, err := o.tryWrite(k.b)
	o.mu.Lock()
	done := err == nil && n == len(k.b)
	if done && len(o.queue) == 0 && len(o.control) == 0 && !o.closing {
		o.settle(k)
		o.writing = false
		o.mu.Unlock()
		o.writers.Done()
		k.free()
		return
	}
	if err != nil {
		o.fail() // before others can fill the queue
	}
	o.mu.Unlock()
	go o.run(k, n, err)
}

// enqueueControl queues a ping or pong before the messages, unless enough of them wait.
func (o *outbox) enqueueControl(op byte, payload []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || len(o.control)+len(payload)+2 > maxWaitingControl {
		return
	}
	o.control = appendFrame(o.control, op, payload)
	o.startWriter()
}

// isOverflowed tells whether the connection was closed because the outbox was full.
func (o *outbox) isOverflowed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.overflowed
}

// close has the writer send what is queued and then close with code.
func (o *outbox) close(code StatusCode, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closing {
		o.beginClose(code, reason)
	}
}

// replyClose answers the close frame of a client. What is queued is dropped.
func (o *outbox) replyClose(code StatusCode) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closing {
		o.dropQueue()
		o.beginClose(code, "")
	}
}

// mu is held for all that follows, up to run.

func (o *outbox) beginClose(code StatusCode, reason string) {
	o.closing, o.closeCode, o.closeReason = true, code, reason
	o.startWriter()
}

// startWriter starts the goroutine, unless somebody writes: whoever does goes on with the queue.
func (o *outbox) startWriter() {
	if !o.writing {
		o.writing = true
		o.writers.Add(1)
		go o.run(chunks.Get().(*chunk), 0, nil)
	}
}

// settle takes a written chunk off the counts.
func (o *outbox) settle(k *chunk) {
	o.count -= k.count
	o.bytes -= k.bytes
}

// uncount empties the queue and takes its messages off the counts. The caller releases them.
func (o *outbox) uncount(queue []*Message) {
	for _, m := range queue {
		o.count--
		o.bytes -= len(m.B)
	}
	o.queue = nil
}

// dropQueue drops all that waits.
func (o *outbox) dropQueue() {
	dropped := o.queue
	o.uncount(dropped)
	o.control = nil
	for _, m := range dropped {
		m.Release()
	}
}

// fail says that a write has failed.
func (o *outbox) fail() {
	o.dropQueue()
	o.closing, o.closeCode, o.closeReason = true, StatusAbnormalClosure, ""
}

// fill moves what waits into k.
func (o *outbox) fill(k *chunk) {
	k.b = append(k.b[:0], o.control...)
	k.count, k.bytes = 0, 0
	o.control = nil
	n := 0
	for n < len(o.queue) && (n == 0 || len(k.b)+len(o.queue[n].B) <= chunkSize) {
		k.add(o.queue[n])
		n++
	}
	rest := copy(o.queue, o.queue[n:])
	clear(o.queue[rest:])
	o.queue = o.queue[:rest]
	if rest == 0 && cap(o.queue) > 8 {
		o.queue = nil
	}
}

// run writes the rest of k, of which n bytes were written before err, and then all that waits. It
// is the goroutine of an outbox.
func (o *outbox) run(k *chunk, n int, err error) {
	defer o.writers.Done()
	defer k.free()
	for {
		if err == nil && n < len(k.b) {
			o.backlog.count(cap(k.b))
			err = o.write(k.b[n:])
			o.backlog.count(-cap(k.b))
		}
		o.mu.Lock()
		o.settle(k)
		if err != nil {
			o.fail()
		}
		o.fill(k)
		if len(k.b) == 0 {
			o.writing = o.closing // a closing outbox needs no further writer
			closing, code, reason := o.closing, o.closeCode, o.closeReason
			o.mu.Unlock()
			if closing {
				o.onDrained(code, reason)
			}
			return
		}
		n, err = 0, nil
		o.mu.Unlock()
	}
}

// wait closes the outbox and returns when the last writer has ended.
func (o *outbox) wait() {
	o.mu.Lock()
	o.dropQueue()
	if !o.closing {
		o.closing, o.closeCode, o.closeReason = true, StatusAbnormalClosure, ""
	}
	o.mu.Unlock()
	o.writers.Wait()
}
