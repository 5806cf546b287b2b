package signaling

import (
	"encoding/json"
	"sync"

	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// roster is what this node knows of a room that one of its sessions is in: who the members are and where. The room's events
// keep it up to date, so that passing a message on asks no room and no directory.
type roster struct {
	key room.Key

	mu      sync.RWMutex
	members map[string]place

	local int // sessions of this node in the room; guarded by the hub's mu
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
	p, ok := ro.members[string(user)]
	return p, ok
}

func (ro *roster) set(user string, p place) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.members[user] = p
}

func (ro *roster) remove(user string, addr room.Address) {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ro.members[user].addr == addr {
		delete(ro.members, user)
	}
}

func (h *Hub) place(addr room.Address) place {
	p := place{addr: addr}
	if addr.Node == h.cfg.Node {
		p.session = h.session(addr.Session)
	}
	return p
}

// enterRoster counts a session in, and makes the roster if it is the first of this node.
func (h *Hub) enterRoster(state *room.State, self room.Member) *roster {
	h.mu.Lock()
	ro := h.rosters[state.Key]
	if ro == nil {
		ro = &roster{key: state.Key, members: map[string]place{}}
		h.rosters[state.Key] = ro
	}
	ro.local++
	first := ro.local == 1
	h.mu.Unlock()
	if first {
		for _, m := range state.Members {
			ro.set(m.ID, h.place(m.Address))
		}
	} else {
		ro.set(self.ID, h.place(self.Address))
	}
	return ro
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

// Deliver implements room.Sink: an event goes to the sessions of this node directly and to each other node once.
func (h *Hub) Deliver(to []room.Address, e room.Event) {
	var here []*session
	var away map[string][]string
	for _, a := range to {
		if a.Node == h.cfg.Node {
			if s := h.session(a.Session); s != nil {
				here = append(here, s)
			}
			continue
		}
		if away == nil {
			away = map[string][]string{}
		}
		away[a.Node] = append(away[a.Node], a.Session)
	}
	if len(here) > 0 {
		h.deliver(here, e)
	}
	for node, sessions := range away {
		h.forward(node, sessions, e)
	}
}

// deliver updates the roster and tells the sessions. The room is locked.
func (h *Hub) deliver(to []*session, e room.Event) {
	switch e.Kind {
	case room.Entered:
		to[0].entered(e)
		return
	case room.Synced:
		to[0].welcomed(e)
		return
	}
	h.mu.RLock()
	ro := h.rosters[e.Key]
	h.mu.RUnlock()
	if ro != nil && e.Kind == room.Joined {
		ro.set(e.Member.ID, h.place(e.Member.Address))
	}
	if ro != nil && e.Kind == room.Left {
		ro.remove(e.Member.ID, e.Member.Address)
	}
	body, err := json.Marshal(presence(e))
	if err != nil {
		h.cfg.Log.Error("presence not encoded", "node", h.cfg.Node, "error", err)
		return
	}
	m := transport.NewMessage()
	m.B = append(m.B, body...)
	m.Retain(len(to))
	for _, s := range to {
		s.send(m, false)
	}
	m.Release()
}

// entered notes the room and answers the join.
func (s *session) entered(e room.Event) {
	ro := s.hub.enterRoster(e.State, e.Member)
	s.mu.Lock()
	s.roster = ro
	s.mu.Unlock()
	s.welcomed(e)
}

func (s *session) welcomed(e room.Event) {
	s.mu.Lock()
	fn := s.welcome
	s.welcome = nil
	s.mu.Unlock()
	if fn != nil {
		fn(e)
	}
}

// presence translates a room event into the message that members see.
func presence(e room.Event) protocol.Presence {
	switch e.Kind {
	case room.Joined:
		return protocol.Join(e.Key.Room, e.Seq, wireMember(e.Member))
	case room.Left:
		return protocol.Left(e.Key.Room, e.Seq, e.Member.ID)
	default:
		return protocol.HostChange(e.Key.Room, e.Seq, e.Member.ID)
	}
}

func wireMember(m room.Member) protocol.Member {
	w := protocol.Member{
		ID: m.ID, UserID: m.ID, Name: m.Name, UserType: "guest", Device: m.Device, Video: true, Audio: true,
		Permit: protocol.Permit{Screen: true, Chat: true, Whiteboard: true, Draw: true, Document: true},
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
		RoomID: st.Key.Room, Title: st.Title, CreatedAt: protocol.FormatTime(st.CreatedAt),
		Members: make(protocol.Members, len(st.Members)), Seq: st.Seq,
	}
	for i, m := range st.Members {
		w.Members[i] = wireMember(m)
		if m.Host {
			w.Host = &w.Members[i]
		}
	}
	return w
}
