package signaling

import (
	"slices"
	"time"

	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/transport"
)

const (
	// batchInterval is how often a client that understands lists of joins and leaves is told of
	// them. The first is told at once.
	batchInterval = 50 * time.Millisecond
	// maxBatchBytes bounds a list in bytes: beyond it goes early.
	maxBatchBytes = 32 << 10
)

// presenceBatch holds back joins and leaves, so that members who come and go cost the others a
// bounded number of messages. Whatever else is for the client lets them go first: it sees one
// order. The session's mu guards it.
type presenceBatch struct {
	lastSent time.Time // when the client was last told
	timer    *time.Timer
	list     []byte // events that wait, with commas between
	count    int
	lastSeq  uint64 // Seq of the last of them
}

func (s *session) acceptsBatches() bool {
	return slices.Contains(s.features, string(protocol.FeatureRoster))
}

// enqueuePresence is send for a join or leave, at the client's pace. What a disconnected
// client misses is in the state that it gets.
func (s *session) enqueuePresence(m *transport.Message, e room.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client.Load() == nil || s.roster == nil || s.roster.key != e.Key {
		m.Release()
		return
	}
	if s.batch == nil {
		s.batch = new(presenceBatch)
	}
	p := s.batch
	now := time.Now()
	if p.count == 0 && now.Sub(p.lastSent) >= batchInterval {
		p.lastSent = now
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
	p.lastSeq = e.Seq
	m.Release()
	if p.timer == nil {
		p.timer = time.AfterFunc(p.lastSent.Add(batchInterval).Sub(now), s.onFlushTimer)
	}
	if len(p.list) > maxBatchBytes {
		s.sendBatch(e.Key.Room)
	}
}

func (s *session) onFlushTimer() {
	if s.hub.enter() {
		defer s.hub.leave()
		s.flushPresence()
	}
}

// flushPresence tells the client what waits.
func (s *session) flushPresence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushPresenceLocked()
}

// flushPresenceLocked is flushPresence with mu held.
func (s *session) flushPresenceLocked() {
	if s.batch != nil && s.batch.count > 0 && s.roster != nil {
		s.sendBatch(s.roster.key.Room)
	}
}

// sendBatch sends what waits: one event as it is, several as a list with the number of the last. mu
// is held.
func (s *session) sendBatch(id string) {
	p := s.batch
	m := transport.NewMessage()
	if p.count == 1 {
		m.B = append(m.B, p.list...)
	} else {
		m.B = protocol.AppendRoster(m.B, id, p.lastSeq, p.list)
	}
	last := p.lastSeq
	s.resetBatch()
	p.lastSent = time.Now()
	if s.sendNow(m) {
		s.seen.Store(last)
	}
}

// resetBatch drops what waits. mu is held.
func (s *session) resetBatch() {
	p := s.batch
	if p == nil {
		return
	}
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.list, p.count = nil, 0
}
