package signaling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// busMessage is what travels between nodes. Exactly one of the pointer fields is set.
type busMessage struct {
	Command *commandMessage `json:"do,omitempty"`    // a request: command a room
	Event   *eventMessage   `json:"event,omitempty"` // what a room says
	Relay   *relayMessage   `json:"pass,omitempty"`  // a member's message to another
	Direct  *directMessage  `json:"tell,omitempty"`  // a user's message to a user of the same license
	Evict   *evictMessage   `json:"evict,omitempty"` // a request: end a session
}

type evictMessage struct {
	Seat   Location `json:"seat"`
	Reason string   `json:"reason"`
}

type commandMessage struct {
	Key  room.Key        `json:"key"`
	Name string          `json:"name"` // of the command's type
	Body json.RawMessage `json:"body"`
}

// commands are those that may come from another node, by the name of their type.
var commands = func() map[string]reflect.Type {
	m := map[string]reflect.Type{}
	for _, c := range []room.Command{
		room.Create{}, room.Join{}, room.Leave{}, room.Sync{}, room.Get{}, room.Destroy{}, room.StartShare{}, room.StopShare{}, room.Edit{},
		room.EditMember{}, room.SetPermit{}, room.Kick{}, room.Broadcast{}, room.PublishFeed{}, room.UnpublishFeed{}, room.AnnounceGroup{}, room.EndGroup{},
	} {
		m[reflect.TypeOf(c).Name()] = reflect.TypeOf(c)
	}
	return m
}()

type eventMessage struct {
	To    []string   `json:"to"` // sessions
	Event room.Event `json:"event"`
}

type relayMessage struct {
	Room    room.Key        `json:"room"`
	Session string          `json:"session"`
	From    string          `json:"from"`
	Message json.RawMessage `json:"message"`
}

type directMessage struct {
	Tenant  string          `json:"tenant"`
	Session string          `json:"session"`
	From    string          `json:"from"`
	Message json.RawMessage `json:"message"`
}

type commandResult struct {
	State *room.State `json:"state,omitempty"`
	Error string      `json:"error,omitempty"`
}

// errors of rooms keep their identity on the way between nodes
var roomErrors = []error{
	room.ErrNoRoom, room.ErrExists, room.ErrFull, room.ErrAlreadyIn, room.ErrNotIn, room.ErrTooManyRooms, room.ErrTooManyOwned, room.ErrStale, room.ErrDenied,
	room.ErrSharing, room.ErrNoMember, room.ErrCapacity, room.ErrNoGroup, room.ErrTooManyGroups, room.ErrTooManyFromAddress, room.ErrBanned, room.ErrUnlisted, room.ErrBusy, room.ErrStateTooLarge, room.ErrGroupTooLarge,
}

// create makes this node the room's owner, unless another is.
func (h *Hub) create(ctx context.Context, key room.Key, cmd room.Create) error {
	owner, err := h.cfg.Directory.ClaimRoom(ctx, key.Tenant, key.Room, h.owners.last(key, h.cfg.Node))
	if err != nil {
		return wrap("claim room", err)
	}
	_, err = h.command(ctx, owner, key, cmd)
	return err
}

// createHere makes a room on this node. Owning and having the room must not come apart, though a
// room of the same name may be ending at this moment: hence the lock that roomGone takes too, and
// the second claim.
func (h *Hub) createHere(ctx context.Context, key room.Key, cmd room.Create) error {
	h.ownership.Lock()
	defer h.ownership.Unlock()
	owner, err := h.cfg.Directory.ClaimRoom(ctx, key.Tenant, key.Room, h.owners.last(key, h.cfg.Node))
	if err != nil {
		return wrap("claim room", err)
	}
	if owner.Node != h.cfg.Node {
		return room.ErrExists
	}
	h.owners.hold(key, owner.Term)
	_, err = h.rooms.Do(ctx, key, cmd)
	if err != nil && !h.rooms.Has(key) {
		h.giveUp(key)
	}
	return err
}

// roomGone gives up the ownership of a room that ended, unless it was created again meanwhile.
func (h *Hub) roomGone(key room.Key) {
	h.ownership.Lock()
	defer h.ownership.Unlock()
	if !h.rooms.Has(key) {
		h.keepRoom(key)
		h.giveUp(key)
	}
}

// giveUp ends the ownership of a room that this node has not. The lock of ownership is held.
func (h *Hub) giveUp(key room.Key) {
	owner := h.owners.release(key, h.cfg.Node)
	if err := h.cfg.Directory.ReleaseRoom(context.Background(), key.Tenant, key.Room, owner); err != nil {
		h.cfg.Log.Warn("room not released", "node", h.cfg.Node, "error", err)
	}
}

// do commands a room wherever it is.
func (h *Hub) do(ctx context.Context, key room.Key, cmd room.Command) error {
	_, err := h.ask(ctx, key, cmd)
	return err
}

func (h *Hub) get(ctx context.Context, key room.Key) (*room.State, error) {
	return h.ask(ctx, key, room.Get{})
}

func (h *Hub) ask(ctx context.Context, key room.Key, cmd room.Command) (*room.State, error) {
	owner, err := h.ownerOf(ctx, key)
	if err != nil {
		return nil, err
	}
	return h.command(ctx, owner, key, cmd)
}

// ownerOf finds the owner of a room; room.ErrNoRoom: there is none.
func (h *Hub) ownerOf(ctx context.Context, key room.Key) (Owner, error) {
	if term, ok := h.owners.term(key); ok {
		return Owner{Node: h.cfg.Node, Term: term}, nil
	}
	owner, err := h.cfg.Directory.RoomOwner(ctx, key.Tenant, key.Room)
	if err == nil && owner.Node == "" {
		err = room.ErrNoRoom
	}
	return owner, wrap("find room", err)
}

func (h *Hub) command(ctx context.Context, owner Owner, key room.Key, cmd room.Command) (*room.State, error) {
	if owner.Node == h.cfg.Node {
		return h.commandHere(ctx, key, cmd)
	}
	body, err := protocol.Marshal(cmd)
	if err != nil {
		return nil, wrap("encode command", err)
	}
	d := &commandMessage{key, reflect.TypeOf(cmd).Name(), body}
	var a commandResult
	if err := h.request(ctx, owner.Node, busMessage{Command: d}, &a); err != nil {
		return nil, err
	}
	if a.Error == "" {
		return a.State, nil
	}
	for _, e := range roomErrors {
		if e.Error() == a.Error {
			return nil, e
		}
	}
	return nil, fmt.Errorf("node %s: %s", owner.Node, a.Error)
}

func (h *Hub) commandHere(ctx context.Context, key room.Key, cmd room.Command) (*room.State, error) {
	if c, ok := cmd.(room.Create); ok {
		return nil, h.createHere(ctx, key, c)
	}
	return h.rooms.Do(ctx, key, cmd)
}

// evict ends the session in a seat, which has left or lost its user id, wherever it is. A node that does not answer has no say in that: a
// room that both sessions join knows the newer one.
func (h *Hub) evict(ctx context.Context, seat Location, reason string) {
	if seat.Node == h.cfg.Node {
		h.endSession(seat, transport.StatusTakenOver, reason)
		return
	}
	if err := h.request(ctx, seat.Node, busMessage{Evict: &evictMessage{seat, reason}}, &struct{}{}); err != nil {
		h.cfg.Log.Warn("session not ended", "node", h.cfg.Node, "on", seat.Node, "error", err)
	}
}

func (h *Hub) endSession(seat Location, code transport.StatusCode, reason string) {
	if s := h.session(seat.Session); s != nil && s.location == seat {
		s.end(nil, code, reason)
	}
}

// relayTo hands a member's message to the target, which must still be in the room, or tells why it is not delivered. Another node
// does not tell. It takes over the reference.
func (h *Hub) relayTo(key room.Key, to place, from string, m *transport.Message) error {
	if to.session != nil {
		return h.delivered(to.session.offer(m, from, fromMember))
	}
	defer m.Release()
	return h.publish(to.addr.Node, busMessage{Relay: &relayMessage{key, to.addr.Session, from, m.B}})
}

// sendDirect hands a message to the session in a seat, whose user the sender has no room in common with. Whether it is delivered is
// nothing that the sender may learn. It takes over the reference.
func (h *Hub) sendDirect(tenant string, seat Location, from string, m *transport.Message) error {
	if seat.Node != h.cfg.Node {
		defer m.Release()
		return h.publish(seat.Node, busMessage{Direct: &directMessage{tenant, seat.Session, from, m.B}})
	}
	if s := h.session(seat.Session); s != nil && s.tenant == tenant {
		_ = h.delivered(s.offer(m, from, fromOutside))
		return nil
	}
	m.Release()
	return nil
}

// delivered counts messages that were not.
func (h *Hub) delivered(err error) error {
	switch {
	case errors.Is(err, transport.ErrFull):
		h.counters.unread.Add(1)
	case errors.Is(err, errPendingShare), errors.Is(err, errPendingFull):
		h.counters.waiting.Add(1)
	}
	return err
}

func (h *Hub) forward(node string, sessions []string, e room.Event) {
	if err := h.publish(node, busMessage{Event: &eventMessage{sessions, e}}); err != nil {
		h.cfg.Log.Warn("event not forwarded", "node", h.cfg.Node, "to", node, "error", err)
	}
}

func (h *Hub) publish(node string, p busMessage) error {
	b, err := protocol.Marshal(p)
	if err != nil {
		return wrap("encode bus message", err)
	}
	return wrap("bus", h.cfg.Bus.Send(node, b))
}

func (h *Hub) request(ctx context.Context, node string, p busMessage, into any) error {
	b, err := protocol.Marshal(p)
	if err != nil {
		return wrap("encode bus message", err)
	}
	answer, err := h.cfg.Bus.Request(ctx, node, b)
	if err != nil {
		return wrap("bus", err)
	}
	return wrap("decode answer", json.Unmarshal(answer, into))
}

// fromBus is the hub as an engine.Handler. It checks again what the sender checked: the bus is not
// trusted to be right.
type fromBus struct{ *Hub }

// Message implements engine.Handler.
func (h fromBus) Message(from string, payload []byte) {
	p, ok := h.decode(from, payload)
	switch {
	case !ok:
	case p.Event != nil:
		here := make([]*session, 0, len(p.Event.To))
		for _, id := range p.Event.To {
			if s := h.session(id); s != nil {
				here = append(here, s)
			}
		}
		if len(here) > 0 {
			h.deliver(here, p.Event.Event)
		}
	case p.Direct != nil:
		m := transport.NewMessage()
		m.B = append(m.B, p.Direct.Message...)
		l := Location{Node: h.cfg.Node, Session: p.Direct.Session}
		_ = h.sendDirect(p.Direct.Tenant, l, p.Direct.From, m)
	case p.Relay != nil:
		s := h.session(p.Relay.Session)
		if s == nil {
			return
		}
		if key, in := s.roomKey(); in && key == p.Relay.Room {
			m := transport.NewMessage()
			m.B = append(m.B, p.Relay.Message...)
			_ = h.delivered(s.offer(m, p.Relay.From, fromMember))
		}
	}
}

// Request implements engine.Handler.
func (h fromBus) Request(from string, payload []byte, respond func([]byte)) {
	p, ok := h.decode(from, payload)
	var key string
	switch {
	case !ok:
	case p.Command != nil:
		key = "room " + p.Command.Key.Tenant + "\x00" + p.Command.Key.Room
	case p.Evict != nil:
		key = "session " + p.Evict.Seat.Session
	default:
		ok = false
	}
	if !ok {
		respond([]byte(`{"error":"request not understood"}`))
		return
	}
	begun := h.beside.do(key, func() {
		if !h.enter() {
			respond([]byte(`{"error":"node closes"}`))
			return
		}
		defer h.leave()
		if p.Command != nil {
			respond(h.commandFromBus(p.Command))
			return
		}
		h.endSession(p.Evict.Seat, transport.StatusTakenOver, p.Evict.Reason)
		respond([]byte("{}"))
	})
	if !begun {
		respond([]byte(`{"error":"too many requests wait"}`))
	}
}

// Lost implements engine.Handler.
func (h fromBus) Lost(from string) {
	h.cfg.Log.Warn("messages lost", "node", h.cfg.Node, "from", from)
}

func (h *Hub) decode(from string, payload []byte) (p busMessage, ok bool) {
	if err := json.Unmarshal(payload, &p); err != nil {
		h.cfg.Log.Warn("bus message not understood", "node", h.cfg.Node, "from", from, "error", err)
		return p, false
	}
	return p, true
}

func (h *Hub) commandFromBus(d *commandMessage) []byte {
	t, ok := commands[d.Name]
	if !ok {
		return []byte(`{"error":"unknown command"}`)
	}
	v := reflect.New(t)
	if err := json.Unmarshal(d.Body, v.Interface()); err != nil {
		return []byte(`{"error":"command not understood"}`)
	}
	cmd := v.Elem().Interface().(room.Command)
	var a commandResult
	state, err := h.commandHere(context.Background(), d.Key, cmd)
	a.State = state
	if err != nil {
		a.Error = err.Error()
	}
	b, err := protocol.Marshal(a)
	if err != nil {
		return nil
	}
	return b
}
