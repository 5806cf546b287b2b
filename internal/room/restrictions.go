package room

import (
	"slices"
	"time"
)

// Restriction is what a room remembers of a user whether or not it is a member: permissions that
// were taken, and until when it may not join. It goes by the user's id, and is worth as much as ids
// are.
type Restriction struct {
	User        string
	Permit      *Permit // nil: all is permitted
	BannedUntil time.Time
}

const (
	// banDuration is how long a user who was put out may not join again, counted from when it was
	// asked to go.
	banDuration = 10 * time.Minute
	// maxRestrictions bounds what hosts can have a room remember. Beyond it the oldest is dropped.
	maxRestrictions = 1024
)

// restriction is what the room remembers of a user; one without content if it remembers nothing.
func (r *room) restriction(user string) Restriction {
	for _, m := range r.restrictions {
		if m.User == user {
			return m
		}
	}
	return Restriction{User: user}
}

// setRestriction replaces what the room remembers of a user.
func (r *room) setRestriction(m Restriction) {
	now := time.Now()
	r.restrictions = slices.DeleteFunc(r.restrictions, func(old Restriction) bool {
		return old.User == m.User || old.isExpired(now)
	})
	if m.isExpired(now) {
		return
	}
	if len(r.restrictions) >= maxRestrictions {
		r.restrictions = slices.Delete(r.restrictions, 0, 1)
	}
	r.restrictions = append(r.restrictions, m)
}

// isExpired tells whether there is nothing to remember.
func (m Restriction) isExpired(now time.Time) bool {
	return m.Permit == nil && !now.Before(m.BannedUntil)
}

// permits is what a user may do on joining.
func (r *room) permits(user string) Permit {
	if p := r.restriction(user).Permit; p != nil {
		return *p
	}
	return AllPermitted
}

func (r *room) isBanned(user string) bool {
	return time.Now().Before(r.restriction(user).BannedUntil)
}

// ban keeps a user from joining again for a while.
func (r *room) ban(user string) {
	m := r.restriction(user)
	m.BannedUntil = time.Now().Add(banDuration)
	r.setRestriction(m)
}

// unban lets a user join again.
func (r *room) unban(user string) {
	m := r.restriction(user)
	m.BannedUntil = time.Time{}
	r.setRestriction(m)
}

// rememberPermit remembers what the member may do for when it joins again.
func (r *room) rememberPermit(member Member) {
	m := r.restriction(member.ID)
	m.Permit = nil
	if member.Permit != AllPermitted {
		m.Permit = &member.Permit
	}
	r.setRestriction(m)
}
