package signaling

import (
	"slices"
	"time"

	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/transport"
)

const (
	// batchInterval is the least time between two lists of joins and leaves to a client that
	// accepts lists. The first event is sent at once.
	batchInterval = 50 * time.Millisecond
	// maxBatchBytes bounds a list in bytes: beyond it goes early.
	maxBatchBytes = 32 << 10
)

// presenceBatch holds back joins and leaves, so that members coming and going cost the others a
// bounded number of messages. Any other message for the client flushes it first, which preserves
// the order of events. Guarded by the session's mu.
type presenceBatch struct {
	lastSent time.Time // when the last list was sent
	timer    *time.Timer
	list     []byte // events that wait, with commas between
	count    int
	lastSeq  uint64 // Seq of the last of them
}

func (s *session) acceptsBatches() bool {
	return slices.Contains(s.features, string(protocol.FeatureRoster))
}

// enqueuePresence is send for a join or leave, at the client's pace. A disconnected client needs
// none of them: on resume it gets the state of the room.
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
			s.saw(e.Seq)
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

// flushPresence sends the presence events that wait.
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
		s.saw(last)
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
