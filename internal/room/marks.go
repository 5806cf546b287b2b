package room

import (
	"slices"
	"time"
)

// Mark is what a room remembers of a user whether or not it is a member: permissions that were taken, and until when it may not join.
// It goes by the user's id, and is worth as much as ids are.
type Mark struct {
	User   string
	Permit *Permit // nil: all is permitted
	Barred time.Time
}

const (
	// barredFor is how long a user who was put out may not join again, counted from when it was asked to go.
	barredFor = 10 * time.Minute
	// maxMarks bounds what hosts can have a room remember. Beyond it the oldest mark goes.
	maxMarks = 1024
)

// mark is what the room remembers of a user; the zero Mark: nothing.
func (r *room) mark(user string) Mark {
	if i := slices.IndexFunc(r.marks, func(m Mark) bool { return m.User == user }); i >= 0 {
		return r.marks[i]
	}
	return Mark{User: user}
}

// remark replaces what the room remembers of a user.
func (r *room) remark(m Mark) {
	now := time.Now()
	r.marks = slices.DeleteFunc(r.marks, func(old Mark) bool { return old.User == m.User || old.idle(now) })
	if m.idle(now) {
		return
	}
	if len(r.marks) >= maxMarks {
		r.marks = slices.Delete(r.marks, 0, 1)
	}
	r.marks = append(r.marks, m)
}

// idle tells whether there is nothing to remember.
func (m Mark) idle(now time.Time) bool { return m.Permit == nil && !now.Before(m.Barred) }

// permits is what a user may do on joining.
func (r *room) permits(user string) Permit {
	if p := r.mark(user).Permit; p != nil {
		return *p
	}
	return AllPermitted
}

func (r *room) barred(user string) bool { return time.Now().Before(r.mark(user).Barred) }

// bar keeps a user from joining again for a while.
func (r *room) bar(user string) {
	m := r.mark(user)
	m.Barred = time.Now().Add(barredFor)
	r.remark(m)
}

// unbar lets a user join again.
func (r *room) unbar(user string) {
	m := r.mark(user)
	m.Barred = time.Time{}
	r.remark(m)
}

// keepPermit remembers what the member may do for when it joins again.
func (r *room) keepPermit(member Member) {
	m := r.mark(member.ID)
	m.Permit = nil
	if member.Permit != AllPermitted {
		m.Permit = &member.Permit
	}
	r.remark(m)
}
