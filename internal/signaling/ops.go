package signaling

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/transport"
)

func (s *session) actor() room.Actor { return room.Actor{User: s.user, Address: s.address()} }

// inRoom is the key of the room the session is in. With id given it must be that one: 441 when
// there is none, 410 when the session is not in it.
func (r *request) inRoom(id string) (room.Key, error) {
	key, in := r.s.roomKey()
	if id != "" && (!in || key.Room != id) {
		if _, err := r.lookup(id); err != nil {
			return key, err
		}
		return key, room.ErrNotIn
	}
	if !in {
		return key, room.ErrNotIn
	}
	return key, nil
}

// command sends cmd to the session's room, and answers with body on success.
func (r *request) command(roomID string, cmd room.Command, body any) error {
	key, err := r.inRoom(roomID)
	if err != nil {
		return err
	}
	ctx, cancel := r.ctx()
	defer cancel()
	if err := r.c.hub.do(ctx, key, cmd); err != nil {
		return err
	}
	r.ok(body)
	return nil
}

// destroyRoom needs no membership: the creator of the room may end it from outside.
func (r *request) destroyRoom() error {
	id, err := r.roomRef((*protocol.RoomRef).Require)
	if err != nil {
		return err
	}
	key := room.Key{Tenant: r.s.tenant, Room: id}
	if here, in := r.s.roomKey(); !in || here != key {
		if err := r.checkLookupLimit(id); err != nil {
			return err
		}
		if !r.s.grant.User.Admits(id) {
			return r.recordFailedLookup(id, errTokenRoom)
		}
	}
	ctx, cancel := r.ctx()
	defer cancel()
	if err := r.c.hub.do(ctx, key, room.Destroy{By: r.s.actor()}); err != nil {
		return r.recordFailedLookup(id, err)
	}
	r.ok(nil)
	return nil
}

func (r *request) editRoomInfo() error {
	var q protocol.EditRoom
	if err := r.read(&q); err != nil {
		return err
	}
	cmd := room.Edit{By: r.s.actor(), Title: q.Title, Host: q.Host}
	if q.Capacity != nil {
		n := int(*q.Capacity)
		cmd.Capacity = &n
	}
	return r.command(q.RoomID, cmd, nil)
}

func (r *request) kickOut() error {
	var q protocol.Targeted
	if err := protocol.Decode(r.msg, &q); err != nil {
		return err
	}
	if err := q.Require(); err != nil {
		return err
	}
	return r.command("", room.Kick{By: r.s.actor(), Target: q.Target}, nil)
}

func (r *request) permit() error {
	var q protocol.PermitRequest
	if err := r.read(&q); err != nil {
		return err
	}
	return r.command("", room.SetPermit{
		By:         r.s.actor(),
		Target:     q.Target,
		Screen:     (*bool)(q.Screen),
		Chat:       (*bool)(q.Chat),
		Whiteboard: (*bool)(q.Whiteboard),
		Draw:       (*bool)(q.Draw),
		Document:   (*bool)(q.Document),
	}, nil)
}

// editUserInfo also serves changeName. Outside a room it changes the name for later rooms.
func (r *request) editUserInfo() error {
	var q protocol.EditUser
	if err := r.read(&q); err != nil {
		return err
	}
	s := r.s
	s.op.Lock()
	defer s.op.Unlock()
	if key, in := s.roomKey(); in {
		ctx, cancel := r.ctx()
		defer cancel()
		err := r.c.hub.do(ctx, key, room.EditMember{
			By:     s.actor(),
			Name:   q.Name,
			Video:  (*bool)(q.Video),
			Audio:  (*bool)(q.Audio),
			Target: q.Target,
			Quiet:  q.Broadcast != nil && !bool(*q.Broadcast) && q.Target == "",
		})
		if err != nil {
			return err
		}
	}
	if q.Name != nil { // after the room: a refused request changes nothing
		s.name.Store(*q.Name)
		s.hub.sessionChanged(s)
	}
	r.ok(nil)
	return nil
}

// chat goes to the room, or to one user.
func (r *request) chat() error {
	var q protocol.MessageRequest
	if err := r.read(&q); err != nil {
		return err
	}
	if err := q.Text(); err != nil {
		return err
	}
	if q.RoomID == "" && q.Target == "" {
		return &protocol.FieldError{
			Code:   protocol.Missing,
			Field:  "roomId or target",
			Reason: "is missing",
		}
	}
	if q.RoomID != "" {
		return r.chatToRoom(q)
	}
	if err := r.checkChatPermit(); err != nil {
		return err
	}
	return r.sendToUser("chat", q)
}

// chatToRoom reaches the whole room, and the target too when it is outside: each user once.
func (r *request) chatToRoom(q protocol.MessageRequest) error {
	key, err := r.inRoom(q.RoomID)
	if err != nil {
		return err
	}
	// Whether the target may be reached is checked first: a message that the room has received
	// cannot be refused any more.
	direct, err := r.outsideTarget(q.Target)
	if err != nil {
		return err
	}
	ctx, cancel := r.ctx()
	defer cancel()
	say := room.Broadcast{By: r.s.actor(), Type: "chat", Body: q.Message, Target: q.Target}
	outside, err := r.c.hub.ask(ctx, key, say)
	if err != nil {
		return err
	}
	switch {
	case outside == nil || q.Target == r.s.user:
		r.ok(nil)
		return nil
	case direct:
		return r.deliver("chat", q, place{}, nil)
	}
	return r.sendToUser("chat", q) // the target has just left
}

// outsideTarget reports whether the target of a room's message is another user outside the room. It
// then charges the message.
func (r *request) outsideTarget(target string) (bool, error) {
	r.s.mu.Lock()
	ro := r.s.roster
	r.s.mu.Unlock()
	if _, in := ro.find([]byte(target)); in || target == "" || target == r.s.user {
		return false, nil
	}
	_, _, err := r.checkReach(target)
	return true, err
}

// checkChatPermit refuses a member whose host has withdrawn the permission to chat. Outside a room
// there are no permissions.
func (r *request) checkChatPermit() error {
	key, in := r.s.roomKey()
	if !in {
		return nil
	}
	ctx, cancel := r.ctx()
	defer cancel()
	state, err := r.c.hub.get(ctx, key)
	if err != nil {
		return err
	}
	for _, m := range state.Members {
		if m.ID == r.s.user && !m.Permit.Chat {
			return room.ErrDenied
		}
	}
	return nil
}

func (r *request) inform() error {
	var q protocol.MessageRequest
	if err := r.read(&q); err != nil {
		return err
	}
	if q.Target != "" {
		return r.sendToUser("inform", q)
	}
	return r.command(q.RoomID, room.Broadcast{
		By:   r.s.actor(),
		Type: "inform",
		Body: q.Message,
	}, nil)
}

func (r *request) talking() error {
	var q protocol.TalkingRequest
	if err := r.read(&q); err != nil {
		return err
	}
	body := strconv.AppendBool(nil, q.Value())
	return r.command("", room.Broadcast{By: r.s.actor(), Type: "talking", Body: body}, nil)
}

// sendToUser reaches any user of the same license. Outside a common room the answer is 200 whether
// or not the user exists: it must not reveal which users are online.
func (r *request) sendToUser(op string, q protocol.MessageRequest) error {
	to, ro, err := r.checkReach(q.Target)
	if err != nil {
		return err
	}
	return r.deliver(op, q, to, ro)
}

// checkReach is checkDirect, and refuses a target outside the room if the user token lists rooms.
func (r *request) checkReach(target string) (to place, ro *roster, err error) {
	to, ro, err = r.checkDirect(target)
	if u := r.s.grant.User; err == nil && ro == nil && u != nil && u.Rooms != nil {
		err = errNoTarget
	}
	return to, ro, err
}

// deliver sends a message to a member of the roster; without a roster, to any user of the license.
func (r *request) deliver(op string, q protocol.MessageRequest, to place, ro *roster) error {
	h := r.c.hub
	key, _ := r.s.roomKey()
	b, err := protocol.Marshal(protocol.Chat(op, key.Room, 0, r.s.user, q.Message))
	if err != nil {
		return wrap("encode "+op, err)
	}
	m := transport.NewMessage()
	m.B = append(m.B, b...)
	if ro != nil {
		err = h.relayTo(ro.key, to, r.s.user, m)
	} else {
		err = r.sendOutside(q.Target, m)
	}
	if err != nil {
		return err
	}
	r.ok(nil)
	return nil
}

func (r *request) sendOutside(target string, m *transport.Message) error {
	h := r.c.hub
	ctx, cancel := r.ctx()
	defer cancel()
	holder, err := h.cfg.Directory.Holder(ctx, r.s.tenant, target)
	if err != nil || holder.Session == "" {
		m.Release()
		return err
	}
	if err := h.sendDirect(r.s.tenant, holder, r.s.user, m); err != nil {
		h.cfg.Log.Warn("message not delivered",
			"node", h.cfg.Node, "op", string(r.env.Op), "error", err)
	}
	return nil
}

func (r *request) screen() error {
	var q protocol.Targeted
	if err := r.read(&q); err != nil {
		return err
	}
	if q.Target == r.s.user { // others could not see why their share is refused
		return &protocol.FieldError{
			Code:   protocol.Invalid,
			Field:  "target",
			Reason: "must be another member",
		}
	}
	return r.command("", room.StartShare{By: r.s.actor(), Type: "screen", Target: q.Target}, nil)
}

// shareStop is 200 also in no room and when nothing is shared: applications call it to be sure.
func (r *request) shareStop() error {
	if _, in := r.s.roomKey(); !in {
		r.ok(nil)
		return nil
	}
	return r.command("", room.StopShare{By: r.s.actor()}, nil)
}

func (r *request) publish() error {
	var q protocol.PublishRequest
	if err := r.read(&q); err != nil {
		return err
	}
	feed := room.Feed{Type: q.Type, Epoch: int(q.Epoch), Audio: bool(q.Audio), Video: bool(q.Video)}
	return r.command("", room.PublishFeed{By: r.s.actor(), Feed: feed}, nil)
}

func (r *request) unpublish() error {
	var q protocol.PublishRequest
	if err := r.read(&q); err != nil {
		return err
	}
	return r.command("", room.UnpublishFeed{By: r.s.actor(), Type: q.Type}, nil)
}

// createGroup makes a room of the same kind as the sender's, and notifies the listed members.
func (r *request) createGroup() error {
	var q protocol.GroupRequest
	if err := r.read(&q); err != nil {
		return err
	}
	key, err := r.inRoom("")
	if err != nil {
		return err
	}
	ctx, cancel := r.ctx()
	defer cancel()
	h, s := r.c.hub, r.s
	parent, err := h.get(ctx, key)
	if err != nil {
		return err
	}
	if len(q.List) > parent.Capacity {
		return room.ErrGroupTooLarge
	}
	cmd := room.Create{
		Title:    q.Title,
		Capacity: parent.Capacity,
		Owner:    s.user,
		Group:    parent.Group,
		Talking:  parent.Talking,
		MaxRooms: s.grant.MaxRooms,
		MaxOwned: max(0, h.cfg.Limits.Rooms),
		Listed:   append(q.List, s.user),
	}
	r.from(&cmd)
	id, err := h.makeGroup(ctx, parent, cmd)
	if err != nil {
		return r.countRooms(err)
	}
	if err := h.do(ctx, key, room.AnnounceGroup{
		By:    s.actor(),
		Group: id,
		List:  q.List,
	}); err != nil {
		// No member knows of the group.
		_ = h.do(ctx, room.Key{Tenant: s.tenant, Room: id}, room.Destroy{By: s.actor()})
		return err
	}
	r.ok(protocol.GroupAnswer{GroupID: id})
	return nil
}

// makeGroup makes the room of a group on the node of its parent room, which knows its groups. Users
// of the list who are not members of the parent are ignored.
func (h *Hub) makeGroup(
	ctx context.Context, parent *room.State, cmd room.Create,
) (id string, err error) {
	owner, err := h.ownerOf(ctx, parent.Key)
	if err != nil {
		return "", err
	}
	listed := cmd.Listed
	cmd.Parent, cmd.Listed = parent.Key.Room, nil
	for _, m := range parent.Members {
		if slices.Contains(listed, m.ID) {
			cmd.Listed = append(cmd.Listed, m.ID)
		}
		if m.ID == cmd.Owner {
			cmd.ByHost = m.Host
		}
	}
	err = room.ErrExists
	for range 3 {
		if !errors.Is(err, room.ErrExists) {
			break
		}
		id = newID("G")
		_, err = h.command(ctx, owner, room.Key{Tenant: parent.Key.Tenant, Room: id}, cmd)
	}
	return id, err
}

// endGroup commands the group itself; the sender need not be in it. The answer for an id that is
// not a group is the same whether or not it is a room.
func (r *request) endGroup() error {
	var q protocol.GroupRequest
	if err := r.read(&q); err != nil {
		return err
	}
	if q.GroupID == "" {
		return &protocol.FieldError{Code: protocol.Missing, Field: "groupId", Reason: "is missing"}
	}
	key := room.Key{Tenant: r.s.tenant, Room: q.GroupID}
	if here, in := r.s.roomKey(); !in || here != key {
		if err := r.checkLookupLimit(q.GroupID); err != nil {
			return err
		}
	}
	ctx, cancel := r.ctx()
	defer cancel()
	err := r.recordFailedLookup(q.GroupID, r.c.hub.do(ctx, key, room.EndGroup{By: r.s.actor()}))
	switch {
	case errors.Is(err, room.ErrNoRoom):
		return room.ErrNoGroup
	case err != nil:
		return err
	}
	r.ok(nil)
	return nil
}
