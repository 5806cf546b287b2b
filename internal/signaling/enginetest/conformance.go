package enginetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// Cluster is the nodes of an engine under test. Names, Buses and Directories belong together by
// index.
type Cluster struct {
	Names       []string
	Buses       []engine.Bus
	Directories []engine.Directory

	// What a test does to the nodes, by index. Nil: it cannot be done, and tests that need it are
	// skipped.
	Lose    func(from, to, frames int)    // loses the next frames
	Cut     func(from, to int, cut bool)  // loses everything from one to the other
	Restart func(t *testing.T, node int)  // ends a node as SIGKILL does, and starts it again
	Kill    func(node int)                // ends a node as SIGKILL does
	Isolate func(node int, isolated bool) // takes away a node's quorum
	Settle  func(t *testing.T)            // waits until all nodes that serve reach each other

	// Virtual: time is virtual, and figures can be checked.
	Virtual bool
}

// Suite is how an engine is tested.
type Suite struct {
	// Start starts that many nodes which know each other, and stops them with the test.
	Start func(t *testing.T, nodes int) *Cluster
	// In runs a test, for example in virtual time; nil: as a subtest.
	In func(t *testing.T, name string, f func(t *testing.T))
}

func (s Suite) run(t *testing.T, name string, nodes int, f func(t *testing.T, c *Cluster)) {
	t.Helper()
	in := s.In
	if in == nil {
		in = func(t *testing.T, name string, f func(t *testing.T)) { t.Helper(); t.Run(name, f) }
	}
	in(t, name, func(t *testing.T) { f(t, s.Start(t, nodes)) })
}

// ctx bounds what a test asks of an engine.
func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return c
}

// TestDirectory checks what engine.Directory promises, on a node alone and on three.
func (s Suite) TestDirectory(t *testing.T, nodes int) {
	s.run(t, "a user id has one holder, with growing epochs", nodes, oneHolder)
	s.run(t, "a claim can be repeated", nodes, repeatedClaim)
	s.run(t, "a user id passes on in one step", nodes, takeOver)
	s.run(t, "a location that comes with its epoch keeps it", nodes, ownEpoch)
	s.run(t, "a tenant has no more user ids than its license", nodes, fullLicense)
	s.run(t, "a room has one owner, with growing terms", nodes, oneOwner)
	s.run(t, "a room passes on in one step", nodes, takeRoom)
	s.run(t, "every node is told of the states of all", nodes, states)
}

// last is the last node: another one than the first, where there are several.
func (c *Cluster) last() (engine.Directory, string) {
	i := len(c.Names) - 1
	return c.Directories[i], c.Names[i]
}

func oneHolder(t *testing.T, c *Cluster) {
	d, n1 := c.Directories[0], c.Names[0]
	e, n2 := c.last()
	a, err := d.ClaimUser(ctx(t), "t", "kim", engine.Location{Node: n1, Session: "s1"}, 10)
	if err != nil || a.Node != n1 || a.Session != "s1" || a.Epoch == 0 {
		t.Fatal(a, err)
	}
	second := engine.Location{Node: n2, Session: "s2"}
	if holder, err := e.ClaimUser(ctx(t), "t", "kim", second, 10); !errors.Is(err, engine.ErrTaken) ||
		holder != a {
		t.Errorf("got %v %v, want ErrTaken with the holder", holder, err)
	}
	if holder, err := e.Holder(ctx(t), "t", "kim"); holder != a || err != nil {
		t.Errorf("holder %v %v", holder, err)
	}
	if holder, err := e.Holder(ctx(t), "t", "nobody"); holder != (engine.Location{}) || err != nil {
		t.Errorf("holder %v %v", holder, err)
	}
	if _, err := e.ClaimUser(ctx(t), "other", "kim", second, 10); err != nil {
		t.Errorf("another tenant's kim: %v", err)
	}
	if err := d.ReleaseUser(ctx(t), "t", "kim", a); err != nil {
		t.Fatal(err)
	}
	b, err := e.ClaimUser(ctx(t), "t", "kim", second, 10)
	if err != nil || b.Epoch <= a.Epoch {
		t.Fatalf("epoch %d after %d, %v", b.Epoch, a.Epoch, err)
	}
	if err := d.ReleaseUser(ctx(t), "t", "kim", a); err != nil { // too late: it is b's
		t.Fatal(err)
	}
	if holder, err := d.Holder(ctx(t), "t", "kim"); holder != b || err != nil {
		t.Errorf("a location that lost the id freed it: %v %v", holder, err)
	}
}

func repeatedClaim(t *testing.T, c *Cluster) {
	d, n1 := c.Directories[0], c.Names[0]
	a, err := d.ClaimUser(ctx(t), "t", "kim", engine.Location{Node: n1, Session: "s1"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, epoch := range []uint64{0, a.Epoch} { // with the license full
		l := engine.Location{Node: n1, Session: "s1", Epoch: epoch}
		if b, err := d.ClaimUser(ctx(t), "t", "kim", l, 1); b != a || err != nil {
			t.Errorf("epoch %d: got %v %v, want %v", epoch, b, err, a)
		}
	}
	other := engine.Location{Node: n1, Session: "s1", Epoch: a.Epoch + 1}
	if b, err := d.ClaimUser(ctx(t), "t", "kim", other, 1); b != a || !errors.Is(err, engine.ErrTaken) {
		t.Errorf("with another epoch: %v %v", b, err)
	}
	if err := d.ReleaseUser(ctx(t), "t", "kim", engine.Location{Node: n1, Session: "s1"}); err != nil {
		t.Fatal(err)
	}
	if b, err := d.Holder(ctx(t), "t", "kim"); b != (engine.Location{}) || err != nil {
		t.Errorf("released without an epoch, and held by %v %v", b, err)
	}
	if _, err := d.ClaimUser(ctx(t), "t", "kim", a, 1); !errors.Is(err, engine.ErrStale) {
		t.Errorf("an epoch that was released: %v, want ErrStale", err)
	}
}

func takeOver(t *testing.T, c *Cluster) {
	d, n1 := c.Directories[0], c.Names[0]
	a, err := d.ClaimUser(ctx(t), "t", "kim", engine.Location{Node: n1, Session: "s1"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var taken []engine.Location
	for i := range 20 {
		at := i % len(c.Names)
		wg.Go(func() {
			l := engine.Location{Node: c.Names[at], Session: fmt.Sprint(i)}
			got, err := c.Directories[at].TakeUser(ctx(t), "t", "kim", a, l)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				taken = append(taken, got)
			} else if !errors.Is(err, engine.ErrTaken) || got.Session == "" {
				t.Errorf("%v %v, want ErrTaken with the holder", got, err)
			}
		})
	}
	wg.Wait()
	if len(taken) != 1 || taken[0].Epoch <= a.Epoch {
		t.Fatalf("%v took over from %v, want one of them with a higher epoch", taken, a)
	}
	e, n2 := c.last()
	if holder, _ := e.Holder(ctx(t), "t", "kim"); holder != taken[0] {
		t.Errorf("holder %v, want %v", holder, taken[0])
	}
	next := engine.Location{Node: n2, Session: "next"}
	if _, err := e.ClaimUser(ctx(t), "t", "lee", next, 1); !errors.Is(err, engine.ErrLicenseFull) {
		t.Errorf("one of one id is taken, and another claim got %v", err)
	}
	if err := d.ReleaseUser(ctx(t), "t", "kim", taken[0]); err != nil {
		t.Fatal(err)
	}
	for user, from := range map[string]engine.Location{"kim": taken[0], "nobody": {}} {
		got, err := e.TakeUser(ctx(t), "t", user, from, next)
		if !errors.Is(err, engine.ErrTaken) || got != (engine.Location{}) {
			t.Errorf("%s from %v: %v %v", user, from, got, err)
		}
	}
	if _, err := e.ClaimUser(ctx(t), "t", "lee", next, 1); err != nil {
		t.Errorf("the id is not free again: %v", err)
	}
}

func ownEpoch(t *testing.T, c *Cluster) {
	d, n1 := c.Directories[0], c.Names[0]
	old := engine.Location{Node: n1, Session: "s1", Epoch: 40}
	if a, err := d.ClaimUser(ctx(t), "t", "kim", old, 10); err != nil || a != old {
		t.Fatal(a, err)
	}
	e, n2 := c.last()
	a, err := e.ClaimUser(ctx(t), "t", "lee", engine.Location{Node: n2, Session: "s2"}, 10)
	if err != nil || a.Epoch <= 40 {
		t.Error(a, err)
	}
	// Taken over and left since: the first holder, which comes back now, is too late.
	b, err := e.TakeUser(ctx(t), "t", "kim", old, engine.Location{Node: n2, Session: "s3"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.ReleaseUser(ctx(t), "t", "kim", b); err != nil {
		t.Fatal(err)
	}
	if l, err := d.ClaimUser(ctx(t), "t", "kim", old, 10); !errors.Is(err, engine.ErrStale) {
		t.Errorf("got %v %v, want ErrStale", l, err)
	}
}

func fullLicense(t *testing.T, c *Cluster) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	full, taken := 0, []engine.Location{}
	for i := range 50 {
		at := i % len(c.Names)
		wg.Go(func() {
			l := engine.Location{Node: c.Names[at], Session: fmt.Sprint(i)}
			got, err := c.Directories[at].ClaimUser(ctx(t), "t", l.Session, l, 20)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, engine.ErrLicenseFull):
				full++
			case err == nil:
				taken = append(taken, got)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if full != 30 || len(taken) != 20 {
		t.Fatalf("%d refused, %d taken", full, len(taken))
	}
	d, n1 := c.Directories[0], c.Names[0]
	if err := d.ReleaseUser(ctx(t), "t", taken[0].Session, taken[0]); err != nil {
		t.Fatal(err)
	}
	next := engine.Location{Node: n1, Session: "next"}
	if _, err := d.ClaimUser(ctx(t), "t", "next", next, 20); err != nil {
		t.Errorf("a freed id is not to be had: %v", err)
	}
}

func oneOwner(t *testing.T, c *Cluster) {
	d, n1 := c.Directories[0], c.Names[0]
	if o, err := d.RoomOwner(ctx(t), "t", "K1"); o != (engine.Owner{}) || err != nil {
		t.Fatal(o, err)
	}
	first, err := d.ClaimRoom(ctx(t), "t", "K1", engine.Owner{Node: n1, Term: 7})
	if err != nil || first.Node != n1 || first.Term <= 7 {
		t.Fatal(first, err)
	}
	e, n2 := c.last()
	if o, err := e.ClaimRoom(ctx(t), "t", "K1", engine.Owner{Node: n2}); o != first || err != nil {
		t.Fatal(o, err)
	}
	if err := d.ReleaseRoom(ctx(t), "t", "K1", engine.Owner{Node: n1, Term: first.Term - 1}); err != nil {
		t.Fatal(err) // an earlier term of its own
	}
	if o, err := e.RoomOwner(ctx(t), "t", "K1"); o != first || err != nil {
		t.Errorf("owner %v %v, want %v", o, err, first)
	}
	if err := d.ReleaseRoom(ctx(t), "t", "K1", first); err != nil {
		t.Fatal(err)
	}
	o, err := e.ClaimRoom(ctx(t), "t", "K1", engine.Owner{Node: n2})
	if err != nil || o.Node != n2 || o.Term <= first.Term {
		t.Errorf("owner %v %v after %v", o, err, first)
	}
}

func takeRoom(t *testing.T, c *Cluster) {
	d, n1 := c.Directories[0], c.Names[0]
	first, err := d.ClaimRoom(ctx(t), "t", "K1", engine.Owner{Node: n1})
	if err != nil {
		t.Fatal(err)
	}
	e, n2 := c.last()
	second, err := e.TakeRoom(ctx(t), "t", "K1", first, n2)
	if err != nil || second.Node != n2 || second.Term <= first.Term {
		t.Fatalf("%v %v after %v", second, err, first)
	}
	if o, err := d.TakeRoom(ctx(t), "t", "K1", first, n1); o != second || !errors.Is(err, engine.ErrTaken) {
		t.Errorf("from an owner that it has no more: %v %v", o, err)
	}
	if err := d.ReleaseRoom(ctx(t), "t", "K1", first); err != nil {
		t.Fatal(err)
	}
	if o, err := d.RoomOwner(ctx(t), "t", "K1"); o != second || err != nil {
		t.Errorf("owner %v %v, want %v", o, err, second)
	}
}

// states waits for what Watch tells.
func states(t *testing.T, c *Cluster) {
	var mu sync.Mutex
	told := make([]map[string]engine.NodeState, len(c.Names))
	for i, d := range c.Directories {
		told[i] = map[string]engine.NodeState{}
		t.Cleanup(d.Watch(func(n engine.Node) {
			mu.Lock()
			defer mu.Unlock()
			told[i][n.Name] = n.State
		}))
	}
	all := func(node string, want engine.NodeState) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			for _, m := range told {
				if m[node] != want {
					return false
				}
			}
			return true
		}
	}
	for _, node := range c.Names {
		if !eventually(all(node, engine.Up)) {
			t.Fatalf("%s is not up: %v", node, told)
		}
	}
	d, node := c.last()
	for _, state := range []engine.NodeState{engine.Draining, engine.Up, engine.Draining} {
		if err := d.Announce(ctx(t), state); err != nil {
			t.Fatal(err)
		}
		if !eventually(all(node, state)) {
			t.Fatalf("%s is not in state %d: %v", node, state, told)
		}
	}
}

// eventually tells whether f becomes true within a few seconds.
func eventually(f func() bool) bool {
	for range 500 {
		if f() {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}
