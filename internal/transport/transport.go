// Package transport carries messages over connections. It knows frames, origins, silence and slowness, and neither what a
// message means nor who sends it.
//
// An upgraded connection is a Conn. Whoever accepts it returns a Receiver, which gets the messages one after the other and, at
// the end, how the connection ended. Sending never blocks: each Conn has a bounded outbox and is closed with 1013 when its
// client reads too slowly.
package transport

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Conn is one client connection, whatever carries it.
type Conn interface {
	// Peer tells who is at the other end.
	Peer() Peer
	// Send puts a message into the outbox and takes over one reference to it. It never blocks. It returns false when the
	// connection is closing or its outbox overflowed; the message is then lost to this connection.
	Send(m *Message) bool
	// Offer is Send for a message that its sender can be told was not delivered. Where Send would soon find the outbox
	// full, and close the connection, Offer returns ErrFull and nothing happens to the connection. ErrClosed: as when Send
	// returns false. In both cases the reference is given up.
	Offer(m *Message, share Share) error
	// Close sends what is in the outbox, then the code and the reason (RFC 6455, section 7.4), and ends the connection. It does
	// not wait for that.
	Close(code StatusCode, reason string)
}

// Share is the part of an outbox, in eighths, that messages of a kind may fill if they may be refused. All of it is for answers and for
// the events of rooms, which cannot be left out.
type Share int

// Of is the share of a bound.
func (s Share) Of(bound int) int { return bound * int(s) / 8 }

// What Offer refuses.
var (
	ErrFull   = errors.New("too much is unread")
	ErrClosed = errors.New("connection is closing")
)

// Peer is what is known of a connection from its start.
type Peer struct {
	Addr   netip.AddrPort
	Origin string // of the page that opened it; empty: not a browser
	Host   string // as the client named us, with port if it did
	TLS    bool
	// Reserve: the server is full, and it was let in because it said that it resumes. Whoever logs in otherwise has no place.
	Reserve      bool
	EarlyMessage bool // its first message came with the request: until there is another one nobody knows that it has seen an answer
}

// Reply answers one message: the connection itself, or the acknowledgement of a carrier that has them.
type Reply interface {
	Send(m *Message) bool
}

// AckRequested tells whether the client waits for an answer even to a message that needs none: it was sent with an acknowledgement.
func AckRequested(r Reply) bool {
	w, ok := r.(interface{ AckRequested() bool })
	return ok && w.AckRequested()
}

// Receiver gets what a connection brings. Its methods are called one at a time, not always by the same goroutine.
type Receiver interface {
	// Message gets one message, which is valid UTF-8 and at most the carrier's limit long. The bytes are valid until it returns.
	Message(msg []byte, r Reply)
	// Closed is called once, last.
	Closed(e End)
}

// End tells how a connection ended.
type End struct {
	// Gone is true when the client left on purpose (close code 1000, 1001 or none), false when the connection was lost or when
	// we closed it.
	Gone bool
	Code StatusCode // 1006 when there was no close frame
	// Full is true when we closed because the outbox was full, Long when it was because a message was too long, Small
	// because of too many small frames.
	SlowConsumer, MessageTooLong, TooManyFrames bool
}

// Message is an encoded message on its way to one or more outboxes. It is pooled: who holds a reference may read B, must not
// write it once it has been sent, and gives the reference up by Send or Release.
type Message struct {
	B       []byte
	refs    atomic.Int32
	counted atomic.Bool             // it counts in backlog
	backlog *Backlog                // written by whoever sets held, read with the last reference
	encoded atomic.Pointer[Message] // the same for another carrier, see As; has one reference
}

// largest buffer kept for reuse: room states of big rooms are rare and would otherwise stay in the pool
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

// Release gives one reference up.
func (m *Message) Release() {
	if m.refs.Add(-1) != 0 {
		return
	}
	if m.counted.Load() {
		m.backlog.count(-cap(m.B))
		m.backlog = nil
		m.counted.Store(false)
	}
	if other := m.encoded.Swap(nil); other != nil {
		other.Release()
	}
	if cap(m.B) <= maxPooled {
		pool.Put(m)
	}
}

// As returns m in the form of another carrier, with one reference for the caller, who has one to m. It is made once, by encode, and shared by
// all receivers: there is one such form.
func (m *Message) As(encode func(b, of []byte) []byte) *Message {
	other := m.encoded.Load()
	if other == nil {
		other = NewMessage()
		if other.B = encode(other.B, m.B); !m.encoded.CompareAndSwap(nil, other) {
			other.Release()
			other = m.encoded.Load()
		}
	}
	other.Retain(1)
	return other
}
