package signaling

import (
	"hash/maphash"
	"time"

	"github.com/ieum-rtc/ieum/internal/limit"
)

// What one user sends is stored and multiplied at other users' expense: in their outboxes, while
// they are disconnected, in what a room repeats for those who resume. So that no sender can use up
// what others need, each has budgets of its own, which are smaller than the place they draw on:
//
//	flood    all its messages                     429
//	excess   those that flood refuses             close 1008
//	toRoom   what its room is told                429
//	toOne    what it sends to one other member    429
//	toOther  the same outside a common room       429
//
// They follow from the rate and the burst of a session, so that an operator who raises those raises
// all. What is refused is answered; the receiver's connection never pays for it: see
// transport.Conn.Offer.
type budgets struct{ flood, excess, toRoom, toOne, toOther limit.Rate }

func newBudgets(rate, burst float64) budgets {
	return budgets{
		flood:  limit.NewRate(rate, burst),
		excess: limit.NewRate(rate*4, burst*4),   // others may have made its client answer them
		toRoom: limit.NewRate(rate*2/3, burst/3), // 20 a second, 100 at once
		// 15 and 120: a call of clients that send each candidate by itself fits.
		toOne:   limit.NewRate(rate/2, burst*2/5),
		toOther: limit.NewRate(rate/30, burst*2/75), // 1 and 8
	}
}

// A message counts as one unit, and as one more for each so many bytes.
const (
	floodBytes     = 8 << 10
	tellBytes      = 4 << 10
	candidateBytes = 1 << 10
)

// maxCandidates bounds one message with candidates. A host has a dozen or two, of 250 bytes each;
// our SDK sends 128 at most.
const maxCandidates = 32 << 10

func units(count, bytes, each int) int64 { return int64(count + bytes/each) }

// relayUnits is what a relayed message costs its receiver. A description makes it build a
// connection and answer, and a publication may be answered too.
func relayUnits(op []byte, bytes int) int64 {
	switch string(op) {
	case "sdp":
		return units(4, bytes, tellBytes)
	case "candidate":
		return units(1, bytes, candidateBytes)
	case "publish", "unpublish", "subscribe":
		return units(2, bytes, tellBytes)
	}
	return units(1, bytes, tellBytes)
}

// roomCosts are the operations that others in the room are told of, with their units. A group waits
// for disconnected members.
var roomCosts = map[string]int{
	"editRoomInfo": 1,
	"kickOut":      1,
	"permit":       1,
	"editUserInfo": 1,
	"changeName":   1,
	"chat":         1,
	"inform":       1,
	"talking":      1,
	"screen":       1,
	"shareStop":    1,
	"publish":      3,
	"unpublish":    1,
	"createGroup":  4,
	"endGroup":     1,
}

// checkRoomBudget charges a request of which others are told.
func (r *request) checkRoomBudget() error {
	n, ok := roomCosts[string(r.env.Op)]
	if !ok {
		return nil
	}
	f := sharedBy(r.c.hub.toRoom, r.s.roommates())
	if !r.s.roomMeter.Take(r.c.hub.now(), f, units(n, len(r.msg), tellBytes)) {
		r.c.hub.counters.toRoom.Add(1)
		return errRoomBudget
	}
	return nil
}

// Members of a room of up to fullRoom have the whole budget for what they tell it. In a larger one
// they share that of so many, so that all of them together fill no outbox. In one of more than
// sharedRoom each still has the part that it has there: enough to be used.
const (
	fullRoom   = 12
	sharedRoom = 100
)

// sharedBy is the part of the room budget of one of so many members.
func sharedBy(r limit.Rate, members int) limit.Rate {
	return r.Divided(fullRoom, min(max(members, fullRoom), sharedRoom))
}

// roommates counts the members of the session's room, itself too.
func (s *session) roommates() int {
	s.mu.Lock()
	ro := s.roster
	s.mu.Unlock()
	if ro == nil {
		return 0
	}
	ro.mu.RLock()
	defer ro.mu.RUnlock()
	return len(ro.members)
}

// outgoing is what a session has sent to other users. Most sessions are silent and have none.
type outgoing struct {
	candidates limit.Counter // of candidates
	contacts   contacts
}

// outgoingBudget returns s.outgoing and allocates it if there is none; mu is held.
func (s *session) outgoingBudget() *outgoing {
	if s.outgoing == nil {
		s.outgoing = new(outgoing)
	}
	return s.outgoing
}

// releaseOutgoing gives up the memory of outgoing when all has refilled.
func (s *session) releaseOutgoing(now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outgoing == nil {
		return
	}
	s.outgoing.contacts.release(now)
	if s.outgoing.contacts == nil && s.outgoing.candidates.Expired(now) {
		s.outgoing = nil
	}
}

// maxContacts bounds the users whose budgets a session remembers. Beyond it the one who was sent
// the least is forgotten.
const maxContacts = 64

// contacts meters what a session sends to each other user, for whoever guards it. It holds those
// users alone to whom something was sent lately: an entry that has refilled is as good as none.
type contacts []contact

type contact struct {
	user  uint64 // hash
	until time.Duration
}

// take counts units for a message to a user; false: it is too much.
func (c *contacts) take(user uint64, now time.Duration, f limit.Rate, units int64) bool {
	at, free := -1, -1
	for i, k := range *c {
		if k.user == user {
			at = i
			break
		}
		if free < 0 || k.until < (*c)[free].until {
			free = i
		}
	}
	if at < 0 {
		at = c.place(free, now)
		(*c)[at] = contact{user, 0}
	}
	k := &(*c)[at]
	next, ok := f.Next(int64(k.until), int64(now), units)
	k.until = time.Duration(next)
	return ok
}

// place finds one for another user; least is the entry that was filled the least, if there are any.
func (c *contacts) place(least int, now time.Duration) int {
	if least >= 0 && ((*c)[least].until <= now || len(*c) >= maxContacts) {
		return least
	}
	*c = append(*c, contact{})
	return len(*c) - 1
}

// release gives up the memory when all have refilled.
func (c *contacts) release(now time.Duration) {
	for _, k := range *c {
		if k.until > now {
			return
		}
	}
	*c = nil
}

// checkCandidates charges a message with candidates. The session's mu is held.
func (r *request) checkCandidates(now time.Duration) error {
	if len(r.msg) > maxCandidates {
		r.c.hub.counters.candidates.Add(1)
		return errCandidatesTooLarge
	}
	limit, n := r.c.hub.cfg.Limits.Candidates, int(units(1, len(r.msg), candidateBytes))
	if !r.s.outgoingBudget().candidates.Take(now, limit, n) {
		r.c.hub.counters.candidates.Add(1)
		return errTooManyCandidates
	}
	return nil
}

// checkDirect charges a message to any user of the license: in the room it is one member's to
// another, elsewhere a stranger's, whether or not there is such a user.
func (r *request) checkDirect(target string) (to place, ro *roster, err error) {
	h, s := r.c.hub, r.s
	id := []byte(target)
	s.mu.Lock()
	defer s.mu.Unlock()
	ro = s.roster
	to, in := ro.find(id)
	user, f := h.hash(id), h.toOne
	if !in {
		ro, user, f = nil, ^user, h.toOther
	}
	if !s.outgoingBudget().contacts.take(user, h.now(), f, relayUnits(r.env.Op, len(r.msg))) {
		h.counters.toOne.Add(1)
		err = errUserBudget
	}
	return to, ro, err
}

// hash is of a user id of the sender's tenant.
func (h *Hub) hash(user []byte) uint64 { return maphash.Bytes(h.seed, user) }

// now is what has passed since the hub began, which no clock that is set changes.
func (h *Hub) now() time.Duration { return time.Since(h.began) }

// charge counts what a large answer costs beyond the request for it.
func (r *request) charge(answer int) {
	if n := answer / floodBytes; n > 0 && r.s != nil {
		r.s.rateMeter.Add(r.c.hub.now(), r.c.hub.flood, int64(n))
	}
}
