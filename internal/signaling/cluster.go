package signaling

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// command commands a room on the node that owns it.
func (h *Hub) command(
	ctx context.Context, owner Owner, key room.Key, cmd room.Command,
) (*room.State, error) {
	if owner.Node == h.cfg.Node {
		return h.commandHere(ctx, key, cmd)
	}
	body, err := protocol.Marshal(cmd)
	if err != nil {
		return nil, wrap("encode command", err)
	}
	m := &commandMessage{key, owner.Term, reflect.TypeOf(cmd).Name(), body}
	a, err := h.exchange(ctx, owner.Node, busMessage{Command: m})
	return a.State, err
}

func (h *Hub) commandHere(
	ctx context.Context, key room.Key, cmd room.Command,
) (*room.State, error) {
	if c, ok := cmd.(room.Create); ok {
		return nil, h.createHere(ctx, key, c)
	}
	if _, held := h.owners.term(key); !held {
		// The directory may have decided a moment ago that it is here.
		unlock, err := h.ownership.lock(ctx, key)
		if err != nil {
			return nil, wrap("command room", err)
		}
		unlock()
	}
	state, err := h.rooms.Do(ctx, key, cmd)
	if errors.Is(err, room.ErrNoRoom) && h.owners.given(key) {
		err = errNotOwner
	}
	return state, err
}

// exchange asks another node.
func (h *Hub) exchange(ctx context.Context, node string, p busMessage) (a busResponse, err error) {
	payload, err := encodeBus(p)
	if err != nil {
		return a, err
	}
	b, err := h.cfg.Bus.Request(ctx, node, payload)
	if err != nil {
		return a, wrap("bus", err)
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, wrap("decode response", err)
	}
	return a, a.err(node)
}

// evictTimeout is how long a takeover waits for the end of the session before it. The user id has
// passed on by then, whatever the node of that session does.
const evictTimeout = time.Second

// evict ends the session at a location, which has left or lost its user id, wherever it is. A dead
// node is not told: when it comes back it learns what it has lost.
func (h *Hub) evict(ctx context.Context, l Location, reason string) {
	if l.Node == h.cfg.Node {
		h.endSession(l, transport.StatusTakenOver, reason)
		return
	}
	m := &evictMessage{Location: l, Reason: reason}
	ctx, cancel := context.WithTimeout(ctx, evictTimeout)
	defer cancel()
	if err := h.sendEvict(ctx, m); err != nil {
		h.cfg.Log.Warn("session not ended", "node", h.cfg.Node, "on", l.Node, "error", err)
		h.retryEvict(m)
	}
}

// evictMoved ends what is left of a session at a location; the session itself is here.
func (h *Hub) evictMoved(l Location) {
	h.retryEvict(&evictMessage{Location: l, Moved: true})
}

func (h *Hub) retryEvict(m *evictMessage) {
	l := m.Location
	h.retryNow("evict "+l.Session+" on "+l.Node, func(ctx context.Context) error {
		return h.sendEvict(ctx, m)
	})
}

func (h *Hub) sendEvict(ctx context.Context, m *evictMessage) error {
	if h.nodes.isDead(m.Location.Node) {
		return nil
	}
	_, err := h.exchange(ctx, m.Location.Node, busMessage{Evict: m})
	if errors.Is(err, engine.ErrNoNode) {
		return nil
	}
	return err
}

func (h *Hub) endSession(l Location, code transport.StatusCode, reason string) {
	if s := h.session(l.Session); s != nil && s.location == l {
		s.end(nil, code, reason)
	}
}

// payloads are those of messages from client to client, which the bus does not keep.
var payloads = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// sendDirect hands a message to the session at a location, whose user the sender has no room in
// common with. Whether it is delivered is nothing that the sender may learn. It takes over the
// reference.
func (h *Hub) sendDirect(tenant string, l Location, from string, m *transport.Message) error {
	if l.Node != h.cfg.Node {
		defer m.Release()
		b := payloads.Get().(*[]byte)
		defer payloads.Put(b)
		*b = directMessage{tenant, l.Session, from, m.B}.appendBus((*b)[:0])
		return wrap("bus", h.cfg.Bus.Send(l.Node, *b))
	}
	if s := h.session(l.Session); s != nil && s.tenant == tenant {
		_ = h.delivered(s.enqueue(m, from, fromOutside))
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

// forward sends an event of a room of this node to sessions on others.
func (h *Hub) forward(sessions map[string][]string, e room.Event) {
	body, err := protocol.Marshal(e)
	if err != nil {
		h.cfg.Log.Error("event not encoded", "node", h.cfg.Node, "error", err)
		return
	}
	term := h.owners.last(e.Key)
	for node, to := range sessions {
		if h.nodes.isDead(node) {
			continue
		}
		b, err := encodeBus(busMessage{Event: &eventMessage{term, to, body}})
		if err == nil {
			err = h.cfg.Bus.Send(node, b)
		}
		if err != nil {
			h.cfg.Log.Warn("event not forwarded", "node", h.cfg.Node, "to", node, "error", err)
		}
	}
}

// fromBus is the hub as an engine.Handler. It checks again what the sender checked: the bus is not
// trusted to be right.
type fromBus struct{ *Hub }

// Message implements engine.Handler.
func (h fromBus) Message(from string, payload []byte) {
	kind, body, err := cutHeader(payload)
	if err == nil {
		switch kind {
		case kindRelay:
			err = h.relayFromBus(body)
		case kindDirect:
			err = h.directFromBus(body)
		case kindJSON:
			err = h.messageFromNode(from, body)
		case kindReplicas:
			err = h.replicasFromBus(from, body)
		case kindResend:
			h.replicateAnew(from)
		default:
			err = errBusMessage
		}
	}
	if err != nil {
		h.cfg.Log.Warn("bus message ignored", "node", h.cfg.Node, "from", from, "error", err)
	}
	if errors.Is(err, errBusVersion) {
		h.Lost(from) // it may have been an event
	}
}

func (h *Hub) relayFromBus(body []byte) error {
	var p relayMessage
	if err := p.decode(body); err != nil {
		return err
	}
	m, err := messageFromBus(p.Message)
	if err != nil {
		return err
	}
	if s := h.session(p.Session); s != nil && s.isMemberOf(p.Room) {
		_ = h.delivered(s.enqueue(m, p.From, fromMember))
		return nil
	}
	m.Release()
	if moved := h.handedOver(p.Session); moved != nil { // the sender has not been told yet
		return h.forwardRelay(p, moved.To)
	}
	return nil
}

func (h *Hub) directFromBus(body []byte) error {
	var p directMessage
	if err := p.decode(body); err != nil {
		return err
	}
	m, err := messageFromBus(p.Message)
	if err != nil {
		return err
	}
	return h.sendDirect(p.Tenant, Location{Node: h.cfg.Node, Session: p.Session}, p.From, m)
}

// messageFromBus copies a message for a client, which must be one.
func messageFromBus(b []byte) (*transport.Message, error) {
	var env protocol.Envelope
	if err := env.Scan(b); err != nil {
		return nil, err
	}
	m := transport.NewMessage()
	m.B = append(m.B, b...)
	return m, nil
}

func (h *Hub) messageFromNode(from string, body []byte) error {
	p, err := decodeBus(body)
	switch {
	case err != nil:
		return err
	case p.Owner != nil:
		h.ownerFromBus(from, *p.Owner)
		return nil
	case p.Event == nil:
		return errBusMessage
	}
	return h.eventFromBus(from, p)
}

func (h *Hub) eventFromBus(from string, p busMessage) error {
	var e room.Event
	if err := json.Unmarshal(p.Event.Event, &e); err != nil {
		return err
	}
	here := make([]*session, 0, len(p.Event.To))
	for _, id := range p.Event.To {
		if s := h.session(id); s != nil {
			here = append(here, s)
		}
	}
	if len(here) > 0 {
		h.deliverFrom(Owner{Node: from, Term: p.Event.Term}, here, e)
	}
	return nil
}

// Request implements engine.Handler.
func (h fromBus) Request(from string, payload []byte, respond func([]byte)) {
	kind, body, err := cutHeader(payload)
	var p busMessage
	var key string
	if err == nil {
		p, err = decodeBus(body)
	}
	switch {
	case err != nil:
	case kind == kindJSON && p.Command != nil:
		key = "room " + p.Command.Key.Tenant + "\x00" + p.Command.Key.Room
	case kind == kindJSON && p.Evict != nil:
		key = "session " + p.Evict.Location.Session
	case kind == kindJSON && p.Take != nil:
		key = "session " + p.Take.Session
	case kind == kindJSON && p.In != nil:
		key = "session " + p.In.Session
	case kind == kindJSON && p.Rooms != nil:
		key = "rooms " + from
	case kind == kindJSON && p.Adopt != nil:
		k := p.Adopt.Room.State.Key
		key = "room " + k.Tenant + "\x00" + k.Room
	default:
		err = errBusMessage
	}
	if err == nil && !h.beside.do(key, func() { respond(respondWith(h.answer(p))) }) {
		err = errNodeBusy
	}
	if err != nil {
		h.cfg.Log.Warn("request of a node refused", "node", h.cfg.Node, "from", from, "error", err)
		respond(respondWith(busResponse{}, err))
	}
}

// answer carries out a request of another node.
func (h *Hub) answer(p busMessage) (a busResponse, err error) {
	if !h.enter() {
		return a, errClosing
	}
	defer h.leave()
	switch {
	case p.Command != nil:
		a.State, err = h.commandFromBus(p.Command)
	case p.Take != nil:
		a.Session, err = h.handOver(*p.Take)
	case p.In != nil:
		a.In = h.isIn(*p.In)
	case p.Rooms != nil:
		a.Rooms, a.More = h.knownPage(*p.Rooms)
	case p.Adopt != nil:
		err = h.adoptFromBus(p.Adopt)
	case p.Evict.Moved:
		h.loseSession(p.Evict.Location)
	default:
		h.endSession(p.Evict.Location, transport.StatusTakenOver, p.Evict.Reason)
	}
	return a, err
}

func (h *Hub) commandFromBus(d *commandMessage) (*room.State, error) {
	t, ok := commands[d.Name]
	if !ok {
		return nil, errBusMessage
	}
	v := reflect.New(t)
	if err := json.Unmarshal(d.Body, v.Interface()); err != nil {
		return nil, errBusMessage
	}
	cmd := v.Elem().Interface().(room.Command)
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if _, creates := cmd.(room.Create); !creates {
		if term, ok := h.owners.term(d.Key); !ok || term != d.Term {
			h.awaitHandOver(ctx, d.Key)
			return nil, errNotOwner
		}
	}
	return h.commandHere(ctx, d.Key, cmd)
}

// Lost implements engine.Handler.
func (h fromBus) Lost(from string) {
	h.cfg.Log.Warn("messages of a node lost", "node", h.cfg.Node, "from", from)
	h.refreshFrom(from)
	h.askForReplicas(from)
	h.replicateAnew(from) // it may have asked for that
}
