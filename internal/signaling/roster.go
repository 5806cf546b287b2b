package signaling

import (
	"bytes"
	"slices"
	"strings"
	"sync"

	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// roster is what this node knows of a room that one of its sessions is in: who the members are and
// where. The room's events keep it up to date, so that passing a message on asks no room and no
// directory.
type roster struct {
	key room.Key

	mu sync.RWMutex
	// Sorted by user: most rooms have a few members, and a map costs more than they do.
	members []entry

	owner Owner       // Guarded by mu: the node that has the room.
	copy  *room.State // Guarded by mu: see refresh.go; nil for a room of this node.
	stale bool        // Guarded by mu: events of the room were lost.

	local int // sessions of this node in the room; guarded by the hub's mu
}

type entry struct {
	user string
	place
}

type place struct {
	addr    room.Address
	session *session // nil: on another node
}

// find works on a nil roster: a session in no room reaches nobody.
func (ro *roster) find(user []byte) (place, bool) {
	if ro == nil {
		return place{}, false
	}
	ro.mu.RLock()
	defer ro.mu.RUnlock()
	i, ok := ro.search(user)
	if !ok {
		return place{}, false
	}
	return ro.members[i].place, true
}

// search is called with mu held.
func (ro *roster) search(user []byte) (at int, found bool) {
	return slices.BinarySearchFunc(ro.members, user, func(e entry, user []byte) int {
		return bytes.Compare([]byte(e.user), user)
	})
}

func (ro *roster) set(user string, p place) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	i, ok := ro.search([]byte(user))
	if !ok {
		ro.members = slices.Insert(ro.members, i, entry{user: user})
	}
	ro.members[i].place = p
}

func (ro *roster) remove(user string, addr room.Address) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if i, ok := ro.search([]byte(user)); ok && ro.members[i].addr == addr {
		ro.members = slices.Delete(ro.members, i, i+1)
	}
}

func (h *Hub) place(addr room.Address) place {
	p := place{addr: addr}
	if addr.Node == h.cfg.Node {
		p.session = h.session(addr.Session)
	}
	return p
}

// enterRoster counts a session in, and makes the roster if it is the first of this node. The
// members are those of state even where there is a roster: the session it was for may be leaving,
// and what the room said since has not come here.
func (h *Hub) enterRoster(state *room.State, owner Owner) *roster {
	members := h.entries(state)
	h.mu.Lock()
	ro := h.rosters[state.Key]
	if ro == nil {
		ro = &roster{key: state.Key}
		h.rosters[state.Key] = ro
	}
	ro.local++
	h.mu.Unlock()
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.members = members
	ro.owner = owner
	return ro
}

func (h *Hub) entries(state *room.State) []entry {
	members := make([]entry, len(state.Members))
	for i, m := range state.Members {
		members[i] = entry{m.ID, h.place(m.Address)}
	}
	slices.SortFunc(members, func(a, b entry) int { return strings.Compare(a.user, b.user) })
	return members
}

func (h *Hub) releaseRoster(ro *roster) {
	if ro == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if ro.local--; ro.local == 0 && h.rosters[ro.key] == ro {
		delete(h.rosters, ro.key)
	}
}

// Deliver implements room.Sink: an event goes to the sessions of this node directly and to each
// other node once.
func (h *Hub) Deliver(to []room.Address, e room.Event) {
	var here []*session
	var elsewhere map[string][]string
	for _, a := range to {
		if a.Node == h.cfg.Node {
			if s := h.session(a.Session); s != nil {
				here = append(here, s)
			}
			continue
		}
		if elsewhere == nil {
			elsewhere = map[string][]string{}
		}
		elsewhere[a.Node] = append(elsewhere[a.Node], a.Session)
	}
	if len(here) > 0 {
		h.deliver(here, e, Owner{Node: h.cfg.Node})
	}
	if elsewhere != nil {
		h.forward(elsewhere, e)
	}
}

// deliver updates the roster and tells the sessions. The room is locked, or its events come one
// after the other from its owner.
func (h *Hub) deliver(to []*session, e room.Event, from Owner) {
	switch e.Kind {
	case room.Entered:
		to[0].enteredRoom(e, from)
		return
	case room.Synced:
		to[0].synced(e, from)
		return
	}
	h.updateRoster(h.rosterOf(e.Key), e)
	to = onlyMembers(to, e)
	if e.Kind == room.Removed {
		to = slices.DeleteFunc(to, func(s *session) bool { return !s.leftRoom(e.Key) })
	}
	h.tell(to, e)
}

// updateRoster works on a nil roster.
func (h *Hub) updateRoster(ro *roster, e room.Event) {
	if ro != nil && (e.Kind == room.Joined || e.Kind == room.Moved) {
		ro.set(e.Member.ID, h.place(e.Member.Address))
	}
	if ro != nil && e.Kind == room.Left {
		ro.remove(e.Member.ID, e.Member.Address)
	}
}

// tell sends an event to the clients of sessions.
func (h *Hub) tell(to []*session, e room.Event) {
	p, ok := presence(e)
	if !ok || len(to) == 0 {
		return
	}
	body, err := protocol.Marshal(p)
	if err != nil {
		h.cfg.Log.Error("presence not encoded", "node", h.cfg.Node, "error", err)
		return
	}
	m := transport.NewMessage()
	m.B = append(m.B, body...)
	m.Retain(len(to))
	moves := e.Kind == room.Joined || e.Kind == room.Left
	for _, s := range to {
		switch {
		case e.Kind == room.Broadcasted && e.Seq > 0 && e.Seq <= s.seen.Load():
			m.Release() // repeated for a second request, since the first response was lost
		case moves && s.acceptsBatches():
			s.enqueuePresence(m, e)
		case e.Kind == room.GroupCreated || e.Kind == room.Kicked:
			// To one member alone: that is in no state. What a room says to all need not wait,
			// since it sends a resumed session its state, and what is no state again.
			s.sendOrQueue(m, e.Member.ID)
		case s.send(m) && e.Seq > 0:
			s.saw(e.Seq)
		}
	}
	m.Release()
}

// saw notes that the client was sent an event. What is repeated after a resume has lower numbers
// than the state before it.
func (s *session) saw(seq uint64) {
	for {
		last := s.seen.Load()
		if seq <= last || s.seen.CompareAndSwap(last, seq) {
			return
		}
	}
}

// synced answers who waits for the state: of a session that came back, or of one whose answer to
// its join was lost.
func (s *session) synced(e room.Event, from Owner) {
	s.mu.Lock()
	joins := s.roster == nil && s.onState != nil
	s.mu.Unlock()
	if joins {
		s.enteredRoom(e, from)
		return
	}
	s.deliverState(e)
}

// enteredRoom notes the room and answers the join. The state of an abandoned join is ignored: join
// leaves that room.
func (s *session) enteredRoom(e room.Event, from Owner) {
	s.mu.Lock()
	expected := s.onState != nil
	s.mu.Unlock()
	if !expected {
		return
	}
	ro := s.hub.enterRoster(e.State, from)
	if from.Node != s.hub.cfg.Node {
		s.hub.mu.RLock()
		alone := ro.local == 1
		s.hub.mu.RUnlock()
		ro.begin(e, alone)
	}
	s.mu.Lock()
	s.roster = ro
	s.mu.Unlock()
	if s.awaitsRoom.Load() == nil { // it joins
		s.seen.Store(e.Seq)
	}
	s.hub.replicateSession(s)
	s.deliverState(e)
}

// leftRoom makes the session one without a room: the room has said so. It tells whether it was in.
func (s *session) leftRoom(key room.Key) (was bool) {
	s.mu.Lock()
	ro := s.roster
	if ro == nil || ro.key != key {
		s.mu.Unlock()
		return false
	}
	s.roster = nil
	s.resetBatch()
	s.mu.Unlock()
	s.hub.releaseRoster(ro)
	s.hub.replicateSession(s)
	return true
}

func (s *session) deliverState(e room.Event) {
	s.mu.Lock()
	fn := s.onState
	s.onState = nil
	s.mu.Unlock()
	s.state.Store(e.Seq)
	if fn != nil {
		fn(e)
	}
}

// presence translates a room event into the message that members see; ok is false for events that
// say nothing.
func presence(e room.Event) (p protocol.Presence, ok bool) {
	id, user := e.Key.Room, e.Member.ID
	switch e.Kind {
	case room.Joined:
		p = protocol.Join(id, e.Seq, wireMember(e.Member))
	case room.Left:
		p = protocol.Left(id, e.Seq, user)
	case room.Removed: // with a number the others were told of a leave too
		if e.Seq == 0 {
			return p, false
		}
		p = protocol.Left(id, e.Seq, user)
	case room.HostChanged:
		p = protocol.HostChange(id, e.Seq, user)
	case room.Destroyed:
		p = protocol.Event("destroy", id, e.Seq, user)
	case room.ShareStarted:
		p = protocol.Event(e.Share.Type, id, e.Seq, user)
	case room.ShareStopped:
		p = protocol.Event("shareStop", id, e.Seq, user)
	case room.Broadcasted:
		if e.Type == "talking" {
			p = protocol.Talking(id, e.Seq, user, e.Body)
			break
		}
		p = protocol.Chat(e.Type, id, e.Seq, user, e.Body)
	case room.Kicked:
		p = protocol.KickOut(id, user, e.Other)
	case room.Edited:
		p = protocol.EditRoomInfo(id, e.Seq, user, e.State.Title, e.State.Capacity, hostOf(e.State))
	case room.MemberEdited:
		p = protocol.EditUserInfo(id, e.Seq, wireMember(e.Member))
	case room.Permitted:
		p = protocol.Permitted(id, e.Seq, wireMember(e.Member))
	case room.Published:
		p = protocol.Published(id, e.Seq, user, wireFeeds(e.Feeds))
	case room.GroupCreated:
		p = protocol.Grouped(id, user, e.Group)
	default:
		return p, false
	}
	return p, true
}

func hostOf(st *room.State) string {
	for _, m := range st.Members {
		if m.Host {
			return m.ID
		}
	}
	return ""
}

func wireFeeds(feeds []room.MemberFeed) []protocol.Feed {
	w := make([]protocol.Feed, len(feeds))
	for i, mf := range feeds {
		f := mf.Feed
		w[i] = protocol.Feed{
			Member: wireMember(mf.Member),
			User:   f.User,
			Type:   f.Type,
			Epoch:  f.Epoch,
			Audio:  f.Audio,
			Video:  f.Video,
		}
	}
	return w
}

func wireMember(m room.Member) protocol.Member {
	w := protocol.Member{
		ID:         m.ID,
		UserID:     m.ID,
		Name:       m.Name,
		UserType:   "guest",
		Device:     m.Device,
		Video:      m.Video,
		Audio:      m.Audio,
		Publishing: len(m.Feeds) > 0,
		Pulishing:  len(m.Feeds) > 0,
		Permit:     protocol.Permit(m.Permit),
		Since:      m.Since,
		Net:        m.Net,
		Identity:   m.Identity,
	}
	if m.Host {
		w.UserType = "host"
	}
	for _, f := range m.Features {
		w.Features = append(w.Features, protocol.Feature(f))
	}
	return w
}

func roomState(st *room.State) *protocol.RoomState {
	w := &protocol.RoomState{
		RoomID:      st.Key.Room,
		Title:       st.Title,
		Capacity:    st.Capacity,
		CreatedAt:   protocol.FormatTime(st.CreatedAt),
		Members:     make(protocol.Members, len(st.Members)),
		Media:       st.Group,
		TalkingNoty: st.Talking,
		Seq:         st.Seq,
	}
	if st.Share != nil {
		w.Share = &protocol.Share{Type: st.Share.Type, User: st.Share.User}
	}
	for i, m := range st.Members {
		w.Members[i] = wireMember(m)
		if m.Host {
			w.Host = &w.Members[i]
		}
	}
	return w
}
