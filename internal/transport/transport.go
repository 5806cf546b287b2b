// Package transport carries messages over client connections. It handles frames, origins, idle
// clients and slow consumers. It does not know what a message means or who sends it.
//
// An upgraded connection is a Conn. The accept function that is called for it returns a Receiver,
// which gets one message after the other and at the end how the connection ended. Sending never
// blocks: each Conn has a bounded outbox, and a slow consumer is closed with StatusTryAgainLater.
package transport

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Conn is one client connection, whatever its transport.
type Conn interface {
	// Peer describes the client.
	Peer() Peer
	// Send queues a message and takes over one reference to it. It never blocks. It returns false
	// when the connection is closing or its outbox overflowed; the message is then lost.
	Send(m *Message) bool
	// Offer is Send for a message whose sender can be told that it was not delivered. ErrFull means
	// that the messages of its kind have used up their share of the outbox; the connection stays
	// open. ErrClosed means that the connection is closing. Both release the reference.
	Offer(m *Message, share Share) error
	// Close sends what is queued, then a close frame with code and reason (RFC 6455, section 7.4),
	// and ends the connection. It does not wait for that.
	Close(code StatusCode, reason string)
}

// Share is the part of an outbox, in eighths, that messages of a kind may fill if they may be
// refused. The whole outbox is for answers and for the events of rooms, which must not be lost.
type Share int

// Of returns the share of a bound.
func (s Share) Of(bound int) int { return bound * int(s) / 8 }

// Errors of Conn.Offer.
var (
	ErrFull   = errors.New("outbox share is full")
	ErrClosed = errors.New("connection is closing")
)

// Peer is what the first request of a connection tells about its client.
type Peer struct {
	Addr   netip.AddrPort
	Origin string // of the page that connected; empty without a browser
	Host   string // the Host header
	TLS    bool
	// Reserve: the server is full, and the client was let in because it announced a resume. A
	// client that registers anew instead is to be refused.
	Reserve bool
	// EarlyMessage: the first message came with the handshake. Until the client's next message
	// nobody knows whether it has received an answer.
	EarlyMessage bool
}

// Reply answers one message: by the connection itself, or by an acknowledgement of Socket.IO.
type Reply interface {
	Send(m *Message) bool
}

// AckRequested tells whether the client waits for an answer even to a message that needs none: it
// sent the message with an acknowledgement.
func AckRequested(r Reply) bool {
	a, ok := r.(interface{ AckRequested() bool })
	return ok && a.AckRequested()
}

// Receiver gets what a connection brings. Its methods are called one at a time, but not always by
// the same goroutine.
type Receiver interface {
	// Message gets one message: valid UTF-8, not longer than the transport's limit. The bytes are
	// valid until it returns. If it panics the connection is closed; see Panics.
	Message(msg []byte, r Reply)
	// Closed is called once, last.
	Closed(e End)
}

// End tells how a connection ended.
type End struct {
	// Gone: the client left on purpose, with StatusNormalClosure, StatusGoingAway or no code.
	// Otherwise the connection was lost, or the server closed it.
	Gone bool
	Code StatusCode // StatusAbnormalClosure without a close frame

	// Why the server closed the connection, where it is one of these.
	SlowConsumer   bool // its outbox was full
	MessageTooLong bool
	TooManyFrames  bool // too many small ones
	Panicked       bool // a handler of one of its messages: the state of its session is unknown
}

// Message is an encoded message on its way to one or more outboxes. It is pooled. A holder of a
// reference may read B, must not write it after the message was sent, and gives the reference up
// by Send or Release.
type Message struct {
	B       []byte
	refs    atomic.Int32
	counted atomic.Bool             // in backlog
	backlog *Backlog                // owned by who sets counted, then by the last reference
	encoded atomic.Pointer[Message] // for another transport, see As; holds one reference
}

// maxPooled is the largest buffer kept for reuse. States of large rooms are rare and would
// otherwise stay in the pool.
const maxPooled = 16 << 10

var pool = sync.Pool{New: func() any { return &Message{B: make([]byte, 0, 2048)} }}

// NewMessage returns an empty message with one reference.
func NewMessage() *Message {
	m := pool.Get().(*Message)
	m.B = m.B[:0]
	m.refs.Store(1)
	return m
}

// Retain adds n references.
func (m *Message) Retain(n int) { m.refs.Add(int32(n)) }

// Release gives up one reference.
func (m *Message) Release() {
	if m.refs.Add(-1) != 0 {
		return
	}
	if m.counted.Load() {
		m.backlog.count(-cap(m.B))
		m.backlog = nil
		m.counted.Store(false)
	}
	if encoded := m.encoded.Swap(nil); encoded != nil {
		encoded.Release()
	}
	if cap(m.B) <= maxPooled {
		pool.Put(m)
	}
}

// As returns m encoded for another transport, with one reference for the caller, who must hold a
// reference to m. The first call encodes; all receivers share the result, so there can be only one
// such encoding.
func (m *Message) As(encode func(b, of []byte) []byte) *Message {
	encoded := m.encoded.Load()
	if encoded == nil {
		encoded = NewMessage()
		if encoded.B = encode(encoded.B, m.B); !m.encoded.CompareAndSwap(nil, encoded) {
			encoded.Release()
			encoded = m.encoded.Load()
		}
	}
	encoded.Retain(1)
	return encoded
}
