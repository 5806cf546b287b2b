package transport

import "sync"

// outbox is the bounded queue before a connection's writer. Whoever sends while nobody writes, writes as much as the socket takes at
// once; for the rest there is a goroutine, which exists only while there is something to write: thousands of silent connections
// need none, and most messages neither.
type outbox struct {
	maxCount, maxBytes int
	tryWrite           func(b []byte) (int, error)                    // writes without waiting; nil: not possible
	write              func(b []byte) error                           // writes all, with a deadline
	onDrained          func(closeCode StatusCode, closeReason string) // ends the connection: writes the close frame, or for 1006 none
	abortWrite         func()                                         // cuts short a write that blocks
	backlog            *Backlog                                       // counts what waits; may be nil

	mu          sync.Mutex
	queue       []*Message
	count       int    // messages of queue, and of what is being written
	bytes       int    // theirs
	control     []byte // frames that go before the queue: a ping, an answer to one
	writing     bool   // somebody writes
	closing     bool
	overflowed  bool
	aborted     bool // hurry was called, or is about to be
	closeCode   StatusCode
	closeReason string
	writers     sync.WaitGroup
}

// chunk is frames on their way into the socket: several small messages become one write.
type chunk struct {
	b     []byte
	count int
	bytes int
}

// beyond it no further message is added to a chunk
const chunkSize = 16 << 10

// frames that may wait to go before the queue: more than the answer to one ping and one of ours are dropped (RFC 6455, section 5.5.3)
const maxWaitingControl = 2 * (maxControl + 2)

var chunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, 0, 2048)} }}

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

// fits tells whether m may join what is unread. A message that comes alone always may: the state of a room may be
// larger than the bound, and a client that has read everything is not slow. mu is held.
func (o *outbox) fits(m *Message, count, bytes int) bool {
	return o.count == 0 || o.count < count && o.bytes+len(m.B) <= bytes
}

// send takes over one reference to m.
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

// overflow closes the connection of a client that reads too slowly. It is called with mu held, and gives it up.
func (o *outbox) overflow() {
	dropped := o.queue
	o.uncount(dropped)
	o.overflowed, o.aborted = true, true
	o.beginClose(StatusTryAgainLater, "outbox full: reconnect and resume")
	o.mu.Unlock()
	o.abortWrite()
	for _, d := range dropped {
		d.Release()
	}
}

// unread is what waits, for the backlog.
func (o *outbox) queuedBytes() QueuedBytes {
	o.mu.Lock()
	defer o.mu.Unlock()
	u := QueuedBytes{Total: o.bytes, Writing: o.bytes, Shed: o.shed}
	for _, m := range o.queue {
		u.Writing -= len(m.B)
	}
	if o.aborted {
		u.Shed = nil
	}
	return u
}

// shed is overflow for a client of whom too much waits, of all clients together. One that is being closed gets no more than it has.
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
	for _, d := range dropped {
		d.Release()
	}
}

// offer is send for a message that may be refused; see Conn.
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

// take writes m or puts it into the queue. It is called with mu held, and gives it up.
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

// now writes m without waiting, and leaves to a goroutine what the socket does not take or what has come meanwhile.
func (o *outbox) writeNow(m *Message) {
	k := chunks.Get().(*chunk)
	k.add(m)
	n, err := o.tryWrite(k.b)
	o.mu.Lock()
	if err == nil && n == len(k.b) && len(o.queue) == 0 && len(o.control) == 0 && !o.closing {
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

// say lets a ping or pong go before what is queued, unless enough of them wait.
func (o *outbox) enqueueControl(op byte, payload []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing || len(o.control)+len(payload)+2 > maxWaitingControl {
		return
	}
	o.control = appendFrame(o.control, op, payload)
	o.startWriter()
}

// full tells whether it was closed because it was.
func (o *outbox) isOverflowed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.overflowed
}

// end lets the writer send what is queued and then close with code.
func (o *outbox) close(code StatusCode, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closing {
		o.beginClose(code, reason)
	}
}

// answer is end for a client that has closed: what is queued is not sent any more.
func (o *outbox) replyClose(code StatusCode) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closing {
		o.dropQueue()
		o.beginClose(code, "")
	}
}

// What follows up to run is called with mu held.

func (o *outbox) beginClose(code StatusCode, reason string) {
	o.closing, o.closeCode, o.closeReason = true, code, reason
	o.startWriter()
}

func (o *outbox) startWriter() {
	if !o.writing {
		o.writing = true
		o.writers.Add(1)
		go o.run(chunks.Get().(*chunk), 0, nil)
	}
}

func (o *outbox) settle(k *chunk) {
	o.count -= k.count
	o.bytes -= k.bytes
}

// forget takes messages off the queue.
func (o *outbox) uncount(queue []*Message) {
	for _, m := range queue {
		o.count--
		o.bytes -= len(m.B)
	}
	o.queue = nil
}

func (o *outbox) dropQueue() {
	dropped := o.queue
	o.uncount(dropped)
	o.control = nil
	for _, m := range dropped {
		m.Release()
	}
}

// broken says that a write has failed.
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

// run writes what is left of k, of which n bytes were written before err, and then everything that waits.
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

// wait returns when the last writer has ended. Nothing may be sent afterwards but what send refuses.
func (o *outbox) wait() {
	o.mu.Lock()
	o.dropQueue()
	if !o.closing {
		o.closing, o.closeCode, o.closeReason = true, StatusAbnormalClosure, ""
	}
	o.mu.Unlock()
	o.writers.Wait()
}
