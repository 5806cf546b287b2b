// Package room decides who is in a room: create, join, leave, host, capacity. It knows neither sessions nor messages nor nodes.
//
// A room is commanded by Registry.Do and speaks through a Sink. Both carry plain values, so that the members of a room, and
// those who command it, can be on other nodes than the room itself. Events are delivered while the room is locked: all members
// see one order, numbered by Seq. A Sink must therefore only enqueue.
package room

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// What a room refuses.
var (
	ErrNoRoom    = errors.New("no such room")
	ErrExists    = errors.New("room exists")
	ErrFull      = errors.New("room full")
	ErrAlreadyIn = errors.New("already in the room")
	ErrNotIn     = errors.New("not in the room")
	ErrTooMany   = errors.New("too many rooms")
	ErrStale     = errors.New("a newer session of this user is in the room")
)

// Key names a room: ids are only unique within a tenant (a cpCode).
type Key struct{ Tenant, Room string }

// Address says where a member's session is.
type Address struct{ Node, Session string }

// Member is a user in a room.
type Member struct {
	ID       string
	Name     string
	Device   string
	Features []string
	Host     bool
	Address  Address
	// Epoch counts the user's sessions. A command of a session that has been superseded is refused or ignored.
	Epoch uint64
}

// State is a room as its members know it. Members are in order of joining.
type State struct {
	Key       Key
	Title     string
	Capacity  int
	CreatedAt time.Time
	Members   []Member
	Seq       uint64 // of the last event this state contains
}

// Kind tells events apart.
type Kind int

// Kinds of events.
const (
	Entered     Kind = iota + 1 // to the one who joined: the room's State, before any later event
	Joined                      // to the others: Member came
	Left                        // to the others: Member went
	HostChanged                 // to everyone: Member is host now
	Synced                      // to the one who asked with Sync: the room's State, before any later event
)

// Event is what a room tells its members.
type Event struct {
	Kind   Kind
	Key    Key
	Seq    uint64
	Member Member
	State  *State // Entered and Synced only
}

// Sink takes a room's events to the sessions at the addresses. It is called with the room locked and must not block.
type Sink interface {
	Deliver(to []Address, e Event)
}

// Command is one of Create, Join, Leave, Sync and Get.
type Command interface{ command() }

type (
	// Create makes a room, with nobody in it. An empty room is removed after Limits.EmptyLife, or with Keep after Limits.KeptLife.
	Create struct {
		Title    string
		Capacity int // at least 1
		Owner    string
		Keep     bool // stays when the last member leaves
	}
	// Join puts Member into the room. The first member is host, until the one who made the room comes.
	Join struct{ Member Member }
	// Leave takes a user out, if it is there with this session.
	Leave struct {
		User    string
		Address Address
	}
	// Sync sends the room's state to a member whose session came back, if it is there with this session.
	Sync struct {
		User    string
		Address Address
	}
	// Get returns the room's state.
	Get struct{}
)

func (Create) command() {}
func (Join) command()   {}
func (Leave) command()  {}
func (Sync) command()   {}
func (Get) command()    {}

type room struct {
	key     Key
	created time.Time
	keep    bool
	owner   string

	mu       sync.Mutex // guards what follows; a Sink is called with it held
	dead     bool       // removed from the registry: look it up again
	title    string
	capacity int
	members  []Member
	seq      uint64
	reaper   *time.Timer // runs while the room is empty
}

func (r *room) index(user string) int {
	return slices.IndexFunc(r.members, func(m Member) bool { return m.ID == user })
}

func (r *room) state() *State {
	return &State{r.key, r.title, r.capacity, r.created, slices.Clone(r.members), r.seq}
}

func (r *room) others(user string) []Address {
	to := make([]Address, 0, len(r.members))
	for _, m := range r.members {
		if m.ID != user {
			to = append(to, m.Address)
		}
	}
	return to
}

// join is called with r.mu held.
func (r *room) join(m Member, sink Sink) error {
	if i := r.index(m.ID); i >= 0 {
		switch old := r.members[i]; {
		case old.Address == m.Address:
			return ErrAlreadyIn
		case old.Epoch >= m.Epoch:
			return ErrStale
		default: // the session before this one ended without a word: its node is gone
			r.remove(i, sink)
		}
	}
	if len(r.members) >= r.capacity {
		return ErrFull
	}
	moved := m.ID == r.owner && len(r.members) > 0
	m.Host = moved || len(r.members) == 0
	for i := range r.members {
		r.members[i].Host = r.members[i].Host && !m.Host
	}
	r.members = append(r.members, m)
	r.seq++
	sink.Deliver([]Address{m.Address}, Event{Entered, r.key, r.seq, m, r.state()})
	if to := r.others(m.ID); len(to) > 0 {
		sink.Deliver(to, Event{Joined, r.key, r.seq, m, nil})
	}
	if moved {
		r.hostChanged(m, sink)
	}
	return nil
}

// remove is called with r.mu held. When the host goes the oldest member becomes host.
func (r *room) remove(i int, sink Sink) {
	m := r.members[i]
	r.members = slices.Delete(r.members, i, i+1)
	r.seq++
	if to := r.others(m.ID); len(to) > 0 {
		sink.Deliver(to, Event{Left, r.key, r.seq, m, nil})
	}
	if m.Host && len(r.members) > 0 {
		r.members[0].Host = true
		r.hostChanged(r.members[0], sink)
	}
}

// hostChanged tells everyone, the new host too: the number it carries belongs to the one order of the room.
func (r *room) hostChanged(m Member, sink Sink) {
	r.seq++
	sink.Deliver(r.others(""), Event{HostChanged, r.key, r.seq, m, nil})
}
