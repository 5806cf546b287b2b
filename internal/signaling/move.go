package signaling

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// A session moves to the node on which its client resumes it. That node takes the user id first, so
// that of several which want the session one gets it. Then it asks for the session; the node that
// had it forgets it, and answers a repeated request the same. Last the room is told of the member's
// new address. Others are told nothing.

// movedSession is what a session takes along.
type movedSession struct {
	To       Location // where it goes
	Record   sessionRecord
	Room     *room.Key `json:",omitempty"`
	Seen     uint64
	Attempt  int
	Instance string         `json:",omitempty"`
	Pending  []movedMessage `json:",omitempty"`
	// Spent is what is used up of the session's rates, in the order of session.meters. A replica
	// has none.
	Spent []time.Duration `json:",omitempty"`
}

// isLater compares two records of a session.
func (m *movedSession) isLater(than *movedSession) bool {
	return m.Record.Location.Epoch > than.Record.Location.Epoch
}

type movedMessage struct {
	Message json.RawMessage
	From    string
	Sender  senderKind
}

// takeMessage is a request for a session, whose user id is with To by now.
type takeMessage struct {
	Session string   `json:"session"`
	To      Location `json:"to"`
}

// handedOverLife is how long a node knows where a session went.
const handedOverLife = 30 * time.Second

// fetch has the session of a resume token move here. errGone: there is none.
func (h *Hub) fetch(ctx context.Context, p *resumeToken) (*session, error) {
	unlock, err := h.moves.lock(ctx, room.Key{Tenant: p.Tenant, Room: p.ID})
	if err != nil {
		return nil, err
	}
	defer unlock()
	d := h.cfg.Directory
	for range maxClaims {
		if s := h.session(p.ID); s != nil {
			return s, nil
		}
		holder, err := d.Holder(ctx, p.Tenant, p.User)
		if err != nil {
			return nil, wrap("find session", err)
		}
		if holder.Session != p.ID {
			return nil, errGone
		}
		at := holder
		if holder.Node != h.cfg.Node {
			wish := Location{Node: h.cfg.Node, Session: p.ID}
			at, err = d.TakeUser(ctx, p.Tenant, p.User, holder, wish)
		}
		if errors.Is(err, ErrTaken) {
			continue // it moved elsewhere
		}
		if err != nil {
			return nil, wrap("move session", err)
		}
		m, err := h.takeFrom(ctx, holder, takeMessage{p.ID, at})
		if s := h.session(p.ID); s != nil {
			return s, nil // adopted
		}
		if errors.Is(err, errGone) {
			return nil, errors.Join(err, d.ReleaseUser(ctx, p.Tenant, p.User, at))
		}
		if err != nil {
			h.abandonLater(p, holder, at)
			return nil, wrap("move session", err)
		}
		s := h.moveIn(*m, at, func() bool { return true })
		if err := h.endIfTaken(ctx, s); err != nil {
			return nil, err
		}
		return s, nil
	}
	return nil, errNotOwner
}

// abandonLater frees the id of a session that could not be moved here, unless the client has tried
// again with success. What is left of the session must end then.
func (h *Hub) abandonLater(p *resumeToken, from, at Location) {
	h.retryAfter(h.cfg.ResumeWindow, "abandon "+p.ID, func(ctx context.Context) error {
		if h.session(p.ID) != nil {
			return nil
		}
		err := h.cfg.Directory.ReleaseUser(ctx, p.Tenant, p.User, at)
		if err == nil && from.Node != h.cfg.Node {
			err = h.sendEvict(ctx, &evictMessage{Location: from, Reason: "resumed elsewhere"})
		}
		return err
	})
}

// takeFrom asks the node that held a session for it. If that one has not got it, or is dead, it may
// be anywhere: on its way before, or as a replica. All others are asked, and the latest is taken.
// errGone: nobody has it.
func (h *Hub) takeFrom(ctx context.Context, holder Location, t takeMessage) (*movedSession, error) {
	if holder.Node != h.cfg.Node && !h.nodes.isDead(holder.Node) {
		if m, err := h.take(ctx, holder.Node, t); m != nil || !errors.Is(err, errGone) {
			return m, err
		}
	}
	latest, _ := h.handAgain(t)
	for _, node := range h.nodes.others(h.cfg.Node) {
		if latest != nil && latest.Record.Location.Epoch >= holder.Epoch {
			break
		}
		m, err := h.take(ctx, node, t)
		switch {
		case err != nil && !errors.Is(err, errGone):
			return nil, err // that one may have it
		case m != nil && (latest == nil || m.isLater(latest)):
			latest = m
		}
	}
	if latest == nil {
		return nil, errGone
	}
	return latest, nil
}

// take asks one node for a session, again if a message is lost: it answers the same. A node that
// dies has nothing.
func (h *Hub) take(ctx context.Context, node string, t takeMessage) (*movedSession, error) {
	for {
		a, err := h.exchange(ctx, node, busMessage{Take: &t})
		switch {
		case err == nil:
			return a.Session, nil
		case errors.Is(err, engine.ErrNoNode) || h.nodes.isDead(node):
			return nil, errGone
		case !errors.Is(err, engine.ErrLost):
			return nil, err
		}
	}
}

// handOver gives a session to another node.
func (h *Hub) handOver(t takeMessage) (*movedSession, error) {
	s := h.session(t.Session)
	if s == nil {
		m, err := h.handAgain(t)
		if s = h.session(t.Session); m != nil || s == nil {
			return m, err
		}
	}
	s.op.Lock()
	defer s.op.Unlock()
	if s.ended || s.location.Epoch >= t.To.Epoch {
		return nil, errGone
	}
	m := s.moved()
	m.To = t.To
	for _, meter := range s.meters() {
		m.Spent = append(m.Spent, max(0, meter.Until()-h.now()))
	}
	s.movedTo.Store(&t.To.Node)
	s.mu.Lock()
	for _, w := range s.pending {
		m.Pending = append(m.Pending, movedMessage{append([]byte(nil), w.m.B...), w.from, w.sender})
	}
	s.mu.Unlock()
	h.mu.Lock()
	h.remember(m)
	h.mu.Unlock()
	s.goElsewhere(transport.StatusSessionResumed, "resumed on another node")
	return m, nil
}

// goElsewhere ends what is here of a session that goes on on another node. The room is not told:
// the session is still in it. op is held.
func (s *session) goElsewhere(code transport.StatusCode, reason string) {
	s.ended = true
	last := s.client.Load()
	s.drop()
	if key, in := s.roomKey(); in {
		s.leftRoom(key)
	}
	s.remove(last, code, reason)
}

// handedSession is a session that was given to another node.
type handedSession struct {
	*movedSession
	at time.Time
}

// remember keeps what was given to another node for a while; h.mu is held.
func (h *Hub) remember(m *movedSession) {
	if h.handed == nil {
		h.handed = map[string]handedSession{}
	}
	id := m.Record.Location.Session
	h.handed[id] = handedSession{m, time.Now()}
	time.AfterFunc(handedOverLife, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if time.Since(h.handed[id].at) >= handedOverLife && !h.draining.Load() {
			delete(h.handed, id)
		}
	})
}

// moved is what another node needs to go on with the session, but for messages that wait.
func (s *session) moved() *movedSession {
	m := &movedSession{Record: s.record(), Seen: s.seen.Load(), Room: s.awaitsRoom.Load()}
	if key, in := s.roomKey(); in {
		m.Room = &key
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.Instance, m.Attempt = s.attempt.instance, s.attempt.n
	return m
}

// handAgain answers a request for a session that is not here: as before if it has been given away,
// or with its replica.
func (h *Hub) handAgain(t takeMessage) (*movedSession, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := h.handed[t.Session]
	m := last.movedSession
	// Of one location, the replica has come since the session was handed over.
	if r := h.replicas.take(t.Session); r != nil && (m == nil || !m.isLater(r)) {
		m = r
		h.remember(m)
		last = h.handed[t.Session]
	}
	if m == nil {
		return nil, errGone
	}
	again := *m
	again.To = t.To
	h.handed[t.Session] = handedSession{&again, last.at}
	return &again, nil
}

// forwardRelay sends a message after a session that has moved.
func (h *Hub) forwardRelay(p relayMessage, to Location) error {
	return wrap("bus", h.cfg.Bus.Send(to.Node, p.appendBus(nil)))
}

// handedOver returns what was given to another node lately, or nil.
func (h *Hub) handedOver(session string) *movedSession {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.handed[session].movedSession
}

// moveIn makes a session that came from another node one of this node, which waits for its client.
// It is nil if still, which is called with h.mu held, returns false.
func (h *Hub) moveIn(m movedSession, at Location, still func() bool) *session {
	m.Record.Location = at
	s := h.sessionOf(m.Record)
	s.seen.Store(m.Seen)
	s.attempt = attempt{m.Instance, m.Attempt}
	s.awaitsRoom.Store(m.Room)
	s.unclaimed = true
	for i, meter := range s.meters() {
		if i < len(m.Spent) {
			meter.Charge(h.now(), m.Spent[i])
		}
	}
	for _, w := range m.Pending {
		message := transport.NewMessage()
		message.B = append(message.B, w.Message...)
		h.cfg.Backlog.Hold(message)
		s.pending = append(s.pending, pendingMessage{message, w.From, w.Sender})
	}
	s.detach(nil)
	h.mu.Lock()
	there := still()
	if there {
		delete(h.handed, s.id)
		h.sessions[s.id] = s
	}
	h.mu.Unlock()
	if !there {
		s.drop()
		return nil
	}
	h.sources.add(s.tenant, s.origin) // it was within the limit
	h.sessionChanged(s)
	if m.Room != nil {
		s.moveInRoomSoon()
	}
	return s
}

func (s *session) moveInRoomSoon() {
	s.hub.retryNow("move "+s.id, func(ctx context.Context) error {
		s.op.Lock()
		defer s.op.Unlock()
		return s.moveInRoom(ctx)
	})
}

// moveInRoom tells the room where its member is now; op is held. The session is in the room when
// its client has resumed it.
func (s *session) moveInRoom(ctx context.Context) error {
	key := s.awaitsRoom.Load()
	if key == nil {
		return nil
	}
	err := s.hub.do(ctx, *key, room.Move{
		User:  s.user,
		To:    s.address(),
		Epoch: s.location.Epoch,
	})
	if errors.Is(err, room.ErrNotIn) || errors.Is(err, room.ErrNoRoom) {
		s.awaitsRoom.Store(nil)
		return nil
	}
	return err
}

// leaveAwaited has the room of a session that ends before it is in it know; op is held.
func (s *session) leaveAwaited() {
	key := s.awaitsRoom.Swap(nil)
	if key == nil {
		return
	}
	move := room.Move{User: s.user, To: s.address(), Epoch: s.location.Epoch}
	leave := room.Leave{User: s.user, Address: s.address(), Epoch: s.location.Epoch}
	s.hub.retryNow("leave "+s.id, func(ctx context.Context) error {
		for _, cmd := range []room.Command{move, leave} {
			if err := s.hub.do(ctx, *key, cmd); unreachable(err) {
				return err
			}
		}
		return nil
	})
}

// sessionOf makes a session of its record.
func (h *Hub) sessionOf(rec sessionRecord) *session {
	s := &session{
		hub:      h,
		id:       rec.Location.Session,
		location: rec.Location,
		tenant:   rec.Tenant,
		user:     rec.User,
		sender:   protocol.AppendString(nil, rec.User),
		device:   rec.Device,
		features: rec.Features,
		identity: rec.Identity,
		origin:   rec.Origin,
		grant:    rec.Grant,
	}
	if s.identity == "" { // kept by a server that knew of none
		s.identity = newIdentity()
	}
	s.name.Store(rec.Name)
	return s
}

// addDetached makes a session known that waits for its client.
func (h *Hub) addDetached(s *session) {
	h.sources.add(s.tenant, s.origin) // it was within the limit
	h.mu.Lock()
	h.sessions[s.id] = s
	h.mu.Unlock()
	s.detach(nil)
}
