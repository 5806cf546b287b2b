package signaling

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// maxReplicaBytes bounds the replicas of one node.
const maxReplicaBytes = 1 << 30

// nodeLife is a node from when it joins until it counts as dead.
type nodeLife struct {
	node        string
	incarnation uint64
}

// replicas are those that other nodes have sent to this one. They are opened only when their node
// is dead, and believed no more than the directory bears out. The zero value is ready.
type replicas struct {
	mu   sync.Mutex
	sets map[nodeLife]*replicaSet // Guarded by mu.
}

type replicaSet struct {
	records  map[string]replica
	bytes    int
	round    uint64 // the latest
	messages uint64 // of that round
}

type replica struct {
	record string
	round  uint64
}

// replicasMessage is what replicaHeader begins.
type replicasMessage struct {
	incarnation, round uint64
	complete           bool
	messages           uint64   // of the round that is complete
	records            []string // keys, each followed by its record
}

func (m *replicasMessage) decode(b []byte) error {
	const header = replicaHeaderSize - 2
	if len(b) < header {
		return errBusMessage
	}
	m.incarnation = binary.BigEndian.Uint64(b)
	m.round = binary.BigEndian.Uint64(b[8:])
	if m.complete = b[16] == 1; m.complete {
		if len(b) != header+8 {
			return errBusMessage
		}
		m.messages = binary.BigEndian.Uint64(b[header:])
		return nil
	}
	for b = b[header:]; len(b) > 0; {
		var key, record string
		var err error
		if b, err = cutFields(b, &key, &record); err != nil {
			return err
		}
		if !strings.HasPrefix(key, sessionPrefix) && !strings.HasPrefix(key, roomPrefix) {
			return errBusMessage
		}
		m.records = append(m.records, key, record)
	}
	return nil
}

// replicasFromBus keeps what another node has sent, unless it comes from an earlier life.
func (h *Hub) replicasFromBus(from string, body []byte) error {
	var m replicasMessage
	if err := m.decode(body); err != nil {
		return err
	}
	known := h.nodes.node(from)
	if m.incarnation < known.Incarnation ||
		(m.incarnation == known.Incarnation && known.State == engine.Dead) {
		return nil
	}
	h.replicas.put(nodeLife{from, m.incarnation}, m)
	return nil
}

func (r *replicas) put(life nodeLife, m replicasMessage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set := r.sets[life]
	if set == nil {
		set = &replicaSet{records: map[string]replica{}}
		if r.sets == nil {
			r.sets = map[nodeLife]*replicaSet{}
		}
		r.sets[life] = set
	}
	if m.round > set.round {
		set.round, set.messages = m.round, 0
	}
	if m.complete {
		if m.messages == set.messages { // none is lost
			set.dropBefore(m.round)
		}
	} else {
		set.messages++
	}
	for pair := range slices.Chunk(m.records, 2) {
		set.put(pair[0], replica{pair[1], m.round})
	}
	if len(set.records) == 0 && m.complete {
		delete(r.sets, life)
	}
}

// dropBefore drops what a round has not brought.
func (set *replicaSet) dropBefore(round uint64) {
	for key, has := range set.records {
		if has.round < round {
			set.put(key, replica{})
		}
	}
}

// put keeps a record in the place of the one before; an empty one has ended.
func (set *replicaSet) put(key string, now replica) {
	set.bytes -= len(key) + len(set.records[key].record)
	delete(set.records, key)
	size := len(key) + len(now.record)
	if now.record == "" || set.bytes+size > maxReplicaBytes {
		return
	}
	set.bytes += size
	set.records[key] = now
}

// forget drops the replicas of a node up to an incarnation; node "": of all nodes.
func (r *replicas) forget(node string, upTo uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for life := range r.sets {
		if node == "" || (life.node == node && life.incarnation <= upTo) {
			delete(r.sets, life)
		}
	}
}

// sessions are the ids of those that a node had.
func (r *replicas) sessions(life nodeLife) (ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if set := r.sets[life]; set != nil {
		for key := range set.records {
			if id, ok := strings.CutPrefix(key, sessionPrefix); ok {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// rooms are those that a node had in any of its lives.
func (r *replicas) rooms(node string) (all []room.Snapshot) {
	r.mu.Lock()
	var records []string
	for life, set := range r.sets {
		for key, has := range set.records {
			if life.node == node && strings.HasPrefix(key, roomPrefix) {
				records = append(records, key, has.record)
			}
		}
	}
	r.mu.Unlock()
	for pair := range slices.Chunk(records, 2) {
		var snap room.Snapshot
		err := json.Unmarshal([]byte(pair[1]), &snap)
		if err == nil && snap.State.Key == roomOfRecord(pair[0]) {
			all = append(all, snap)
		}
	}
	return all
}

// session returns the replica of a session that a node had, or nil.
func (r *replicas) session(life nodeLife, id string) *movedSession {
	r.mu.Lock()
	record := ""
	if set := r.sets[life]; set != nil {
		record = set.records[sessionPrefix+id].record
	}
	r.mu.Unlock()
	if record == "" {
		return nil
	}
	var m movedSession
	err := json.Unmarshal([]byte(record), &m)
	at := m.Record.Location
	if err != nil || at.Node != life.node || at.Session != id || m.Record.User == "" {
		return nil
	}
	return &m
}

// take removes the latest replica of a session, whichever node had it, and returns it, or nil: of
// several that take it one gets it.
func (r *replicas) take(id string) (latest *movedSession) {
	r.mu.Lock()
	var lives []nodeLife
	for life, set := range r.sets {
		if _, has := set.records[sessionPrefix+id]; has {
			lives = append(lives, life)
		}
	}
	r.mu.Unlock()
	var of nodeLife
	for _, life := range lives {
		m := r.session(life, id)
		if m != nil && (latest == nil || m.isLater(latest)) {
			latest, of = m, life
		}
	}
	if latest == nil || !r.remove(of, id) {
		return nil
	}
	return latest
}

// remove drops the replica of a session, and tells whether it was there.
func (r *replicas) remove(life nodeLife, id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	set := r.sets[life]
	if set == nil || set.records[sessionPrefix+id].record == "" {
		return false
	}
	set.put(sessionPrefix+id, replica{})
	return true
}

// askForReplicas has a node send everything again, if this one is its successor.
func (h *Hub) askForReplicas(node string) {
	_ = h.cfg.Bus.Send(node, []byte{busVersion, kindResend}) // if it is lost the node learns that
}
