package transport

import "sync"

// outbox is the bounded queue before a connection's writer. The writer is a goroutine that exists only while there is
// something to write: thousands of silent connections need none.
type outbox struct {
	maxCount, maxBytes int
	write              func(m *Message) error        // writes one message, with a deadline
	finish             func(code int, reason string) // writes the close frame and ends the connection
	hurry              func()                        // cuts short a write that blocks

	mu      sync.Mutex
	queue   []*Message
	bytes   int  // of queue, and of what the writer is writing
	writing bool // the writer runs
	closing bool
	code    int
	reason  string
	writers sync.WaitGroup
}

// send takes over one reference to m.
func (o *outbox) send(m *Message) bool {
	o.mu.Lock()
	if o.closing {
		o.mu.Unlock()
		m.Release()
		return false
	}
	if len(o.queue) >= o.maxCount || o.bytes+len(m.B) > o.maxBytes {
		dropped := o.queue
		o.queue = nil
		o.close(1013, "outbox full: reconnect and resume")
		o.mu.Unlock()
		o.hurry()
		for _, d := range append(dropped, m) {
			d.Release()
		}
		return false
	}
	o.queue = append(o.queue, m)
	o.bytes += len(m.B)
	o.start()
	o.mu.Unlock()
	return true
}

// end lets the writer send what is queued and then close with code.
func (o *outbox) end(code int, reason string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closing {
		o.close(code, reason)
	}
}

// close and start are called with mu held.
func (o *outbox) close(code int, reason string) {
	o.closing, o.code, o.reason = true, code, reason
	o.start()
}

func (o *outbox) start() {
	if !o.writing {
		o.writing = true
		o.writers.Add(1)
		go o.run()
	}
}

func (o *outbox) run() {
	defer o.writers.Done()
	for {
		o.mu.Lock()
		if len(o.queue) == 0 {
			o.writing = o.closing // a closing outbox needs no further writer
			closing, code, reason := o.closing, o.code, o.reason
			if cap(o.queue) > 8 {
				o.queue = nil
			}
			o.mu.Unlock()
			if closing {
				o.finish(code, reason)
			}
			return
		}
		m := o.queue[0]
		n := copy(o.queue, o.queue[1:])
		o.queue[n] = nil
		o.queue = o.queue[:n]
		o.mu.Unlock()

		size := len(m.B)
		err := o.write(m)
		m.Release()

		o.mu.Lock()
		o.bytes -= size
		if err != nil {
			o.drop()
		}
		o.mu.Unlock()
	}
}

// drop empties the queue; mu is held.
func (o *outbox) drop() {
	for _, m := range o.queue {
		o.bytes -= len(m.B)
		m.Release()
	}
	o.queue = nil
	if !o.closing {
		o.closing, o.code, o.reason = true, 1006, ""
	}
}

// wait returns when the writer has ended. Nothing may be sent afterwards but what send refuses.
func (o *outbox) wait() {
	o.mu.Lock()
	o.drop()
	o.mu.Unlock()
	o.writers.Wait()
}
