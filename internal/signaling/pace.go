package signaling

import (
	"slices"
	"time"

	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/transport"
)

const (
	// rosterEvery is how often a client that understands lists of joins and leaves is told of them. The first is told at once.
	rosterEvery = 50 * time.Millisecond
	// maxRoster bounds a list in bytes: beyond it goes early.
	maxRoster = 32 << 10
)

// pace holds back joins and leaves, so that members who come and go cost the others a bounded number of messages. Whatever else is for
// the client lets them go first: it sees one order. The session's mu guards it.
type pace struct {
	told  time.Time // when the client was last told
	wait  *time.Timer
	list  []byte // events that wait, with commas between
	count int
	last  uint64 // Seq of the last of them
}

func (s *session) takesLists() bool {
	return slices.Contains(s.features, string(protocol.FeatureRoster))
}

// tell is send for a join or leave, at the client's pace. What a client that is away misses stands in the state that it gets.
func (s *session) tell(m *transport.Message, e room.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client.Load() == nil {
		m.Release()
		return
	}
	if s.pace == nil {
		s.pace = new(pace)
	}
	p := s.pace
	now := time.Now()
	if p.count == 0 && now.Sub(p.told) >= rosterEvery {
		p.told = now
		if s.sendNow(m) {
			s.seen.Store(e.Seq)
		}
		return
	}
	if p.count > 0 {
		p.list = append(p.list, ',')
	}
	p.list = append(p.list, m.B...)
	p.count++
	p.last = e.Seq
	m.Release()
	if p.wait == nil {
		p.wait = time.AfterFunc(p.told.Add(rosterEvery).Sub(now), s.timeToTell)
	}
	if len(p.list) > maxRoster {
		s.tellAll(e.Key.Room)
	}
}

func (s *session) timeToTell() {
	if s.hub.enter() {
		defer s.hub.leave()
		s.catchUp()
	}
}

// catchUp tells the client what waits.
func (s *session) catchUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush()
}

// flush is catchUp with mu held.
func (s *session) flush() {
	if s.pace != nil && s.pace.count > 0 && s.roster != nil {
		s.tellAll(s.roster.key.Room)
	}
}

// tellAll sends what waits: one event as it is, several as a list with the number of the last. mu is held.
func (s *session) tellAll(id string) {
	p := s.pace
	m := transport.NewMessage()
	if p.count == 1 {
		m.B = append(m.B, p.list...)
	} else {
		m.B = protocol.AppendRoster(m.B, id, p.last, p.list)
	}
	last := p.last
	s.forgetPace()
	p.told = time.Now()
	if s.sendNow(m) {
		s.seen.Store(last)
	}
}

// forgetPace drops what waits. mu is held.
func (s *session) forgetPace() {
	p := s.pace
	if p == nil {
		return
	}
	if p.wait != nil {
		p.wait.Stop()
		p.wait = nil
	}
	p.list, p.count = nil, 0
}
