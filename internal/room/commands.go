package room

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Actor is the member who commands. A room only listens to a member with the session that joined.
type Actor struct {
	User    string
	Address Address
}

type (
	// Destroy ends the room for everyone. For the host, and for who made the room while it is not in it.
	Destroy struct{ By Actor }
	// Show starts sharing, or says it again: to one member, or with Target empty to all others.
	Show struct {
		By     Actor
		Type   string
		Target string
	}
	// Unshow ends it. When the actor shares nothing, nobody is told.
	Unshow struct{ By Actor }
	// Edit changes the room. Host only. Nil and empty fields stay as they are; Host names the next host.
	Edit struct {
		By       Actor
		Title    *string
		Capacity *int
		Host     string
	}
	// EditMember changes what the actor says of itself. Quiet: nobody is told; Target: only this member is.
	EditMember struct {
		By           Actor
		Name         *string
		Video, Audio *bool
		Quiet        bool
		Target       string
	}
	// SetPermit gives and takes permissions. Host only.
	SetPermit struct {
		By                                       Actor
		Target                                   string
		Screen, Chat, Whiteboard, Draw, Document *bool
	}
	// Kick asks a member to leave, puts it out after three seconds, and keeps it from joining again for ten minutes. Host only.
	Kick struct {
		By     Actor
		Target string
	}
	// Say passes Body on to all other members, in the room's order. With a Target that is no member Do returns the State: the room
	// has not told it.
	Say struct {
		By     Actor
		Word   string // what it is: chat, inform, talking
		Body   json.RawMessage
		Target string
	}
	// Announce says that the actor has a feed; Withdraw that it has it no longer.
	Announce struct {
		By   Actor
		Feed Feed
	}
	// Withdraw ends the announcement of a feed, and tells nobody: whoever receives it notices by other means.
	Withdraw struct {
		By   Actor
		Type string
	}
	// MakeGroup tells the members of a list that there is a group for them. The group is a room: it has been made with Create.
	MakeGroup struct {
		By    Actor
		Group string
		List  []string
	}
	// EndGroup is for the group itself, and ends it as Destroy does: for who made it, its host, and the host of the room it was made in.
	EndGroup struct{ By Actor }
)

func (Destroy) command()    {}
func (Show) command()       {}
func (Unshow) command()     {}
func (Edit) command()       {}
func (EditMember) command() {}
func (SetPermit) command()  {}
func (Kick) command()       {}
func (Say) command()        {}
func (Announce) command()   {}
func (Withdraw) command()   {}
func (MakeGroup) command()  {}
func (EndGroup) command()   {}

const (
	// how long somebody who was asked to leave may take
	kickAfter = 3 * time.Second

	maxFeeds = 4 // of a member: a type has one, and there are two types
)

// actor finds the member who commands; r.mu is held, as in all that follow.
func (r *room) actor(a Actor) (*Member, error) {
	i := r.index(a.User)
	if i < 0 || r.members[i].Address != a.Address {
		return nil, ErrNotIn
	}
	return &r.members[i], nil
}

func (r *room) host(a Actor) (*Member, error) {
	m, err := r.actor(a)
	if err == nil && !m.Host {
		err = ErrDenied
	}
	return m, err
}

func (r *room) member(user string) (*Member, error) {
	i := r.index(user)
	if i < 0 {
		return nil, ErrNoMember
	}
	return &r.members[i], nil
}

// audience is the target alone, or with none everyone but the one who speaks.
func (r *room) audience(by, target string) ([]Address, error) {
	if target == "" {
		return r.others(by), nil
	}
	t, err := r.member(target)
	if err != nil {
		return nil, err
	}
	return []Address{t.Address}, nil
}

// apply carries out the commands that neither end the room nor need a timer.
func (r *room) apply(cmd Command, sink Sink) error {
	switch c := cmd.(type) {
	case Show:
		return r.show(c, sink)
	case Unshow:
		m, err := r.actor(c.By)
		if err == nil {
			r.unshare(*m, sink)
		}
		return err
	case Edit:
		return r.edit(c, sink)
	case EditMember:
		return r.editMember(c, sink)
	case SetPermit:
		return r.setPermit(c, sink)
	case Say:
		return r.say(c, sink)
	case Announce:
		return r.announce(c, sink)
	case Withdraw:
		m, err := r.actor(c.By)
		if err == nil {
			m.Feeds = slices.DeleteFunc(slices.Clone(m.Feeds), func(f Feed) bool { return f.Type == c.Type })
		}
		return err
	case MakeGroup:
		return r.tellGroup(c, sink)
	}
	return fmt.Errorf("room: unknown command %T", cmd)
}

func (r *room) show(c Show, sink Sink) error {
	m, err := r.actor(c.By)
	if err != nil {
		return err
	}
	to, err := r.audience(m.ID, c.Target)
	if err != nil {
		return err
	}
	switch {
	case !m.Permit.Screen:
		return ErrDenied
	case r.share != nil && r.share.User != m.ID:
		return ErrSharing
	}
	r.share = &Share{m.ID, c.Type}
	e := Event{Kind: Shared, Key: r.key, Member: *m, Share: r.share}
	if c.Target == "" {
		e = r.next(e)
	}
	r.tell(sink, to, e)
	return nil
}

// unshare ends what m shares, if it does.
func (r *room) unshare(m Member, sink Sink) {
	if r.share == nil || r.share.User != m.ID {
		return
	}
	r.share = nil
	r.tell(sink, r.others(m.ID), r.next(Event{Kind: Unshared, Member: m}))
}

func (r *room) edit(c Edit, sink Sink) error {
	m, err := r.host(c.By)
	if err != nil {
		return err
	}
	if c.Capacity != nil && *c.Capacity < len(r.members) {
		return ErrCapacity
	}
	var next *Member
	if c.Host != "" {
		if next, err = r.member(c.Host); err != nil {
			return err
		}
	}
	if c.Title != nil {
		r.title = *c.Title
	}
	if c.Capacity != nil {
		r.capacity = *c.Capacity
	}
	if next != nil && next.ID != m.ID {
		m.Host, next.Host = false, true
		r.owner = next.ID
	}
	e := r.next(Event{Kind: Edited, Member: *m})
	e.State = r.state()
	r.tell(sink, r.others(m.ID), e)
	if next != nil && next.ID != m.ID {
		r.hostChanged(*next, sink)
	}
	return nil
}

func (r *room) editMember(c EditMember, sink Sink) error {
	m, err := r.actor(c.By)
	if err != nil {
		return err
	}
	to, err := r.audience(m.ID, c.Target)
	if err != nil {
		return err
	}
	next := *m
	if c.Name != nil {
		next.Name = *c.Name
	}
	if c.Video != nil {
		next.Video = *c.Video
	}
	if c.Audio != nil {
		next.Audio = *c.Audio
	}
	if err := r.replace(m, next); err != nil {
		return err
	}
	e := Event{Kind: EditedMember, Key: r.key, Member: *m}
	switch {
	case c.Quiet:
		return nil
	case c.Target == "":
		e = r.next(e)
	}
	r.tell(sink, to, e)
	return nil
}

func (r *room) setPermit(c SetPermit, sink Sink) error {
	if _, err := r.host(c.By); err != nil {
		return err
	}
	m, err := r.member(c.Target)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		to *bool
		v  *bool
	}{
		{&m.Permit.Screen, c.Screen}, {&m.Permit.Chat, c.Chat}, {&m.Permit.Whiteboard, c.Whiteboard}, {&m.Permit.Draw, c.Draw},
		{&m.Permit.Document, c.Document},
	} {
		if f.v != nil {
			*f.to = *f.v
		}
	}
	r.keepPermit(*m)
	r.tell(sink, r.others(""), r.next(Event{Kind: Permitted, Member: *m}))
	return nil
}

func (r *room) say(c Say, sink Sink) error {
	m, err := r.actor(c.By)
	if err != nil {
		return err
	}
	if c.Word == "chat" && !m.Permit.Chat {
		return ErrDenied
	}
	if c.Word == "talking" && !r.talking {
		return nil
	}
	if !r.afford(len(c.Body), freeWord) {
		return ErrBusy
	}
	e := r.next(Event{Kind: Said, Member: *m, Word: c.Word, Body: c.Body})
	if c.Word != "talking" { // which is over by the time
		r.remember(e)
	}
	r.tell(sink, r.others(m.ID), e)
	return nil
}

// tellSaid tells a member that came back what it has missed. Nobody is told what was said before he came.
func (r *room) tellSaid(m Member, seen uint64, sink Sink) {
	for _, e := range r.said {
		if e.Seq > max(seen, m.Since) && e.Member.ID != m.ID {
			r.tell(sink, []Address{m.Address}, e)
		}
	}
}

func (r *room) announce(c Announce, sink Sink) error {
	m, err := r.actor(c.By)
	if err != nil {
		return err
	}
	c.Feed.User = m.ID
	feeds := slices.DeleteFunc(slices.Clone(m.Feeds), func(f Feed) bool { return f.Type == c.Feed.Type })
	if len(feeds) >= maxFeeds {
		return ErrDenied
	}
	if !r.afford(m.once(), freeFeed) {
		return ErrBusy
	}
	next := *m
	next.Feeds = append(feeds, c.Feed)
	if err := r.replace(m, next); err != nil {
		return err
	}
	r.tell(sink, r.others(m.ID), r.next(Event{Kind: Published, Member: *m, Feeds: []MemberFeed{{*m, c.Feed}}}))
	return nil
}

// destroy ends the room for whoever may.
func (r *room) destroy(c Destroy, sink Sink) error {
	if _, err := r.host(c.By); err != nil && (r.owner != c.By.User || r.index(c.By.User) >= 0) {
		return ErrDenied
	}
	r.endForAll(c.By.User, sink)
	return nil
}

// endForAll puts everybody out, and tells each of all.
func (r *room) endForAll(by string, sink Sink) {
	everyone := r.others("")
	if r.share != nil {
		if m, err := r.member(r.share.User); err == nil {
			r.unshare(*m, sink)
		}
	}
	for _, m := range r.members {
		r.tell(sink, everyone, r.next(Event{Kind: Left, Member: m}))
	}
	r.tell(sink, everyone, r.next(Event{Kind: Destroyed, Member: Member{ID: by}}))
	for _, m := range r.members {
		r.tell(sink, []Address{m.Address}, Event{Kind: Removed, Key: r.key, Member: m})
	}
	r.members = nil
	r.stopKicks()
}

// kick tells the target and starts the timer that puts it out.
func (r *room) kick(c Kick, g *Registry) error {
	if _, err := r.host(c.By); err != nil {
		return err
	}
	m, err := r.member(c.Target)
	if err != nil {
		return err
	}
	if m.ID != c.By.User {
		r.bar(m.ID)
	}
	r.startKick(*m, g)
	r.tell(g.sink, []Address{m.Address}, Event{Kind: Kicked, Key: r.key, Member: *m, Other: c.By.User})
	return nil
}

func (r *room) startKick(m Member, g *Registry) {
	if r.kicks == nil {
		r.kicks = map[Address]*time.Timer{}
	}
	if r.kicks[m.Address] == nil {
		key := r.key
		r.kicks[m.Address] = time.AfterFunc(kickAfter, func() { g.expel(key, m.ID, m.Address) })
	}
}

// expel puts somebody out who was asked to go and did not.
func (g *Registry) expel(key Key, user string, addr Address) {
	r := g.locked(key)
	if r == nil {
		return
	}
	ended := false
	if i := r.index(user); i >= 0 && r.members[i].Address == addr {
		m := r.members[i]
		ended = r.takeOut(i, g)
		r.tell(g.sink, []Address{addr}, Event{Kind: Removed, Key: key, Seq: r.seq, Member: m})
	}
	r.mu.Unlock()
	if !ended || !g.end(r, false) {
		g.hooks.Changed(key)
	}
}

func (r *room) stopKicks() {
	for _, t := range r.kicks {
		t.Stop()
	}
	r.kicks = nil
}
