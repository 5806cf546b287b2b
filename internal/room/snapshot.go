package room

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// snapshotVersion is the format of a Snapshot in JSON. Format 0 had other names for some
// fields.
const snapshotVersion = 1

// Snapshot is all that is needed to restore a room after a restart.
type Snapshot struct {
	Version      int
	State        State
	Parent       string   // the room it is a group of
	Listed       []string // the users that a group is for
	Source       string   // see Create, as is Site
	Site         string
	Maker        string // whose count of rooms it belongs to
	Keep         bool
	Restrictions []Restriction
	// Backlog is what was said last; only of a room that Drop took down.
	Backlog []Event `json:",omitempty"`
}

// snapshotV0 holds the fields that format 0 had under other names, in one build or another.
type snapshotV0 struct {
	Owner string // also the maker, before Maker
	Marks []struct {
		User   string
		Permit *Permit
		Barred time.Time
	}
}

// UnmarshalJSON also reads format 0.
func (s *Snapshot) UnmarshalJSON(b []byte) error {
	type snapshot Snapshot // without this method
	var v struct {
		snapshot
		snapshotV0
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*s = Snapshot(v.snapshot)
	switch s.Version {
	case snapshotVersion:
		return nil
	case 0:
		s.migrate(v.snapshotV0)
		return nil
	}
	return fmt.Errorf("room snapshot: unknown format %d", s.Version)
}

func (s *Snapshot) migrate(old snapshotV0) {
	s.Version = snapshotVersion
	if s.State.Owner == "" {
		s.State.Owner = old.Owner
	}
	if s.Maker == "" {
		s.Maker = old.Owner
	}
	for _, m := range old.Marks {
		s.Restrictions = append(s.Restrictions, Restriction{
			User:        m.User,
			Permit:      m.Permit,
			BannedUntil: m.Barred,
		})
	}
}

// Snapshot copies a room; ok is false if it does not exist.
func (g *Registry) Snapshot(key Key) (s Snapshot, ok bool) {
	r := g.lookup(key)
	if r == nil {
		return s, false
	}
	defer r.mu.Unlock()
	return r.snapshot(), true
}

// snapshot is called with r.mu held.
func (r *room) snapshot() Snapshot {
	return Snapshot{
		Version:      snapshotVersion,
		State:        *r.state(),
		Parent:       r.parent.Room,
		Listed:       r.listed,
		Source:       r.source,
		Site:         r.site,
		Maker:        r.maker,
		Keep:         r.keep,
		Restrictions: slices.Clone(r.restrictions),
	}
}

// SnapshotOf is the Snapshot of a room of which no more than the state is known.
func SnapshotOf(st State) Snapshot { return Snapshot{Version: snapshotVersion, State: st} }

// Drop forgets a room that is another node's by now, without a word to members or a call of a hook.
// It returns what the room was; ok is false if there was none.
func (g *Registry) Drop(key Key) (s Snapshot, ok bool) {
	g.mu.Lock()
	r := g.rooms[key]
	if r == nil {
		g.mu.Unlock()
		return s, false
	}
	r.mu.Lock()
	s = r.snapshot()
	s.Backlog = r.backlog
	r.members = nil
	r.stopKickTimers()
	g.forget(r)
	r.mu.Unlock()
	parent := g.detach(r)
	g.mu.Unlock()
	if parent != nil && parent.isEndingWithGroups() {
		g.end(parent, false)
	}
	return s, true
}

// Restore restores a room with the members for which here returns true. No events are sent: for
// its members the room never ended.
func (g *Registry) Restore(s Snapshot, here func(Member) bool) error {
	st := s.State
	c := Create{
		Title:    st.Title,
		Capacity: st.Capacity,
		Owner:    s.Maker,
		Keep:     s.Keep,
		Group:    st.Group,
		Talking:  st.Talking,
		Parent:   s.Parent,
		Listed:   s.Listed,
		Source:   s.Source,
		Site:     s.Site,
		restored: true,
	}
	if err := g.create(st.Key, c); err != nil {
		return err
	}
	r := g.lookup(st.Key)
	if r == nil {
		return ErrNoRoom
	}
	defer r.mu.Unlock()
	r.created, r.owner, r.share, r.seq = st.CreatedAt, st.Owner, st.Share, st.Seq
	r.restrictions, r.backlog = s.Restrictions, s.Backlog
	r.members = slices.DeleteFunc(st.Members, func(m Member) bool { return !here(m) })
	if r.share != nil && r.index(r.share.User) < 0 {
		r.share = nil
	}
	for _, m := range r.members {
		if r.isBanned(m.ID) {
			r.startKickTimer(m, time.Now().Add(kickGrace), g)
		}
	}
	switch {
	case len(r.members) > 0:
		r.stopExpiry()
		if !slices.ContainsFunc(r.members, func(m Member) bool { return m.Host }) {
			r.members[0].Host = true
		}
	case r.keep && r.seq > 0: // it had members
		r.startExpiry(g, g.limits.KeptLife)
	}
	return nil
}
