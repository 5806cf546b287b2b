package signaling

import (
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// isRelayed reports whether the message is relayed to another member instead of handled by the
// server. The checks of handle that come later have then been made.
func (r *request) isRelayed() bool {
	if r.s == nil || r.env.Target == nil || r.s.client.Load() != r.c || !r.own() {
		return false
	}
	switch string(r.env.Op) {
	case "sdp", "candidate", "subscribe", "publish", "unpublish":
		return true
	}
	return false
}

// relay sends a description, candidate or feed message on to its target. The body is not parsed;
// the sender is stamped in. checkRelay finds the target in the roster, relayTo reaches it on this
// node or over the Bus.
func (r *request) relay() {
	h := r.c.hub
	to, ro, err := r.checkRelay()
	if err == nil {
		m := transport.NewMessage()
		m.B = r.env.AppendRelayed(m.B, r.s.sender)
		err = h.relayTo(ro.key, to, r.s.user, m)
	}
	if err != nil {
		r.fail(err)
		return
	}
	h.counters.relayed.Add(1)
	if r.env.ReqID != nil || transport.AckRequested(r.reply) {
		r.ok(nil)
		return
	}
	h.counters.answer(r.env.Op, protocol.OK)
}

// checkRelay charges a message to another member, and finds the target.
func (r *request) checkRelay() (to place, ro *roster, err error) {
	h, s := r.c.hub, r.s
	now := h.now()
	s.mu.Lock()
	ro = s.roster
	if string(r.env.Op) == "candidate" {
		err = r.checkCandidates(now)
	}
	n := relayUnits(r.env.Op, len(r.msg))
	if err == nil && !s.outgoingBudget().contacts.take(h.hash(r.env.Target), now, h.toOne, n) {
		h.counters.toOne.Add(1)
		err = errUserBudget
	}
	s.mu.Unlock()
	if err != nil {
		return to, ro, err
	}
	to, ok := ro.find(r.env.Target)
	if !ok {
		return to, ro, errNoTarget
	}
	return to, ro, nil
}

// relayTo hands a member's message to the target, which must still be in the room, or tells why it
// is not delivered. Another node does not tell. It takes over the reference.
func (h *Hub) relayTo(key room.Key, to place, from string, m *transport.Message) error {
	if to.session != nil {
		elsewhere := to.session.movedTo.Load()
		if elsewhere == nil {
			return h.delivered(to.session.enqueue(m, from, fromMember))
		}
		to.addr.Node = *elsewhere // the room has not said so yet
	}
	defer m.Release()
	b := payloads.Get().(*[]byte)
	defer payloads.Put(b)
	*b = relayMessage{key, to.addr.Session, from, m.B}.appendBus((*b)[:0])
	return wrap("bus", h.cfg.Bus.Send(to.addr.Node, *b))
}
