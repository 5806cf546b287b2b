// Package room holds rooms and their members: create, join, leave, host, permissions, capacity. It
// knows neither sessions nor messages nor nodes.
//
// Registry.Do commands a room; the room sends events to a Sink. Both carry plain values, so that
// members may be on other nodes than their room. Events are delivered while the room is locked: all
// members see one order, numbered by Seq. A Sink must therefore only enqueue.
package room

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"
)

// What a room refuses.
var (
	ErrNoRoom             = errors.New("no such room")
	ErrExists             = errors.New("room exists")
	ErrFull               = errors.New("room full")
	ErrAlreadyIn          = errors.New("already in the room")
	ErrNotIn              = errors.New("not in the room")
	ErrTooManyRooms       = errors.New("too many rooms")
	ErrTooManyOwned       = errors.New("too many rooms of their maker")
	ErrTooManyFromAddress = errors.New("too many rooms of an address")
	ErrStale              = errors.New("a newer session of this user is in the room")
	ErrDenied             = errors.New("not allowed in this room")
	ErrSharing            = errors.New("someone else is sharing")
	ErrNoMember           = errors.New("no such member")
	ErrCapacity           = errors.New("capacity below the present number of members")
	ErrNoGroup            = errors.New("no such group")
	ErrTooManyGroups      = errors.New("too many groups of the room")
	ErrBanned             = errors.New("put out of the room a short while ago")
	ErrUnlisted           = errors.New("not listed for the group")
	ErrGroupTooLarge      = errors.New("group larger than the room")
	ErrBusy               = errors.New("too much is said in the room")
	ErrStateTooLarge      = errors.New("too much data of the room's members")
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
	Video    bool // what the user says of camera and microphone
	Audio    bool
	Permit   Permit
	Feeds    []Feed // announced to the room, in a room for group calls
	Address  Address
	// Net tells members of one network from those of another; empty: not known. See signaling.
	Net string
	// Identity tells whether two joins of a user are the same party. See signaling.
	Identity string
	// Since is the Seq of the event with which the member came. It tells one stay of a user from
	// the next.
	Since uint64
	// Epoch counts the user's sessions. A command of a session that has been superseded is refused
	// or ignored.
	Epoch uint64
}

// Permit says what a member may do besides talking. The host gives and takes it.
type Permit struct{ Screen, Chat, Whiteboard, Draw, Document bool }

// AllPermitted is what a member starts with.
var AllPermitted = Permit{true, true, true, true, true}

// Feed is a stream that a member sends to whoever asks for it.
type Feed struct {
	User  string
	Type  string // cam or screen
	Epoch int    // counts the publications of this type
	Audio bool
	Video bool
}

// MemberFeed is a feed with the member who has it.
type MemberFeed struct {
	Member Member
	Feed   Feed
}

// Share is what a member shows to all: one at a time in a room.
type Share struct {
	User string
	Type string // screen
}

// State is a room as its members know it. Members are in order of joining.
type State struct {
	Key       Key
	Owner     string // made the room, or was handed it on; becomes host on joining
	Title     string
	Capacity  int
	CreatedAt time.Time
	Group     bool // made for group calls: feeds are announced and asked for
	Talking   bool // members are told who talks
	Share     *Share
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
	// To the one who asked with Sync: the room's State, before any later event.
	Synced
	// To Member, who was put out of the room, and when the room is destroyed to every member.
	Removed
	// To everyone who was in: Member, of whom only the ID is known, has ended the room.
	Destroyed
	ShareStarted // Member shows something: Share; to the others, or to one of them
	ShareStopped // Member stopped
	Broadcasted  // Member sent Body to all, a message of this Type
	Kicked       // to Member: Other asks it to leave
	Edited       // Member changed title, capacity or host: State
	MemberEdited // Member changed its name, camera or microphone
	Permitted    // Member may now do what its Permit says
	Published    // Feeds can be asked for
	GroupCreated // Member made the group Group
	Moved        // to every member's node: the session of Member is elsewhere now
	Refreshed    // to the members on a node: the room's State, and what they Missed
)

// Event is what a room tells its members.
type Event struct {
	Kind   Kind
	Key    Key
	Seq    uint64 // 0: outside the room's order, since not every member gets it
	Member Member
	State  *State          // Entered, Synced and Edited only
	Share  *Share          // ShareStarted only
	Feeds  []MemberFeed    // Published only
	Other  string          // Kicked only: a user id
	Type   string          // Broadcasted only: chat, inform, talking
	Group  string          // GroupCreated only: the id of its room
	Body   json.RawMessage // Broadcasted only: not parsed here
	Missed []Event         // Refreshed only: what was said, in order
}

// Sink takes a room's events to the sessions at the addresses. It is called with the room locked
// and must not block.
type Sink interface {
	Deliver(to []Address, e Event)
}

// Command is what a room can be told: the types below and in commands.go.
type Command interface{ command() }

type (
	// Create makes a room, with nobody in it. An empty room is removed after Limits.EmptyLife, or
	// with Keep after Limits.KeptLife.
	Create struct {
		Title    string
		Capacity int // at least 1
		Owner    string
		Keep     bool // stays when the last member leaves
		Group    bool // for group calls
		Talking  bool // tell members who talks
		MaxRooms int  // refuse when the tenant has this many rooms; 0: only Limits.Rooms counts
		MaxOwned int  // refuse when this many rooms were made by Owner; 0: there is no limit

		// Source stands for the address that it is made from, Site for the network around that;
		// empty: it counts for none. MaxFromSource and MaxFromSite: refuse when this many of the
		// tenant's rooms were made from there; 0: there is no limit.
		Source, Site               string
		MaxFromSource, MaxFromSite int

		// Parent is the room of the tenant that this one is a group of; empty: it is none. ByHost:
		// its host makes the group. Listed are the users it is for: others may enter too, but for
		// those who may enter only where they are listed.
		Parent string
		ByHost bool
		Listed []string

		restored bool // it has been counted before
	}
	// Join puts Member into the room. The first member is host, until the one who made the room
	// comes, or one with Host set.
	Join struct {
		Member Member
		Host   bool // becomes host on entering, whoever is; the last of several to come stays it
		Listed bool // may enter only a group, and only one that Member is listed for
	}
	// Leave takes a user out, if it is there with this session. With an Epoch lower than that of
	// the member it comes late: the session has moved away and come back since.
	Leave struct {
		User    string
		Address Address
		Epoch   uint64 // 0: any
	}
	// Sync sends the room's state to a member whose session came back, if it is there with this
	// session, and then what others said after Seen, which is the Seq of the last event that the
	// member knows of.
	Sync struct {
		User    string
		Address Address
		Seen    uint64
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
	source  string // see Create, as is site
	site    string
	maker   string    // whose count of rooms it belongs to, whoever owns it later
	began   time.Time // when this process had it first
	keep    bool
	group   bool // made for group calls
	talking bool
	parent  Key      // the room that it is a group of; zero: it is none
	listed  []string // the users that a group is for

	mu   sync.Mutex // guards what follows; a Sink is called with it held
	dead bool       // removed from the registry: look it up again
	// Becomes host on joining: the maker, until the host hands the room on.
	owner    string
	title    string
	capacity int
	members  []Member
	share    *Share
	// Of users whom the host has restricted, the oldest first.
	restrictions []Restriction
	// Ends with the last of its groups, unless somebody joins before.
	endsWithGroups bool
	backlog        []Event               // messages for disconnected members, see appendBacklog
	sentUntil      time.Duration         // see allowBytes
	kickTimers     map[Address]kickTimer // members who were asked to go
	seq            uint64
	expiry         *time.Timer // runs while the room is empty
}

// sourceKeys is whom limits by address count it for.
func (r *room) sourceKeys() (all []maker) {
	for _, from := range []string{r.source, r.site} {
		if from != "" {
			all = append(all, maker{r.key.Tenant, from})
		}
	}
	return all
}

func (r *room) makerKey() maker { return maker{r.key.Tenant, r.maker} }

func (r *room) index(user string) int {
	return slices.IndexFunc(r.members, func(m Member) bool { return m.ID == user })
}

func (r *room) state() *State {
	return &State{
		Key:       r.key,
		Owner:     r.owner,
		Title:     r.title,
		Capacity:  r.capacity,
		CreatedAt: r.created,
		Group:     r.group,
		Talking:   r.talking,
		Share:     r.share,
		Members:   slices.Clone(r.members),
		Seq:       r.seq,
	}
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
func (r *room) join(c Join, sink Sink) error {
	m := c.Member
	if r.isBanned(m.ID) && !c.Host { // whom a user token makes host nobody in the room keeps out
		return ErrBanned
	}
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
	if c.Listed && !slices.Contains(r.listed, m.ID) {
		return ErrUnlisted
	}
	if len(r.members) >= r.capacity || r.size()+m.size() > maxState {
		return ErrFull
	}
	moved := (m.ID == r.owner || c.Host) && len(r.members) > 0
	m.Host = moved || len(r.members) == 0
	for i := range r.members {
		r.members[i].Host = r.members[i].Host && !m.Host
	}
	r.endsWithGroups = false
	if c.Host {
		r.unban(m.ID)
	}
	m.Permit, m.Since = r.permits(m.ID), r.seq+1
	r.members = append(r.members, m)
	e := r.next(Event{Kind: Joined, Member: m})
	sink.Deliver([]Address{m.Address}, Event{
		Kind:   Entered,
		Key:    r.key,
		Seq:    e.Seq,
		Member: m,
		State:  r.state(),
	})
	r.send(sink, r.others(m.ID), e)
	r.sendFeeds(m.ID, m.Address, sink)
	if moved {
		r.hostChanged(m, sink)
	}
	return nil
}

// remove is called with r.mu held. What the member shared ends first; when the host goes the oldest
// member becomes host.
func (r *room) remove(i int, sink Sink) {
	m := r.members[i]
	r.stopShare(m, sink)
	r.members = slices.Delete(r.members, i, i+1)
	if t, runs := r.kickTimers[m.Address]; runs {
		t.Stop()
		delete(r.kickTimers, m.Address)
	}
	r.send(sink, r.others(m.ID), r.next(Event{Kind: Left, Member: m}))
	if m.Host && len(r.members) > 0 {
		r.members[0].Host = true
		r.hostChanged(r.members[0], sink)
	}
}

// hostChanged tells everyone, the new host too: the number it carries belongs to the one order of
// the room.
func (r *room) hostChanged(m Member, sink Sink) {
	r.send(sink, r.others(""), r.next(Event{Kind: HostChanged, Member: m}))
}

// next gives e its place in the room's order.
func (r *room) next(e Event) Event {
	r.seq++
	e.Key, e.Seq = r.key, r.seq
	return e
}

func (r *room) send(sink Sink, to []Address, e Event) {
	if len(to) > 0 {
		sink.Deliver(to, e)
	}
}

// sendFeeds tells a member that came or came back of the feeds that the others have announced.
func (r *room) sendFeeds(user string, to Address, sink Sink) {
	if feeds := r.feeds(user); len(feeds) > 0 {
		r.send(sink, []Address{to}, Event{Kind: Published, Key: r.key, Feeds: feeds})
	}
}

// feeds are those of all members but one.
func (r *room) feeds(but string) (all []MemberFeed) {
	for _, m := range r.members {
		if m.ID == but {
			continue
		}
		for _, f := range m.Feeds {
			all = append(all, MemberFeed{m, f})
		}
	}
	return all
}
