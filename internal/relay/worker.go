package relay

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"github.com/pion/stun/v4"
)

// worker serves some of the clients: those whose packets the kernel gives to its sockets, and some of the streams. It has one
// goroutine, which alone makes, changes and ends its allocations, so that nothing here needs a lock.
type worker struct {
	server *Server
	index  int
	driver driver
	inbox  inbox

	// What its clients sent and got, over all allocations.
	up, down traffic

	// Owned by the goroutine.
	now      time.Duration // on the server's clock, read once for each batch
	byClient map[key]*allocation
	owned    map[*allocation]struct{} // of UDP clients and of streams
	nonces   *nonces
	request  stun.Message
	reply    stun.Message
	scratch  []byte
	// Of the packet at hand: on the stack they would not stay, since the driver is an interface.
	from         path
	head         [channelHeader]byte
	tid          [12]byte
	lastSweep    time.Duration
	holdersAsked time.Duration
}

// driver moves a worker's packets. It counts what it sends, before it does so: whoever has received a packet finds it counted.
type driver interface {
	// run serves until the server is done.
	run()
	// wake makes run look at the inbox. Any goroutine may call it.
	wake()
	// bind binds a relay socket; it is read from when watch is called.
	bind(r *relayAddress, port uint16) (*relaySocket, error)
	watch(s *relaySocket) error
	closeSocket(s *relaySocket)
	// reply sends one message to a UDP client at once; false: it is lost.
	reply(p *path, message []byte) bool
	// toPeerNow sends a payload to the peer of a channel. The payload must not change before the batch is flushed.
	toPeer(a *allocation, c *channel, payload []byte)
	// toPeerNow sends a payload to a peer at once.
	toPeerNow(a *allocation, from *relaySocket, to endpoint, payload []byte, dontFragment bool)
	// toClient sends a ChannelData message to an allocation's UDP client; head, if any, goes in front and is copied. up is counted along when the sender is a client of ours as
	// well, and out tells one sender's messages from another's.
	toClient(a *allocation, message []byte, head *[channelHeader]byte, out *openBatch, up *allocation)
	// fragments tells whether DONT-FRAGMENT can be honoured.
	fragments() bool
	close()
}

// packet is what is relayed. With room, the four bytes before the payload may be written.
type packet struct {
	payload []byte
	framed  []byte // the same with four bytes in front, or nil
}

func newWorker(s *Server, index int) *worker {
	w := &worker{
		server: s, index: index, byClient: map[key]*allocation{}, owned: map[*allocation]struct{}{}, nonces: newNonces(s.nonceKey),
		reply: stun.Message{Raw: make([]byte, 0, 512)},
	}
	w.inbox.init()
	return w
}

// lookup finds the allocation of a UDP client. At the port for Binding requests there is none.
func (w *worker) lookup(p *path) *allocation {
	if p.via.binding {
		return nil
	}
	return w.byClient[p.key()]
}

// clientPacket serves one message from a client. The bytes must stay until the batch is flushed.
func (w *worker) fromClient(p *path, a *allocation, b []byte) {
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
		if w.admit(a, &a.up, size) {
			w.driver.toPeer(a, c, b[channelHeader:channelHeader+size])
		}
		return
	}
	peer := w.hairpinSocket(a, c.route, c.peer.port)
	if peer == nil || !w.admit(a, &a.up, size) {
		return
	}
	// The other end's channel for us is kept with ours, until its table changes.
	table := peer.allocation.peers.Load()
	if c.hairpin.socket != peer || c.hairpin.table != table {
		c.hairpin.socket, c.hairpin.table, c.hairpin.channel = peer, table, table.channelTo(c.socket.public, w.now)
	}
	pkt := packet{b[channelHeader : channelHeader+size], b[:channelHeader+size]}
	if returnChannel := c.hairpin.channel; returnChannel != nil && returnChannel.live(w.now) {
		w.toClientChannel(peer.allocation, returnChannel, pkt, &c.out, a)
		return
	}
	w.toClient(peer, c.socket.public, pkt, a)
}

// hairpinSocket finds the relay socket at an address of ours, the end of whose client is reached without a socket. There is nothing else to be
// reached at our own addresses.
func (w *worker) hairpinSocket(a *allocation, r route, port uint16) *relaySocket {
	if r.kind == routeInternal {
		if s := r.relay.socketAt(port); s != nil && !s.allocation.closed.Load() {
			if a.mayReach(s.allocation) {
				return s
			}
			a.drop(reasonOtherRoom)
			return nil
		}
	}
	a.drop(reasonOwnPort)
	return nil
}

// admit keeps a direction of an allocation within its bandwidth and that of its session.
func (w *worker) admit(a *allocation, m *meter, size int) bool {
	cost := costAt(w.server.cfg.Bandwidth, size)
	if cost > 0 && !m.bucket.take(w.now, cost, burstTime) {
		a.drop(reasonOverBandwidth)
		return false
	}
	if of := costAt(w.server.cfg.SessionBandwidth, size); of > 0 && !m.session.take(w.now, of, burstTime) {
		m.bucket.refund(cost)
		a.drop(reasonOverBandwidth)
		return false
	}
	return true
}

// costAt is how long a packet takes at a bandwidth; 0: there is no limit.
func costAt(bandwidth, size int) time.Duration {
	if bandwidth <= 0 {
		return 0
	}
	return time.Duration(size+overhead) * time.Second / time.Duration(bandwidth)
}

// overhead is what is counted against the bandwidth for the headers of IP and UDP.
const overhead = 28

// fromPeer serves a packet that a relay socket has received.
func (w *worker) fromPeer(s *relaySocket, from endpoint, pkt packet) {
	a := s.allocation
	if c := a.lastDown; c != nil && c.peer == from && c.live(w.now) && c.permission.live(w.now) {
		w.toClientChannel(a, c, pkt, &s.out, nil)
		return
	}
	// What comes over the wire from an address of ours is no relayed client, and the permission is for those.
	if w.server.route(from).kind != routeExternal {
		a.drop(reasonOwnSource)
		return
	}
	w.toClient(s, from, pkt, nil)
}

// toClient relays to a client: by a channel when one is bound to the sender, else by a Data indication. up is the sender when it is a
// client of ours too: then it is not this worker that the socket belongs to.
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
			w.toClientChannel(a, c, pkt, &s.out, nil)
		} else {
			w.toClientChannel(a, c, pkt, nil, up)
		}
		return
	}
	if !w.admit(a, &a.down, len(pkt.payload)) {
		return
	}
	_, _ = rand.Read(w.tid[:]) // never fails
	w.scratch = appendData(w.scratch[:0], from, pkt.payload, &w.tid)
	count(a, up, 1, len(pkt.payload))
	if !w.deliver(&a.client, w.scratch) {
		countLost(a, up, len(pkt.payload))
	}
}

// toClientChannel sends a packet to an allocation's client as ChannelData.
func (w *worker) toClientChannel(a *allocation, c *channel, pkt packet, out *openBatch, up *allocation) {
	if up != nil && !c.permission.live(w.now) {
		a.drop(reasonNoPermission)
		return
	}
	size := len(pkt.payload)
	if !w.admit(a, &a.down, size) {
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
		w.driver.toClient(a, pkt.framed, nil, out, up)
		return
	}
	w.driver.toClient(a, pkt.payload, head, out, up)
}

// deliver sends one message to a client at once; false: it is lost.
func (w *worker) deliver(p *path, message []byte) bool {
	if p.stream != nil {
		return p.stream.sendSTUN(message)
	}
	return w.driver.reply(p, message)
}

// respond delivers an answer.
func (w *worker) respond(p *path, message []byte) {
	if !w.deliver(p, message) {
		w.server.stats.reject(p.lossReason())
	}
}

// count counts packets that go down to a client, and up from another one.
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

// count adds packets to an allocation's direction and to that of its worker.
func (a *allocation) count(m *meter, packets, bytes int) {
	m.add(packets, bytes)
	if m == &a.up {
		a.worker.up.add(packets, bytes)
	} else {
		a.worker.down.add(packets, bytes)
	}
}

const (
	sweepInterval = time.Second
	// holderInterval is how often sessions are asked for whether they are in a room still.
	holderInterval = 2 * time.Second
)

// idle tells that there is nothing whose time could run out.
func (w *worker) idle() bool { return len(w.owned) == 0 && w.server.reserved.empty() }

// sweep ends what is over. It is called often and looks once a second.
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
	var held map[string]answer
	if ask {
		w.holdersAsked, held = w.now, map[string]answer{}
	}
	for a := range w.owned {
		if w.now >= a.expires {
			w.closeAllocation(a, closedExpired)
			continue
		}
		if !ask {
			continue
		}
		now, known := held[a.session]
		if !known {
			now.holder, now.in = w.server.holder(a.session)
			held[a.session] = now
		}
		if !now.in {
			w.closeAllocation(a, closedSession)
			continue
		}
		a.setRoom(now.holder)
	}
}

// event is something for a worker to do, from another goroutine.
type event struct {
	frame  *frame // a message of a stream or, with the driver for all systems, a packet; nil: the stream has ended
	stream *stream
	via    *listener
	socket *relaySocket
	from   endpoint
	to     endpoint
}

// handle does what an event says. The frame stays until the batch is flushed.
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
