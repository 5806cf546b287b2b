package room

import "slices"

// A group is a room that members of another one go to for a while: of the same kind, with limits
// and a host of its own. The room it was made in stays while it has groups, since its members want
// to come back, unless it is destroyed.

// Bounds of the groups that a room has at a time. A part is for the host alone, and no other member
// can use up what is left.
const (
	maxGroups       = 64
	maxGuestGroups  = 32 // in all, for a member who is not host
	maxGroupsOfUser = 4  // the same, of its own
)

// checkGroupLimits tells whether the room may have one more group; g.mu is held.
func (g *Registry) checkGroupLimits(parent Key, by string, host bool) error {
	groups := g.groups[parent]
	own := 0
	for _, maker := range groups {
		if maker == by {
			own++
		}
	}
	switch {
	case len(groups) >= maxGroups,
		!host && (len(groups) >= maxGuestGroups || own >= maxGroupsOfUser):
		return ErrTooManyGroups
	}
	return nil
}

// attach counts a group for the room it was made in; g.mu is held.
func (g *Registry) attach(r *room) {
	if g.groups[r.parent] == nil {
		g.groups[r.parent] = map[Key]string{}
	}
	g.groups[r.parent][r.key] = r.maker
}

// detach undoes it; g.mu is held. It returns the room that has no group left now.
func (g *Registry) detach(r *room) *room {
	groups := g.groups[r.parent]
	delete(groups, r.key)
	if groups == nil || len(groups) > 0 {
		return nil
	}
	delete(g.groups, r.parent)
	return g.rooms[r.parent]
}

// hostsParent tells whether the actor is host of the room that the group was made in.
func (g *Registry) hostsParent(group Key, by Actor) bool {
	g.mu.RLock()
	var parent *room
	if r := g.rooms[group]; r != nil {
		if _, attached := g.groups[r.parent][group]; attached {
			parent = g.rooms[r.parent]
		}
	}
	g.mu.RUnlock()
	if parent == nil {
		return false
	}
	parent.mu.Lock()
	defer parent.mu.Unlock()
	_, err := parent.host(by)
	return err == nil
}

// announceGroup tells the listed members of a group that was made.
func (r *room) announceGroup(c AnnounceGroup, sink Sink) error {
	m, err := r.actor(c.By)
	if err != nil {
		return err
	}
	if len(c.List) > r.capacity {
		return ErrGroupTooLarge
	}
	var to []Address
	for _, t := range r.members {
		if t.ID != m.ID && slices.Contains(c.List, t.ID) {
			to = append(to, t.Address)
		}
	}
	r.send(sink, to, Event{Kind: GroupCreated, Key: r.key, Member: *m, Group: c.Group})
	return nil
}

// endGroup ends a group for those inside. parentHost: the actor is host of the room that it was
// made in.
func (r *room) endGroup(c EndGroup, parentHost bool, sink Sink) error {
	_, notHost := r.host(c.By)
	switch {
	case r.parent == Key{}:
		return ErrNoGroup
	case notHost != nil && c.By.User != r.maker && !parentHost:
		return ErrDenied
	}
	r.endForAll(c.By.User, sink)
	return nil
}
