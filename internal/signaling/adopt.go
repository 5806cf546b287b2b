package signaling

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// When a node is dead, whoever has replicas of its sessions adopts them: it takes their user ids,
// and each session waits for its client there. One node, the successor, adopts the rooms. It asks
// the others what they know of each, since the replica may be older than that. The directory lets
// one node have each session and room, so nothing is lost if several try.
//
// After the resume window the user ids that nobody adopted are free, and members that nobody has a
// session of leave.

const (
	// adoptTime is how long commands wait for a room whose node is dead.
	adoptTime = 3 * time.Second
	// ownerPause and lookUpPause are the pauses between looks for its next owner, here and in the
	// directory.
	ownerPause  = 20 * time.Millisecond
	lookUpPause = 200 * time.Millisecond
	// pullAfter is when nodes ask for the state of rooms of a dead node unless they have been told
	// of the next owner.
	pullAfter = time.Second
	// adoptParallel bounds the requests to the directory at a time.
	adoptParallel = 32
	// askTimeout bounds what is waited for what another node knows of the rooms of a dead one.
	askTimeout = time.Second
	// maxPage bounds such a response in bytes; one room may be larger.
	maxPage = 256 << 10
	// settleAfter is when members of a dead node are looked after that are not settled yet.
	settleAfter = 500 * time.Millisecond
	// seqSkip is what an adopted room leaves out: more events than its former owner can have told
	// without anybody here knowing.
	seqSkip = 1 << 20
)

func (l nodeLife) String() string {
	return l.node + " " + strconv.FormatUint(l.incarnation, 10)
}

// nodeDied has this node do its part for what a dead one had.
func (h *Hub) nodeDied(life nodeLife) {
	for _, ro := range h.rostersOf(life.node) {
		ro.setStale(life.node)
		h.retryAfter(pullAfter, "pull "+recordOf(ro.key),
			func(context.Context) error { h.refresh(ro.key); return nil })
	}
	h.retryNow("adopt sessions of "+life.String(), func(ctx context.Context) error {
		return h.adoptSessions(ctx, life)
	})
	h.adoptRoomsOfDead()
	h.releaseLater(life)
}

// adoptRoomsOfDead adopts rooms of all nodes that died lately: this node may be their successor
// since another one died.
func (h *Hub) adoptRoomsOfDead() {
	for _, node := range h.nodes.dead() {
		if !h.nodes.diedWithin(node, h.cfg.ResumeWindow) {
			continue
		}
		h.retryNow("adopt rooms of "+node, func(ctx context.Context) error {
			if h.nodes.successor(node) != h.cfg.Node {
				return nil
			}
			return h.adoptRooms(ctx, node)
		})
	}
}

// each calls f for all items, some at a time. It returns an error of each lane that had any.
func each[T any](items []T, f func(T) error) error {
	var wg sync.WaitGroup
	errs := make([]error, min(adoptParallel, len(items)))
	for i := range errs {
		wg.Go(func() {
			for at := i; at < len(items); at += len(errs) {
				errs[i] = cmp.Or(f(items[at]), errs[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (h *Hub) adoptSessions(ctx context.Context, life nodeLife) error {
	ids := h.replicas.sessions(life)
	err := each(ids, func(id string) error { return h.adoptSession(ctx, life, id) })
	h.logAdopted("sessions", life.node, len(ids), err)
	return err
}

func (h *Hub) logAdopted(what, of string, count int, err error) {
	log := h.cfg.Log.With("node", h.cfg.Node, "of", of, "count", count)
	switch {
	case err != nil:
		log.Warn(what+" not adopted yet", "error", err)
	case count > 0:
		log.Info(what + " adopted")
	}
}

// adoptSession makes a session of a dead node one of this node. What is with another node by now
// stays there.
func (h *Hub) adoptSession(ctx context.Context, life nodeLife, id string) error {
	m := h.replicas.session(life, id)
	if m == nil {
		return nil
	}
	rec := &m.Record
	from, wish := rec.Location, Location{Node: h.cfg.Node, Session: id}
	at, err := h.cfg.Directory.TakeUser(ctx, rec.Tenant, rec.User, from, wish)
	if errors.Is(err, ErrTaken) && at.Session == id && at.Node == life.node {
		from = at
		at, err = h.cfg.Directory.TakeUser(ctx, rec.Tenant, rec.User, from, wish)
	}
	switch {
	case errors.Is(err, ErrTaken) && at.Session == id && at.Node != h.cfg.Node:
		return nil // whoever it is will ask for the session
	case errors.Is(err, ErrTaken) && at.Session == id: // resumed here, or an answer was lost
		if h.session(id) != nil {
			return nil
		}
	case errors.Is(err, ErrTaken):
		if h.replicas.remove(life, id) {
			h.leaveFor(m)
		}
		return nil
	case err != nil:
		return err
	}
	s := h.moveIn(*m, at, func() bool { return h.replicas.remove(life, id) })
	if s == nil {
		return nil // another node has asked for it
	}
	if !h.nodes.isDead(life.node) { // it is back, and may have the session
		h.evictMoved(from)
	}
	return h.endIfTaken(ctx, s)
}

// leaveFor has a session leave its room whose user id another one has.
func (h *Hub) leaveFor(m *movedSession) {
	if m.Room == nil {
		return
	}
	at := m.Record.Location
	leave := room.Leave{
		User:    m.Record.User,
		Address: room.Address{Node: at.Node, Session: at.Session},
		Epoch:   at.Epoch,
	}
	h.retryNow("leave "+at.Session, func(ctx context.Context) error {
		if err := h.do(ctx, *m.Room, leave); unreachable(err) {
			return err
		}
		return nil
	})
}

// endIfTaken ends a session here whose user id was taken before the session was known here: whoever
// took it found none to end, or to take. errNotOwner: the session itself is on another node.
func (h *Hub) endIfTaken(ctx context.Context, s *session) error {
	holder, err := h.cfg.Directory.Holder(ctx, s.tenant, s.user)
	switch {
	case err != nil:
		return wrap("find session", err)
	case holder.Session != s.id:
		s.end(nil, transport.StatusTakenOver, "taken over")
		return errGone
	case holder != s.location:
		h.loseSession(s.location)
		return errNotOwner
	}
	return nil
}

// roomsMessage asks what a node knows of the rooms of a dead one, in the order of their records,
// after one of them.
type roomsMessage struct {
	Of    string `json:"of"`
	After string `json:"after"`
}

// knownRoom is a replica of a room, or its state as members on another node know it.
type knownRoom struct {
	Replica *room.Snapshot `json:",omitempty"`
	State   *room.State    `json:",omitempty"`
}

func (k knownRoom) key() room.Key {
	if k.Replica != nil {
		return k.Replica.State.Key
	}
	return k.State.Key
}

// knownRooms is what this node knows of the rooms of another, in order.
func (h *Hub) knownRooms(of string) (known []knownRoom) {
	for _, snap := range h.replicas.rooms(of) {
		known = append(known, knownRoom{Replica: &snap})
	}
	for _, ro := range h.rostersOf(of) {
		ro.mu.RLock()
		if ro.copy != nil {
			st := *ro.copy
			st.Members = slices.Clone(st.Members)
			known = append(known, knownRoom{State: &st})
		}
		ro.mu.RUnlock()
	}
	slices.SortStableFunc(known, func(a, b knownRoom) int {
		return strings.Compare(recordOf(a.key()), recordOf(b.key()))
	})
	return known
}

// knownPage is the part of knownRooms that fits into one response.
func (h *Hub) knownPage(q roomsMessage) (page []json.RawMessage, more string) {
	size, last := 0, ""
	for _, k := range h.knownRooms(q.Of) {
		record := recordOf(k.key())
		if record <= q.After {
			continue
		}
		if size > maxPage && record != last {
			return page, last
		}
		b := encode(k)
		page, size, last = append(page, b), size+len(b), record
	}
	return page, ""
}

// askKnownRooms asks another node. What it does not answer in time is done without.
func (h *Hub) askKnownRooms(ctx context.Context, node, of string) (known []knownRoom) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for q := (roomsMessage{Of: of}); ; {
		a, err := h.exchange(ctx, node, busMessage{Rooms: &q})
		if errors.Is(err, engine.ErrLost) && !h.nodes.isDead(node) {
			continue
		}
		if err != nil {
			h.cfg.Log.Warn("not asked for rooms", "node", h.cfg.Node, "on", node, "error", err)
			return known
		}
		for _, b := range a.Rooms {
			var k knownRoom
			if json.Unmarshal(b, &k) == nil && (k.Replica != nil || k.State != nil) {
				known = append(known, k)
			}
		}
		if q.After = a.More; q.After == "" {
			return known
		}
	}
}

// adoptRooms adopts all rooms of a dead node that somebody knows of.
func (h *Hub) adoptRooms(ctx context.Context, of string) error {
	others := h.nodes.others(h.cfg.Node)
	answers := make([][]knownRoom, len(others))
	var wg sync.WaitGroup
	for i, node := range others {
		wg.Go(func() { answers[i] = h.askKnownRooms(ctx, node, of) })
	}
	wg.Wait()
	merged := map[room.Key]*room.Snapshot{}
	for _, known := range append(answers, h.knownRooms(of)) {
		for _, k := range known {
			merged[k.key()] = k.merge(merged[k.key()])
		}
	}
	var all []*room.Snapshot
	for _, snap := range merged {
		all = append(all, snap)
	}
	err := each(all, func(snap *room.Snapshot) error { return h.adoptRoom(ctx, *snap, of) })
	h.logAdopted("rooms", of, len(all), err)
	return err
}

// merge adds what is known of a room: the latest state, with what only a replica says.
func (k knownRoom) merge(into *room.Snapshot) *room.Snapshot {
	now := k.Replica
	if now == nil {
		snap := room.SnapshotOf(*k.State)
		now = &snap
	}
	if into == nil {
		return now
	}
	latest := into.State
	if now.State.Seq > latest.Seq {
		latest = now.State
	}
	if k.Replica != nil && (into.Maker == "" || now.State.Seq >= into.State.Seq) {
		into = now
	}
	into.State = latest
	return into
}

// adoptRoom makes this node the owner of a room. Its members stay who they are.
func (h *Hub) adoptRoom(ctx context.Context, snap room.Snapshot, of string) error {
	key := snap.State.Key
	unlock, err := h.ownership.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	d := h.cfg.Directory
	owner, err := d.RoomOwner(ctx, key.Tenant, key.Room)
	if err != nil {
		return err
	}
	switch {
	case owner.Node == h.cfg.Node && h.owners.last(key) == 0:
		// the answer to an earlier attempt was lost
		return h.beginRoom(ctx, snap, owner, Owner{Node: of})
	case owner.Node != of:
		return nil
	}
	now, err := d.TakeRoom(ctx, key.Tenant, key.Room, owner, h.cfg.Node)
	if errors.Is(err, ErrTaken) {
		return nil
	}
	if err != nil {
		return err
	}
	return h.beginRoom(ctx, snap, now, owner)
}

// beginRoom is called when the directory has made this node the owner. Nobody can command the room
// until it is among the owners.
func (h *Hub) beginRoom(ctx context.Context, snap room.Snapshot, now, before Owner) error {
	key := snap.State.Key
	snap.State.Seq += seqSkip
	h.rooms.Drop(key) // what is left of an earlier time as its owner
	if err := h.rooms.Restore(snap, func(room.Member) bool { return true }); err != nil {
		h.owners.hold(key, now.Term)
		h.released(key, h.giveUp(ctx, key))
		h.cfg.Log.Warn("room not adopted", "node", h.cfg.Node, "error", err)
		return nil
	}
	back, ok := h.rooms.Snapshot(key)
	if !ok {
		return nil
	}
	own := Owner{Node: h.cfg.Node, Term: now.Term}
	refresh := room.Refresh{Node: h.cfg.Node, Seen: back.State.Seq}
	if ro := h.rosterOf(key); ro != nil {
		refresh.Members = h.ownRoster(ro, own, &back.State, snap.Backlog)
	}
	h.owners.hold(key, now.Term)
	_, _ = h.rooms.Do(ctx, key, refresh) // who is not in it is told
	h.roomChanged(key)
	h.tellOwner(own, key, back.State.Members)
	if before.Node != h.cfg.Node && !h.nodes.isDead(before.Node) {
		h.sendOwner(own, key, before.Node)
	}
	h.settleRoomLater(key)
	return nil
}

// ownRoster makes the roster of a room elsewhere that of a room of this node, and tells its
// sessions, which it returns, what they have missed. Said is what was said last in the room.
func (h *Hub) ownRoster(
	ro *roster, own Owner, st *room.State, said []room.Event,
) (members []room.Actor) {
	in := h.sessionsIn(ro)
	ro.mu.RLock()
	if ro.copy != nil {
		said = slices.DeleteFunc(slices.Clone(said), func(e room.Event) bool {
			return e.Seq <= ro.copy.Seq
		})
	}
	ro.mu.RUnlock()
	h.deliverRefreshed(ro, in, room.Event{
		Kind:   room.Refreshed,
		Key:    ro.key,
		Seq:    st.Seq,
		State:  st,
		Missed: said,
	})
	ro.mu.Lock()
	ro.owner, ro.copy, ro.stale = own, nil, false
	ro.mu.Unlock()
	for _, s := range in {
		members = append(members, s.actor())
	}
	return members
}

// ownerMessage tells a node that has members in a room, or had the room, who owns it now.
type ownerMessage struct {
	Key  room.Key `json:"key"`
	Term uint64   `json:"term"`
}

// tellOwner tells the nodes of members that this one owns their room.
func (h *Hub) tellOwner(own Owner, key room.Key, members []room.Member) {
	told := map[string]bool{h.cfg.Node: true}
	for _, m := range members {
		if node := m.Address.Node; !told[node] && !h.nodes.isDead(node) {
			told[node] = true
			h.sendOwner(own, key, node)
		}
	}
}

func (h *Hub) sendOwner(own Owner, key room.Key, to string) {
	b, err := encodeBus(busMessage{Owner: &ownerMessage{key, own.Term}})
	if err == nil {
		err = h.cfg.Bus.Send(to, b)
	}
	if err != nil { // it will ask
		h.cfg.Log.Warn("owner not told", "node", h.cfg.Node, "to", to, "error", err)
	}
}

// ownerFromBus is told of the owner of a room that this node has members in.
func (h *Hub) ownerFromBus(from string, m ownerMessage) {
	if term := h.owners.last(m.Key); term != 0 && term < m.Term {
		h.loseRoomTo(m.Key, Owner{Node: from, Term: m.Term})
		return
	}
	h.ownerChanged(m.Key, Owner{Node: from, Term: m.Term})
}

// ownerChanged has the members here of a room elsewhere learn what its next owner knows.
func (h *Hub) ownerChanged(key room.Key, now Owner) {
	ro := h.rosterOf(key)
	if ro == nil {
		return
	}
	ro.mu.Lock()
	later := now.Term > ro.owner.Term
	if later {
		ro.owner = now
		ro.stale = true
	}
	ro.mu.Unlock()
	if later {
		h.refresh(key)
	}
}

// awaitOwner waits until another node has the room of one that is dead. ErrNoNode: it took too
// long.
func (h *Hub) awaitOwner(ctx context.Context, key room.Key, dead Owner) (Owner, error) {
	looked := time.Now()
	for h.nodes.diedWithin(dead.Node, adoptTime) {
		select {
		case <-ctx.Done():
			return Owner{}, ctx.Err()
		case <-time.After(ownerPause):
		}
		if owner := h.rosterOf(key).ownedBy(); owner.Node != "" && owner != dead {
			return owner, nil
		}
		if term, ok := h.owners.term(key); ok {
			return Owner{Node: h.cfg.Node, Term: term}, nil
		}
		if time.Since(looked) < lookUpPause {
			continue
		}
		looked = time.Now()
		owner, err := h.lookUpOwner(ctx, key)
		if err != nil || owner.Node != dead.Node && owner.Node != h.cfg.Node {
			return owner, err
		}
	}
	return Owner{}, engine.ErrNoNode
}

// releaseLater frees what a dead node held when the resume window is over, and settles its members
// until then.
func (h *Hub) releaseLater(life nodeLife) {
	over := time.Now().Add(h.cfg.ResumeWindow)
	h.retryAfter(settleAfter, "settle "+life.String(), func(ctx context.Context) error {
		if !time.Now().Before(over) {
			return nil
		}
		return h.settleMembers(ctx, life.node, false)
	})
	h.retryAfter(h.cfg.ResumeWindow, "release "+life.String(), func(ctx context.Context) error {
		err := h.cfg.Directory.ReleaseNode(ctx, life.node, life.incarnation)
		if err != nil && !errors.Is(err, ErrTaken) {
			return err
		}
		h.replicas.forget(life.node, life.incarnation)
		return h.settleMembers(ctx, life.node, true)
	})
}

// settleRoomLater looks after the members of a room that was adopted. What is known of it may be
// older than their last leave.
func (h *Hub) settleRoomLater(key room.Key) {
	over := time.Now().Add(h.cfg.ResumeWindow)
	record := recordOf(key)
	h.retryAfter(settleAfter, "settle "+record, func(ctx context.Context) (failed error) {
		snap, _ := h.rooms.Snapshot(key)
		for _, m := range snap.State.Members {
			failed = cmp.Or(h.settleMember(ctx, key, m, time.Now().After(over)), failed)
		}
		return failed
	})
}

// settleMembers looks after members of rooms of this node whose session was on a node that died.
// The replica of a session may not say which room it is in: its node is told. Over: the resume
// window is, and who has no session leaves.
func (h *Hub) settleMembers(ctx context.Context, node string, over bool) error {
	return each(h.owners.keys(), func(key room.Key) (failed error) {
		snap, _ := h.rooms.Snapshot(key)
		for _, m := range snap.State.Members {
			if m.Address.Node == node {
				failed = cmp.Or(h.settleMember(ctx, key, m, over), failed)
			}
		}
		return failed
	})
}

// errUnsettled: the session of a member of a dead node has not told the room where it is.
var errUnsettled = errors.New("a session is on its way")

func (h *Hub) settleMember(ctx context.Context, key room.Key, m room.Member, over bool) error {
	at := Location{Node: m.Address.Node, Session: m.Address.Session}
	if !h.nodes.isDead(at.Node) {
		if found, err := h.askIn(ctx, at, key); err != nil || found == inThis {
			return err
		}
	}
	holder, err := h.cfg.Directory.Holder(ctx, key.Tenant, m.ID)
	if err != nil {
		return err
	}
	found := inAnother
	if holder.Session != m.Address.Session {
		found = unknownRoom
	} else if found, err = h.askIn(ctx, holder, key); err != nil {
		return err
	}
	switch {
	case found == inThis && holder.Node == m.Address.Node:
		return nil // it came back
	case found == inThis, found == unknownRoom && !over:
		return errUnsettled
	}
	_, err = h.commandHere(ctx, key, room.Leave{
		User:    m.ID,
		Address: m.Address,
		Epoch:   m.Epoch,
	})
	if errors.Is(err, room.ErrNotIn) || errors.Is(err, room.ErrNoRoom) {
		return nil
	}
	return err
}

// inMessage tells the node of a session that a room has it as a member, and asks whether it is.
type inMessage struct {
	Session string   `json:"session"`
	Room    room.Key `json:"room"`
}

// whichRoom is where a session is, compared with where it should be.
type whichRoom int

const (
	unknownRoom whichRoom = iota // there is no such session, or it does not know yet
	inThis                       // or on its way
	inAnother                    // or in none
)

// askIn asks the node of a session whether it is in a room.
func (h *Hub) askIn(ctx context.Context, at Location, key room.Key) (whichRoom, error) {
	q := inMessage{at.Session, key}
	if at.Node == h.cfg.Node {
		return h.isIn(q), nil
	}
	a, err := h.exchange(ctx, at.Node, busMessage{In: &q})
	return a.In, err
}

// isIn tells whether a session of this node is in a room. A session that no client has resumed yet
// takes the room's word for it.
func (h *Hub) isIn(q inMessage) whichRoom {
	s := h.session(q.Session)
	if s == nil {
		return unknownRoom
	}
	s.op.Lock()
	defer s.op.Unlock()
	in := s.moved().Room
	switch {
	case in != nil && *in == q.Room:
		return inThis
	case !s.unclaimed:
		return inAnother
	case in != nil: // the room of the replica may not have it
		return unknownRoom
	}
	s.awaitsRoom.Store(&q.Room)
	s.hub.replicateSession(s)
	s.moveInRoomSoon()
	return inThis
}
