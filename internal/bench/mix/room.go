package mix

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/client"
	"github.com/ieum-rtc/ieum/internal/protocol"
)

// room is a room and the users that belong there. Who must receive a message is known when it is
// sent: while a user joins, leaves or reconnects, nobody sends.
type room struct {
	// Static after construction.
	mix   *mixer
	id    string
	users []*user

	mu       sync.Mutex // guards the fields below; held while sending, to send in order
	reserved bool       // a user joins, leaves or reconnects
	inFlight int        // deliveries of messages and events that are still to come
	changing *user      // joins or leaves, and the others are to see the event
	change   operation  // opJoin or opLeave
	text     []byte     // a buffer
}

// maxRoom is the most users in a room.
const maxRoom = 8

// roomSizes are those of calls: most rooms are of two, three on average.
var roomSizes = [...]int{2, 3, 2, 4, 2, 3, 2, 6, 2, 3, 2, 8, 2, 5, 2, 2}

// roomSizesFor are the sizes of rooms for so many users in all.
func roomSizesFor(users int) []int {
	var sizes []int
	for i := 0; users > 0; i++ {
		n := min(roomSizes[i%len(roomSizes)], users)
		if users-n == 1 { // no user is left alone
			if n++; n > maxRoom {
				n -= 2
			}
		}
		sizes = append(sizes, n)
		users -= n
	}
	return sizes
}

// maxInFlight bounds what a room waits for when the server is slower than the load.
const maxInFlight = 1000

// inside is how many users are inside. Called with mu held.
func (r *room) inside() int {
	n := 0
	for _, u := range r.users {
		if u.inside {
			n++
		}
	}
	return n
}

// idle tells whether nothing happens. Called with mu held.
func (r *room) idle() bool { return !r.reserved && r.inFlight == 0 }

// complete tells whether all users are inside. Called with mu held.
func (r *room) complete() bool { return r.inside() == len(r.users) }

// pick is a random user inside, except one.
func (r *room) pick(except *user) *user {
	n := len(r.users)
	for i, from := 0, rand.IntN(n); i < n; i++ {
		if u := r.users[(from+i)%n]; u != except && u.inside {
			return u
		}
	}
	return nil
}

// reserve reserves an idle room for a change, if it fits.
func (r *room) reserve(fits func() bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.idle() || !fits() {
		return false
	}
	r.reserved = true
	return true
}

// release lets users send again.
func (r *room) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reserved = false
}

// fill brings the users into the room, one after the other.
func (r *room) fill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, client.SetupTimeout)
	defer cancel()
	for i, u := range r.users {
		if err := u.login(ctx); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		if i == 0 {
			create := client.Request{"eventOp": "createRoom", "roomId": r.id}
			if _, err := u.link.Ask(ctx, create); err != nil {
				return err
			}
		}
		if err := u.join()(ctx); err != nil {
			return err
		}
		if err := r.waitIdle(ctx); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	return nil
}

// waitIdle waits until nothing is in flight.
func (r *room) waitIdle(ctx context.Context) error {
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		r.mu.Lock()
		idle := r.idle()
		r.mu.Unlock()
		if idle {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("what was sent did not arrive: %w", context.Cause(ctx))
		case <-look.C:
		}
	}
}

// send lets one user send to another, or to all. False: no user can send now.
func (r *room) send(op operation, due time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reserved || r.inFlight >= maxInFlight || r.inside() < 2 {
		return false
	}
	u := r.pick(nil)
	to := r.pick(u)
	u.sent++
	mark := stamp{op, u.sent, due}
	b := r.text[:0]
	if op == opChat {
		const format = `{"eventOp":"chat","reqId":"chat","userId":%q,"roomId":%q,"message":"`
		b = mark.append(fmt.Appendf(b, format, u.id, r.id))
		b = append(append(b, r.mix.bodies[opChat]...), `"}`...)
		r.inFlight += r.inside() - 1
	} else {
		field := "sdp" // as the operation
		if op == opCandidate {
			field = "candidate"
		}
		const format = `{"eventOp":%q,"userId":%q,"target":%q,"type":"cam","mark":"`
		b = mark.append(fmt.Appendf(b, format, field, u.id, to.id))
		b = fmt.Appendf(b, `",%q:%s}`, field, r.mix.bodies[op])
		r.inFlight++
	}
	r.text = b
	_ = u.link.Write(b) // when it fails, the reader of the connection reports that
	return true
}

// deliver takes what a user has received.
func (r *room) deliver(u *user, env *protocol.Envelope, text []byte) {
	now := r.mix.now()
	switch {
	case string(env.Op) == "presence":
		r.presence(u, text, now)
	case string(env.ReqID) == `"chat"`, env.UserID == nil:
		// An answer. sdp and candidate carry no reqId, so they are answered only when they fail.
		var a client.Reply
		if err := json.Unmarshal(text, &a); err != nil || a.Code != protocol.OK {
			r.fail(&r.mix.failures.Refused, "%s was answered %.200q", u.id, text)
		}
	default:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.receive(u, string(env.UserID), text, now)
	}
}

func (r *room) fail(which *int, format string, args ...any) {
	r.mix.failures.count(which, fmt.Errorf(format, args...))
}

// receive takes a message that a user has received from another. Called with mu held.
func (r *room) receive(u *user, from string, text []byte, now time.Duration) {
	f := &r.mix.failures
	s, ok := findStamp(text)
	var sender *user
	for _, o := range r.users {
		if o.id == from && o != u {
			sender = o
		}
	}
	if !ok || sender == nil || s.number > sender.sent || !u.inside ||
		!bytes.Contains(text, r.mix.bodies[s.op]) {
		r.fail(&f.Errors, "%s received what no user sent: %.300q", u.id, text)
		return
	}
	switch u.received[sender.index].take(s.number) {
	case duplicate:
		r.fail(&f.Duplicates, "%s received a duplicate: %.300q", u.id, text)
		return
	case outOfOrder:
		r.fail(&f.OutOfOrder, "%s received out of order: %.300q", u.id, text)
	case inOrder:
	}
	r.inFlight--
	r.mix.delivered.Add(1)
	r.mix.took(s.op, s.due, now)
}

// roomEvent is an event that all members receive in the same order.
type roomEvent struct {
	Type    string
	Seq     uint64
	Sender  string
	Message json.RawMessage
	Events  []roomEvent // of a presence batch
}

func (r *room) presence(u *user, text []byte, now time.Duration) {
	var e roomEvent
	if err := json.Unmarshal(text, &e); err != nil {
		r.fail(&r.mix.failures.Errors, "%s received %.200q: %w", u.id, text, err)
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

// event takes an event that a user has received. Called with mu held.
func (r *room) event(u *user, e roomEvent, now time.Duration) {
	f := &r.mix.failures
	if e.Seq != 0 {
		if e.Seq <= u.seq {
			r.fail(&f.OutOfOrder, "%s received event %d after event %d", u.id, e.Seq, u.seq)
		}
		u.seq = max(u.seq, e.Seq)
	}
	switch e.Type {
	case "chat":
		r.receive(u, e.Sender, e.Message, now)
	case "join", "leave":
		if r.changing == nil || e.Sender != r.changing.id || e.Type != operationNames[r.change] {
			r.fail(&f.Errors, "%s saw an unexpected %s of %s", u.id, e.Type, e.Sender)
			return
		}
		if u.sawChange {
			r.fail(&f.Duplicates, "%s saw the %s of %s twice", u.id, e.Type, e.Sender)
			return
		}
		u.sawChange = true
		r.inFlight--
	}
}

// expectChange says that the others will see a user join or leave.
func (r *room) expectChange(u *user, op operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u.inside = false
	r.changing, r.change = u, op
	r.inFlight += r.inside()
	for _, o := range r.users {
		o.sawChange = false
	}
}

// cancelChange says that the others will not see it: the request failed.
func (r *room) cancelChange() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight = 0
}
