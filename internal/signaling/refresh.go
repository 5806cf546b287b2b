package signaling

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/ieum-rtc/ieum/internal/room"
)

// A node that has members in a room of another node keeps a copy of its state. Events keep the copy
// up to date. When events are lost the rooms of their node are stale: what they say is held back
// until the owner sends their state, and the differences to the copy are told as the events that
// are missing.

// rosterOf returns the roster of a room, or nil.
func (h *Hub) rosterOf(key room.Key) *roster {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.rosters[key]
}

// ownedBy returns the owner that the roster's events come from. It works on a nil roster.
func (ro *roster) ownedBy() Owner {
	if ro == nil {
		return Owner{}
	}
	ro.mu.RLock()
	defer ro.mu.RUnlock()
	return ro.owner
}

// deliverFrom is deliver for an event of a room of another node. It refuses what an earlier owner
// says: a node that was stopped or cut off may still speak for a room that it has lost.
func (h *Hub) deliverFrom(from Owner, to []*session, e room.Event) {
	ro := h.rosterOf(e.Key)
	if ro == nil {
		h.deliver(to, e, from)
		return
	}
	verdict, changed := ro.admit(from, e)
	if changed {
		h.refresh(e.Key)
	}
	switch {
	case verdict == refused:
	case verdict == heldBack:
		h.updateRoster(ro, e) // who is in counts at once
	case e.Kind == room.Refreshed:
		h.deliverRefreshed(ro, onlyMembers(to, e), e)
	default:
		h.deliver(to, e, from)
	}
}

// onlyMembers leaves out sessions that are not in the room yet, since their state was lost, or no
// more: what they are told of the room is their state alone.
func onlyMembers(to []*session, e room.Event) []*session {
	switch e.Kind {
	case room.Entered, room.Synced, room.Removed, room.Destroyed, room.Kicked, room.GroupCreated:
		return to
	}
	return slices.DeleteFunc(to, func(s *session) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.roster == nil || s.roster.key != e.Key
	})
}

type verdict int

const (
	admitted verdict = iota
	heldBack         // until the differences are told
	refused
)

// admit decides about an event of a room of another node, and keeps the copy up to date. Changed
// tells that another owner speaks, which must be asked for the state.
func (ro *roster) admit(from Owner, e room.Event) (v verdict, changed bool) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	switch {
	case from.Term < ro.owner.Term:
		return refused, false
	case from.Term > ro.owner.Term && ro.owner.Node != "":
		ro.owner = from
		changed = !ro.stale
		ro.stale = true
	}
	switch e.Kind {
	case room.Entered, room.Synced, room.Removed, room.Refreshed:
		return admitted, changed
	}
	if ro.stale && e.Seq > 0 {
		return heldBack, changed
	}
	if ro.copy != nil {
		update(ro.copy, e)
	}
	return admitted, changed
}

// begin makes the copy of a room that a session of this node has entered. Where another session
// here is to be told, with Joined, it is the state as it was before.
func (ro *roster) begin(e room.Event, alone bool) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ro.stale || (ro.copy != nil && e.Kind != room.Entered) {
		return
	}
	st := *e.State
	st.Members = slices.Clone(st.Members)
	if !alone && e.Kind == room.Entered {
		st.Seq--
		st.Members = slices.DeleteFunc(st.Members, func(m room.Member) bool {
			return m.ID == e.Member.ID
		})
	}
	ro.copy = &st
}

// update applies an event to the copy of a room's state.
func update(st *room.State, e room.Event) {
	if e.Seq > 0 {
		st.Seq = e.Seq
	}
	at := slices.IndexFunc(st.Members, func(m room.Member) bool { return m.ID == e.Member.ID })
	switch e.Kind {
	case room.Joined:
		if at >= 0 {
			st.Members = slices.Delete(st.Members, at, at+1)
		}
		if e.Member.Host {
			setHost(st, "")
		}
		st.Members = append(st.Members, e.Member)
	case room.Left:
		if at >= 0 {
			st.Members = slices.Delete(st.Members, at, at+1)
		}
	case room.Moved:
		if at >= 0 {
			st.Members[at].Address, st.Members[at].Epoch = e.Member.Address, e.Member.Epoch
		}
	case room.HostChanged:
		setHost(st, e.Member.ID)
	case room.MemberEdited, room.Permitted:
		if at >= 0 {
			st.Members[at] = e.Member
		}
	case room.Published:
		for _, f := range e.Feeds {
			publishIn(st, f)
		}
	case room.ShareStarted:
		st.Share = e.Share
	case room.ShareStopped:
		st.Share = nil
	case room.Edited:
		members := st.Members
		*st = *e.State
		st.Members, st.Seq = members, e.Seq // a new host is told of by the next event
	}
}

func setHost(st *room.State, user string) {
	for i := range st.Members {
		st.Members[i].Host = st.Members[i].ID == user
	}
}

func publishIn(st *room.State, f room.MemberFeed) {
	at := slices.IndexFunc(st.Members, func(m room.Member) bool { return m.ID == f.Member.ID })
	if at < 0 {
		return
	}
	m := &st.Members[at]
	m.Feeds = slices.DeleteFunc(slices.Clone(m.Feeds), func(o room.Feed) bool {
		return o.Type == f.Feed.Type
	})
	m.Feeds = append(m.Feeds, f.Feed)
}

// refreshFrom brings every room of a node up to date.
func (h *Hub) refreshFrom(node string) {
	for _, ro := range h.rostersOf(node) {
		h.refreshStale(ro.key)
	}
}

// rostersOf are those of the rooms of a node.
func (h *Hub) rostersOf(node string) []*roster {
	h.mu.RLock()
	all := slices.Collect(maps.Values(h.rosters))
	h.mu.RUnlock()
	return slices.DeleteFunc(all, func(ro *roster) bool { return ro.ownedBy().Node != node })
}

// refreshStale holds back what the room's events say until its state is there. Without a member of
// this node there is nothing to do.
func (h *Hub) refreshStale(key room.Key) {
	ro := h.rosterOf(key)
	if ro == nil {
		return
	}
	if owner := ro.ownedBy().Node; owner != h.cfg.Node {
		ro.setStale(owner)
		h.refresh(key)
	}
}

// setStale does nothing if the room has gone to another owner.
func (ro *roster) setStale(owner string) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.stale = ro.stale || ro.owner.Node == owner
}

// refresh asks the owner of a room for its state until it is there.
func (h *Hub) refresh(key room.Key) {
	h.retryNow("refresh "+key.Tenant+"\x00"+key.Room, func(ctx context.Context) error {
		ro := h.rosterOf(key)
		if ro == nil {
			return nil
		}
		ro.mu.RLock()
		seen, stale := uint64(0), ro.stale
		if ro.copy != nil {
			seen = ro.copy.Seq
		}
		ro.mu.RUnlock()
		if !stale {
			return nil
		}
		c := room.Refresh{Node: h.cfg.Node, Seen: seen}
		for _, s := range h.sessionsIn(ro) {
			c.Members = append(c.Members, s.actor())
		}
		err := h.do(ctx, key, c)
		if errors.Is(err, room.ErrNoRoom) {
			h.roomLost(ro)
			return nil
		}
		if err == nil && ro.isStale() {
			return errStillStale // lost once more, or this node has no member any more
		}
		return err
	})
}

var errStillStale = errors.New("room not brought up to date")

func (ro *roster) isStale() bool {
	ro.mu.RLock()
	defer ro.mu.RUnlock()
	return ro.stale
}

// sessionsIn returns the sessions of this node in a room.
func (h *Hub) sessionsIn(ro *roster) (in []*session) {
	ro.mu.RLock()
	for _, e := range ro.members {
		if e.session != nil {
			in = append(in, e.session)
		}
	}
	ro.mu.RUnlock()
	return slices.DeleteFunc(in, func(s *session) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.roster != ro
	})
}

// roomLost tells members that their room has ended, which its owner no longer can.
func (h *Hub) roomLost(ro *roster) {
	in := h.sessionsIn(ro)
	if len(in) == 0 {
		return
	}
	ro.mu.Lock()
	var gone []room.Event
	seq := uint64(0)
	if ro.copy != nil {
		seq = ro.copy.Seq
		for _, m := range ro.copy.Members {
			seq++
			gone = append(gone, room.Event{Kind: room.Left, Key: ro.key, Seq: seq, Member: m})
		}
	}
	ro.mu.Unlock()
	gone = append(gone, room.Event{Kind: room.Destroyed, Key: ro.key, Seq: seq + 1})
	for _, e := range gone {
		h.tell(in, e)
	}
	for _, s := range in {
		s.leftRoom(ro.key)
	}
}

// deliverRefreshed takes the state of a room as it is, and tells sessions what they have missed.
func (h *Hub) deliverRefreshed(ro *roster, to []*session, e room.Event) {
	members := h.entries(e.State)
	ro.mu.Lock()
	old := ro.copy
	ro.copy, ro.stale = e.State, false
	ro.members = members
	ro.mu.Unlock()
	if old == nil {
		return
	}
	for _, missed := range merge(old.Seq, e.Seq, difference(old, e.State), e.Missed) {
		told := make([]*session, 0, len(to))
		for _, s := range to {
			of := missed.Member.Address == s.address() || missed.Member.ID == s.user
			comes := missed.Kind == room.Joined || missed.Kind == room.Left ||
				missed.Kind == room.Broadcasted
			last, state := s.seen.Load(), s.state.Load()
			if missed.Kind != room.Broadcasted {
				last = max(last, state)
			}
			contained := missed.Kind != room.Broadcasted && state >= e.Seq
			if comes && of || contained || (missed.Seq > 0 && missed.Seq <= last) {
				continue
			}
			told = append(told, s)
		}
		if len(told) > 0 {
			h.tell(told, missed)
		}
	}
}

// difference returns events that lead from one state of a room to another, without numbers.
func difference(old, now *room.State) (events []room.Event) {
	add := func(e room.Event) {
		e.Key = now.Key
		events = append(events, e)
	}
	was := map[string]room.Member{}
	for _, m := range old.Members {
		was[m.ID] = m
	}
	is := map[string]room.Member{}
	for _, m := range now.Members {
		is[m.ID] = m
	}
	if old.Share != nil && (now.Share == nil || *now.Share != *old.Share) {
		add(room.Event{Kind: room.ShareStopped, Member: was[old.Share.User]})
	}
	for _, m := range old.Members {
		if n, in := is[m.ID]; !in || n.Since != m.Since {
			add(room.Event{Kind: room.Left, Member: m})
			delete(was, m.ID)
		}
	}
	for _, m := range now.Members {
		if _, in := was[m.ID]; !in {
			add(room.Event{Kind: room.Joined, Member: m})
		}
	}
	if host := hostOf(now); host != "" && host != hostOf(old) {
		add(room.Event{Kind: room.HostChanged, Member: is[host]})
	}
	if old.Title != now.Title || old.Capacity != now.Capacity {
		add(room.Event{Kind: room.Edited, Member: is[hostOf(now)], State: now})
	}
	for _, m := range now.Members {
		b, in := was[m.ID]
		if in && (b.Name != m.Name || b.Video != m.Video || b.Audio != m.Audio) {
			add(room.Event{Kind: room.MemberEdited, Member: m})
		}
		if in && b.Permit != m.Permit {
			add(room.Event{Kind: room.Permitted, Member: m})
		}
	}
	if now.Share != nil && (old.Share == nil || *now.Share != *old.Share) {
		add(room.Event{Kind: room.ShareStarted, Member: is[now.Share.User], Share: now.Share})
	}
	for _, m := range now.Members {
		var fresh []room.MemberFeed
		for _, f := range m.Feeds {
			if !slices.Contains(was[m.ID].Feeds, f) {
				fresh = append(fresh, room.MemberFeed{Member: m, Feed: f})
			}
		}
		if len(fresh) > 0 {
			add(room.Event{Kind: room.Published, Member: m, Feeds: fresh})
		}
	}
	return events
}

// merge gives the differences the numbers between two states that no missed message has, in order.
// When there are too few, what is left goes without: outside the order of the room.
func merge(from, to uint64, differences, missed []room.Event) (all []room.Event) {
	for seq := from + 1; seq <= to; seq++ {
		switch {
		case len(missed) > 0 && missed[0].Seq <= seq:
			all = append(all, missed[0])
			missed = missed[1:]
		case len(differences) > 0:
			e := differences[0]
			differences = differences[1:]
			e.Seq = seq
			all = append(all, e)
		case len(missed) == 0:
			return all
		}
	}
	return append(all, differences...)
}
