// Package bus carries messages between nodes over NATS core. It implements engine.Bus.
//
// NATS delivers at most once, and in order from one publisher to one subject. The bus adds numbers:
// each frame from one node to another has the next one of their stream, so that the receiver sees
// what is missing. After a pause of 25 ms, and until the receiver confirms it, the sender repeats
// the last number, so that a loss at the end shows too. Frames that wait together are published
// together.
package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

const (
	// queueBytes and queueFrames bound what waits to be sent to one node.
	queueBytes  = 4 << 20
	queueFrames = 8192
	// tailAfter is how long after the last frame the receiver is told its number.
	tailAfter = 25 * time.Millisecond
	// ackEvery is how many frames a receiver handles before it confirms them unasked.
	ackEvery = 128
	// maxUnconfirmed bounds the requests and responses that are remembered until the receiver
	// confirms them. Beyond, a lost one ends only with its context.
	maxUnconfirmed = 1 << 16
	// pendingFrames and pendingBytes bound what has arrived and waits for the handler.
	pendingFrames = 1 << 16
	pendingBytes  = 64 << 20
)

// Conn is what a Bus needs of a *nats.Conn.
type Conn interface {
	Publish(subject string, data []byte) error
	Subscribe(subject string, handle nats.MsgHandler) (*nats.Subscription, error)
}

// Bus is one node's end of all streams.
type Bus struct {
	node   string
	prefix string // of subjects
	conn   Conn

	mu      sync.Mutex
	self    engine.Node         // Guarded by mu.
	peers   map[string]*peer    // Guarded by mu: every node that was ever up.
	waiting map[uint64]*waiting // Guarded by mu, by id.
	asked   uint64              // Guarded by mu: the last id.
	stopped bool                // Guarded by mu.
	wake    *sync.Cond          // On mu: frames wait to be sent, or stopped.
	tail    *time.Timer         // Guarded by mu; nil: everything is confirmed.

	calls   sync.Mutex     // Held during calls of the handler; before mu.
	handler engine.Handler // Guarded by calls.
	sub     *nats.Subscription
	writing sync.WaitGroup
	packet  []byte // Owned by write: reused.

	counters
}

// peer is another node. Its fields are guarded by Bus.mu.
type peer struct {
	engine.Node
	subject string
	out     outStream
	in      inStream
}

// outStream is what this node sends to a peer, since both have their incarnations.
type outStream struct {
	last        uint64 // number of the last frame
	confirmed   uint64 // the last number that the peer has confirmed
	queue       [][]byte
	bytes       int
	unconfirmed []unconfirmed // by number
	quiet       bool          // nothing was sent since the last tick
}

// unconfirmed is a frame whose loss somebody waits to be told of.
type unconfirmed struct {
	seq     uint64
	kind    kind
	id      uint64   // of a request or response
	payload []byte   // of a nack
	ids     []uint64 // of kindLost
}

// inStream is what this node has got from a peer.
type inStream struct {
	incarnation uint64 // of the sender; 0: nothing yet
	last        uint64 // number of the last frame that was handled or is lost
	acked       uint64
}

type waiting struct {
	on   string
	done chan response // for one
}

type response struct {
	payload []byte
	err     error
}

// counters count since the start.
type counters struct {
	sent, received, gaps, refused, overflows atomic.Uint64
}

// Stats are counters of a Bus, and the present length of its queues.
type Stats struct {
	Sent, Received uint64 // frames with a number
	Gaps           uint64 // in streams to this node
	Refused        uint64 // frames of dead nodes, or malformed
	Overflows      uint64 // frames that found a full queue
	Queued         int    // bytes that wait to be sent
}

// New makes the bus of a node. Prefix begins the subjects of the cluster. Until Learn tells the bus
// of its own node, it reaches nobody.
func New(conn Conn, prefix, node string) (*Bus, error) {
	b := &Bus{
		node:    node,
		prefix:  prefix,
		conn:    conn,
		peers:   map[string]*peer{},
		waiting: map[uint64]*waiting{},
	}
	b.wake = sync.NewCond(&b.mu)
	// For every incarnation: interest in a subject takes a moment to reach all nodes.
	sub, err := conn.Subscribe(b.subject(node)+".*", b.receive)
	if err != nil {
		return nil, fmt.Errorf("subscribe to messages of nodes: %w", err)
	}
	if err := sub.SetPendingLimits(pendingFrames, pendingBytes); err != nil {
		return nil, fmt.Errorf("subscribe to messages of nodes: %w", err)
	}
	b.sub = sub
	b.writing.Go(b.write)
	return b, nil
}

// Close ends the bus. The connection stays.
func (b *Bus) Close() {
	_ = b.sub.Unsubscribe() // of a connection that may be closed
	b.mu.Lock()
	b.stopped = true
	if b.tail != nil {
		b.tail.Stop()
	}
	b.abandon(func(*waiting) bool { return true })
	b.wake.Broadcast()
	b.mu.Unlock()
	b.writing.Wait()
}

// Stats returns the present counters.
func (b *Bus) Stats() Stats {
	s := Stats{
		Sent:      b.sent.Load(),
		Received:  b.received.Load(),
		Gaps:      b.gaps.Load(),
		Refused:   b.refused.Load(),
		Overflows: b.overflows.Load(),
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.peers {
		s.Queued += p.out.bytes
	}
	return s
}

// Subject makes a token of a subject from a name: NATS gives '.', '*' and '>' a meaning.
func Subject(name string) string {
	var t strings.Builder
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
			t.WriteByte(c)
		default:
			fmt.Fprintf(&t, "_%02x", c)
		}
	}
	return t.String()
}

func (b *Bus) subject(node string) string { return b.prefix + ".n." + Subject(node) }

// Learn tells the bus what the Directory's Watch tells, of this node too.
func (b *Bus) Learn(n engine.Node) {
	if n.Name != b.node {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.learnPeer(n)
		return
	}
	b.calls.Lock()
	defer b.calls.Unlock()
	b.mu.Lock()
	again := b.self.Incarnation != 0 && n.Incarnation > b.self.Incarnation
	b.self = n
	var had []string
	if again { // all streams begin again
		for name, p := range b.peers {
			if p.in.incarnation != 0 {
				had = append(had, name)
			}
			p.out, p.in = outStream{}, inStream{}
		}
		b.abandon(func(*waiting) bool { return true })
	}
	b.mu.Unlock()
	slices.Sort(had)
	for _, name := range had {
		b.lost(name)
	}
}

// learnPeer is called with mu held.
func (b *Bus) learnPeer(n engine.Node) {
	p := b.peers[n.Name]
	if p == nil {
		p = &peer{}
		b.peers[n.Name] = p
	}
	if n.Incarnation < p.Incarnation {
		return
	}
	if n.Incarnation > p.Incarnation {
		p.out = outStream{}
		p.subject = b.subject(n.Name) + "." + strconv.FormatUint(n.Incarnation, 10)
		b.abandon(func(w *waiting) bool { return w.on == n.Name })
	}
	p.Node = n
	if n.State == engine.Dead {
		p.out = outStream{}
		b.abandon(func(w *waiting) bool { return w.on == n.Name })
	}
}

// abandon ends requests that nobody will respond to. It is called with mu held.
func (b *Bus) abandon(of func(*waiting) bool) {
	for id, w := range b.waiting {
		if of(w) {
			delete(b.waiting, id)
			w.done <- response{err: engine.ErrLost}
		}
	}
}

// Serve implements engine.Bus.
func (b *Bus) Serve(h engine.Handler) (stop func()) {
	b.calls.Lock()
	defer b.calls.Unlock()
	b.handler = h
	return func() {
		b.calls.Lock()
		defer b.calls.Unlock()
		b.handler = nil
		b.mu.Lock()
		defer b.mu.Unlock()
		b.abandon(func(*waiting) bool { return true })
	}
}

// Send implements engine.Bus.
func (b *Bus) Send(node string, payload []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.reach(node)
	if err != nil {
		return err
	}
	return b.put(p, &frame{kind: kindMessage, payload: payload})
}

// Request implements engine.Bus.
func (b *Bus) Request(ctx context.Context, node string, payload []byte) ([]byte, error) {
	w := &waiting{on: node, done: make(chan response, 1)}
	b.mu.Lock()
	p, err := b.reach(node)
	if err == nil {
		b.asked++
		err = b.put(p, &frame{kind: kindRequest, id: b.asked, payload: payload})
	}
	id := b.asked
	if err == nil {
		b.waiting[id] = w
	}
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case r := <-w.done:
		return r.payload, r.err
	case <-ctx.Done():
		b.mu.Lock()
		delete(b.waiting, id)
		b.mu.Unlock()
		return nil, ctx.Err()
	}
}

// reach is called with mu held.
func (b *Bus) reach(node string) (*peer, error) {
	p := b.peers[node]
	if b.stopped || p == nil || p.State == engine.Dead || b.self.Incarnation == 0 {
		return nil, engine.ErrNoNode
	}
	return p, nil
}

// put numbers a frame and queues it. It is called with mu held. Without room the number stays
// missing.
func (b *Bus) put(p *peer, f *frame) error {
	p.out.last++
	f.seq = p.out.last
	p.out.quiet = false
	b.armTail()
	if f.kind != kindMessage && len(p.out.unconfirmed) < maxUnconfirmed {
		u := unconfirmed{seq: f.seq, kind: f.kind, id: f.id}
		switch f.kind {
		case kindNack:
			u.payload = slices.Clone(f.payload)
		case kindLost:
			u.ids, _ = parseIDs(f.payload)
		}
		p.out.unconfirmed = append(p.out.unconfirmed, u)
	}
	b.sent.Add(1)
	if p.out.bytes+len(f.payload) > queueBytes || len(p.out.queue) >= queueFrames {
		b.overflows.Add(1)
		return engine.ErrQueueFull
	}
	b.enqueue(p, f)
	return nil
}

func (b *Bus) enqueue(p *peer, f *frame) {
	f.from, f.incarnation = b.node, b.self.Incarnation
	data := f.append(make([]byte, 0, headerSize+len(f.from)+len(f.payload)))
	p.out.queue = append(p.out.queue, data)
	p.out.bytes += len(data)
	b.wake.Signal()
}

// armTail has unconfirmed streams looked after. It is called with mu held.
func (b *Bus) armTail() {
	if b.tail == nil && !b.stopped {
		b.tail = time.AfterFunc(tailAfter, b.tick)
	}
}

// tick repeats the last number of each stream that is quiet and not confirmed.
func (b *Bus) tick() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tail = nil
	again := false
	for _, p := range b.peers {
		if p.State == engine.Dead || p.out.confirmed == p.out.last {
			continue
		}
		again = true
		if p.out.quiet && len(p.out.queue) == 0 {
			b.enqueue(p, &frame{kind: kindTail, seq: p.out.last})
		}
		p.out.quiet = true
	}
	if again {
		b.armTail()
	}
}

// write publishes what is queued.
func (b *Bus) write() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		var batch [][]byte
		var subject string
		for _, p := range b.peers {
			if len(p.out.queue) > 0 {
				batch, subject = p.out.queue, p.subject
				p.out.queue, p.out.bytes = nil, 0
				break
			}
		}
		switch {
		case b.stopped:
			return
		case batch == nil:
			b.wake.Wait()
			continue
		}
		b.mu.Unlock()
		for len(batch) > 0 {
			var packet []byte
			packet, batch = pack(b.packet[:0], batch)
			// An error is a loss, which the receiver will notice.
			_ = b.conn.Publish(subject, packet)
			b.packet = packet[:0]
		}
		b.mu.Lock()
	}
}

// receive is called for each packet, one at a time.
func (b *Bus) receive(m *nats.Msg) {
	b.calls.Lock()
	defer b.calls.Unlock()
	to, _ := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 10, 64)
	for data := range unpack(m.Data) {
		b.receiveFrame(data, to)
	}
}

// receiveFrame takes a frame to an incarnation of this node. It is called with calls held.
func (b *Bus) receiveFrame(data []byte, to uint64) {
	if b.handler == nil {
		return // what is missing then shows later
	}
	f, err := parseFrame(data)
	if errors.Is(err, errFrame) {
		b.refused.Add(1)
		return
	}
	gap, deliver, ok := b.admit(&f, err, to)
	if !ok {
		b.refused.Add(1)
		return
	}
	if gap {
		b.gaps.Add(1)
		b.lost(f.from)
	}
	if deliver {
		b.received.Add(1)
		b.deliver(&f)
	}
}

// lost is called with calls held.
func (b *Bus) lost(from string) {
	if b.handler != nil {
		b.handler.Lost(from)
	}
}

// admit compares a frame to what is known of its sender. Ok is false for what is refused: frames of
// a dead node or an earlier incarnation, and those to an earlier incarnation of this node.
func (b *Bus) admit(f *frame, err error, to uint64) (gap, deliver, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.peers[f.from]
	switch {
	case to != b.self.Incarnation || f.from == b.node:
		return false, false, false
	case p == nil: // the Directory is late
		p = &peer{}
		b.peers[f.from] = p
	}
	if f.incarnation < max(p.Incarnation, p.in.incarnation) ||
		f.incarnation == p.Incarnation && p.State == engine.Dead {
		return false, false, false
	}
	if f.incarnation > p.in.incarnation {
		gap = p.in.incarnation != 0
		p.in = inStream{incarnation: f.incarnation}
	}
	if f.kind == kindAck && err == nil {
		b.confirm(p, f.seq)
		return gap, false, true
	}
	first := p.in.last + 1 // of what may be missing
	switch {
	case f.kind == kindTail && err == nil:
		p.in.last = max(p.in.last, f.seq)
	case f.seq < first: // a second time
		return gap, false, true
	case err != nil: // of a version that is not understood: lost
		p.in.last = f.seq
	default:
		p.in.last, deliver = f.seq, true
	}
	missing := p.in.last
	if deliver {
		missing--
	}
	known := p.Incarnation == f.incarnation
	if missing >= first {
		gap = true
		if known {
			span := appendSpan(nil, first, missing)
			// Full: the peer's requests end later.
			_ = b.put(p, &frame{kind: kindNack, payload: span})
		}
	}
	if known && (f.kind == kindTail || p.in.last-p.in.acked >= ackEvery) {
		p.in.acked = p.in.last
		b.enqueue(p, &frame{kind: kindAck, seq: p.in.last})
	}
	return gap, deliver, true
}

// confirm is called with mu held.
func (b *Bus) confirm(p *peer, seq uint64) {
	if seq > p.out.last || seq <= p.out.confirmed {
		return
	}
	p.out.confirmed = seq
	i, _ := slices.BinarySearchFunc(p.out.unconfirmed, seq+1, compareSeq)
	p.out.unconfirmed = slices.Delete(p.out.unconfirmed, 0, i)
}

func compareSeq(u unconfirmed, seq uint64) int { return cmp.Compare(u.seq, seq) }

// deliver is called with calls held.
func (b *Bus) deliver(f *frame) {
	switch f.kind {
	case kindMessage:
		b.handler.Message(f.from, f.payload)
	case kindRequest:
		from, incarnation, id := f.from, f.incarnation, f.id
		b.handler.Request(from, f.payload, func(payload []byte) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if p, err := b.reach(from); err == nil && p.Incarnation == incarnation {
				// full: the peer learns of it by the gap
				_ = b.put(p, &frame{kind: kindResponse, id: id, payload: payload})
			}
		})
	case kindResponse:
		b.respond(f.from, f.id, response{payload: slices.Clone(f.payload)})
	case kindLost:
		ids, _ := parseIDs(f.payload)
		for _, id := range ids {
			b.respond(f.from, id, response{err: engine.ErrLost})
		}
	case kindNack:
		if first, last, ok := parseSpan(f.payload); ok {
			b.missed(f.from, first, last)
		}
	}
}

// respond ends a request of this node, if it waits for that peer.
func (b *Bus) respond(from string, id uint64, r response) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.waiting[id]; w != nil && w.on == from {
		delete(b.waiting, id)
		w.done <- r
	}
}

// missed handles that a peer missed frames: the losses that somebody waits to be told of.
func (b *Bus) missed(from string, first, last uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.reach(from)
	if err != nil {
		return
	}
	i, _ := slices.BinarySearchFunc(p.out.unconfirmed, first, compareSeq)
	j, _ := slices.BinarySearchFunc(p.out.unconfirmed, last+1, compareSeq)
	gone := slices.Clone(p.out.unconfirmed[i:j])
	p.out.unconfirmed = slices.Delete(p.out.unconfirmed, i, j)
	var responses []uint64
	for _, u := range gone {
		switch u.kind {
		case kindRequest:
			if w := b.waiting[u.id]; w != nil && w.on == from {
				delete(b.waiting, u.id)
				w.done <- response{err: engine.ErrLost}
			}
		case kindResponse:
			responses = append(responses, u.id)
		case kindLost:
			responses = append(responses, u.ids...)
		case kindNack:
			_ = b.put(p, &frame{kind: kindNack, payload: u.payload})
		}
	}
	if len(responses) > 0 {
		_ = b.put(p, &frame{kind: kindLost, payload: appendIDs(nil, responses)})
	}
}
