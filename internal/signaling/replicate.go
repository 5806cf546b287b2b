package signaling

import (
	"encoding/binary"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ieum-rtc/ieum/internal/room"
)

// A node sends a replica of each of its sessions and rooms to one other node, its successor, which
// goes on with them when this one dies (adopt.go). What changes is sent at once. Everything is sent
// again, in a round, when the successor is another node, when one of the two joins again, and when
// something was lost on the way.

const (
	// maxReplicaBatch bounds a message in bytes; one record may be larger.
	maxReplicaBatch = 256 << 10
	// replicaRate bounds the records that are encoded, in bytes a second, replicaBurst those
	// between two pauses: large rooms change often.
	replicaRate  = 10 << 20
	replicaBurst = 10 << 10
	// roundInterval is the least time between the beginnings of two rounds to one node.
	roundInterval = time.Second
	// seqStep is how far the number of a room's last event may run ahead of its replica while
	// nothing else changes.
	seqStep = 1 << 19
)

// replication is what this node sends to its successor.
type replication struct {
	on   atomic.Bool   // there is a successor
	wake chan struct{} // for one

	mu      sync.Mutex
	to      string              // Guarded by mu: the successor; "": there is none.
	anew    bool                // Guarded by mu: everything must be sent.
	changed map[string]struct{} // Guarded by mu: keys of records.

	replicaRound // Owned by the goroutine of sendReplicas.
}

// replicaRound is how far the successor is up to date.
type replicaRound struct {
	number   uint64
	messages uint64 // of the round, so far
	to       string
	began    time.Time
	rest     []string          // keys of records that are to be sent
	open     bool              // the round is not complete
	sent     map[string]uint64 // hashes of what was sent, by key
	former   []string          // nodes that have replicas until the round is complete
	debt     int               // bytes encoded since the last pause
}

// replicateSession has the record of a session sent to the successor. A server that stands alone
// makes no key.
func (h *Hub) replicateSession(s *session) {
	if h.replication.on.Load() {
		h.replication.add(sessionPrefix + s.id)
	}
}

// replicateRoom is replicateSession for a room.
func (h *Hub) replicateRoom(key room.Key) {
	if h.replication.on.Load() {
		h.replication.add(recordOf(key))
	}
}

// add has the record with this key sent.
func (r *replication) add(key string) {
	r.mu.Lock()
	if r.changed == nil {
		r.changed = map[string]struct{}{}
	}
	r.changed[key] = struct{}{}
	r.mu.Unlock()
	r.awake()
}

func (r *replication) awake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// chooseSuccessor is called when the state of a node has changed. Anew: all must be sent again,
// also to the same node.
func (h *Hub) chooseSuccessor(anew bool) {
	to := h.nodes.successor(h.cfg.Node)
	r := &h.replication
	r.mu.Lock()
	defer r.mu.Unlock()
	if to == r.to && !anew {
		return
	}
	r.to, r.anew = to, true
	r.on.Store(to != "")
	r.awake()
}

// replicateAnew sends everything again to a node that may have missed some of it.
func (h *Hub) replicateAnew(to string) {
	r := &h.replication
	r.mu.Lock()
	defer r.mu.Unlock()
	if to == r.to {
		r.anew = true
		r.awake()
	}
}

// sendReplicas runs until the hub closes.
func (h *Hub) sendReplicas() {
	r := &h.replication
	var again <-chan time.Time
	for {
		select {
		case <-h.quit:
			return
		case <-r.wake:
		case <-again:
		}
		again = h.sendBatch()
		if r.debt < replicaBurst {
			continue
		}
		select {
		case <-h.quit:
			return
		case <-time.After(time.Duration(r.debt) * time.Second / replicaRate):
			r.debt = 0
		}
	}
}

// sendBatch sends what has changed, and goes on with the round. Again: when a round must begin.
func (h *Hub) sendBatch() (again <-chan time.Time) {
	r := &h.replication
	r.mu.Lock()
	to, changed := r.to, r.changed
	r.changed = nil
	wait := time.Until(r.began.Add(roundInterval))
	if to != r.replicaRound.to {
		wait = 0
	}
	if r.anew && wait > 0 {
		again = time.After(wait)
	}
	begin := r.anew && wait <= 0
	r.anew = r.anew && !begin
	r.mu.Unlock()
	if begin {
		h.beginRound(to)
	}
	if to == "" {
		return nil
	}
	r.rest = append(slices.Collect(maps.Keys(changed)), r.rest...)
	message := h.replicaHeader()
	for len(r.rest) > 0 && len(message) < maxReplicaBatch {
		message = h.appendReplica(message, r.rest[0])
		r.rest = r.rest[1:]
	}
	if len(message) > replicaHeaderSize {
		r.messages++
		h.sendReplicaMessage(to, message)
	}
	if len(r.rest) > 0 {
		r.awake()
	} else {
		h.completeRound()
	}
	return again
}

// completeRound is called when all records of a round have been sent.
func (h *Hub) completeRound() {
	r := &h.replication.replicaRound
	r.rest = nil
	if !r.open {
		return
	}
	r.open = false
	h.sendReplicaMessage(r.to, h.completion(r.messages))
	r.number++ // what follows belongs to no round
	for _, node := range r.former {
		h.sendReplicaMessage(node, h.completion(0))
	}
	r.former = nil
}

// beginRound has all that there is sent to a node.
func (h *Hub) beginRound(to string) {
	r := &h.replication.replicaRound
	if r.to != "" && r.to != to {
		r.former = append(r.former, r.to)
	}
	r.former = slices.DeleteFunc(r.former, func(node string) bool { return node == to })
	r.number++
	r.messages = 0
	r.to, r.began, r.open = to, time.Now(), to != ""
	r.sent, r.rest = map[string]uint64{}, nil
	if to == "" {
		return
	}
	for _, s := range h.all() {
		r.rest = append(r.rest, sessionPrefix+s.id)
	}
	for _, key := range h.owners.keys() {
		r.rest = append(r.rest, recordOf(key))
	}
}

func (h *Hub) sendReplicaMessage(to string, message []byte) {
	// An error is a loss, or the node is dead: it asks for all, or there is another successor.
	_ = h.cfg.Bus.Send(to, message)
}

// replicaHeaderSize is the length of what replicaHeader makes.
const replicaHeaderSize = 2 + 8 + 8 + 1

// replicaHeader begins a message with replicas. After the header come keys and records; a record
// that is empty has ended.
func (h *Hub) replicaHeader() []byte {
	b := make([]byte, 0, 1024)
	b = append(b, busVersion, kindReplicas)
	b = binary.BigEndian.AppendUint64(b, h.nodes.incarnation(h.cfg.Node))
	b = binary.BigEndian.AppendUint64(b, h.replication.number)
	return append(b, 0)
}

// completion is a message that ends a round of as many others: what was sent before that round and
// not in it has ended too.
func (h *Hub) completion(messages uint64) []byte {
	b := h.replicaHeader()
	b[len(b)-1] = 1
	return binary.BigEndian.AppendUint64(b, messages)
}

// appendReplica appends a record, unless the receiver has the same.
func (h *Hub) appendReplica(b []byte, key string) []byte {
	r := &h.replication.replicaRound
	compared, record := h.replicaOf(key)
	r.debt += len(compared)
	before, known := r.sent[key]
	if compared == nil {
		if !known {
			return b
		}
		delete(r.sent, key)
		return appendFields(b, key, "")
	}
	hash := maphash.Bytes(h.seed, compared)
	if known && hash == before {
		return b
	}
	r.sent[key] = hash
	return appendFields(b, key, string(record()))
}

// replicaOf encodes a session or room without the numbers that grow with every event of a room, to
// be compared; nil: it has ended. record encodes all of it.
func (h *Hub) replicaOf(key string) (compared []byte, record func() []byte) {
	if id, ok := strings.CutPrefix(key, sessionPrefix); ok {
		s := h.session(id)
		if s == nil {
			return nil, nil
		}
		m := s.moved()
		seen := m.Seen
		m.Seen = 0
		compared = encode(m)
		m.Seen = seen
		return compared, func() []byte { return encode(m) }
	}
	snap, ok := h.rooms.Snapshot(roomOfRecord(key))
	if !ok {
		return nil, nil
	}
	seq := snap.State.Seq
	snap.State.Seq = seq - seq%seqStep
	compared = encode(snap)
	snap.State.Seq = seq
	return compared, func() []byte { return encode(snap) }
}

// recordOf is the key of a room's record.
func recordOf(key room.Key) string { return roomPrefix + key.Tenant + "\x00" + key.Room }

// roomOfRecord is the room whose record has this key.
func roomOfRecord(record string) room.Key {
	tenant, id, _ := strings.Cut(strings.TrimPrefix(record, roomPrefix), "\x00")
	return room.Key{Tenant: tenant, Room: id}
}
