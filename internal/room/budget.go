package room

import (
	"slices"
	"strings"
	"time"
)

// maxState bounds what a room's state may take on the wire, roughly, in bytes: every member that
// comes, and every session that resumes, is sent all of it, and with what else comes then it must
// fit into an outbox. It has place for the 1,000 members of the largest room, if they are called as
// people are.
const maxState = 640 << 10

// size estimates what a member takes in the state. It stands there once, and once more with each
// feed.
func (m Member) size() int { return m.sizeOnce() * (1 + len(m.Feeds)) }

// sizeOnce estimates what a member takes where it stands once, as in an announcement.
func (m Member) sizeOnce() int {
	const names = 384 // of the fields, and what is always as long
	n := names + 3*textSize(m.ID) + textSize(m.Name) + textSize(m.Device)
	for _, f := range m.Features {
		n += textSize(f) + 3
	}
	return n
}

// textSize is the length of s as a JSON string, or a little more.
func textSize(s string) int {
	escaped := strings.Count(s, `"`) + strings.Count(s, `\`)
	separators := strings.Count(s, "\u2028") + strings.Count(s, "\u2029")
	return len(s) + escaped + 3*separators
}

func (r *room) size() int {
	n := 0
	for i := range r.members {
		n += r.members[i].size()
	}
	return n
}

// replace changes a member, unless the room's state would be too large then. What becomes smaller
// always may.
func (r *room) replace(m *Member, by Member) error {
	if was, is := m.size(), by.size(); is > was && r.size()+is-was > maxState {
		return ErrStateTooLarge
	}
	*m = by
	return nil
}

// What a room says to all its members costs all of them. Short messages pass freely,
// since each sender is limited in their number. Of longer ones a room has so many bytes per second
// and at once, which leaves space in every outbox.
const (
	freeMessage    = 256
	freeFeed       = 1 << 10   // an announcement carries its member: people are shorter
	broadcastRate  = 128 << 10 // a second
	broadcastBurst = 320 << 10
)

// allowBytes counts n bytes that somebody wants to say to all, unless they are no more than free;
// false: it is too much.
func (r *room) allowBytes(n, free int) bool {
	if n <= free {
		return true
	}
	now := time.Since(r.began)
	from, cost := max(r.sentUntil, now), time.Duration(n)*time.Second/broadcastRate
	if from+cost-now > broadcastBurst*time.Second/broadcastRate {
		return false
	}
	r.sentUntil = from + cost
	return true
}

// Bounds of what a room remembers for disconnected members: state can be compared, messages cannot.
const (
	maxBacklog      = 64
	maxBacklogBytes = 64 << 10
)

// appendBacklog keeps a message. Beyond the bounds the oldest of the member with the most is
// dropped: nobody can make the room forget the messages of others.
func (r *room) appendBacklog(e Event) {
	r.backlog = append(r.backlog, e)
	for {
		bytes := 0
		for _, s := range r.backlog {
			bytes += len(s.Body)
		}
		switch {
		case bytes > maxBacklogBytes:
			r.dropFromBacklog(func(e Event) int { return len(e.Body) })
		case len(r.backlog) > maxBacklog:
			r.dropFromBacklog(func(Event) int { return 1 })
		default:
			return
		}
	}
}

// dropFromBacklog drops the oldest message of the member with the most, by size.
func (r *room) dropFromBacklog(size func(Event) int) {
	of := map[string]int{}
	for _, s := range r.backlog {
		of[s.Member.ID] += size(s)
	}
	at := 0
	for i, s := range r.backlog {
		if of[s.Member.ID] > of[r.backlog[at].Member.ID] {
			at = i
		}
	}
	r.backlog = slices.Delete(r.backlog, at, at+1)
}
