package relay

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ieum-rtc/ieum/internal/limit"
	"github.com/pion/stun/v4"
)

// Lifetimes of RFC 8656 sections 3.2, 9 and 12.
const (
	allocationLife    = 10 * time.Minute
	maxAllocationLife = time.Hour
	permissionLife    = 5 * time.Minute
	channelLife       = 10 * time.Minute
	// maxPermissions and maxChannels bound the peers of an allocation. A browser asks for a
	// permission per candidate of the other side.
	maxPermissions = 256
	maxChannels    = 256
)

// allocation is what a client holds (RFC 8656 section 3.2). One worker owns it, creates and closes
// it.
//
// What another worker touches for each hairpin packet stands first, in one cache line.
type allocation struct {
	// Shared.
	peers   atomic.Pointer[peerTable]
	room    atomic.Uint64 // hash of the room's name; 0: unknown
	license uint64        // hash of the tenantHash; static
	closed  atomic.Bool
	down    meter
	bucket  limit.GCRA // of down
	up      meter
	dropped [reasonCount]atomic.Uint32

	// Static after create.
	worker     *worker
	client     path
	session    string   // tenantHash.session
	sockets    int      // as the quota counts them
	holder     Holder   // as of the Allocate request
	tid        [12]byte // of the Allocate request, to recognise a retransmission
	created    time.Duration
	absent     [families]stun.ErrorCode // why one of two requested families is missing
	reserved   []byte                   // RESERVATION-TOKEN handed out
	clientAddr sockaddr                 // UDP clients

	// Owned by the worker.
	upBucket ownedBucket
	credential
	relays   [families]*relaySocket // a Refresh may close one of two
	expires  time.Duration          // on the server's clock; moved by Refresh, enforced by sweep
	lastUp   *channel
	lastDown *channel
}

// meter counts one direction.
type meter struct {
	traffic
	session *limit.GCRA // shared by all allocations of the session; static
}

// permission lets one peer address in and out (RFC 8656 section 9).
type permission struct {
	ip      [16]byte
	expires atomic.Int64 // a time.Duration on the server's clock
}

func (p *permission) live(now time.Duration) bool { return p.expires.Load() > int64(now) }

// channel is a number for a peer (RFC 8656 section 12). Rebinding its number makes a new channel.
type channel struct {
	// Static after construction.
	number     uint16
	peer       endpoint
	permission *permission
	socket     *relaySocket
	route      route
	to         sockaddr

	expires atomic.Int64 // a time.Duration on the server's clock; shared

	// Owned by the allocation's worker.
	batch   openBatch
	hairpin hairpinPeer
}

// hairpinPeer caches the other end of a channel whose peer is an allocation of this server. It is
// cleared when the channel expires: otherwise closed allocations would retain one another in
// memory.
type hairpinPeer struct {
	socket  *relaySocket
	table   *peerTable // of the socket's allocation, in which channel was found
	channel *channel   // back to our relayed address; nil: there is none
}

func (c *channel) live(now time.Duration) bool { return c.expires.Load() > int64(now) }

// peerTable is a snapshot of an allocation's permissions and channels. Only the times in it change.
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

// permission finds a permission that has not expired, or nil.
func (t *peerTable) permission(ip [16]byte, now time.Duration) *permission {
	if p := t.permissionEntry(ip); p != nil && p.live(now) {
		return p
	}
	return nil
}

// permissionEntry finds a permission, expired or not, to renew it in place.
func (t *peerTable) permissionEntry(ip [16]byte) *permission {
	i, ok := slices.BinarySearchFunc(t.permissions, ip, func(p *permission, ip [16]byte) int {
		return compareIP(p.ip, ip)
	})
	if !ok {
		return nil
	}
	return t.permissions[i]
}

func (t *peerTable) channel(number uint16, now time.Duration) *channel {
	i, ok := slices.BinarySearchFunc(t.byNumber, number, func(c *channel, n uint16) int {
		return cmp.Compare(c.number, n)
	})
	if !ok || !t.byNumber[i].live(now) {
		return nil
	}
	return t.byNumber[i]
}

func (t *peerTable) channelTo(peer endpoint, now time.Duration) *channel {
	i, ok := slices.BinarySearchFunc(t.byPeer, peer, func(c *channel, e endpoint) int {
		return compareEndpoint(c.peer, e)
	})
	if !ok || !t.byPeer[i].live(now) {
		return nil
	}
	return t.byPeer[i]
}

// with is a copy with more entries and without those that have expired.
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
		// A channel outlives its permission, which may later be renewed through the channel.
		inUse := func(c *channel) bool { return c.permission == p }
		if p.live(now) || slices.ContainsFunc(n.byNumber, inUse) {
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

// dropFamily removes the peers of a family whose relayed address is closed: another client may get
// its port.
func (a *allocation) dropFamily(f family) {
	t, n := a.peers.Load(), &peerTable{}
	gone := func(c *channel) bool { return c.peer.family() == f }
	for _, c := range t.byNumber {
		if gone(c) {
			c.hairpin = hairpinPeer{}
		}
	}
	n.byNumber = slices.DeleteFunc(slices.Clone(t.byNumber), gone)
	n.byPeer = slices.DeleteFunc(slices.Clone(t.byPeer), gone)
	n.permissions = slices.DeleteFunc(slices.Clone(t.permissions), func(p *permission) bool {
		return familyOf(p.ip) == f
	})
	a.peers.Store(n)
	a.lastUp, a.lastDown = nil, nil
}

// permit creates and renews permissions (RFC 8656 section 10.2), all or none; false: too many.
func (a *allocation) permit(now time.Duration, ips ...[16]byte) bool {
	t, end := a.peers.Load(), int64(now+permissionLife)
	var fresh []*permission
	for _, ip := range ips {
		same := func(p *permission) bool { return p.ip == ip }
		if p := t.permissionEntry(ip); p != nil {
			p.expires.Store(end)
		} else if !slices.ContainsFunc(fresh, same) {
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

// bindChannel creates or renews a channel and its permission (RFC 8656 section 12.2).
func (a *allocation) bindChannel(now time.Duration, number uint16, peer endpoint) reasonCode {
	t := a.peers.Load()
	byNumber, byPeer := t.channel(number, now), t.channelTo(peer, now)
	full := func() bool {
		return len(t.byNumber) >= maxChannels && len(t.with(now, nil, nil).byNumber) >= maxChannels
	}
	switch {
	case byNumber != byPeer:
		// The number has another peer, or the peer another number.
		return reasonBadChannel
	case byNumber == nil && full():
		return reasonTooManyPermissions
	case !a.permit(now, peer.ip):
		return reasonTooManyPermissions
	}
	if byNumber != nil {
		byNumber.expires.Store(int64(now + channelLife))
		return reasonNone
	}
	t = a.peers.Load()
	c := &channel{
		number:     number,
		peer:       peer,
		permission: t.permissionEntry(peer.ip),
		socket:     a.relays[peer.family()],
		route:      a.worker.server.route(peer),
		to:         sockaddrOf(peer),
	}
	c.expires.Store(int64(now + channelLife))
	a.peers.Store(t.with(now, nil, c))
	return reasonNone
}

// mayReach reports whether hairpin packets may go from one allocation to another: only within a
// license and, where it is known, a room. Permissions cannot tell, because they name an address and
// all allocations share the server's.
func (a *allocation) mayReach(b *allocation) bool {
	if a.license != b.license {
		return false
	}
	from, to := a.room.Load(), b.room.Load()
	return from == to || from == 0 || to == 0
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
