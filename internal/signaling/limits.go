package signaling

import (
	"errors"
	"net/netip"

	"github.com/ieum-rtc/ieum/internal/license"
)

// Limits bound what users may do in a minute, which begins with the first that they do. The zero value of a number means its default,
// a negative one no limit.
type Limits struct {
	// FailedLogins are registers from one address (see transport.Source) with a license or user token that is none, default 10. Then
	// every register from there is refused, whatever it shows, but for those of sessions that go on.
	FailedLogins int
	// Takeovers are those of one user id without its session's own secret, default 3: two pages could throw each other out for ever.
	Takeovers int
}

func (l *Limits) defaults() {
	for _, of := range []struct {
		n     *int
		value int
	}{
		{&l.FailedLogins, 10},
		{&l.Takeovers, 3},
	} {
		if *of.n == 0 {
			*of.n = of.value
		}
	}
}

// tallies count for one node what the limits bound.
type tallies struct {
	failedLogins *tally[netip.Prefix]
	takeovers    *tally[userKey]
}

func newTallies(l Limits) tallies {
	return tallies{
		failedLogins: newTally[netip.Prefix](l.FailedLogins),
		takeovers:    newTally[userKey](l.Takeovers),
	}
}

// guessed tells whether a login was refused for a key or token that is none. A genuine one that has ended, that admits another user
// or another origin guesses nothing, and an office whose tokens ran out together must not be kept from coming with new ones.
func guessed(err error) bool {
	return errors.Is(err, license.ErrRefused) || errors.Is(err, license.ErrSwapped)
}

// LimitsHit counts refusals by the names that docs/operating.md lists.
func (h *Hub) LimitsHit() map[string]uint64 {
	return map[string]uint64{
		"messages":      h.counters.flooded.Load(),
		"login_time":    h.counters.late.Load(),
		"outbox":        h.counters.overflowed.Load(),
		"failed_logins": h.failedLogins.hits.Load(),
		"takeovers":     h.takeovers.hits.Load(),
	}
}
