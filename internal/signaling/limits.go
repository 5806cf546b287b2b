package signaling

import (
	"errors"
	"net/netip"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/limit"
	"github.com/ieum-rtc/ieum/internal/netaddr"
	"github.com/ieum-rtc/ieum/internal/room"
)

// Limits bound what users may do, all but Rooms in a minute, which begins with the first that they
// do. The zero value of a number means its default, a negative one no limit.
type Limits struct {
	// FailedLogins are registers from one address (see transport.Source) whose license or user
	// token is not genuine, default 10 in a minute. Then others like them get 429. A genuine
	// license is let in, except on a connection that has failed before.
	FailedLogins int
	// Joins are those of one user that succeed, default 20: each of them is told to everybody in
	// the room.
	Joins int
	// FailedJoins are those of one user that do not, default 20, and rooms that it names in vain in
	// other operations. Then it can name no room that it is not in. FailedJoinsOfAddress, default
	// 200, are different rooms that users of one address named and that there are none of.
	FailedJoins, FailedJoinsOfAddress int
	// Candidates are messages with candidates of one session, default 1000.
	Candidates int
	// Rooms are those at a time that one user made, default 100. A person is in one; what nobody
	// enters stays ten minutes, so whoever is over it makes more than one every six seconds.
	// Tenants whose backend makes the rooms of everybody need more.
	Rooms int
	// AddressSessions and AddressRooms are those at a time of one address, of users whose license
	// admits without a user token, default 200 each. They may choose any number of user ids, so
	// that limits by user do not bound them. In a minute addressTurnover times as many sessions may
	// be opened, and rooms joined: others are told of each, and each has budgets of its own.
	AddressSessions, AddressRooms int
	// Takeovers are those of one user id without its session's own secret, default 3: two pages
	// could throw each other out for ever.
	Takeovers int
}

// addressTurnover is how often in a minute all who may be connected from an address may come.
const addressTurnover = 3

func (l *Limits) defaults() {
	for _, of := range []struct {
		n     *int
		value int
	}{
		{&l.FailedLogins, 10},
		{&l.Joins, 20},
		{&l.FailedJoins, 20},
		{&l.FailedJoinsOfAddress, 200},
		{&l.Candidates, 1000},
		{&l.Rooms, 100},
		{&l.Takeovers, 3},
		{&l.AddressSessions, 200},
		{&l.AddressRooms, 200},
	} {
		if *of.n == 0 {
			*of.n = of.value
		}
	}
}

// limiters count for one node what the limits bound.
type limiters struct {
	failedLogins       addressLimiter
	joins, failedJoins *limit.FixedWindow[userKey]
	addressLookups     addressLimiter
	lookedUp           *limit.FixedWindow[lookupKey] // that addressLookups has counted
	// Of sessions that count for an address.
	addressLogins, addressJoins addressLimiter
	takeovers                   *limit.FixedWindow[userKey]
}

// lookupKey is a room as users of one address named it.
type lookupKey struct {
	tenantPrefix
	room string
}

func newLimiters(l Limits) limiters {
	return limiters{
		failedLogins:   newAddressLimiter(l.FailedLogins),
		joins:          limit.NewFixedWindow[userKey](l.Joins),
		failedJoins:    limit.NewFixedWindow[userKey](l.FailedJoins),
		addressLookups: newAddressLimiter(l.FailedJoinsOfAddress),
		lookedUp:       limit.NewFixedWindow[lookupKey](1),
		addressLogins:  newAddressLimiter(l.AddressSessions * addressTurnover),
		addressJoins:   newAddressLimiter(l.AddressSessions * addressTurnover),
		takeovers:      limit.NewFixedWindow[userKey](l.Takeovers),
	}
}

// isGuess tells whether a login was refused for a key or token that is none. A genuine one that has
// ended, that admits another user or another origin guesses nothing, and an office whose tokens ran
// out together must not be kept from coming with new ones.
func isGuess(err error) bool {
	return errors.Is(err, license.ErrRefused) || errors.Is(err, license.ErrSwapped)
}

// checkLookupLimit tells whether the user may name a room that it is not in: whether there is one
// is what guessers want to know. Whoever made the room, or has a user token that lists it, guesses
// nothing.
func (r *request) checkLookupLimit(id string) error {
	h, key, source := r.c.hub, r.s.key(), r.c.source()
	if r.s.lists(id) {
		return nil
	}
	over := h.failedJoins.Reached(key) || h.addressLookups.reached(r.s.tenant, source)
	switch {
	case !over || r.owns(id):
		return nil
	case h.failedJoins.Exceeded(key):
		return errTooManyLookups
	case h.addressLookups.exceeded(r.s.tenant, source):
		return errTooManyAddressLookups
	}
	return nil
}

// lists tells whether the session's user token lists the room.
func (s *session) lists(id string) bool {
	u := s.grant.User
	return u != nil && u.Rooms != nil && u.Admits(id)
}

// owns tells whether the user made the room, or was handed it on.
func (r *request) owns(id string) bool {
	ctx, cancel := r.ctx()
	defer cancel()
	state, err := r.c.hub.get(ctx, room.Key{Tenant: r.s.tenant, Room: id})
	return err == nil && state.Owner == r.s.user
}

// recordFailedLookup counts a room that was named in vain, and hands on why. For the address only
// guesses count: others there may find a room full. Nor does one name count twice: a class that
// asks for its room before there is one guesses nothing.
func (r *request) recordFailedLookup(id string, err error) error {
	if r.s.lists(id) {
		return err
	}
	h := r.c.hub
	none := errors.Is(err, room.ErrNoRoom)
	if none || errors.Is(err, room.ErrFull) || errors.Is(err, room.ErrBanned) ||
		errors.Is(err, errTokenRoom) {
		h.failedJoins.Add(r.s.key())
	}
	source := r.c.source()
	key := lookupKey{tenantPrefix{r.s.tenant, source}, id}
	if none && source.IsValid() && h.lookedUp.Take(key) {
		h.addressLookups.add(r.s.tenant, source)
	}
	return err
}

// lookup gets a room that the user is not in. Whose token names rooms learns nothing of others.
func (r *request) lookup(id string) (*room.State, error) {
	if err := r.checkLookupLimit(id); err != nil {
		return nil, err
	}
	if !r.s.grant.User.Admits(id) {
		return nil, r.recordFailedLookup(id, errTokenRoom)
	}
	ctx, cancel := r.ctx()
	defer cancel()
	state, err := r.c.hub.get(ctx, room.Key{Tenant: r.s.tenant, Room: id})
	return state, r.recordFailedLookup(id, err)
}

// source is whom limits by address count; invalid: none do.
func (c *client) source() netip.Prefix { return netaddr.Source(c.conn.Peer().Addr.Addr()) }

// rejections count what the limits have refused, by the names that docs/operating/secure.md lists.
func (h *Hub) rejections() map[string]func() uint64 {
	return map[string]func() uint64{
		"message_flood":            h.counters.flooded.Load,
		"message_rate":             h.counters.refusedFlood.Load,
		"frames":                   h.counters.small.Load,
		"to_room":                  h.counters.toRoom.Load,
		"to_one":                   h.counters.toOne.Load,
		"outbox_share":             h.counters.unread.Load,
		"disconnected_queue":       h.counters.waiting.Load,
		"message_size":             h.counters.long.Load,
		"login_time":               h.counters.late.Load,
		"outbox":                   h.counters.overflowed.Load,
		"failed_logins":            h.failedLogins.rejected,
		"joins":                    h.joins.Rejected,
		"failed_joins":             h.failedJoins.Rejected,
		"failed_joins_per_address": h.addressLookups.rejected,
		"candidates":               h.counters.candidates.Load,
		"rooms_per_user":           h.counters.manyRooms.Load,
		"sessions_per_address":     h.sources.rejected.Load,
		"logins_per_address":       h.addressLogins.rejected,
		"joins_per_address":        h.addressJoins.rejected,
		"rooms_per_address":        h.counters.manyHere.Load,
		"takeovers":                h.takeovers.Rejected,
	}
}
