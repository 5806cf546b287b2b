package relay

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"hash/maphash"
	"iter"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v4"
)

const (
	relayBuffer    = 512 << 10
	listenerBuffer = 2 << 20
	// maxBinds bounds the work of one Allocate when other programs hold ports of the range.
	maxBinds = 64
	// reserveTime is how long the odd port of a pair waits for the holder of its token (RFC 8656
	// section 7.2 asks for at least 30 s).
	reserveTime = 30 * time.Second
	maxReserved = 128
	// maxReservedEach bounds what one session reserves: it costs no quota.
	maxReservedEach = 16
	tokenLength     = 8
)

var errNoPort = errors.New("no relay port free")

// relaySocket is a relayed transport address and the socket behind it.
type relaySocket struct {
	// Static once the allocation is open.
	relay      *relayAddress
	port       uint16
	public     endpoint
	allocation *allocation
	worker     *worker
	descriptor

	// closed is set before the port is free for another allocation. Any worker may read it.
	closed atomic.Bool

	// batch is owned by the worker. It joins packets to the client from peers with a channel.
	batch openBatch
}

// descriptor is what a driver knows a relay socket by.
type descriptor struct {
	fd   int          // -1 once it is closed
	conn *net.UDPConn // nil with epoll
}

// relayAddress is an address we relay from, with the sockets at its ports: read for every packet
// between two clients of ours.
type relayAddress struct {
	Address
	min     uint16
	sockets []atomic.Pointer[relaySocket] // by port - min
}

func newRelayAddress(a Address, minPort, maxPort uint16) *relayAddress {
	return &relayAddress{
		Address: a,
		min:     minPort,
		sockets: make([]atomic.Pointer[relaySocket], int(maxPort)-int(minPort)+1),
	}
}

// socketAt is the live socket at a port, or nil.
func (r *relayAddress) socketAt(port uint16) *relaySocket {
	if i := int(port) - int(r.min); i >= 0 && i < len(r.sockets) {
		return r.sockets[i].Load()
	}
	return nil
}

func (r *relayAddress) contains(a netip.Addr) bool { return a == r.Public || a == r.Private }

// routeKind says how a peer is reached.
type routeKind uint8

const (
	routeExternal routeKind = iota // by a socket
	routeInternal                  // at an address of ours: only another client, inside
	routeBlocked                   // not at all: a control port of ours
)

type route struct {
	kind  routeKind
	relay *relayAddress
}

// socketAt is the socket of an allocation at a relayed address of this server, or nil.
func (r route) socketAt(port uint16) *relaySocket {
	if r.kind != routeInternal {
		return nil
	}
	return r.relay.socketAt(port)
}

// route judges where an address leads. It is asked for every packet that goes by no channel.
func (s *Server) route(e endpoint) route {
	a := e.addr()
	here := s.addresses()
	for _, r := range here.relays {
		if r.contains(a) {
			return route{routeInternal, r}
		}
	}
	if e.port == s.port || e.port == s.stunPort {
		// All of 127.0.0.0/8 is this machine.
		if _, ok := here.local[a]; ok || a.IsLoopback() {
			return route{routeBlocked, nil}
		}
	}
	return route{}
}

// relayFor finds the relay address of a family; nil: none.
func (s *Server) relayFor(f family) *relayAddress {
	for _, r := range s.addresses().relays {
		if r.Public.Is4() == (f == v4) {
			return r
		}
	}
	return nil
}

// candidates are the ports of the range. They begin at a random one, since a port that can be
// guessed is half of a spoofed packet, and go round, so that every free port is found.
func (s *Server) candidates() iter.Seq[uint16] {
	span := int(s.cfg.MaxPort) - int(s.cfg.MinPort) + 1
	start := mrand.IntN(span)
	return func(yield func(uint16) bool) {
		for i := range span {
			if port := s.cfg.MinPort + uint16((start+i)%span); port != s.port &&
				port != s.stunPort &&
				!yield(port) {
				return
			}
		}
	}
}

// bindPort opens a socket at one port that is free here.
func (w *worker) bindPort(r *relayAddress, port uint16) (*relaySocket, error) {
	if r.socketAt(port) != nil || w.server.reserved.contains(r, port) {
		return nil, errNoPort
	}
	return w.open(r, port)
}

// open binds a socket and notes it in w.opened.
func (w *worker) open(r *relayAddress, port uint16) (*relaySocket, error) {
	s, err := w.driver.bind(r, port)
	if err == nil {
		w.opened = append(w.opened, s)
	}
	return s, err
}

// bindAny opens a socket at any port.
func (w *worker) bindAny(r *relayAddress) (*relaySocket, error) {
	binds := 0
	for port := range w.server.candidates() {
		if r.socketAt(port) != nil || w.server.reserved.contains(r, port) {
			continue
		}
		s, err := w.open(r, port)
		if err == nil {
			return s, nil
		}
		if binds++; binds == maxBinds {
			break
		}
	}
	return nil, errNoPort
}

// bindEven opens a socket at an even port; with pair also the next one (RFC 8656 section 7.2).
func (w *worker) bindEven(r *relayAddress, pair bool) (even, odd *relaySocket, err error) {
	binds := 0
	for port := range w.server.candidates() {
		if port%2 != 0 || r.socketAt(port) != nil ||
			(pair && (port == w.server.cfg.MaxPort ||
				port+1 == w.server.port || port+1 == w.server.stunPort)) {
			continue
		}
		if even, err = w.bindPort(r, port); err == nil && pair {
			if odd, err = w.bindPort(r, port+1); err != nil {
				w.discard(even)
			}
		}
		if err == nil {
			return even, odd, nil
		}
		if binds++; binds == maxBinds {
			break
		}
	}
	return nil, nil, errNoPort
}

// bindFor opens a socket as it is asked for, at one address; a pair is asked for at one address
// only. The code is why there is none.
func (w *worker) bindFor(
	r *relayAddress,
	d allocateRequest,
) (socket, odd *relaySocket, code stun.ErrorCode) {
	if r == nil {
		return nil, nil, stun.CodeAddrFamilyNotSupported
	}
	var err error
	if d.even {
		socket, odd, err = w.bindEven(r, d.reserve)
	} else {
		socket, err = w.bindAny(r)
	}
	if err != nil {
		w.server.requestRefresh()
		return nil, nil, stun.CodeInsufficientCapacity
	}
	return socket, odd, 0
}

// reservation is the odd port of a pair, bound and waiting.
type reservation struct {
	token   [tokenLength]byte
	session string
	until   time.Duration
	socket  *relaySocket
}

// reservations are bounded by maxReserved, and by a sixteenth of all allocations. The worker that
// made a reservation closes its socket if it is not claimed in time.
type reservations struct {
	mu   sync.Mutex
	list []reservation // guarded by mu
	n    atomic.Int32  // length of list, to be read without mu
}

func (r *reservations) empty() bool { return r.n.Load() == 0 }

// add keeps a socket for a session; nil: there are too many. total is Quota.Total.
func (r *reservations) add(
	s *relaySocket, session string, total int, now time.Duration,
) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := 0
	for _, v := range r.list {
		if v.session == session {
			held++
		}
	}
	if len(r.list) >= maxReserved || held >= maxReservedEach ||
		total > 0 && len(r.list) > total/16 {
		return nil
	}
	v := reservation{session: session, until: now + reserveTime, socket: s}
	_, _ = rand.Read(v.token[:]) // never fails
	r.list = append(r.list, v)
	r.n.Store(int32(len(r.list)))
	return v.token[:]
}

func (r *reservations) contains(a *relayAddress, port uint16) bool {
	if r.empty() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range r.list {
		if v.socket.relay == a && v.socket.port == port {
			return true
		}
	}
	return false
}

// claim hands a reserved socket to the session it waits for.
func (r *reservations) claim(token []byte, session string, now time.Duration) *relaySocket {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, v := range r.list {
		if subtle.ConstantTimeCompare(v.token[:], token) == 1 && v.session == session &&
			now < v.until {
			r.remove(i)
			return v.socket
		}
	}
	return nil
}

// sweep closes a worker's reserved sockets that were not claimed in time.
func (r *reservations) sweep(w *worker, now time.Duration) {
	if r.empty() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.list) - 1; i >= 0; i-- {
		if v := r.list[i]; v.socket.worker == w && now >= v.until {
			r.remove(i)
			w.driver.closeSocket(v.socket)
		}
	}
}

// remove wants mu held.
func (r *reservations) remove(i int) {
	r.list = append(r.list[:i], r.list[i+1:]...)
	r.n.Store(int32(len(r.list)))
}

// discard closes a socket that create has opened.
func (w *worker) discard(s *relaySocket) {
	w.opened = slices.DeleteFunc(w.opened, func(o *relaySocket) bool { return o == s })
	w.driver.closeSocket(s)
}

// create makes an allocation. However it ends without one, by a panic too, nothing is held.
func (w *worker) create(
	p *path,
	m *stun.Message,
	c *credential,
	d allocateRequest,
) (_ *allocation, reason reasonCode, code stun.ErrorCode) {
	s := w.server
	holder, in := s.holder(c.session)
	if !in {
		return nil, reasonNotInRoom, stun.CodeForbidden
	}
	key := quotaKey{c.session, c.tenant, sourceOf(p.remote)}
	sockets := s.socketsFor(d)
	usage := s.quota.acquire(key, sockets, w.now)
	if usage == nil {
		return nil, reasonOverQuota, stun.CodeAllocQuotaReached
	}
	a := &allocation{
		worker:     w,
		client:     *p,
		sockets:    sockets,
		session:    c.session,
		license:    maphash.String(s.seed, c.tenant),
		holder:     holder,
		tid:        m.TransactionID,
		created:    w.now,
		credential: *c,
		expires:    s.deadline(w.now, w.now, d.life),
		clientAddr: sockaddrOf(p.remote),
	}
	a.peers.Store(noPeers)
	registered := false
	defer func() {
		if !registered {
			w.abandon(a, key)
		}
	}()
	a.up.session, a.down.session = &usage.up, &usage.down
	a.setRoom(holder)
	w.bindRelays(a, d)
	if !w.watchRelays(a) {
		return nil, reasonNoPort, stun.CodeInsufficientCapacity
	}
	clear(w.opened) // the allocation and its reservation have them
	w.opened = w.opened[:0]
	registered = true // from here on closeAllocation ends it
	if p.stream != nil {
		p.stream.allocation = a
		s.streams.allocated(p.stream, true)
	} else {
		w.byClient[p.key()] = a
	}
	w.owned[a] = struct{}{}
	s.stats.live.Add(1)
	s.stats.created.Add(1)
	return a, reasonNone, 0
}

// socketsFor is how many sockets an allocation may take: what it costs in ports and descriptors.
func (s *Server) socketsFor(d allocateRequest) int {
	n := 0
	for f, want := range d.want {
		if want && s.relayFor(family(f)) != nil {
			n++
		}
	}
	return max(n, 1)
}

// bindRelays binds what a request asks for, or takes over what was reserved for it.
func (w *worker) bindRelays(a *allocation, d allocateRequest) {
	reserved := &w.server.reserved
	if d.token != nil {
		if socket := reserved.claim(d.token, a.session, w.now); socket != nil {
			w.opened = append(w.opened, socket)
			a.relays[socket.public.family()] = socket
		}
		return
	}
	var odd *relaySocket
	for f, want := range d.want {
		if want {
			a.relays[f], odd, a.absent[f] = w.bindFor(w.server.relayFor(family(f)), d)
		}
	}
	if odd == nil {
		return
	}
	a.reserved = reserved.add(odd, a.session, w.server.cfg.Quota.Total, w.now)
	if a.reserved == nil {
		w.discard(odd)
		w.discard(a.relays[odd.public.family()])
		a.relays = [families]*relaySocket{}
	}
}

// watchRelays begins to read from an allocation's sockets. It reports whether any is left.
func (w *worker) watchRelays(a *allocation) bool {
	ok := false
	for f, socket := range a.relays {
		if socket == nil {
			continue
		}
		socket.allocation, socket.worker = a, w
		if w.driver.watch(socket) != nil {
			w.discard(socket)
			a.relays[f], a.absent[f] = nil, stun.CodeInsufficientCapacity
			continue
		}
		socket.relay.sockets[socket.port-socket.relay.min].Store(socket)
		ok = true
	}
	return ok
}

// abandon gives back what an allocation has taken that is not made after all.
func (w *worker) abandon(a *allocation, key quotaKey) {
	w.closing = true
	a.closed.Store(true)
	if a.reserved != nil {
		w.server.reserved.claim(a.reserved, a.session, w.now)
	}
	for _, socket := range w.opened {
		w.closeSocket(socket)
	}
	clear(w.opened)
	w.opened = w.opened[:0]
	w.server.quota.release(key, a.sockets, w.now)
	w.closing = false
}

// closeSocket closes a socket; its port can be taken again.
func (w *worker) closeSocket(s *relaySocket) {
	s.closed.Store(true)
	s.relay.sockets[s.port-s.relay.min].CompareAndSwap(s, nil)
	w.driver.closeSocket(s)
}

// closeRelay closes one relayed address of an allocation and forgets the peers that it reached.
func (w *worker) closeRelay(a *allocation, f family) {
	if socket := a.relays[f]; socket != nil {
		w.closing = true
		a.relays[f] = nil
		a.dropFamily(f)
		w.closeSocket(socket)
		w.closing = false
	}
}

// closeAllocation closes an allocation: its sockets, its quota and its place in the tables. reason
// is one of those in stats.go, from closedByRefresh on.
func (w *worker) closeAllocation(a *allocation, reason string) {
	a.closed.Store(true)
	for f := range families {
		w.closeRelay(a, f)
	}
	w.closing = true
	if st := a.client.stream; st != nil {
		st.allocation = nil
		w.server.streams.allocated(st, false)
	} else {
		delete(w.byClient, a.client.key())
	}
	delete(w.owned, a)
	w.server.quota.release(
		quotaKey{a.session, tenantOf(a.session), sourceOf(a.client.remote)},
		a.sockets,
		w.now,
	)
	w.server.stats.live.Add(-1)
	w.server.report(a, w.now, reason)
	w.closing = false
}
