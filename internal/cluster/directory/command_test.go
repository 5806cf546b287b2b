package directory

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

func claim() command {
	return command{
		op:          opClaimUser,
		node:        "n1",
		incarnation: 2,
		tenant:      "acme",
		id:          "kim",
		from:        engine.Location{Node: "n2", Session: "s2", Epoch: 4},
		to:          engine.Location{Node: "n1", Session: "s1", Epoch: 5},
		limit:       -1,
		other:       "n3",
		number:      7,
		state:       engine.Draining,
		process:     1 << 60,
		address:     "10.0.0.1:7105",
		versionFor:  "v1",
	}
}

func TestACommandSurvivesItsEncoding(t *testing.T) {
	c := claim()
	b := c.append(nil)
	if got, err := parseCommand(b); err != nil || got != c {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range b {
		if _, err := parseCommand(b[:n]); err == nil {
			t.Fatalf("the first %d bytes are a command", n)
		}
	}
	r := result{code: codeTaken, location: c.to}
	if got, err := parseResult(r.append(nil)); err != nil || got != r {
		t.Fatalf("%+v, %v", got, err)
	}
}

// joined is a machine with a node.
func joined(t testing.TB, m *Machine, node string, process uint64) uint64 {
	t.Helper()
	c := command{op: opJoin, node: node, process: process}
	r, err := parseResult(m.Apply(c.append(nil)))
	if err != nil || r.code != codeOK {
		t.Fatalf("%+v, %v", r, err)
	}
	return r.location.Epoch
}

func do(t testing.TB, m *Machine, c command) result {
	t.Helper()
	r, err := parseResult(m.Apply(c.append(nil)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestANameBelongsToOneProcess(t *testing.T) {
	m := NewMachine()
	first := joined(t, m, "n1", 1)
	if again := joined(t, m, "n1", 1); again != first {
		t.Errorf("the same process joined twice: %d and %d", first, again)
	}
	if r := do(t, m, command{op: opJoin, node: "n1", process: 2}); r.code != codeName {
		t.Errorf("another process got the name: %+v", r)
	}
	m.Apply(Dead("n1", first))
	if next := joined(t, m, "n1", 2); next <= first {
		t.Errorf("incarnation %d after %d", next, first)
	}
	m.Apply(Dead("n1", first)) // late
	if n, _ := m.Member("n1"); n.State != engine.Up {
		t.Errorf("a late command ended %+v", n)
	}
}

func TestADeadNodeDecidesNothing(t *testing.T) {
	m := NewMachine()
	first := joined(t, m, "n1", 1)
	c := command{
		op: opClaimUser, node: "n1", incarnation: first, tenant: "t", id: "kim", limit: 1,
		to: engine.Location{Node: "n1", Session: "s"},
	}
	if r := do(t, m, c); r.code != codeOK {
		t.Fatalf("%+v", r)
	}
	m.Apply(Dead("n1", first))
	if r := do(t, m, c); r.code != codeStale {
		t.Errorf("dead: %+v", r)
	}
	joined(t, m, "n1", 1)
	if r := do(t, m, c); r.code != codeStale {
		t.Errorf("with its former incarnation: %+v", r)
	}
}

func TestAMachineSurvivesItsSnapshot(t *testing.T) {
	m := NewMachine()
	m.Apply(Found(5))
	joined(t, m, "n1", 1)
	joined(t, m, "n2", 2)
	do(t, m, command{
		op: opClaimRoom, node: "n2", incarnation: 1, tenant: "t", id: "room",
		to: engine.Location{Node: "n2"},
	})
	b, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	other := NewMachine()
	joined(t, other, "gone", 9)
	var told []engine.Node
	t.Cleanup(other.Watch(func(n engine.Node) { told = append(told, n) }))
	told = nil
	if err := other.Restore(b); err != nil {
		t.Fatal(err)
	}
	want := []engine.Node{
		{Name: "n1", Incarnation: 1, State: engine.Up},
		{Name: "n2", Incarnation: 1, State: engine.Up},
		{Name: "gone", Incarnation: 1, State: engine.Dead},
	}
	if !reflect.DeepEqual(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	again, err := other.Snapshot()
	if err != nil || !bytes.Equal(again, b) || other.Cluster() != 5 {
		t.Errorf("%x, %v, want %x", again, err, b)
	}
	if other.Counts() != (Counts{Rooms: 1}) {
		t.Errorf("%+v", other.Counts())
	}
}

func TestWhatIsNotUnderstoodChangesNothing(t *testing.T) {
	m := NewMachine()
	joined(t, m, "n1", 1)
	before, _ := m.Snapshot()
	for _, b := range [][]byte{nil, {1}, {2, 1}, []byte(strings.Repeat("\xff", 40))} {
		if r, err := parseResult(m.Apply(b)); err != nil || r.code != codeUnknown {
			t.Errorf("%x: %+v, %v", b, r, err)
		}
	}
	if r := do(t, m, command{op: 200, node: "n1", incarnation: 1}); r.code != codeUnknown {
		t.Errorf("%+v", r)
	}
	if after, _ := m.Snapshot(); !bytes.Equal(before, after) {
		t.Error("the state has changed")
	}
}

func FuzzApply(f *testing.F) {
	c := claim()
	f.Add(c.append(nil))
	c.op = opJoin
	f.Add(c.append(nil))
	f.Add(Dead("n1", 1))
	f.Add(Skip(9))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, other := NewMachine(), NewMachine()
		joined(t, a, "n1", 1)
		joined(t, other, "n1", 1)
		if !bytes.Equal(a.Apply(b), other.Apply(b)) {
			t.Fatal("two results")
		}
		one, err1 := a.Snapshot()
		two, err2 := other.Snapshot()
		if err1 != nil || err2 != nil || !bytes.Equal(one, two) {
			t.Fatal("two states")
		}
		if err := other.Restore(one); err != nil {
			t.Fatal(err)
		}
		if c, err := parseCommand(b); err == nil && !bytes.Equal(c.append(nil), b) {
			if d, err := parseCommand(c.append(nil)); err != nil || d != c {
				t.Fatalf("%+v became %+v, %v", c, d, err)
			}
		}
	})
}

func FuzzRestore(f *testing.F) {
	m := NewMachine()
	m.Apply(Found(5))
	joined(f, m, "n1", 1)
	b, _ := m.Snapshot()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := NewMachine()
		if m.Restore(b) != nil {
			return
		}
		again, err := m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		if err := NewMachine().Restore(again); err != nil {
			t.Fatalf("its own snapshot: %v", err)
		}
	})
}
