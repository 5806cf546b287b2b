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
	// Destroy ends the room for everyone. For the host, and for who made the room while it is not
	// in it.
	Destroy struct{ By Actor }
	// StartShare starts sharing, or says it again: to one member, or with Target empty to all
	// others.
	StartShare struct {
		By     Actor
		Type   string
		Target string
	}
	// StopShare ends it. When the actor shares nothing, nobody is told.
	StopShare struct{ By Actor }
	// Edit changes the room. Host only. Nil and empty fields stay as they are; Host names the next
	// host.
	Edit struct {
		By       Actor
		Title    *string
		Capacity *int
		Host     string
	}
	// EditMember changes what the actor says of itself. Quiet: nobody is told; Target: only this
	// member is.
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
	// Kick asks a member to leave, puts it out after three seconds, and keeps it from joining again
	// for ten minutes. Host only.
	Kick struct {
		By     Actor
		Target string
	}
	// Broadcast passes Body on to all other members, in the room's order. With a Target that is no
	// member Do returns the State: the room has not told it.
	Broadcast struct {
		By     Actor
		Type   string // what it is: chat, inform, talking
		Body   json.RawMessage
		Target string
	}
	// PublishFeed announces a feed of the actor.
	PublishFeed struct {
		By   Actor
		Feed Feed
	}
	// UnpublishFeed ends the announcement of a feed, and tells nobody: whoever receives it notices
	// by other means.
	UnpublishFeed struct {
		By   Actor
		Type string
	}
	// AnnounceGroup tells the members of a list that there is a group for them. The group is a
	// room: it has been made with Create.
	AnnounceGroup struct {
		By    Actor
		Group string
		List  []string
	}
	// EndGroup is for the group itself, and ends it as Destroy does: for who made it, its host, and
	// the host of the room it was made in.
	EndGroup struct{ By Actor }
)

func (Destroy) command()       {}
func (StartShare) command()    {}
func (StopShare) command()     {}
func (Edit) command()          {}
func (EditMember) command()    {}
func (SetPermit) command()     {}
func (Kick) command()          {}
func (Broadcast) command()     {}
func (PublishFeed) command()   {}
func (UnpublishFeed) command() {}
func (AnnounceGroup) command() {}
func (EndGroup) command()      {}

const (
	// how long somebody who was asked to leave may take
	kickGrace = 3 * time.Second

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
	case StartShare:
		return r.startShare(c, sink)
	case StopShare:
		m, err := r.actor(c.By)
		if err == nil {
			r.stopShare(*m, sink)
		}
		return err
	case Edit:
		return r.edit(c, sink)
	case EditMember:
		return r.editMember(c, sink)
	case SetPermit:
		return r.setPermit(c, sink)
	case Broadcast:
		return r.broadcast(c, sink)
	case PublishFeed:
		return r.publishFeed(c, sink)
	case UnpublishFeed:
		m, err := r.actor(c.By)
		if err == nil {
			m.Feeds = m.feedsExcept(c.Type)
		}
		return err
	case AnnounceGroup:
		return r.announceGroup(c, sink)
	}
	return fmt.Errorf("room: unknown command %T", cmd)
}

func (r *room) startShare(c StartShare, sink Sink) error {
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
	e := Event{Kind: ShareStarted, Key: r.key, Member: *m, Share: r.share}
	if c.Target == "" {
		e = r.next(e)
	}
	r.send(sink, to, e)
	return nil
}

// stopShare ends what m shares, if it does.
func (r *room) stopShare(m Member, sink Sink) {
	if r.share == nil || r.share.User != m.ID {
		return
	}
	r.share = nil
	r.send(sink, r.others(m.ID), r.next(Event{Kind: ShareStopped, Member: m}))
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
	r.send(sink, r.others(m.ID), e)
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
	e := Event{Kind: MemberEdited, Key: r.key, Member: *m}
	switch {
	case c.Quiet:
		return nil
	case c.Target == "":
		e = r.next(e)
	}
	r.send(sink, to, e)
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
		{&m.Permit.Screen, c.Screen}, {&m.Permit.Chat, c.Chat},
		{&m.Permit.Whiteboard, c.Whiteboard}, {&m.Permit.Draw, c.Draw},
		{&m.Permit.Document, c.Document},
	} {
		if f.v != nil {
			*f.to = *f.v
		}
	}
	r.rememberPermit(*m)
	r.send(sink, r.others(""), r.next(Event{Kind: Permitted, Member: *m}))
	return nil
}

func (r *room) broadcast(c Broadcast, sink Sink) error {
	m, err := r.actor(c.By)
	if err != nil {
		return err
	}
	if c.Type == "chat" && !m.Permit.Chat {
		return ErrDenied
	}
	if c.Type == "talking" && !r.talking {
		return nil
	}
	if !r.allowBytes(len(c.Body), freeMessage) {
		return ErrBusy
	}
	e := r.next(Event{Kind: Broadcasted, Member: *m, Type: c.Type, Body: c.Body})
	if c.Type != "talking" { // which is over by the time
		r.appendBacklog(e)
	}
	r.send(sink, r.others(m.ID), e)
	return nil
}

// sendBacklog tells a member that came back what it has missed. Nobody is told what was said before
// he came.
func (r *room) sendBacklog(m Member, seen uint64, sink Sink) {
	for _, e := range r.backlog {
		if e.Seq > max(seen, m.Since) && e.Member.ID != m.ID {
			r.send(sink, []Address{m.Address}, e)
		}
	}
}

func (r *room) publishFeed(c PublishFeed, sink Sink) error {
	m, err := r.actor(c.By)
	if err != nil {
		return err
	}
	c.Feed.User = m.ID
	feeds := m.feedsExcept(c.Feed.Type)
	if len(feeds) >= maxFeeds {
		return ErrDenied
	}
	if !r.allowBytes(m.sizeOnce(), freeFeed) {
		return ErrBusy
	}
	next := *m
	next.Feeds = append(feeds, c.Feed)
	if err := r.replace(m, next); err != nil {
		return err
	}
	r.send(sink, r.others(m.ID), r.next(Event{
		Kind:   Published,
		Member: *m,
		Feeds:  []MemberFeed{{*m, c.Feed}},
	}))
	return nil
}

// feedsExcept copies the feeds of other types.
func (m Member) feedsExcept(kind string) []Feed {
	return slices.DeleteFunc(slices.Clone(m.Feeds), func(f Feed) bool { return f.Type == kind })
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
			r.stopShare(*m, sink)
		}
	}
	for _, m := range r.members {
		r.send(sink, everyone, r.next(Event{Kind: Left, Member: m}))
	}
	r.send(sink, everyone, r.next(Event{Kind: Destroyed, Member: Member{ID: by}}))
	for _, m := range r.members {
		r.send(sink, []Address{m.Address}, Event{Kind: Removed, Key: r.key, Member: m})
	}
	r.members = nil
	r.stopKickTimers()
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
		r.ban(m.ID)
	}
	r.startKickTimer(*m, time.Now().Add(kickGrace), g)
	r.send(g.sink, []Address{m.Address}, Event{
		Kind:   Kicked,
		Key:    r.key,
		Member: *m,
		Other:  c.By.User,
	})
	return nil
}

// kickTimer runs until a member is removed who was asked to go.
type kickTimer struct {
	*time.Timer
	at time.Time // when it ends
}

func (r *room) startKickTimer(m Member, at time.Time, g *Registry) {
	if r.kickTimers == nil {
		r.kickTimers = map[Address]kickTimer{}
	}
	if _, runs := r.kickTimers[m.Address]; !runs {
		key := r.key
		expel := func() { g.expel(key, m.ID, m.Address) }
		r.kickTimers[m.Address] = kickTimer{time.AfterFunc(time.Until(at), expel), at}
	}
}

// expel puts somebody out who was asked to go and did not.
func (g *Registry) expel(key Key, user string, addr Address) {
	r := g.lookup(key)
	if r == nil {
		return
	}
	ended := false
	if i := r.index(user); i >= 0 && r.members[i].Address == addr {
		m := r.members[i]
		ended = r.removeMember(i, g)
		r.send(g.sink, []Address{addr}, Event{Kind: Removed, Key: key, Seq: r.seq, Member: m})
	}
	r.mu.Unlock()
	if !ended || !g.end(r, false) {
		g.hooks.Changed(key)
	}
}

func (r *room) stopKickTimers() {
	for _, t := range r.kickTimers {
		t.Stop()
	}
	r.kickTimers = nil
}
