package relay

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pion/stun/v4"
)

// Lifetimes of RFC 8656 sections 3.2, 9 and 12.
const (
	allocationLife    = 10 * time.Minute
	maxAllocationLife = time.Hour
	permissionLife    = 5 * time.Minute
	channelLife       = 10 * time.Minute
	// maxPermissions and maxChannels bound the peers of an allocation. A browser asks for one per candidate of the other side.
	maxPermissions = 256
	maxChannels    = 256
)

// allocation is what a client holds (RFC 8656 section 3.2). It belongs to one worker, which alone makes and ends it.
type allocation struct {
	// Static.
	worker     *worker
	client     path
	session    string   // tenantHash.session
	license    uint64   // hash of tenantHash, which a packet is compared by
	holder     Holder   // as it was at the Allocate
	tid        [12]byte // of the Allocate request, to know its repetition
	created    time.Duration
	relays     [families]*relaySocket   // but for the one that a Refresh takes away
	absent     [families]stun.ErrorCode // why one of two families asked for is missing
	reserved   []byte                   // RESERVATION-TOKEN handed out
	clientAddr sockaddr                 // of the client, for UDP

	// Owned by the worker.
	credential
	expires  time.Duration
	lastUp   *channel
	lastDown *channel

	// Shared: a worker that relays from another client of ours to this one reads and counts.
	peers   atomic.Pointer[peerTable]
	closed  atomic.Bool
	room    atomic.Uint64 // hash of the room's name; 0: not known
	up      meter
	down    meter
	dropped [reasonCount]atomic.Uint32
}

// meter counts and limits one direction.
type meter struct {
	traffic
	bucket  bucket
	session *bucket // which all allocations of the session share; static
}

// permission lets one peer address in and out (RFC 8656 section 9).
type permission struct {
	ip      [16]byte
	expires atomic.Int64 // a time.Duration on the server's clock
}

func (p *permission) live(now time.Duration) bool { return p.expires.Load() > int64(now) }

// channel is a short name for a peer (RFC 8656 section 12). It is made once: a new binding of its number is a new channel.
type channel struct {
	number     uint16
	peer       endpoint
	permission *permission
	expires    atomic.Int64
	socket     *relaySocket
	route      route
	to         sockaddr

	// Owned by the allocation's worker.
	out     openBatch
	hairpin hairpinPeer
}

// hairpinPeer is the other end of a channel when the peer is relayed by us too. A channel that is over must not keep it: allocations would
// keep each other in memory, one that is gone the next one that is gone.
type hairpinPeer struct {
	socket  *relaySocket
	table   *peerTable
	channel *channel
}

func (c *channel) live(now time.Duration) bool { return c.expires.Load() > int64(now) }

// peerTable is a snapshot of an allocation's permissions and channels. It is never changed but for the times in it.
type peerTable struct {
	permissions []*permission // by address
	byNumber    []*channel
	byPeer      []*channel
}

var noPeers = &peerTable{}

func compareIP(a, b [16]byte) int { return slices.Compare(a[:], b[:]) }

func compareEndpoint(a, b endpoint) int {
	return cmp.Or(compareIP(a.ip, b.ip), cmp.Compare(a.port, b.port))
}

func (t *peerTable) permission(ip [16]byte, now time.Duration) *permission {
	i, ok := slices.BinarySearchFunc(t.permissions, ip, func(p *permission, ip [16]byte) int { return compareIP(p.ip, ip) })
	if !ok || !t.permissions[i].live(now) {
		return nil
	}
	return t.permissions[i]
}

func (t *peerTable) channel(number uint16, now time.Duration) *channel {
	i, ok := slices.BinarySearchFunc(t.byNumber, number, func(c *channel, n uint16) int { return cmp.Compare(c.number, n) })
	if !ok || !t.byNumber[i].live(now) {
		return nil
	}
	return t.byNumber[i]
}

func (t *peerTable) channelTo(peer endpoint, now time.Duration) *channel {
	i, ok := slices.BinarySearchFunc(t.byPeer, peer, func(c *channel, e endpoint) int { return compareEndpoint(c.peer, e) })
	if !ok || !t.byPeer[i].live(now) {
		return nil
	}
	return t.byPeer[i]
}

// with is a copy with some more, and without those whose time is over.
func (t *peerTable) with(now time.Duration, more []*permission, bound *channel) *peerTable {
	n := &peerTable{}
	for _, c := range t.byNumber {
		if c.live(now) {
			n.byNumber = append(n.byNumber, c)
		} else {
			c.hairpin = hairpinPeer{}
		}
	}
	if bound != nil {
		n.byNumber = append(n.byNumber, bound)
	}
	for _, p := range t.permissions {
		// A channel outlives its permission, which may then be renewed through it.
		if p.live(now) || slices.ContainsFunc(n.byNumber, func(c *channel) bool { return c.permission == p }) {
			n.permissions = append(n.permissions, p)
		}
	}
	n.permissions = append(n.permissions, more...)
	n.byPeer = slices.Clone(n.byNumber)
	slices.SortFunc(n.permissions, func(a, b *permission) int { return compareIP(a.ip, b.ip) })
	slices.SortFunc(n.byNumber, func(a, b *channel) int { return cmp.Compare(a.number, b.number) })
	slices.SortFunc(n.byPeer, func(a, b *channel) int { return compareEndpoint(a.peer, b.peer) })
	return n
}

// dropFamily takes the peers of a family away, whose relayed address is closed: another client may get its port.
func (a *allocation) dropFamily(f family) {
	t, n := a.peers.Load(), &peerTable{}
	of := func(c *channel) bool { return c.peer.family() == f }
	for _, c := range t.byNumber {
		if of(c) {
			c.hairpin = hairpinPeer{}
		}
	}
	n.byNumber = slices.DeleteFunc(slices.Clone(t.byNumber), of)
	n.byPeer = slices.DeleteFunc(slices.Clone(t.byPeer), of)
	n.permissions = slices.DeleteFunc(slices.Clone(t.permissions), func(p *permission) bool { return familyOf(p.ip) == f })
	a.peers.Store(n)
	a.lastUp, a.lastDown = nil, nil
}

// permissionEntry is permission without the question whether it is over: then it is renewed in place.
func (t *peerTable) permissionEntry(ip [16]byte) *permission {
	i, ok := slices.BinarySearchFunc(t.permissions, ip, func(p *permission, ip [16]byte) int { return compareIP(p.ip, ip) })
	if !ok {
		return nil
	}
	return t.permissions[i]
}

// permit opens permissions for peers and renews those there are (RFC 8656 section 10.2). It opens all or none: false when there
// would be too many.
func (a *allocation) permit(now time.Duration, ips ...[16]byte) bool {
	t, end := a.peers.Load(), int64(now+permissionLife)
	var fresh []*permission
	for _, ip := range ips {
		if p := t.permissionEntry(ip); p != nil {
			p.expires.Store(end)
		} else if !slices.ContainsFunc(fresh, func(p *permission) bool { return p.ip == ip }) {
			p := &permission{ip: ip}
			p.expires.Store(end)
			fresh = append(fresh, p)
		}
	}
	if len(fresh) == 0 {
		return true
	}
	next := t.with(now, fresh, nil)
	if len(next.permissions) > maxPermissions {
		return false
	}
	a.peers.Store(next)
	return true
}

// bindChannel makes a channel, or renews it, together with the permission (RFC 8656 section 12.2).
func (a *allocation) bindChannel(now time.Duration, number uint16, peer endpoint) reasonCode {
	t := a.peers.Load()
	byNumber, byPeer := t.channel(number, now), t.channelTo(peer, now)
	switch {
	case byNumber != byPeer:
		// The number has another peer, or the peer another number.
		return reasonBadChannel
	case byNumber == nil && len(t.byNumber) >= maxChannels && len(t.with(now, nil, nil).byNumber) >= maxChannels:
		return reasonTooManyPermissions
	case !a.permit(now, peer.ip):
		return reasonTooManyPermissions
	}
	if byNumber == nil {
		t = a.peers.Load()
		s := a.worker.server
		c := &channel{number: number, peer: peer, permission: t.permissionEntry(peer.ip), socket: a.relays[peer.family()], route: s.route(peer), to: sockaddrOf(peer)}
		c.expires.Store(int64(now + channelLife))
		a.peers.Store(t.with(now, nil, c))
		return reasonNone
	}
	byNumber.expires.Store(int64(now + channelLife))
	return reasonNone
}

// mayReach tells whether packets go from one client of ours to another: only within a license and, where it is known, a room. A permission
// cannot tell them apart, since it names an address and they all have ours.
func (a *allocation) mayReach(b *allocation) bool {
	if a.license != b.license {
		return false
	}
	in, there := a.room.Load(), b.room.Load()
	return in == there || in == 0 || there == 0
}

// setRoom notes which room the session is in.
func (a *allocation) setRoom(h Holder) {
	var room uint64
	if h.Room != "" {
		room = max(1, maphash.String(a.worker.server.seed, h.Room))
	}
	a.room.Store(room)
}

// drop counts a packet of this allocation that was not relayed.
func (a *allocation) drop(r reasonCode) {
	a.dropped[r].Add(1)
	a.worker.server.stats.reject(r)
}
