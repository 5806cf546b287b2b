package relay

import (
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"math"
	"math/bits"
	"runtime/debug"
	"time"

	"github.com/pion/stun/v4"
)

// worker serves some of the clients: those whose packets the kernel delivers to its sockets, and
// some of the streams. Its one goroutine creates, changes and closes its allocations without locks.
type worker struct {
	// Static after construction.
	server      *Server
	index       int
	driver      driver
	bandwidth   byteCost // of an allocation
	sessionBand byteCost // of all allocations of a session

	// Shared.
	inbox    inbox
	up, down traffic // over all allocations

	// Owned by the goroutine.
	now      time.Duration // on the server's clock, read once per batch
	byClient map[key]*allocation
	owned    map[*allocation]struct{} // of UDP clients and of streams
	nonces   *nonces
	request  stun.Message
	reply    stun.Message
	scratch  []byte
	// Of the current packet. On the stack they would escape, because driver is an interface.
	from         path
	head         [channelHeader]byte
	tid          [12]byte
	lastSweep    time.Duration
	holdersAsked time.Duration
	// opened are the sockets that create has bound and not yet given to anybody.
	opened []*relaySocket
	// closing: something is being closed. A panic is not recovered then.
	closing bool
}

// driver moves a worker's packets. It counts a packet before it sends it, so that a receiver of the
// packet finds it counted. Only the worker's goroutine calls it, unless noted.
type driver interface {
	// run serves until the server is done.
	run()
	// wake makes run look at the inbox. Any goroutine may call it.
	wake()
	// bind binds a relay socket. Nothing is read from it before watch.
	bind(r *relayAddress, port uint16) (*relaySocket, error)
	watch(s *relaySocket) error
	closeSocket(s *relaySocket)
	// reply sends one message to a UDP client at once; false: it is lost.
	reply(p *path, message []byte) bool
	// toPeer sends a payload to the peer of a channel. The payload must not change before the batch
	// is flushed.
	toPeer(a *allocation, c *channel, payload []byte)
	// toPeerNow sends a payload to a peer at once.
	toPeerNow(a *allocation, from *relaySocket, to endpoint, payload []byte, dontFragment bool)
	// toClient sends a ChannelData message to an allocation's UDP client. head, if not nil, is put
	// in front and copied. up is the sending allocation of a hairpin packet, which is counted as
	// well; nil: the packet came from the network. Packets with the same batch may be sent
	// together.
	toClient(
		a *allocation,
		message []byte,
		head *[channelHeader]byte,
		batch *openBatch,
		up *allocation,
	)
	// fragments reports whether DONT-FRAGMENT can be honoured.
	fragments() bool
	// close closes the sockets once run has returned.
	close()
}

// packet is what is relayed.
type packet struct {
	payload []byte
	framed  []byte // payload with writable headroom for a ChannelData header; nil: there is none
}

func newWorker(s *Server, index int) *worker {
	w := &worker{
		server:      s,
		index:       index,
		bandwidth:   byteCostAt(s.cfg.Bandwidth),
		sessionBand: byteCostAt(s.cfg.SessionBandwidth),
		byClient:    map[key]*allocation{},
		owned:       map[*allocation]struct{}{},
		nonces:      newNonces(s.nonceKey),
		reply:       stun.Message{Raw: make([]byte, 0, 512)},
	}
	w.inbox.init()
	return w
}

// lookup finds the allocation of a UDP client. The port for Binding requests alone has none.
func (w *worker) lookup(p *path) *allocation {
	if p.via.binding {
		return nil
	}
	return w.byClient[p.key()]
}

// fromClient serves one message from a client; a is the client's allocation, or nil. The bytes must
// not change before the batch is flushed.
func (w *worker) fromClient(p *path, a *allocation, b []byte) {
	defer w.recoverPacket(p, a)
	if !isChannelData(b) {
		w.handleSTUN(p, a, b)
		return
	}
	if a == nil {
		w.server.stats.reject(reasonNoAllocation)
		return
	}
	size := int(binary.BigEndian.Uint16(b[2:]))
	if size > len(b)-channelHeader {
		a.drop(reasonMalformed)
		return
	}
	number := binary.BigEndian.Uint16(b)
	c := a.lastUp
	if c == nil || c.number != number || !c.live(w.now) {
		if c = a.peers.Load().channel(number, w.now); c == nil {
			a.drop(reasonNoPermission)
			return
		}
		a.lastUp = c
	}
	if c.route.kind == routeExternal {
		if w.admitUp(a, size) {
			w.driver.toPeer(a, c, b[channelHeader:channelHeader+size])
		}
		return
	}
	w.hairpin(a, c, packet{b[channelHeader : channelHeader+size], b[:channelHeader+size]})
}

// recoverPacket is deferred at the boundary of each packet. A panic costs the packet and the
// allocation that it was for, since the allocation's state is unknown; other clients go on. A panic
// while something is closed is not recovered: state that clients share may be half changed.
func (w *worker) recoverPacket(p *path, a *allocation) {
	if w.closing {
		return // a panic goes on, with the stack it began with
	}
	v := recover()
	if v == nil {
		return
	}
	w.server.logPanic(v)
	if a == nil { // the packet may have created it
		if a = p.allocation(w); a == nil {
			w.server.stats.reject(reasonPanic)
			return
		}
	}
	a.drop(reasonPanic)
	if !a.closed.Load() {
		w.closeAllocation(a, closedByPanic)
	}
}

// panicLogInterval bounds the log of a panic that a client can cause at will; all are counted.
const panicLogInterval = time.Second

func (s *Server) logPanic(v any) {
	now := int64(s.now())
	next := s.nextPanicLog.Load()
	if now < next || !s.nextPanicLog.CompareAndSwap(next, now+int64(panicLogInterval)) {
		return
	}
	s.cfg.Log.Error("panic while serving a relay packet; its allocation is closed",
		slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
}

// hairpin relays a packet on a channel whose peer is a relayed address of this server.
func (w *worker) hairpin(a *allocation, c *channel, pkt packet) {
	socket := c.hairpin.socket
	if socket == nil || socket.closed.Load() {
		socket = c.route.socketAt(c.peer.port)
	}
	if !w.mayHairpin(a, socket) || !w.admitUp(a, len(pkt.payload)) {
		return
	}
	// The peer's channel back is cached with ours until the peer's table changes.
	peer := socket.allocation
	table := peer.peers.Load()
	if c.hairpin.socket != socket || c.hairpin.table != table {
		c.hairpin = hairpinPeer{socket, table, table.channelTo(c.socket.public, w.now)}
	}
	if back := c.hairpin.channel; back != nil && back.live(w.now) {
		w.toClientChannel(peer, back, pkt, &c.batch, a)
		return
	}
	w.toClient(socket, c.socket.public, pkt, a)
}

// mayHairpin reports whether an allocation may send to a relay socket of this server; nil: there is
// none at that address. Nothing else can be reached at addresses of this server.
func (w *worker) mayHairpin(a *allocation, socket *relaySocket) bool {
	switch {
	case socket == nil || socket.allocation.closed.Load():
		a.drop(reasonOwnPort)
	case !a.mayReach(socket.allocation):
		a.drop(reasonOtherRoom)
	default:
		return true
	}
	return false
}

// admitUp keeps what a client sends within the bandwidth of its allocation and session. The
// allocation is this worker's.
func (w *worker) admitUp(a *allocation, size int) bool {
	cost := w.bandwidth.of(size)
	fullAt, ok := a.upBucket.after(w.now, cost, burstTime)
	if !ok || !w.admitSession(&a.up, size) {
		a.drop(reasonOverBandwidth)
		return false
	}
	a.upBucket.fullAt = fullAt
	return true
}

// admitDown is admitUp for the other direction. The allocation may be another worker's.
func (w *worker) admitDown(a *allocation, size int) bool {
	cost := w.bandwidth.of(size)
	if cost > 0 && !a.bucket.TakeWithin(w.now, cost, burstTime) {
		a.drop(reasonOverBandwidth)
		return false
	}
	if !w.admitSession(&a.down, size) {
		a.bucket.Refund(cost)
		a.drop(reasonOverBandwidth)
		return false
	}
	return true
}

func (w *worker) admitSession(m *meter, size int) bool {
	cost := w.sessionBand.of(size)
	return cost == 0 || m.session.TakeWithin(w.now, cost, burstTime)
}

// byteCost is how long a byte takes at a bandwidth, in units of 2^-32 ns; 0: no limit. It replaces
// a division for each packet.
type byteCost uint64

// byteCostAt rounds up, so that the cost of a packet is exact where the time of a byte is whole.
func byteCostAt(bandwidth int) byteCost {
	if bandwidth <= 0 {
		return 0
	}
	return byteCost((uint64(time.Second)<<32 + uint64(bandwidth) - 1) / uint64(bandwidth))
}

// of is how long a packet takes.
func (c byteCost) of(size int) time.Duration {
	high, low := bits.Mul64(uint64(c), uint64(size+overhead))
	return time.Duration(high<<32 | low>>32)
}

// overhead is counted against the bandwidth for the headers of IP and UDP.
const overhead = 28

// fromPeer serves a packet that a relay socket has received.
func (w *worker) fromPeer(s *relaySocket, from endpoint, pkt packet) {
	a := s.allocation
	defer w.recoverPacket(&a.client, a)
	if c := a.lastDown; c != nil && c.peer == from && c.live(w.now) && c.permission.live(w.now) {
		w.toClientChannel(a, c, pkt, &s.batch, nil)
		return
	}
	// A packet from the network with a source address of this server is forged: permissions for
	// that address are for hairpin packets.
	if w.server.route(from).kind != routeExternal {
		a.drop(reasonOwnSource)
		return
	}
	w.toClient(s, from, pkt, nil)
}

// toClient relays to the client of a relay socket: on a channel if one is bound to the sender, else
// as a Data indication. up is the sending allocation of a hairpin packet, else nil. With up the
// allocation may belong to another worker.
func (w *worker) toClient(s *relaySocket, from endpoint, pkt packet, up *allocation) {
	a := s.allocation
	t := a.peers.Load()
	if t.permission(from.ip, w.now) == nil {
		a.drop(reasonNoPermission)
		return
	}
	if c := t.channelTo(from, w.now); c != nil {
		if up == nil {
			a.lastDown = c
			w.toClientChannel(a, c, pkt, &s.batch, nil)
		} else {
			w.toClientChannel(a, c, pkt, nil, up)
		}
		return
	}
	if !w.admitDown(a, len(pkt.payload)) {
		return
	}
	_, _ = rand.Read(w.tid[:]) // never fails
	w.scratch = appendData(w.scratch[:0], from, pkt.payload, &w.tid)
	// A longer message would have another length in its header, and a stream would be cut
	// elsewhere: at messages that the peer has written.
	if len(w.scratch)-stunHeader > math.MaxUint16 {
		a.drop(reasonUnsent)
		return
	}
	count(a, up, 1, len(pkt.payload))
	if !w.deliver(&a.client, w.scratch) {
		countLost(a, up, len(pkt.payload))
	}
}

// toClientChannel sends a packet to an allocation's client as ChannelData; batch and up are those
// of driver.toClient.
func (w *worker) toClientChannel(
	a *allocation, c *channel, pkt packet, batch *openBatch, up *allocation,
) {
	if up != nil && !c.permission.live(w.now) {
		a.drop(reasonNoPermission)
		return
	}
	size := len(pkt.payload)
	if !w.admitDown(a, size) {
		return
	}
	if st := a.client.stream; st != nil {
		count(a, up, 1, size)
		if !st.sendChannelData(c.number, pkt.payload) {
			countLost(a, up, size)
		}
		return
	}
	head := &w.head
	binary.BigEndian.PutUint16(head[:], c.number)
	binary.BigEndian.PutUint16(head[2:], uint16(size))
	if pkt.framed != nil {
		copy(pkt.framed, head[:])
		w.driver.toClient(a, pkt.framed, nil, batch, up)
		return
	}
	w.driver.toClient(a, pkt.payload, head, batch, up)
}

// deliver sends one message to a client at once; false: it is lost.
func (w *worker) deliver(p *path, message []byte) bool {
	if p.stream != nil {
		return p.stream.sendSTUN(message)
	}
	return w.driver.reply(p, message)
}

// respond delivers a response.
func (w *worker) respond(p *path, message []byte) {
	if !w.deliver(p, message) {
		w.server.stats.reject(p.lossReason())
	}
}

// count counts packets down to a client and, when they are hairpin packets, up from another client.
func count(down, up *allocation, packets, bytes int) {
	down.count(&down.down, packets, bytes)
	if up != nil {
		up.count(&up.up, packets, bytes)
	}
}

// countLost takes back a packet that was counted and not sent.
func countLost(down, up *allocation, size int) {
	count(down, up, -1, -size)
	down.drop(down.client.lossReason())
}

// count adds packets to a direction of an allocation and to that of its worker.
func (a *allocation) count(m *meter, packets, bytes int) {
	m.add(packets, bytes)
	if m == &a.up {
		a.worker.up.add(packets, bytes)
	} else {
		a.worker.down.add(packets, bytes)
	}
}

const (
	sweepInterval = 500 * time.Millisecond
	// holderInterval is how often Config.Holder is asked whether a session is still in a room.
	holderInterval = 2 * time.Second
)

// nothingToSweep reports that nothing can expire: there is no allocation and no reservation.
func (w *worker) nothingToSweep() bool { return len(w.owned) == 0 && w.server.reserved.empty() }

// sweep closes allocations whose lifetime has ended because their client did not refresh them
// (traffic does not extend it), or whose session has left its room, and expired reservations. It is
// called after each batch and works twice a second.
func (w *worker) sweep() {
	if w.now-w.lastSweep < sweepInterval {
		return
	}
	w.lastSweep = w.now
	w.server.reserved.sweep(w, w.now)
	ask := w.server.cfg.Holder != nil && w.now-w.holdersAsked >= holderInterval
	type answer struct {
		holder Holder
		in     bool
	}
	var bySession map[string]answer
	if ask {
		w.holdersAsked, bySession = w.now, map[string]answer{}
	}
	for a := range w.owned {
		if w.now >= a.expires {
			w.closeAllocation(a, closedExpired)
			continue
		}
		if !ask {
			continue
		}
		current, known := bySession[a.session]
		if !known {
			current.holder, current.in = w.server.holder(a.session)
			bySession[a.session] = current
		}
		if !current.in {
			w.closeAllocation(a, closedSession)
			continue
		}
		a.setRoom(current.holder)
	}
}

// event is work for a worker from another goroutine.
type event struct {
	frame  *frame // a message of a stream or, with netDriver, a packet; nil: the stream has ended
	stream *stream
	via    *listener
	socket *relaySocket
	from   endpoint
	to     endpoint
}

// handle serves an event. Its frame must not be freed before the batch is flushed.
func (w *worker) handle(e *event) {
	switch {
	case e.stream != nil && e.frame == nil:
		if a := e.stream.allocation; a != nil {
			w.closeAllocation(a, closedStream)
		}
		close(e.stream.drained)
	case e.stream != nil:
		w.fromClient(&e.stream.path, e.stream.allocation, e.frame.bytes())
	case e.socket != nil:
		if !e.socket.allocation.closed.Load() {
			b := e.frame.headroom()
			w.fromPeer(e.socket, e.from, packet{b[channelHeader:], b})
		}
	default:
		w.from = path{remote: e.from, local: e.to, via: e.via}
		w.fromClient(&w.from, w.lookup(&w.from), e.frame.bytes())
	}
}
