package room

import "slices"

// Snapshot is all that must be known to have a room again after a restart.
type Snapshot struct {
	State        State
	Parent       string   // the room it is a group of
	Listed       []string // the users that a group is for
	Source       string   // see Create, as is Site
	Site         string
	Maker        string // whose count of rooms it belongs to
	Keep         bool
	Restrictions []Restriction
}

// Snapshot copies a room; ok is false when there is none.
func (g *Registry) Snapshot(key Key) (s Snapshot, ok bool) {
	r := g.lookup(key)
	if r == nil {
		return s, false
	}
	defer r.mu.Unlock()
	return Snapshot{
		State: *r.state(), Parent: r.parent.Room, Listed: r.listed, Source: r.source, Site: r.site, Maker: r.maker, Keep: r.keep,
		Restrictions: slices.Clone(r.restrictions),
	}, true
}

// Restore brings a room back, with those of its members that here returns true for. Nobody is told: to its members the room
// never went away.
func (g *Registry) Restore(s Snapshot, here func(Member) bool) error {
	st := s.State
	c := Create{
		Title: st.Title, Capacity: st.Capacity, Owner: s.Maker, Keep: s.Keep, Group: st.Group, Talking: st.Talking,
		Parent: s.Parent, Listed: s.Listed, Source: s.Source, Site: s.Site, restored: true,
	}
	if err := g.create(st.Key, c); err != nil {
		return err
	}
	r := g.lookup(st.Key)
	if r == nil {
		return ErrNoRoom
	}
	defer r.mu.Unlock()
	r.created, r.owner, r.share, r.seq, r.restrictions = st.CreatedAt, st.Owner, st.Share, st.Seq, s.Restrictions
	r.members = slices.DeleteFunc(st.Members, func(m Member) bool { return !here(m) })
	if r.share != nil && r.index(r.share.User) < 0 {
		r.share = nil
	}
	for _, m := range r.members {
		if r.isBanned(m.ID) {
			r.startKickTimer(m, g)
		}
	}
	switch {
	case len(r.members) > 0:
		r.stopExpiry()
		if !slices.ContainsFunc(r.members, func(m Member) bool { return m.Host }) {
			r.members[0].Host = true
		}
	case r.keep && r.seq > 0: // somebody was in it
		r.startExpiry(g, g.limits.KeptLife)
	}
	return nil
}
