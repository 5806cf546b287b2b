package room

import (
	"context"
	"sync"
	"time"
)

// Limits bound what rooms may cost.
type Limits struct {
	Rooms     int           // rooms of one tenant, default 10,000
	EmptyLife time.Duration // how long a room that nobody is in stays, default 10 minutes
	KeptLife  time.Duration // the same for rooms created with Keep, default 24 hours
}

func (l *Limits) defaults() {
	if l.Rooms == 0 {
		l.Rooms = 10_000
	}
	if l.EmptyLife == 0 {
		l.EmptyLife = 10 * time.Minute
	}
	if l.KeptLife == 0 {
		l.KeptLife = 24 * time.Hour
	}
}

// Registry holds the rooms of this node.
type Registry struct {
	sink   Sink
	limits Limits
	hooks  Hooks

	mu      sync.RWMutex // may be held while a room's mu is taken, never the other way round
	rooms   map[Key]*room
	tenants count[string]          // rooms of each tenant
	makers  count[maker]           // rooms that each user made and that have not ended
	sources count[maker]           // rooms made from each address, and from each site
	groups  map[Key]map[Key]string // of each room that has some: the groups, and who made them
	closed  bool
}

type maker struct{ tenant, user string }

// count counts by key. A key whose count is zero has no entry.
type count[K comparable] map[K]int

func (c count[K]) add(k K) { c[k]++ }

func (c count[K]) remove(k K) {
	if c[k]--; c[k] == 0 {
		delete(c, k)
	}
}

// Hooks are called without locks held; either may be nil.
type Hooks struct {
	Changed func(Key) // the room is not what it was
	Gone    func(Key) // the room has ended
}

// NewRegistry makes an empty registry.
func NewRegistry(sink Sink, l Limits, h Hooks) *Registry {
	l.defaults()
	if h.Changed == nil {
		h.Changed = func(Key) {}
	}
	if h.Gone == nil {
		h.Gone = func(Key) {}
	}
	return &Registry{
		sink:    sink,
		limits:  l,
		hooks:   h,
		rooms:   map[Key]*room{},
		tenants: count[string]{},
		makers:  count[maker]{},
		sources: count[maker]{},
		groups:  map[Key]map[Key]string{},
	}
}

// Do carries out one command on one room. The State is nil except for Get, and for some Broadcast.
func (g *Registry) Do(_ context.Context, key Key, cmd Command) (*State, error) {
	if c, ok := cmd.(Create); ok {
		err := g.create(key, c)
		if err == nil {
			g.hooks.Changed(key)
		}
		return nil, err
	}
	_, endsGroup := cmd.(EndGroup)
	parentHost := endsGroup && g.hostsParent(key, cmd.(EndGroup).By)
	r := g.lookup(key)
	if r == nil {
		return nil, ErrNoRoom
	}
	state, effect, err := r.do(cmd, parentHost, g)
	if effect != staysOpen && g.end(r, effect == destroyed) {
		return state, err
	}
	if _, asked := cmd.(Get); !asked && err == nil {
		g.hooks.Changed(key)
	}
	return state, err
}

// effect is what a command does to the life of a room.
type effect int

const (
	staysOpen effect = iota
	emptied          // the last member left, and the room is not kept
	destroyed
)

// do carries out a command on a locked room and unlocks it, also if a Sink panics.
func (r *room) do(cmd Command, parentHost bool, g *Registry) (state *State, e effect, err error) {
	defer r.mu.Unlock()
	switch c := cmd.(type) {
	case Join:
		if err = r.join(c, g.sink); err == nil {
			r.stopExpiry()
		}
	case Leave:
		err = ErrNotIn
		i := r.index(c.User)
		late := i >= 0 && c.Epoch != 0 && c.Epoch < r.members[i].Epoch
		if i >= 0 && r.members[i].Address == c.Address && !late {
			err = nil
			if r.removeMember(i, g) {
				e = emptied
			}
		}
	case Sync:
		err = r.sync(c, g.sink)
	case Move:
		err = r.move(c, g)
	case Refresh:
		r.refresh(c, g.sink)
	case Get:
		state = r.state()
	case Destroy:
		if err = r.destroy(c, g.sink); err == nil {
			e = destroyed
		}
	case EndGroup:
		if err = r.endGroup(c, parentHost, g.sink); err == nil {
			e = destroyed
		}
	case Kick:
		err = r.kick(c, g)
	default:
		err = r.apply(cmd, g.sink)
		b, ok := cmd.(Broadcast)
		if ok && err == nil && b.Target != "" && r.index(b.Target) < 0 {
			state = r.state()
		}
	}
	return state, e, err
}

// sync sends a resumed session the state of the room, and what it missed.
func (r *room) sync(c Sync, sink Sink) error {
	i := r.index(c.User)
	if i < 0 || r.members[i].Address != c.Address {
		return ErrNotIn
	}
	m := r.members[i]
	e := Event{Kind: Synced, Key: r.key, Seq: r.seq, Member: m, State: r.state()}
	sink.Deliver([]Address{c.Address}, e)
	r.sendBacklog(m, c.Seen, sink)
	// The state has no feeds: some may have been published while the member was disconnected.
	r.sendFeeds(c.User, c.Address, sink)
	return nil
}

// Has tells whether the room is here.
func (g *Registry) Has(key Key) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.rooms[key] != nil
}

// Count is the number of rooms.
func (g *Registry) Count() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.rooms)
}

// Close stops the timers. Rooms are forgotten without a word to their members.
func (g *Registry) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for _, r := range g.rooms {
		r.mu.Lock()
		r.dead = true
		r.stopExpiry()
		r.stopKickTimers()
		r.mu.Unlock()
	}
	clear(g.rooms)
	clear(g.tenants)
	clear(g.makers)
	clear(g.sources)
	clear(g.groups)
}

// lookup finds a room and locks it. It looks again when the room ended in between.
func (g *Registry) lookup(key Key) *room {
	for {
		g.mu.RLock()
		r := g.rooms[key]
		g.mu.RUnlock()
		if r == nil {
			return nil
		}
		r.mu.Lock()
		if !r.dead {
			return r
		}
		r.mu.Unlock()
	}
}

func (g *Registry) create(key Key, c Create) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.rooms[key]; ok {
		return ErrExists
	}
	n := g.tenants[key.Tenant]
	if g.closed || n >= g.limits.Rooms || (c.MaxRooms > 0 && n >= c.MaxRooms) {
		return ErrTooManyRooms
	}
	now := time.Now()
	r := &room{
		key:      key,
		created:  now,
		began:    now,
		maker:    c.Owner,
		source:   c.Source,
		site:     c.Site,
		keep:     c.Keep,
		group:    c.Group,
		talking:  c.Talking,
		owner:    c.Owner,
		title:    c.Title,
		capacity: max(1, c.Capacity),
	}
	if c.MaxOwned > 0 && g.makers[r.makerKey()] >= c.MaxOwned {
		return ErrTooManyOwned
	}
	if g.isFull(maker{key.Tenant, c.Source}, c.MaxFromSource) ||
		g.isFull(maker{key.Tenant, c.Site}, c.MaxFromSite) {
		return ErrTooManyFromAddress
	}
	if c.Parent != "" {
		r.parent, r.listed = Key{key.Tenant, c.Parent}, c.Listed
		if err := g.checkGroupLimits(r.parent, c.Owner, c.ByHost); err != nil && !c.restored {
			return err
		}
		g.attach(r)
	}
	if !c.restored {
		// They belong to a room with the same id that a restart did not bring back.
		delete(g.groups, key)
	}
	g.rooms[key] = r
	g.tenants.add(key.Tenant)
	g.makers.add(r.makerKey())
	for _, from := range r.sourceKeys() {
		g.sources.add(from)
	}
	r.mu.Lock()
	r.startExpiry(g, g.limits.EmptyLife)
	r.mu.Unlock()
	return nil
}

// isFull tells whether most rooms were made from a source or site; g.mu is held.
func (g *Registry) isFull(from maker, most int) bool {
	return from.user != "" && most > 0 && g.sources[from] >= most
}

// removeMember removes a member; it returns true when the room ends with it. r.mu is held.
func (r *room) removeMember(i int, g *Registry) (ended bool) {
	r.remove(i, g.sink)
	if len(r.members) == 0 {
		r.backlog = nil // it is repeated to nobody who was not there
	}
	if len(r.members) == 0 && r.keep {
		r.startExpiry(g, g.limits.KeptLife)
	}
	return len(r.members) == 0 && !r.keep
}

// end removes a room if it is still empty: somebody may have come in since. A room with groups
// stays until the last of them has ended, unless it was destroyed. It tells whether the room has
// gone.
func (g *Registry) end(r *room, destroyed bool) bool {
	var gone []Key
	g.mu.Lock()
	for r != nil && g.remove(r, destroyed) {
		gone = append(gone, r.key)
		destroyed = false
		if r = g.detach(r); r != nil && !r.isEndingWithGroups() {
			break
		}
	}
	g.mu.Unlock()
	for _, key := range gone {
		g.hooks.Gone(key)
	}
	return len(gone) > 0
}

// remove is end for one room; g.mu is held. It tells whether the room was removed.
func (g *Registry) remove(r *room, destroyed bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.dead || len(r.members) > 0:
		return false
	case !destroyed && len(g.groups[r.key]) > 0:
		r.endsWithGroups = true
		return false
	}
	g.forget(r)
	return true
}

// forget is called with g.mu and r.mu held.
func (g *Registry) forget(r *room) {
	r.dead = true
	r.stopExpiry()
	delete(g.rooms, r.key)
	delete(g.groups, r.key) // those that are left are rooms as others
	g.tenants.remove(r.key.Tenant)
	g.makers.remove(r.makerKey())
	for _, from := range r.sourceKeys() {
		g.sources.remove(from)
	}
}

func (r *room) isEndingWithGroups() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.endsWithGroups
}

// startExpiry and stopExpiry are called with r.mu held. A timer that fires late finds members and
// leaves the room alone.
func (r *room) startExpiry(g *Registry, after time.Duration) {
	r.stopExpiry()
	r.expiry = time.AfterFunc(after, func() { g.end(r, false) })
}

func (r *room) stopExpiry() {
	if r.expiry != nil {
		r.expiry.Stop()
		r.expiry = nil
	}
}
