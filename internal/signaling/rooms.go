package signaling

import (
	"errors"
	"time"

	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/transport"
)

const (
	defaultCapacity      = 16
	defaultVideoCapacity = 8 // in a mesh everybody sends to everybody
)

func (r *request) createRoom() error {
	var q protocol.CreateRoom
	if err := r.read(&q); err != nil {
		return err
	}
	return r.create(q, room.Create{Capacity: defaultCapacity})
}

func (r *request) createVideoRoom() error {
	var q protocol.CreateVideoRoom
	if err := r.read(&q); err != nil {
		return err
	}
	return r.create(q.CreateRoom, room.Create{
		Capacity: defaultVideoCapacity,
		Group:    true,
		Talking:  bool(q.TalkingNoty),
	})
}

// read decodes and checks the request.
func (r *request) read(into interface{ Validate() error }) error {
	if err := protocol.Decode(r.msg, into); err != nil {
		return err
	}
	return into.Validate()
}

func (r *request) create(q protocol.CreateRoom, cmd room.Create) error {
	// without an id the server makes one, which no token lists
	if !r.s.grant.User.Admits(q.RoomID) {
		return errTokenRoom
	}
	cmd.Title, cmd.Owner = q.Title, r.s.user
	cmd.Keep = q.Destroy != nil && !bool(*q.Destroy)
	cmd.MaxRooms = r.s.grant.MaxRooms
	cmd.MaxOwned = max(0, r.c.hub.cfg.Limits.Rooms)
	r.from(&cmd)
	if q.Capacity != nil {
		cmd.Capacity = int(*q.Capacity)
	}
	id := q.RoomID
	ctx, cancel := r.ctx()
	defer cancel()
	for range 3 {
		if q.RoomID == "" {
			id = newID("K")
		}
		err := r.c.hub.create(ctx, room.Key{Tenant: r.s.tenant, Room: id}, cmd)
		if err == nil {
			r.ok(protocol.CreateRoomAnswer{RoomID: id})
			return nil
		}
		if q.RoomID != "" || !errors.Is(err, room.ErrExists) {
			return r.countRooms(err)
		}
	}
	return room.ErrExists
}

// from says where a room is made.
func (r *request) from(cmd *room.Create) {
	cmd.Source, cmd.MaxFromSource = r.s.origin.Source, max(0, r.c.hub.cfg.Limits.AddressRooms)
	cmd.Site, cmd.MaxFromSite = r.s.origin.Site, cmd.MaxFromSource*transport.SourcesPerSite
}

// countRooms counts a refusal by the number of rooms, and hands on why.
func (r *request) countRooms(err error) error {
	if errors.Is(err, room.ErrTooManyOwned) {
		r.c.hub.counters.manyRooms.Add(1)
	}
	if errors.Is(err, room.ErrTooManyFromAddress) {
		r.c.hub.counters.manyHere.Add(1)
	}
	return err
}

// roomRef reads the request's roomId.
func (r *request) roomRef(check func(*protocol.RoomRef) error) (string, error) {
	var q protocol.RoomRef
	if err := protocol.Decode(r.msg, &q); err != nil {
		return "", err
	}
	return q.RoomID, check(&q)
}

// joinRoom answers in the place of the room's first event (see awaitState): no event can reach the
// client before the answer.
func (r *request) joinRoom() error {
	began := time.Now()
	id, err := r.roomRef((*protocol.RoomRef).Require)
	if err != nil {
		return err
	}
	s := r.s
	s.op.Lock()
	defer s.op.Unlock()
	if s.ended {
		return errGone
	}
	if key, in := s.roomKey(); in {
		if key.Room == id {
			return room.ErrAlreadyIn
		}
		return errInRoom
	}
	if s.hub.joins.Exceeded(s.key()) {
		return errTooManyJoins
	}
	if s.origin != (origin{}) && s.hub.addressJoins.exceeded(s.tenant, r.c.source()) {
		return errTooManyAddressJoins
	}
	if err := r.checkLookupLimit(id); err != nil {
		return err
	}
	admitted := s.grant.User.Admits(id)
	ctx, cancel := r.ctx()
	defer cancel()
	name, _ := s.name.Load().(string)
	member := room.Member{
		ID:       s.user,
		Name:     name,
		Device:   s.device,
		Features: s.features,
		Video:    true,
		Audio:    true,
		Address:  s.address(),
		Epoch:    s.location.Epoch,
		Net:      s.hub.network(r.c.source()),
		Identity: s.identity,
	}
	join := room.Join{
		Member: member,
		Host:   s.grant.User != nil && s.grant.User.Host,
		Listed: !admitted,
	}
	err = s.join(ctx, room.Key{Tenant: s.tenant, Room: id}, join, func(e room.Event) {
		r.ok(roomState(e.State))
		s.hub.counters.joins.Observe(time.Since(began).Seconds())
	})
	if err == nil {
		s.hub.joins.Add(s.key())
		if s.origin != (origin{}) {
			s.hub.addressJoins.add(s.tenant, r.c.source())
		}
	}
	if !admitted && (errors.Is(err, room.ErrNoRoom) || errors.Is(err, room.ErrUnlisted)) {
		err = errTokenRoom // the same whether or not there is such a room
	}
	return r.recordFailedLookup(id, err)
}

func (r *request) leaveRoom() error {
	id, err := r.roomRef((*protocol.RoomRef).Validate)
	if err != nil {
		return err
	}
	s := r.s
	s.op.Lock()
	defer s.op.Unlock()
	key, in := s.roomKey()
	if id != "" && (!in || key.Room != id) {
		if _, err := r.lookup(id); err != nil {
			return err
		}
		return room.ErrNotIn
	}
	if !in {
		return room.ErrNotIn
	}
	if err := s.leaveRoom(); err != nil {
		return err
	}
	r.ok(nil)
	return nil
}

func (r *request) memberList() error {
	id, err := r.roomRef((*protocol.RoomRef).Validate)
	if err != nil {
		return err
	}
	key, in := r.s.roomKey()
	if id == "" && !in {
		return room.ErrNotIn
	}
	if id != "" && (!in || key.Room != id) {
		if _, err := r.lookup(id); err != nil {
			return err
		}
		return errNoTarget
	}
	ctx, cancel := r.ctx()
	defer cancel()
	state, err := r.s.hub.get(ctx, key)
	if err != nil {
		return err
	}
	r.ok(protocol.MemberListAnswer{Members: roomState(state).Members})
	return nil
}
