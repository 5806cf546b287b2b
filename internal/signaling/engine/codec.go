package engine

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"
)

// tableVersion begins an encoded table.
const tableVersion = 1

// errTable is the error of ParseTable.
var errTable = errors.New("malformed table of users and rooms")

// JoinAfter is Join with an incarnation higher than after, the last one that the node itself knows
// of.
func (t *Table) JoinAfter(node string, after uint64) Node {
	n := t.nodes[node]
	n.Incarnation = max(n.Incarnation, after)
	t.nodes[node] = n
	return t.Join(node)
}

// Skip raises the numbers that are given next by n: some that were given may be unknown to this
// table.
func (t *Table) Skip(n uint64) {
	t.epoch += n
	t.term += n
	for name, node := range t.nodes {
		node.Incarnation += n
		t.nodes[name] = node
	}
}

// AppendBinary appends the table to b. Equal tables give equal bytes.
func (t *Table) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, tableVersion)
	for _, n := range []uint64{t.epoch, t.ended, t.term} {
		b = binary.AppendUvarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(t.nodes)))
	for _, name := range slices.Sorted(maps.Keys(t.nodes)) {
		n := t.nodes[name]
		b = appendString(b, n.Name)
		b = binary.AppendUvarint(b, n.Incarnation)
		b = append(b, byte(n.State))
	}
	b = binary.AppendUvarint(b, uint64(len(t.users)))
	for _, k := range slices.SortedFunc(maps.Keys(t.users), compareKeys) {
		e := t.users[k]
		for _, s := range []string{k.Tenant, k.ID, e.Node, e.Session} {
			b = appendString(b, s)
		}
		b = binary.AppendUvarint(b, e.Epoch)
		b = binary.AppendUvarint(b, e.incarnation)
	}
	b = binary.AppendUvarint(b, uint64(len(t.rooms)))
	for _, k := range slices.SortedFunc(maps.Keys(t.rooms), compareKeys) {
		e := t.rooms[k]
		for _, s := range []string{k.Tenant, k.ID, e.Node} {
			b = appendString(b, s)
		}
		b = binary.AppendUvarint(b, e.Term)
		b = binary.AppendUvarint(b, e.incarnation)
	}
	return b, nil
}

func compareKeys(a, b Key) int {
	if c := strings.Compare(a.Tenant, b.Tenant); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// ParseTable returns the table that AppendBinary encoded.
func ParseTable(b []byte) (*Table, error) {
	if len(b) == 0 || b[0] != tableVersion {
		return nil, errTable
	}
	r := reader{b: b[1:]}
	t := NewTable()
	t.epoch, t.ended, t.term = r.uint(), r.uint(), r.uint()
	for range r.count() {
		n := Node{Name: r.string(), Incarnation: r.uint(), State: NodeState(r.byte())}
		r.bad = r.bad || !n.State.known()
		t.nodes[n.Name] = n
	}
	for range r.count() {
		k := Key{r.string(), r.string()}
		e := userEntry{Location: Location{Node: r.string(), Session: r.string(), Epoch: r.uint()}}
		e.incarnation = r.uint()
		if _, twice := t.users[k]; !twice {
			t.taken[k.Tenant]++
		}
		t.users[k] = e
	}
	for range r.count() {
		k := Key{r.string(), r.string()}
		e := roomEntry{Owner: Owner{Node: r.string(), Term: r.uint()}}
		e.incarnation = r.uint()
		t.rooms[k] = e
	}
	if r.bad || len(r.b) > 0 {
		return nil, errTable
	}
	return t, nil
}

// reader reads what AppendBinary wrote. After an error it reads zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() {
	r.bad, r.b = true, nil
}

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) string() string {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// count is the number of entries that follow, each of which has at least three bytes.
func (r *reader) count() int {
	n := r.uint()
	if n > uint64(len(r.b))/3 {
		r.fail()
		return 0
	}
	return int(n)
}

// Counts returns the number of user ids that are taken, of rooms that have an owner, and of tenants
// that have any user.
func (t *Table) Counts() (users, rooms, tenants int) {
	return len(t.users), len(t.rooms), len(t.taken)
}
