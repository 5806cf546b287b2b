package signaling

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/netaddr"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// After each step of many random schedules every count is what there is, and at the end, with
// nobody there, zero.
func TestCountsFollowWhatThereIs(t *testing.T) {
	taken := map[string]int{}
	for seed := range uint64(80) {
		nodes := 1 + int(seed%2)
		c := &crowd{
			seed:    seed,
			rng:     rand.New(rand.NewPCG(seed, 1)),
			taken:   taken,
			backlog: transport.NewBacklog(1 << 30),
		}
		in(t, nodes, func(cfg *Config, p *license.Params) {
			p.MaxUser, p.MaxRooms = 5, 6
			cfg.Limits = Limits{Rooms: 3, AddressSessions: 3, AddressRooms: 3}
			cfg.Rooms = room.Limits{EmptyLife: 20 * time.Second, KeptLife: 40 * time.Second}
			cfg.Backlog = c.backlog
			if nodes == 1 {
				cfg.Node, cfg.Keeper = "n0", &memoryKeeper{kept: map[string][]byte{}}
			}
			c.cfg = *cfg
		}, func(w *world) {
			c.world = w
			var err error
			if c.other, err = w.verifier.Issue(license.Params{
				Name: otherTenant, CpCode: otherTenant, CompanyCode: "T", MaxUser: 2,
				Start: time.Now().Add(-time.Hour), End: time.Now().Add(30 * time.Second),
			}); err != nil {
				w.Fatal(err)
			}
			for range 60 {
				c.step()
			}
			c.empties()
		})
		if t.Failed() {
			return
		}
	}
	for _, must := range []string{
		"crash", "resumed", "waiting", "close 4001", "close 4002", "close 4003", "close 1008",
		"register 200", "register 401", "register 409", "register 410", "register 445",
		"createRoom 200", "createRoom 445", "joinRoom 200", "leaveRoom 200", "destroyRoom 200",
		"createGroup 200", "endGroup 200", "kickOut 200", "permit 200", "editRoomInfo 200",
		"publish 200", "screen 200", "chat 200", "inform 200", "sdp 200", "candidate 200",
	} {
		if taken[must] == 0 {
			t.Errorf("never came to %q among %v", must, taken)
		}
	}
}

// empties has everybody leave in some way, and waits until nothing is remembered of them.
func (c *crowd) empties() {
	for _, p := range slices.Clone(c.pages) {
		if c.chance(20) && p.registered {
			c.post(c.nodes[p.node], p.secret)
			continue
		}
		c.part(p)
	}
	c.settle()
	c.did("the end")
	time.Sleep(10 * time.Minute)
	c.settle()
	for _, n := range c.nodes {
		h := n.hub
		s, bytes := h.Stats(), c.backlog.Stats().Bytes
		left := s.Sessions + s.Rooms + s.Rosters + len(h.sources.sessions()) + len(n.known.of) +
			n.limiter.Open()
		if left != 0 || bytes != 0 {
			c.fail("nobody is there, and there are %d bytes, %+v", bytes, s)
		}
		if n := c.limited(h); n != 0 {
			c.fail("a minute has passed, and %d keys are counted", n)
		}
	}
	held := len(c.local.users()) + len(c.local.seats()) + len(c.local.rooms())
	if held+len(c.pages) != 0 {
		c.fail("nobody is there, and the directory has %+v", c.local)
	}
}

// check recomputes every count from the sessions, rooms and connections that there are.
func (c *crowd) check() {
	c.Helper()
	var everyone []*session
	for i, n := range c.nodes {
		here := n.hub.all()
		everyone = append(everyone, here...)
		c.checkConnections(i, here)
		c.checkAddresses(n.hub, here)
		c.checkRosters(n.hub, here)
		c.limited(n.hub)
	}
	c.checkSeats(everyone)
	c.checkRooms(everyone)
	if got, want := c.backlog.Stats().Bytes, c.held(); got != want {
		c.fail("%d bytes are counted, %d wait", got, want)
	}
	if k, ok := c.cfg.Keeper.(*memoryKeeper); ok &&
		len(k.kept) != len(everyone)+len(c.local.rooms()) {
		c.fail("%d records are kept of %d sessions and %d rooms", len(k.kept), len(everyone),
			len(c.local.rooms()))
	}
}

// checkConnections: each registered page has a session, each session has a page or a timer, and the
// limiter knows who is who.
func (c *crowd) checkConnections(node int, here []*session) {
	c.Helper()
	open, users, unregistered := 0, map[netip.Addr]int{}, map[netip.Addr]int{}
	pages := map[userKey]int{}
	for _, p := range c.pages {
		if p.node != node {
			continue
		}
		open++
		if p.registered {
			users[p.addr]++
			pages[userKey{p.tenant, p.user}]++
		} else {
			unregistered[p.addr]++
		}
	}
	connected := map[userKey]int{}
	for _, s := range here {
		if s.client.Load() != nil {
			connected[s.key()]++
		}
		live, away := s.client.Load() != nil, s.disconnectTimer != nil
		if live == away || s.ended || s.onState != nil || (live && len(s.pending) > 0) {
			c.fail("session of %s: client %t, timer %t, ended %t, %d messages wait", s.user, live,
				away, s.ended, len(s.pending))
		}
	}
	n := c.nodes[node]
	if !maps.Equal(connected, pages) {
		c.fail("node %d: sessions with a connection %v, pages that have registered %v", node,
			connected, pages)
	}
	if got := n.limiter.Open(); got != open || !maps.Equal(n.known.of, users) {
		c.fail("node %d: %d connections are counted, %d open; users %v, want %v", node, got, open,
			n.known.of, users)
	}
	for _, home := range crowdHomes {
		a := netip.MustParseAddr(home)
		if got := countUnregistered(n.limiter, a); got != unregistered[a] {
			c.fail("node %d: %d unregistered of %v are counted, want %d", node, got, a,
				unregistered[a])
		}
	}
}

// countUnregistered finds out how many more the limiter would let in.
func countUnregistered(g *transport.ConnLimiter, a netip.Addr) int {
	free := 0
	for ; free <= maxUnregistered; free++ {
		if status, _ := g.Acquire(a, false); status != 0 {
			break
		}
	}
	for range free {
		g.Release(a, false)
	}
	return maxUnregistered - free
}

func (c *crowd) checkAddresses(h *Hub, here []*session) {
	c.Helper()
	want := map[userKey]int{}
	for _, s := range here {
		for _, from := range []string{s.origin.Source, s.origin.Site} {
			if from != "" {
				want[userKey{s.tenant, from}]++
			}
		}
	}
	if got := h.sources.sessions(); !maps.Equal(got, want) {
		c.fail("sessions of addresses are counted as %v, want %v", got, want)
	}
}

func (c *crowd) checkRosters(h *Hub, here []*session) {
	c.Helper()
	local := map[*roster]int{}
	for _, s := range here {
		if s.roster != nil {
			local[s.roster]++
		}
	}
	if len(local) != len(h.rosters) {
		c.fail("%d rosters for sessions in %d rooms", len(h.rosters), len(local))
	}
	for key, ro := range h.rosters {
		if ro.local != local[ro] || ro.local == 0 {
			c.fail("roster of %v counts %d sessions, want %d", key, ro.local, local[ro])
		}
		var want []entry
		snap, _ := c.nodeOf(key).hub.rooms.Snapshot(key)
		for _, m := range snap.State.Members {
			want = append(want, entry{m.ID, h.place(m.Address)})
		}
		slices.SortFunc(want, func(a, b entry) int { return strings.Compare(a.user, b.user) })
		if !slices.Equal(ro.members, want) {
			c.fail("roster of %v: %v, the room has %v", key, ro.members, want)
		}
	}
}

// nodeOf is the node that has the room, by the directory.
func (c *crowd) nodeOf(key room.Key) *testNode {
	c.Helper()
	owner := c.local.rooms()[userKey{key.Tenant, key.Room}]
	i := slices.IndexFunc(c.nodes, func(n *testNode) bool { return n.hub.cfg.Node == owner.Node })
	if i < 0 {
		c.fail("no node has %v", key)
	}
	return c.nodes[i]
}

// checkSeats: the directory has the sessions that there are, and a license as many users.
func (c *crowd) checkSeats(everyone []*session) {
	c.Helper()
	users, seats := map[userKey]Location{}, map[string]int{}
	for _, s := range everyone {
		if _, twice := users[s.key()]; twice {
			c.fail("%s has two sessions", s.user)
		}
		users[s.key()] = s.location
		seats[s.tenant]++
	}
	if !maps.Equal(c.local.users(), users) || !maps.Equal(c.local.seats(), seats) {
		c.fail("the directory has %v, %v; want %v, %v", c.local.users(), c.local.seats(), users,
			seats)
	}
}

// quotas are the rooms of a node, by whom limits count them.
type quotas struct {
	all             int
	tenants         map[string]int
	makers, sources map[userKey]int
}

// checkRooms: the directory has the rooms that there are, whoever is in a room is a session that
// knows it, and each room counts once.
func (c *crowd) checkRooms(everyone []*session) {
	c.Helper()
	of := map[*Hub]*quotas{}
	for _, n := range c.nodes {
		of[n.hub] = &quotas{0, map[string]int{}, map[userKey]int{}, map[userKey]int{}}
	}
	members := 0
	for k := range c.local.rooms() {
		key := room.Key{Tenant: k.tenant, Room: k.id}
		h := c.nodeOf(key).hub
		snap, ok := h.rooms.Snapshot(key)
		if !ok {
			c.fail("the directory has %v, and there is no such room", key)
		}
		r := of[h]
		r.all++
		r.tenants[key.Tenant]++
		r.makers[userKey{key.Tenant, snap.Maker}]++
		for _, from := range []string{snap.Source, snap.Site} {
			if from != "" {
				r.sources[userKey{key.Tenant, from}]++
			}
		}
		for _, m := range snap.State.Members {
			members++
			if !slices.ContainsFunc(everyone, func(s *session) bool {
				return s.address() == m.Address && s.user == m.ID && s.roster != nil &&
					s.roster.key == key
			}) {
				c.fail("%s is in %v, and has no session that is", m.ID, key)
			}
		}
	}
	for _, s := range everyone {
		if s.roster != nil {
			members--
		}
	}
	if members != 0 {
		c.fail("%d sessions are in rooms that have no such member", -members)
	}
	for h, want := range of {
		if got := h.rooms.Count(); got != want.all {
			c.fail("%d rooms, the directory has %d", got, want.all)
		}
		c.checkQuotas(h, want)
	}
}

// checkQuotas finds out the counts by which rooms are refused: one more is refused where the limit
// is what there is, and made where the limit is higher by one.
func (c *crowd) checkQuotas(h *Hub, want *quotas) {
	c.Helper()
	for _, tenant := range []string{c.cpCode, otherTenant} {
		n := want.tenants[tenant]
		c.oneMore(h, tenant, room.Create{MaxRooms: n}, n, room.ErrTooManyRooms)
		c.oneMore(h, tenant, room.Create{MaxRooms: n + 1}, n, nil)
		for _, user := range crowdUsers {
			n := want.makers[userKey{tenant, user}]
			c.oneMore(h, tenant, room.Create{Owner: user, MaxOwned: n}, n, room.ErrTooManyOwned)
			c.oneMore(h, tenant, room.Create{Owner: user, MaxOwned: n + 1}, n, nil)
		}
		for _, home := range crowdHomes {
			from := h.originOf(netaddr.Source(netip.MustParseAddr(home)))
			n := want.sources[userKey{tenant, from.Source}]
			c.oneMore(h, tenant, room.Create{
				Source:        from.Source,
				MaxFromSource: n,
			}, n, room.ErrTooManyFromAddress)
			c.oneMore(h, tenant, room.Create{Source: from.Source, MaxFromSource: n + 1}, n, nil)
			if from.Site != "" {
				n := want.sources[userKey{tenant, from.Site}]
				c.oneMore(h, tenant, room.Create{
					Site:        from.Site,
					MaxFromSite: n,
				}, n, room.ErrTooManyFromAddress)
				c.oneMore(h, tenant, room.Create{Site: from.Site, MaxFromSite: n + 1}, n, nil)
			}
		}
	}
}

// oneMore makes a room, and ends it again. A limit of none is no limit.
func (c *crowd) oneMore(h *Hub, tenant string, cmd room.Create, there int, want error) {
	c.Helper()
	if want != nil && there == 0 {
		return
	}
	ctx := context.Background()
	key := room.Key{Tenant: tenant, Room: "one more"}
	if _, err := h.rooms.Do(ctx, key, cmd); !errors.Is(err, want) {
		c.fail("one more room %+v, where there are %d: %v, want %v", cmd, there, err, want)
	}
	if want != nil {
		return
	}
	if _, err := h.rooms.Do(ctx, key, room.Destroy{By: room.Actor{User: cmd.Owner}}); err != nil {
		c.Fatal(err)
	}
}

// held is how many bytes wait for sessions that are away; a message that waits for several counts
// once.
func (c *crowd) held() int64 {
	bytes := int64(0)
	seen := map[*transport.Message]bool{}
	for _, n := range c.nodes {
		for _, s := range n.hub.all() {
			for _, w := range s.pending {
				if !seen[w.m] {
					seen[w.m] = true
					bytes += int64(cap(w.m.B))
				}
			}
		}
	}
	return bytes
}

// limited counts the keys that limiters remember. Each is remembered for a minute.
func (c *crowd) limited(h *Hub) (keys int) {
	c.Helper()
	type window interface{ Len() int }
	all := []window{h.joins, h.failedJoins, h.takeovers, h.lookedUp}
	for _, l := range []addressLimiter{
		h.failedLogins,
		h.addressLookups,
		h.addressLogins,
		h.addressJoins,
	} {
		all = append(all, l.sources, l.sites, l.allSources, l.allSites)
	}
	for _, w := range all {
		keys += w.Len()
	}
	return keys
}
