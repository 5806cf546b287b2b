package mix

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/client"
	"github.com/ieum-rtc/ieum/internal/protocol"
)

// user is a member of a room: one session after the other, on one connection after the other.
type user struct {
	// Static after construction.
	room  *room
	index int
	sdk   bool // announces the features of our SDK

	// Guarded by the room's mu; written only while the room is reserved or filled.
	id     string // of the session
	logins int    // each has an id of its own
	link   *client.Link
	resume string // resume token

	// Guarded by the room's mu.
	inside    bool
	sent      uint32         // number of the last message
	received  [maxRoom]order // from each other user
	sawChange bool           // the event of the user that joins or leaves
	seq       uint64         // of the last event
}

// features are those of our SDK for every second user: raw clients announce none.
func (u *user) features() []string {
	if u.sdk {
		return []string{"pair", "publish", "candidates", "roster"}
	}
	return []string{}
}

func (u *user) open(ctx context.Context) (*client.Link, error) {
	m := u.room.mix
	l := &client.Link{
		Deliver: func(env *protocol.Envelope, text []byte) { u.room.deliver(u, env, text) },
		Ended:   func(err error) { m.ended(u, err) },
	}
	return l, l.Open(ctx, m.dialer, m.url, &m.readers)
}

// register is a login by user id, or by resume token.
func (u *user) register(by, value string) client.Request {
	cfg := &u.room.mix.cfg
	return client.Request{
		"eventOp":  "register",
		"cpCode":   cfg.CpCode,
		"authKey":  cfg.AuthKey,
		"features": u.features(),
		by:         value,
	}
}

// login connects and registers a new session.
func (u *user) login(ctx context.Context) error {
	r := u.room
	l, err := u.open(ctx)
	if err != nil {
		return err
	}
	id := fmt.Sprintf("%s-%d-%d", r.id, u.index, u.logins)
	a, err := l.Ask(ctx, u.register("userId", id))
	if err != nil {
		l.Leave()
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	u.link, u.resume, u.id = l, a.Resume, id
	u.logins++
	return nil
}

// waiter waits for the answer to a request.
type waiter func(ctx context.Context) error

// join sends a request to join the room. The other users are to see that.
func (u *user) join() waiter {
	r := u.room
	r.expectChange(u, opJoin)
	r.mu.Lock()
	u.seq = 0
	l, want := u.link, r.inside()+1
	r.mu.Unlock()
	q := client.Request{"eventOp": "joinRoom", "roomId": r.id}
	err := l.Send(q)
	return func(ctx context.Context) error {
		var a client.Reply
		if err == nil {
			a, err = l.Reply(ctx, q)
		}
		if err == nil && len(a.Members) != want {
			err = fmt.Errorf("%s joined %d members, not %d", u.id, len(a.Members), want)
		}
		if err != nil {
			r.cancelChange()
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		u.inside = true
		return nil
	}
}

// leave sends a request to leave the room. The other users are to see that.
func (u *user) leave() waiter {
	u.room.expectChange(u, opLeave)
	q := client.Request{"eventOp": "leaveRoom", "roomId": u.room.id}
	err := u.link.Send(q)
	return func(ctx context.Context) error {
		if err == nil {
			_, err = u.link.Reply(ctx, q)
		}
		if err != nil {
			u.room.cancelChange()
		}
		return err
	}
}

// rejoin brings a user that is outside in again; every so many log in before.
func (u *user) rejoin(due time.Duration) waiter {
	m := u.room.mix
	if m.joins.Add(1)%loginEvery != 0 {
		return u.measuredJoin(due)
	}
	return func(ctx context.Context) error {
		u.link.Leave()
		if err := u.login(ctx); err != nil {
			return err
		}
		m.took(opRegister, due, m.at(u.link.Answered()))
		return u.measuredJoin(m.now())(ctx) // only now can the join be sent
	}
}

func (u *user) measuredJoin(due time.Duration) waiter {
	m, answered := u.room.mix, u.join()
	return func(ctx context.Context) error {
		if err := answered(ctx); err != nil {
			return err
		}
		m.took(opJoin, due, m.at(u.link.Answered()))
		return nil
	}
}

// reconnect cuts the connection and resumes the session on another. The other users see nothing.
func (u *user) reconnect(ctx context.Context) error {
	r := u.room
	r.mu.Lock()
	old, resume, members := u.link, u.resume, r.inside()
	r.mu.Unlock()
	old.Cut()
	l, err := u.open(ctx)
	if err != nil {
		return err
	}
	a, err := l.Ask(ctx, u.register("resume", resume))
	switch {
	case err != nil:
	case !a.Resumed || a.UserID != u.id || a.Room == nil:
		err = errors.New("the session was not resumed in its room")
	case len(a.Room.Members) != members:
		err = fmt.Errorf("%s came back to %d members, not %d", u.id, len(a.Room.Members), members)
	}
	if err != nil {
		l.Leave()
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	u.link, u.resume = l, a.Resume
	return nil
}
