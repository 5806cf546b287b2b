package directory

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// Machine is the state that every node has: the same commands in the same order make the same
// state. It uses no clock, and nothing of the node that it runs on.
type Machine struct {
	// announcing is held while watchers are called, and before mu.
	announcing sync.Mutex
	watchers   map[int]func(engine.Node) // Guarded by announcing.
	watched    int                       // Guarded by announcing: those that there have been.

	mu      sync.Mutex
	table   *engine.Table     // Guarded by mu.
	members map[string]Member // Guarded by mu, by name.
	cluster uint64            // Guarded by mu; 0: none yet.
}

// Member is what a node told when it joined.
type Member struct {
	Process uint64 // differs for each process
	Address string
	Version string // of the program
}

// NewMachine makes an empty one.
func NewMachine() *Machine {
	return &Machine{
		watchers: map[int]func(engine.Node){},
		table:    engine.NewTable(),
		members:  map[string]Member{},
	}
}

// Apply carries out a command that was decided, and returns its result. Calls are in the order of
// the commands.
func (m *Machine) Apply(b []byte) []byte {
	c, err := parseCommand(b)
	r := result{code: codeUnknown}
	if err == nil {
		m.announcing.Lock()
		defer m.announcing.Unlock()
		var changed engine.Node
		r, changed = m.apply(&c)
		if changed.Name != "" {
			m.announce(changed)
		}
	}
	return r.append(nil)
}

// announce is called with announcing held.
func (m *Machine) announce(n engine.Node) {
	for _, f := range m.watchers {
		f(n)
	}
}

// apply returns the node that changed, if any.
func (m *Machine) apply(c *command) (r result, changed engine.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.table
	switch c.op {
	case opJoin:
		return m.join(c)
	case opDead:
		changed, ok := t.SetState(c.other, c.number, engine.Dead)
		if !ok {
			changed = engine.Node{}
		}
		return result{}, changed
	case opFound:
		if m.cluster == 0 {
			m.cluster = c.number
			t.Skip(c.process)
		}
		return result{}, engine.Node{}
	case opSkip:
		t.Skip(c.number)
		return result{}, engine.Node{}
	}
	n := t.Node(c.node)
	if n.Incarnation != c.incarnation || n.State == engine.Dead || n.State == 0 {
		return result{code: codeStale}, engine.Node{}
	}
	var owner engine.Owner
	var err error
	switch c.op {
	case opClaimUser:
		r.location, err = t.ClaimUser(c.tenant, c.id, c.to, int(c.limit))
	case opTakeUser:
		r.location, err = t.TakeUser(c.tenant, c.id, c.from, c.to)
	case opHolder:
		r.location = t.Holder(c.tenant, c.id)
	case opReleaseUser:
		t.ReleaseUser(c.tenant, c.id, c.to)
	case opClaimRoom:
		owner, err = t.ClaimRoom(c.tenant, c.id, ownerOf(c.to))
	case opTakeRoom:
		owner, err = t.TakeRoom(c.tenant, c.id, ownerOf(c.from), c.to.Node)
	case opRoomOwner:
		owner = t.RoomOwner(c.tenant, c.id)
	case opReleaseRoom:
		t.ReleaseRoom(c.tenant, c.id, ownerOf(c.to))
	case opReleaseNode:
		t.ReleaseNode(c.other, c.number)
	case opAnnounce:
		if n, ok := t.SetState(c.node, c.incarnation, c.state); ok {
			changed = n
		}
	default:
		return result{code: codeUnknown}, engine.Node{}
	}
	if owner != (engine.Owner{}) {
		r.location = engine.Location{Node: owner.Node, Epoch: owner.Term}
	}
	r.code = codeOf(err)
	return r, changed
}

func ownerOf(l engine.Location) engine.Owner { return engine.Owner{Node: l.Node, Term: l.Epoch} }

// join is called with mu held. The same process may ask again.
func (m *Machine) join(c *command) (r result, changed engine.Node) {
	n := m.table.Node(c.node)
	alive := n.State == engine.Up || n.State == engine.Draining
	switch {
	case alive && m.members[c.node].Process != c.process:
		return result{code: codeName}, engine.Node{}
	case !alive || n.Incarnation < c.number:
		n = m.table.JoinAfter(c.node, c.number)
		m.members[c.node] = Member{Process: c.process, Address: c.address, Version: c.versionFor}
		changed = n
	}
	return result{location: engine.Location{Node: n.Name, Epoch: n.Incarnation}}, changed
}

// Watch implements engine.Directory.
func (m *Machine) Watch(f func(engine.Node)) (stop func()) {
	m.announcing.Lock()
	defer m.announcing.Unlock()
	m.watched++
	id := m.watched
	m.watchers[id] = f
	for _, n := range m.Nodes() {
		f(n)
	}
	return func() {
		m.announcing.Lock()
		defer m.announcing.Unlock()
		delete(m.watchers, id)
	}
}

// Nodes are all nodes that are known, by name.
func (m *Machine) Nodes() []engine.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.table.Nodes()
	slices.SortFunc(all, func(a, b engine.Node) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Member returns what a node told when it joined.
func (m *Machine) Member(name string) (engine.Node, Member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.table.Node(name), m.members[name]
}

// Cluster is the number of the cluster that the state is of; 0: none yet.
func (m *Machine) Cluster() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cluster
}

// Counts are the sizes of the state.
type Counts struct{ Users, Rooms, Tenants int }

// Counts returns how much is held.
func (m *Machine) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	users, rooms, tenants := m.table.Counts()
	return Counts{Users: users, Rooms: rooms, Tenants: tenants}
}

// snapshotVersion begins a snapshot.
const snapshotVersion = 1

var errSnapshot = errors.New("malformed snapshot of the directory")

// Snapshot encodes the state.
func (m *Machine) Snapshot() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := []byte{snapshotVersion}
	b = binary.AppendUvarint(b, m.cluster)
	b = binary.AppendUvarint(b, uint64(len(m.members)))
	for _, name := range slices.Sorted(maps.Keys(m.members)) {
		member := m.members[name]
		b = appendString(b, name)
		b = binary.AppendUvarint(b, member.Process)
		b = appendString(appendString(b, member.Address), member.Version)
	}
	return m.table.AppendBinary(b)
}

// Restore replaces the state by that of a snapshot. Watchers are told of the nodes that differ.
// With an empty snapshot the state is as at the beginning, and all nodes are dead.
func (m *Machine) Restore(b []byte) error {
	table, members, cluster, err := parseSnapshot(b)
	if err != nil {
		return err
	}
	m.announcing.Lock()
	defer m.announcing.Unlock()
	before := m.Nodes()
	m.mu.Lock()
	m.table, m.members, m.cluster = table, members, cluster
	m.mu.Unlock()
	after := map[string]bool{}
	for _, n := range m.Nodes() {
		after[n.Name] = true
		if !slices.Contains(before, n) {
			m.announce(n)
		}
	}
	for _, n := range before {
		if !after[n.Name] && n.State != engine.Dead {
			n.State = engine.Dead
			m.announce(n)
		}
	}
	return nil
}

func parseSnapshot(
	b []byte,
) (table *engine.Table, members map[string]Member, cluster uint64, err error) {
	members = map[string]Member{}
	if len(b) == 0 {
		return engine.NewTable(), members, 0, nil
	}
	if b[0] != snapshotVersion {
		return nil, nil, 0, errSnapshot
	}
	r := reader{b: b[1:]}
	cluster = r.uint()
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		n = 0
	}
	for range n {
		name := r.string()
		members[name] = Member{Process: r.uint(), Address: r.string(), Version: r.string()}
	}
	if r.bad {
		return nil, nil, 0, errSnapshot
	}
	table, err = engine.ParseTable(r.b)
	return table, members, cluster, err
}
