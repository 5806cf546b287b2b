package relay

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// inboxLength bounds what waits for a worker. Whoever puts something in waits when it is full: a
// TCP client is slowed down by that.
const inboxLength = 512

// inbox takes events for a worker from other goroutines.
type inbox struct {
	events chan event
	asleep atomic.Bool // the worker is about to wait: wake it
}

func (b *inbox) init() { b.events = make(chan event, inboxLength) }

// post hands an event to a worker; false: the server is done.
func (w *worker) post(e event) bool {
	select {
	case w.inbox.events <- e:
	case <-w.server.done:
		return false
	}
	if w.inbox.asleep.CompareAndSwap(true, false) {
		w.driver.wake()
	}
	return true
}

// tryPost is post for packets, which may be lost.
func (w *worker) tryPost(e event) bool {
	select {
	case w.inbox.events <- e:
		return true
	default:
		return false
	}
}

// frame is a pooled buffer with room for a ChannelData header in front of what it holds.
type frame struct {
	buf []byte
	n   int
}

// frameSize is what a frame holds; a packet in a call is far smaller, and a larger one gets a
// buffer of its own.
const frameSize = 2048

var frames = sync.Pool{
	New: func() any { return &frame{buf: make([]byte, channelHeader+frameSize)} },
}

// newFrame is a frame for n bytes.
func newFrame(n int) *frame {
	if n > frameSize {
		return &frame{buf: make([]byte, channelHeader+n), n: n}
	}
	f := frames.Get().(*frame)
	f.n = n
	return f
}

func (f *frame) bytes() []byte { return f.buf[channelHeader : channelHeader+f.n] }

func (f *frame) headroom() []byte { return f.buf[:channelHeader+f.n] }

// free gives a frame back; nobody may have a part of it any more.
func (f *frame) free() {
	if len(f.buf) == channelHeader+frameSize {
		frames.Put(f)
	}
}

// channelFrame is a ChannelData message for a stream, padded as RFC 8656 section 12.5 asks.
func channelFrame(number uint16, payload []byte) *frame {
	f := newFrame(channelHeader + (len(payload)+3)&^3)
	b := f.bytes()
	binary.BigEndian.PutUint16(b, number)
	binary.BigEndian.PutUint16(b[2:], uint16(len(payload)))
	clear(b[channelHeader+copy(b[channelHeader:], payload):])
	return f
}
