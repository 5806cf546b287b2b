package engine

import "maps"

// Table is what a Directory decides, without locks, time and network: the same calls in the same
// order give the same answers and the same table. The zero Table is not usable, see NewTable.
type Table struct {
	users map[Key]userEntry
	taken map[string]int // user ids taken, by tenant
	rooms map[Key]roomEntry
	nodes map[string]Node

	epoch uint64 // the highest that was given or brought
	ended uint64 // the highest that was released or replaced
	term  uint64 // the highest that was given or brought
}

// Key is an id of a tenant: of a user or of a room.
type Key struct{ Tenant, ID string }

type userEntry struct {
	Location
	incarnation uint64 // of the node when it claimed the id
}

type roomEntry struct {
	Owner
	incarnation uint64
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{
		users: map[Key]userEntry{},
		taken: map[string]int{},
		rooms: map[Key]roomEntry{},
		nodes: map[string]Node{},
	}
}

// Join makes the node known and up, with a new incarnation.
func (t *Table) Join(node string) Node {
	n := Node{Name: node, Incarnation: t.nodes[node].Incarnation + 1, State: Up}
	t.nodes[node] = n
	return n
}

// SetState changes the state of a node, unless it is dead already or has joined again since the
// incarnation; ok tells whether anything changed.
func (t *Table) SetState(node string, incarnation uint64, state NodeState) (n Node, ok bool) {
	n = t.nodes[node]
	if n.Incarnation != incarnation || n.State == state || n.State == Dead || n.State == 0 ||
		!state.known() {
		return n, false
	}
	n.State = state
	t.nodes[node] = n
	return n, true
}

// Nodes returns all nodes that have ever joined, in no order.
func (t *Table) Nodes() []Node {
	all := make([]Node, 0, len(t.nodes))
	for _, n := range t.nodes {
		all = append(all, n)
	}
	return all
}

// Node returns a node; the zero Node: it never joined.
func (t *Table) Node(name string) Node { return t.nodes[name] }

// Users returns the holders of all user ids.
func (t *Table) Users() map[Key]Location {
	all := make(map[Key]Location, len(t.users))
	for k, e := range t.users {
		all[k] = e.Location
	}
	return all
}

// Taken returns the number of user ids that are taken, by tenant.
func (t *Table) Taken() map[string]int { return maps.Clone(t.taken) }

// Rooms returns the owners of all rooms.
func (t *Table) Rooms() map[Key]Owner {
	all := make(map[Key]Owner, len(t.rooms))
	for k, e := range t.rooms {
		all[k] = e.Owner
	}
	return all
}

// claimant returns the incarnation with which the node may claim.
func (t *Table) claimant(node string) (incarnation uint64, err error) {
	n := t.nodes[node]
	if n.State == Dead || n.State == 0 {
		return 0, ErrStale
	}
	return n.Incarnation, nil
}

// ClaimUser implements Directory.
func (t *Table) ClaimUser(tenant, user string, l Location, limit int) (Location, error) {
	incarnation, err := t.claimant(l.Node)
	if err != nil {
		return Location{}, err
	}
	k := Key{tenant, user}
	if e, ok := t.users[k]; ok {
		if !e.is(l) {
			return e.Location, ErrTaken
		}
		e.incarnation = incarnation
		t.users[k] = e
		return e.Location, nil
	}
	switch {
	case l.Epoch != 0 && l.Epoch <= t.ended:
		return Location{}, ErrStale
	case t.taken[tenant] >= limit:
		return Location{}, ErrLicenseFull
	case l.Epoch == 0:
		l.Epoch = t.epoch + 1
	}
	t.taken[tenant]++
	t.epoch = max(t.epoch, l.Epoch)
	t.users[k] = userEntry{l, incarnation}
	return l, nil
}

// is tells whether l is the location; an epoch of 0 stands for any.
func (e userEntry) is(l Location) bool {
	return e.Node == l.Node && e.Session == l.Session && (l.Epoch == 0 || l.Epoch == e.Epoch)
}

// TakeUser implements Directory.
func (t *Table) TakeUser(tenant, user string, from, l Location) (Location, error) {
	incarnation, err := t.claimant(l.Node)
	if err != nil {
		return Location{}, err
	}
	k := Key{tenant, user}
	if e, ok := t.users[k]; !ok || e.Location != from {
		return e.Location, ErrTaken
	}
	t.ended = max(t.ended, from.Epoch)
	t.epoch++
	l.Epoch = t.epoch
	t.users[k] = userEntry{l, incarnation}
	return l, nil
}

// Holder implements Directory.
func (t *Table) Holder(tenant, user string) Location { return t.users[Key{tenant, user}].Location }

// ReleaseUser implements Directory.
func (t *Table) ReleaseUser(tenant, user string, l Location) {
	k := Key{tenant, user}
	if e, ok := t.users[k]; ok && e.is(l) {
		t.freeUser(k, e)
	}
}

func (t *Table) freeUser(k Key, e userEntry) {
	t.ended = max(t.ended, e.Epoch)
	delete(t.users, k)
	if t.taken[k.Tenant]--; t.taken[k.Tenant] == 0 {
		delete(t.taken, k.Tenant)
	}
}

// ClaimRoom implements Directory.
func (t *Table) ClaimRoom(tenant, room string, o Owner) (Owner, error) {
	incarnation, err := t.claimant(o.Node)
	if err != nil {
		return Owner{}, err
	}
	k := Key{tenant, room}
	e, ok := t.rooms[k]
	switch {
	case ok && e.Node != o.Node:
		return e.Owner, nil
	case !ok:
		t.term = max(t.term, o.Term) + 1
		e.Owner = Owner{o.Node, t.term}
	}
	e.incarnation = incarnation
	t.rooms[k] = e
	return e.Owner, nil
}

// TakeRoom implements Directory.
func (t *Table) TakeRoom(tenant, room string, from Owner, node string) (Owner, error) {
	incarnation, err := t.claimant(node)
	if err != nil {
		return Owner{}, err
	}
	k := Key{tenant, room}
	if e, ok := t.rooms[k]; !ok || e.Owner != from {
		return e.Owner, ErrTaken
	}
	t.term++
	o := Owner{node, t.term}
	t.rooms[k] = roomEntry{o, incarnation}
	return o, nil
}

// RoomOwner implements Directory.
func (t *Table) RoomOwner(tenant, room string) Owner { return t.rooms[Key{tenant, room}].Owner }

// ReleaseRoom implements Directory.
func (t *Table) ReleaseRoom(tenant, room string, o Owner) {
	if k := (Key{tenant, room}); t.rooms[k].Owner == o {
		delete(t.rooms, k)
	}
}

// ReleaseNode implements Directory.
func (t *Table) ReleaseNode(node string, incarnation uint64) {
	if n := t.nodes[node]; n.State != Dead && n.Incarnation <= incarnation {
		return
	}
	for k, e := range t.users {
		if e.Node == node && e.incarnation <= incarnation {
			t.freeUser(k, e)
		}
	}
	for k, e := range t.rooms {
		if e.Node == node && e.incarnation <= incarnation {
			delete(t.rooms, k)
		}
	}
}
