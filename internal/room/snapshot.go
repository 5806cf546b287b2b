package room

import (
	"maps"
	"slices"
)

// Snapshot is all that must be known to have a room again after a restart.
type Snapshot struct {
	State  State
	Maker  string // whose count of rooms it belongs to
	Owner  string // becomes host on joining
	Keep   bool
	Groups map[string]string // group id to the user who made it
}

// Snapshot copies a room; ok is false when there is none.
func (g *Registry) Snapshot(key Key) (s Snapshot, ok bool) {
	r := g.locked(key)
	if r == nil {
		return s, false
	}
	defer r.mu.Unlock()
	return Snapshot{State: *r.state(), Maker: r.maker, Owner: r.owner, Keep: r.keep, Groups: maps.Clone(r.groups)}, true
}

// Restore brings a room back, with those of its members that here returns true for. Nobody is told: to its members the room
// never went away.
func (g *Registry) Restore(s Snapshot, here func(Member) bool) error {
	st := s.State
	c := Create{Title: st.Title, Capacity: st.Capacity, Owner: s.Maker, Keep: s.Keep, Group: st.Group, Talking: st.Talking}
	if err := g.create(st.Key, c); err != nil {
		return err
	}
	r := g.locked(st.Key)
	if r == nil {
		return ErrNoRoom
	}
	defer r.mu.Unlock()
	r.created, r.owner, r.share, r.groups, r.seq = st.CreatedAt, s.Owner, st.Share, s.Groups, st.Seq
	r.members = slices.DeleteFunc(st.Members, func(m Member) bool { return !here(m) })
	if r.share != nil && r.index(r.share.User) < 0 {
		r.share = nil
	}
	maps.DeleteFunc(r.groups, func(_, by string) bool { return r.index(by) < 0 })
	switch {
	case len(r.members) > 0:
		r.stopReaper()
		if !slices.ContainsFunc(r.members, func(m Member) bool { return m.Host }) {
			r.members[0].Host = true
		}
	case r.keep && r.seq > 0: // somebody was in it
		r.startReaper(g, g.limits.KeptLife)
	}
	return nil
}
