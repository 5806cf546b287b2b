package signaling

import (
	"slices"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// pendingQueue is what waits for a disconnected session. All of it goes into the outbox at once,
// behind the answer to the resume and before what the room repeats: together they fit.
type pendingQueue []pendingMessage

type pendingMessage struct {
	m      *transport.Message
	from   string // user id
	sender senderKind
}

func (w pendingMessage) sameKind(o pendingMessage) bool { return o.sender == w.sender }

func (w pendingMessage) sameUser(o pendingMessage) bool {
	return w.sameKind(o) && o.from == w.from
}

// senderKind is how a message came to wait. Each has a place of its own: nobody outside a room can
// fill that of its members.
type senderKind uint8

const (
	fromMember  senderKind = iota // of a member to another: refused when it does not fit
	fromOutside                   // of a user of the license, in no common room
	fromRoom                      // an event for this member alone
)

// pendingLimits is how much may wait of a kind, and how much of one sender; and while the client is
// connected, the share of its outbox. A stranger may come again as another one, without end, so
// that all of them together leave most of it to members.
var pendingLimits = [...]struct {
	count, bytes, each, eachBytes int
	share                         transport.Share
}{
	fromMember:  {96, 256 << 10, 64, 128 << 10, 5},
	fromOutside: {8, 16 << 10, 4, 8 << 10, 2},
	fromRoom:    {32, 32 << 10, 32, 32 << 10, 8},
}

// add takes over one reference to m, unless it is refused.
func (h *pendingQueue) add(w pendingMessage) error {
	p := pendingLimits[w.sender]
	count, bytes := h.size(w.sameKind)
	own, ownBytes := h.size(w.sameUser)
	size := len(w.m.B)
	switch {
	case own >= p.each || ownBytes+size > p.eachBytes:
		return errPendingShare
	case count >= p.count || bytes+size > p.bytes:
		return errPendingFull
	}
	*h = append(*h, w)
	return nil
}

func (h pendingQueue) size(of func(pendingMessage) bool) (count, bytes int) {
	for _, w := range h {
		if of(w) {
			count++
			bytes += len(w.m.B)
		}
	}
	return count, bytes
}

// addEvicting drops events until another one fits, those of the same sender first.
func (h *pendingQueue) addEvicting(w pendingMessage) {
	drop := func(of func(pendingMessage) bool) bool {
		i := slices.IndexFunc(*h, of)
		if i >= 0 {
			(*h)[i].m.Release()
			*h = slices.Delete(*h, i, i+1)
		}
		return i >= 0
	}
	for h.add(w) != nil {
		if !drop(w.sameUser) && !drop(w.sameKind) {
			w.m.Release()
			return
		}
	}
}

// drop releases everything.
func (h *pendingQueue) drop() {
	for _, w := range *h {
		w.m.Release()
	}
	*h = nil
}
