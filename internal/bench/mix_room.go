package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/protocol"
)

// mixRoom is a room and those who belong there. What is sent in it is known before it arrives: while somebody comes, goes or connects
// anew, nobody speaks, so that there is never a doubt who must hear what.
type mixRoom struct {
	mix *mixer
	id  string

	mu       sync.Mutex // guards what follows, and is held while somebody speaks, so that numbers leave in order
	users    []*user
	busy     bool  // somebody comes, goes or connects anew
	inFlight int   // deliveries of messages and of events that are still to come
	moving   *user // who comes or goes, of whom the others are to be told
	moves    kind  // kindJoin or kindLeave
	text     []byte
}

// user is a member of a room, or was and will be: one session, on one connection after the other.
type user struct {
	room  *mixRoom
	id    string
	index int
	lives int // logins so far; each has an id of its own

	// guarded by the room's mu
	link    *link
	secret  string
	inside  bool
	sent    uint32         // the number of the last message
	heard   [maxRoom]order // of each other member
	told    bool           // of who moves
	seq     uint64         // of the last event
	batches bool           // announces roster, as our SDK does
}

// Rooms have two to eight members, as calls have: most are of two. On average three.
const maxRoom = 8

var roomSizes = [...]int{2, 3, 2, 4, 2, 3, 2, 6, 2, 3, 2, 8, 2, 5, 2, 2}

// sizesFor are the sizes of rooms for so many members in all.
func sizesFor(conns int) []int {
	var sizes []int
	for i := 0; conns > 0; i++ {
		n := min(roomSizes[i%len(roomSizes)], conns)
		if conns-n == 1 {
			if n++; n > maxRoom { // nobody is left alone
				n -= 2
			}
		}
		sizes = append(sizes, n)
		conns -= n
	}
	return sizes
}

// inFlightMost bounds what a room waits for, when the server is slower than the load.
const inFlightMost = 1000

func (r *mixRoom) inside() int {
	n := 0
	for _, u := range r.users {
		if u.inside {
			n++
		}
	}
	return n
}

// quiet tells whether nothing happens; called with mu held.
func (r *mixRoom) quiet() bool { return !r.busy && r.inFlight == 0 }

// whole tells whether all are inside; called with mu held.
func (r *mixRoom) whole() bool { return r.inside() == len(r.users) }

// another is one of those inside, other than u.
func (r *mixRoom) another(u *user) *user {
	n := len(r.users)
	for i, from := 0, rand.IntN(n); i < n; i++ {
		if o := r.users[(from+i)%n]; o != u && o.inside {
			return o
		}
	}
	return nil
}

// speak lets one member say something to another, or to all. It is false when nobody can speak now.
func (r *mixRoom) speak(k kind, due time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy || r.inFlight >= inFlightMost || r.inside() < 2 {
		return false
	}
	u := r.another(nil)
	to := r.another(u)
	u.sent++
	mark := stamp{k, u.sent, due}
	b := r.text[:0]
	switch k {
	case kindChat:
		b = fmt.Appendf(b, `{"eventOp":"chat","reqId":"chat","userId":%q,"roomId":%q,"message":"`, u.id, r.id)
		b = mark.append(b)
		b = append(append(b, r.mix.bodies[kindChat]...), `"}`...)
		r.inFlight += r.inside() - 1
	default:
		op, field := "sdp", "sdp"
		if k == kindCandidate {
			op, field = "candidate", "candidate"
		}
		b = fmt.Appendf(b, `{"eventOp":%q,"userId":%q,"target":%q,"type":"cam","mark":"`, op, u.id, to.id)
		b = mark.append(b)
		b = fmt.Appendf(b, `",%q:%s}`, field, r.mix.bodies[k])
		r.inFlight++
	}
	r.text = b
	_ = u.link.conn.WriteMessage(gws.OpcodeText, b) // when it fails, the reader of the connection says so
	return true
}

// deliver takes what u has received.
func (r *mixRoom) deliver(u *user, env *protocol.Envelope, text []byte) {
	now := r.mix.now()
	switch {
	case string(env.Op) == "presence":
		r.presence(u, text, now)
	case string(env.ReqID) == `"chat"`, env.UserID == nil: // an answer: of sdp and candidate only failures are, as they carry no reqId
		var a reply
		if err := json.Unmarshal(text, &a); err != nil || a.Code != protocol.OK {
			r.mix.faults.count(&r.mix.faults.Refused, fmt.Errorf("%s was answered %.200q", u.id, text))
		}
	default:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.hear(u, string(env.UserID), text, now)
	}
}

// hear takes a message of from; called with mu held.
func (r *mixRoom) hear(u *user, from string, text []byte, now time.Duration) {
	f := &r.mix.faults
	s, ok := findStamp(text)
	var sender *user
	for _, o := range r.users {
		if o.id == from && o != u {
			sender = o
		}
	}
	if !ok || sender == nil || s.number > sender.sent || !u.inside || !bytes.Contains(text, r.mix.bodies[s.kind]) {
		f.count(&f.Errors, fmt.Errorf("%s received what nobody sent: %.300q", u.id, text))
		return
	}
	switch u.heard[sender.index].take(s.number) {
	case duplicate:
		f.count(&f.Duplicates, fmt.Errorf("%s received twice: %.300q", u.id, text))
		return
	case outOfOrder:
		f.count(&f.OutOfOrder, fmt.Errorf("%s received after a later one: %.300q", u.id, text))
	case inOrder:
	}
	r.inFlight--
	r.mix.delivered.Add(1)
	r.mix.took(s.kind, s.due, now)
}

// roomEvent is what members are told of in the room's order.
type roomEvent struct {
	Type    string
	Seq     uint64
	Sender  string
	Message json.RawMessage
	Events  []roomEvent // of a roster
}

func (r *mixRoom) presence(u *user, text []byte, now time.Duration) {
	var e roomEvent
	if err := json.Unmarshal(text, &e); err != nil {
		r.mix.faults.count(&r.mix.faults.Errors, fmt.Errorf("%s received %.200q: %w", u.id, text, err))
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Type == "roster" {
		for _, e := range e.Events {
			r.event(u, e, now)
		}
		return
	}
	r.event(u, e, now)
}

// event is called with mu held.
func (r *mixRoom) event(u *user, e roomEvent, now time.Duration) {
	f := &r.mix.faults
	if e.Seq != 0 {
		if e.Seq <= u.seq {
			f.count(&f.OutOfOrder, fmt.Errorf("%s received event %d after event %d", u.id, e.Seq, u.seq))
		}
		u.seq = max(u.seq, e.Seq)
	}
	switch e.Type {
	case "chat":
		r.hear(u, e.Sender, e.Message, now)
	case "join", "leave":
		if r.moving == nil || e.Sender != r.moving.id || e.Type != kindNames[r.moves] {
			f.count(&f.Errors, fmt.Errorf("%s saw %s of %s, which nobody asked for", u.id, e.Type, e.Sender))
			return
		}
		if u.told {
			f.count(&f.Duplicates, fmt.Errorf("%s saw %s of %s twice", u.id, e.Type, e.Sender))
			return
		}
		u.told = true
		r.inFlight--
	}
}

// claim makes a quiet room busy, if it is one that fits.
func (r *mixRoom) claim(fits func() bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.quiet() || !fits() {
		return false
	}
	r.busy = true
	return true
}

// release lets the members speak again.
func (r *mixRoom) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy = false
}

// tell says that the others will be told of u.
func (r *mixRoom) tell(u *user, k kind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u.inside = false
	r.moving, r.moves = u, k
	r.inFlight += r.inside()
	for _, o := range r.users {
		o.told = false
	}
}

// untold takes back that the others will be told, of a u who could not move.
func (r *mixRoom) untold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight = 0
}

// login connects u and registers a new session.
func (u *user) login(ctx context.Context) error {
	r := u.room
	l := u.newLink()
	if err := r.mix.open(ctx, l); err != nil {
		return err
	}
	id := fmt.Sprintf("%s-%d-%d", r.id, u.index, u.lives)
	q := request{"eventOp": "register", "cpCode": r.mix.cfg.CpCode, "authKey": r.mix.cfg.AuthKey, "userId": id, "features": u.features()}
	a, err := l.ask(ctx, q)
	if err != nil {
		l.leave()
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	u.link, u.secret, u.id = l, a.Resume, id
	u.lives++
	return nil
}

func (u *user) newLink() *link {
	l := &link{}
	l.deliver = func(env *protocol.Envelope, text []byte) { u.room.deliver(u, env, text) }
	l.ended = func(err error) { u.room.mix.closed(u, err) }
	return l
}

// features are those of our SDK for every second user: raw clients announce none.
func (u *user) features() []string {
	if u.batches {
		return []string{"pair", "publish", "candidates", "roster"}
	}
	return []string{}
}

// waiter waits for the answer to what was sent.
type waiter func(ctx context.Context) error

// enter asks that u, who has a session, comes into the room, whose others are told.
func (u *user) enter() waiter {
	r := u.room
	r.tell(u, kindJoin)
	r.mu.Lock()
	u.seq = 0
	l, want := u.link, r.inside()+1
	r.mu.Unlock()
	q := request{"eventOp": "joinRoom", "roomId": r.id}
	err := l.send(q)
	return func(ctx context.Context) error {
		var a reply
		if err == nil {
			a, err = l.reply(ctx, q)
		}
		if err == nil && len(a.Members) != want {
			err = fmt.Errorf("%s joined %d members, not %d", u.id, len(a.Members), want)
		}
		if err != nil {
			r.untold()
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		u.inside = true
		return nil
	}
}

// exit asks that u goes out of the room, whose others are told.
func (u *user) exit() waiter {
	u.room.tell(u, kindLeave)
	q := request{"eventOp": "leaveRoom", "roomId": u.room.id}
	err := u.link.send(q)
	return func(ctx context.Context) error {
		if err == nil {
			_, err = u.link.reply(ctx, q)
		}
		if err != nil {
			u.room.untold()
		}
		return err
	}
}

// comeBack loses the connection and resumes the session on another. Nobody is told.
func (u *user) comeBack(ctx context.Context) error {
	r := u.room
	r.mu.Lock()
	old, secret, members := u.link, u.secret, r.inside()
	r.mu.Unlock()
	old.cut()
	l := u.newLink()
	if err := r.mix.open(ctx, l); err != nil {
		return err
	}
	a, err := l.ask(ctx, request{
		"eventOp": "register", "cpCode": r.mix.cfg.CpCode, "authKey": r.mix.cfg.AuthKey, "resume": secret, "features": u.features(),
	})
	switch {
	case err != nil:
	case !a.Resumed || a.UserID != u.id || a.Room == nil:
		err = errors.New("the session was not resumed in its room")
	case len(a.Room.Members) != members:
		err = fmt.Errorf("%s came back to %d members, not %d", u.id, len(a.Room.Members), members)
	}
	if err != nil {
		l.leave()
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	u.link, u.secret = l, a.Resume
	return nil
}
