package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/cluster/raftlog"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return c
}

func raftOf(c *Cluster) raftlog.Stats { return c.log.(*raftlog.Log).Stats() }

func leaderOf(t testing.TB, nodes []*Cluster) int {
	t.Helper()
	leader := -1
	await(t, func() bool {
		leader = slices.IndexFunc(nodes, func(c *Cluster) bool {
			return !c.closed.Load() && raftOf(c).Leader
		})
		return leader >= 0
	})
	return leader
}

// claimAt has a user id claimed, as often as it takes.
func claimAt(t *testing.T, c *Cluster, user string) engine.Location {
	t.Helper()
	var got engine.Location
	await(t, func() bool {
		l := engine.Location{Node: c.cfg.Node, Session: user}
		var err error
		got, err = c.Directory().ClaimUser(within(t, 5*time.Second), "t", user, l, 1000)
		return err == nil
	})
	return got
}

func state(c *Cluster, name string) engine.Node {
	n, _ := c.machine.Member(name)
	return n
}

// From one node to three and back to one, nothing that is held is lost, and claims go on.
func TestAClusterGrowsAndShrinks(t *testing.T) {
	a := start(t, 1)[0]
	first := claimAt(t, a, "kim")
	b := open(t, "n1", 3, a.Addr())
	t.Cleanup(func() { crash(t, b) })
	c := open(t, "n2", 3, a.Addr())
	t.Cleanup(func() { crash(t, c) })
	awaitJoined(t, b)
	awaitJoined(t, c)
	await(t, func() bool { return raftOf(a).Voters == 3 && b.Ready() == nil && c.Ready() == nil })
	for _, n := range []*Cluster{b, c} {
		l, err := n.Directory().Holder(within(t, 5*time.Second), "t", "kim")
		if l != first || err != nil {
			t.Errorf("%s: %v %v", n.cfg.Node, l, err)
		}
	}
	for i, n := range []*Cluster{a, b} { // the first one too, which has led
		if err := n.Close(within(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
		await(t, func() bool { return state(c, n.cfg.Node).State == engine.Dead })
		claimAt(t, c, fmt.Sprint("after", i))
	}
	if s := raftOf(c); s.Voters != 1 || !s.Leader {
		t.Errorf("the last one: %+v", s)
	}
	l, err := c.Directory().Holder(within(t, 5*time.Second), "t", "kim")
	if l != first || err != nil {
		t.Errorf("the last one: %v %v", l, err)
	}
}

// A node that starts again is a new one, in the place of the former.
func TestANodeThatStartsAgainHasANewIncarnation(t *testing.T) {
	nodes := start(t, 3)
	for _, i := range []int{leaderOf(t, nodes), 2} {
		name := nodes[i].cfg.Node
		other := nodes[(i+1)%3]
		before := state(other, name)
		held := claimAt(t, nodes[i], fmt.Sprint("held", i))
		crash(t, nodes[i])
		nodes[i] = open(t, name, 3, other.Addr())
		t.Cleanup(func() { crash(t, nodes[i]) })
		awaitJoined(t, nodes[i])
		await(t, func() bool {
			n := state(other, name)
			return n.State == engine.Up && n.Incarnation > before.Incarnation
		})
		l, err := other.Directory().Holder(within(t, 5*time.Second), "t", held.Session)
		if l != held || err != nil {
			t.Errorf("what it held: %v %v", l, err)
		}
		await(t, func() bool { return raftOf(other).Voters == 3 && nodes[i].Ready() == nil })
		if n := state(other, name); n.Incarnation != before.Incarnation+1 {
			t.Errorf("%v: it was declared dead before it could renew its lease", n)
		}
	}
}

// Two of three that start again at once have no memory; the third goes on with what it knows, and
// numbers only grow.
func TestTwoOfThreeStartAgainAtOnce(t *testing.T) {
	nodes := start(t, 3)
	held := claimAt(t, nodes[2], "kim")
	for i := range 2 {
		crash(t, nodes[i])
	}
	for i := range 2 {
		nodes[i] = open(t, nodes[i].cfg.Node, 3, nodes[2].Addr())
		t.Cleanup(func() { crash(t, nodes[i]) })
	}
	for _, n := range nodes {
		awaitJoined(t, n)
		await(t, func() bool { return n.Ready() == nil })
	}
	l, err := nodes[0].Directory().Holder(within(t, 5*time.Second), "t", "kim")
	if l != held || err != nil {
		t.Errorf("held by %v %v, want %v", l, err, held)
	}
	if next := claimAt(t, nodes[1], "lee"); next.Epoch <= held.Epoch {
		t.Errorf("epoch %d after %d", next.Epoch, held.Epoch)
	}
}

func TestANodeWithoutAMajorityDecidesNothing(t *testing.T) {
	nodes := start(t, 3)
	crash(t, nodes[0])
	crash(t, nodes[1])
	c := nodes[2]
	await(t, func() bool { return c.Directory().Quorum() != nil })
	l := engine.Location{Node: "n2", Session: "s"}
	got, err := c.Directory().ClaimUser(within(t, 10*time.Second), "t", "kim", l, 10)
	if err == nil {
		t.Errorf("claimed %v", got)
	}
	if c.Ready() == nil {
		t.Error("it is ready")
	}
}

// A node of another cluster, or with another license signing key, is not let in.
func TestForeignNodesStayOutside(t *testing.T) {
	a := start(t, 1)[0]
	foreign := openWith(t, "n1", 3, "another key", a.Addr())
	t.Cleanup(func() { crash(t, foreign) })
	twin := open(t, "n0", 3, a.Addr())
	t.Cleanup(func() { crash(t, twin) })
	await(t, func() bool { return foreign.server.Routes() > 0 && twin.server.Routes() > 0 })
	select {
	case <-foreign.Joined():
		t.Error("a node with another license signing key has joined")
	case <-twin.Joined():
		t.Error("a second node of the same name has joined")
	case <-time.After(2500 * time.Millisecond):
	}
	if raftOf(a).Voters != 1 || len(a.machine.Nodes()) != 1 {
		t.Errorf("%+v, nodes %v", raftOf(a), a.machine.Nodes())
	}
}

// BenchmarkClaim measures claims that another node decides.
func BenchmarkClaim(b *testing.B) {
	nodes := start(b, 3)
	benchmarkClaim(b, nodes[(leaderOf(b, nodes)+1)%3])
}

// BenchmarkClaimOverNATS measures claims that a stream of JetStream orders.
func BenchmarkClaimOverNATS(b *testing.B) {
	benchmarkClaim(b, startExternal(b, startNATS(b), 3)[0])
}

func benchmarkClaim(b *testing.B, c *Cluster) {
	d, name := c.Directory(), c.cfg.Node
	var all []time.Duration
	b.ResetTimer()
	for n := range b.N {
		user := fmt.Sprint("u", n)
		began := time.Now()
		_, err := d.ClaimUser(context.Background(), "t", user,
			engine.Location{Node: name, Session: user}, 1<<30)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(began))
	}
	b.StopTimer()
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkClaims measures many at a time, from all nodes.
func BenchmarkClaims(b *testing.B) {
	nodes := start(b, 3)
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range 192 {
		c := nodes[w%3]
		wg.Go(func() {
			for n := w; n < b.N; n += 192 {
				user := fmt.Sprint("u", n)
				l := engine.Location{Node: c.cfg.Node, Session: user}
				if _, err := c.Directory().ClaimUser(
					context.Background(), "t", user, l, 1<<30,
				); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "claims/s")
}
