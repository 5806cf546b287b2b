package signaling

import (
	"slices"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// held is what waits for a session that is away. All of it goes into the outbox at once, behind the answer to the resume and
// before what the room repeats: together they fit.
type held []waiting

type waiting struct {
	m    *transport.Message
	from string // user id
	kind kind
}

// kind is how a message came to wait. Each has a place of its own: nobody outside a room can fill that of its members.
type kind uint8

const (
	fromMember   kind = iota // of a member to another: refused when it does not fit
	fromStranger             // of a user of the license, in no common room
	fromRoom                 // an event for this member alone
)

// holds is how much may wait of a kind, and how much of one sender; and while the client is connected, the share of its outbox. A
// stranger may come again as another one, without end, so that all of them together leave most of it to members.
var holds = [...]struct {
	count, bytes, each, eachBytes int
	share                         transport.Share
}{
	fromMember:   {96, 256 << 10, 64, 128 << 10, 5},
	fromStranger: {8, 16 << 10, 4, 8 << 10, 2},
	fromRoom:     {32, 32 << 10, 32, 32 << 10, 8},
}

// keep takes over one reference to m, unless it is refused.
func (h *held) keep(w waiting) error {
	p := holds[w.kind]
	count, bytes := h.size(func(o waiting) bool { return o.kind == w.kind })
	own, ownBytes := h.size(func(o waiting) bool { return o.kind == w.kind && o.from == w.from })
	size := len(w.m.B)
	switch {
	case own >= p.each || ownBytes+size > p.eachBytes:
		return errWaiting
	case count >= p.count || bytes+size > p.bytes:
		return errFull
	}
	*h = append(*h, w)
	return nil
}

func (h held) size(of func(waiting) bool) (count, bytes int) {
	for _, w := range h {
		if of(w) {
			count++
			bytes += len(w.m.B)
		}
	}
	return count, bytes
}

// makeRoom drops events until another one fits, those of the same sender first.
func (h *held) makeRoom(w waiting) {
	drop := func(of func(waiting) bool) bool {
		i := slices.IndexFunc(*h, of)
		if i >= 0 {
			(*h)[i].m.Release()
			*h = slices.Delete(*h, i, i+1)
		}
		return i >= 0
	}
	for h.keep(w) != nil {
		if !drop(func(o waiting) bool { return o.kind == w.kind && o.from == w.from }) && !drop(func(o waiting) bool { return o.kind == w.kind }) {
			w.m.Release()
			return
		}
	}
}

// drop releases everything.
func (h *held) drop() {
	for _, w := range *h {
		w.m.Release()
	}
	*h = nil
}
