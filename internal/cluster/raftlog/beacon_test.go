package raftlog

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// node makes what a node says; sees are the names that it sees.
func node(name string, process uint64, names ...string) beacon {
	return beacon{Node: name, Process: process, Expect: 3, Sees: names}
}

func others(all ...beacon) (list []heard) {
	for _, b := range all {
		list = append(list, heard{beacon: b})
	}
	return list
}

func TestOneNodeFoundsTheCluster(t *testing.T) {
	a, b, c := node("a", 1, "a", "b", "c"), node("b", 2, "a", "b", "c"), node("c", 3, "a", "b", "c")
	if v, ok := mayFound(&a, others(c, b)); !ok || len(v) != 3 {
		t.Errorf("the first of three: %v %v", v, ok)
	}
	if _, ok := mayFound(&b, others(a, c)); ok {
		t.Error("the second one too")
	}
	if _, ok := mayFound(&a, others(b)); ok {
		t.Error("two of three")
	}
	partly := node("b", 2, "b", "c")
	if _, ok := mayFound(&a, others(partly, c)); ok {
		t.Error("though one of them does not see all")
	}
	member := c
	member.Cluster = 9
	if _, ok := mayFound(&a, others(b, member)); ok {
		t.Error("though one is in a cluster")
	}
	alone := node("a", 1, "a")
	alone.Expect = 1
	if v, ok := mayFound(&alone, nil); !ok || len(v) != 1 {
		t.Error("a node alone does not")
	}
}

func TestTheSmallerClusterGivesWay(t *testing.T) {
	mine := beacon{Node: "a", Process: 1, Cluster: 5, Lease: true, Voters: 1}
	other := beacon{Node: "b", Process: 2, Cluster: 6, Lease: true, Voters: 2}
	if !mustAbandon(&mine, others(other)) || mustAbandon(&other, others(mine)) {
		t.Error("not the one with fewer voters")
	}
	other.Voters = 1
	if mustAbandon(&mine, others(other)) || !mustAbandon(&other, others(mine)) {
		t.Error("of two equal ones, not the one with the higher number")
	}
	other.Lease = false
	if mustAbandon(&mine, others(other)) || !mustAbandon(&other, others(mine)) {
		t.Error("not the one without a quorum")
	}
	fresh := beacon{Node: "c", Process: 3}
	if mustAbandon(&fresh, others(mine)) {
		t.Error("a node without a cluster")
	}
}

func TestANodeGoesOnAloneOnlyWhenTheRestIsGoneForSure(t *testing.T) {
	a := beacon{Node: "a", Process: 1, Cluster: 5, Last: 10}
	servers := []raft.Server{
		{ID: serverID("a", 1)}, {ID: serverID("b", 2)}, {ID: serverID("c", 3)},
	}
	b2, c2 := beacon{Node: "b", Process: 22}, beacon{Node: "c", Process: 33}
	if !mayRecover(&a, servers, others(b2, c2)) {
		t.Error("both others have started again, and it does not")
	}
	if mayRecover(&a, servers, others(b2)) {
		t.Error("the third may be alive behind a partition")
	}
	c := beacon{Node: "c", Process: 3, Cluster: 5, Last: 10}
	if mayRecover(&a, servers, others(b2, c)) {
		t.Error("two of three are a majority")
	}
	leased := b2
	leased.Lease = true
	if mayRecover(&a, servers, others(leased, c2)) {
		t.Error("somebody has a quorum")
	}
	five := append(servers, raft.Server{ID: serverID("d", 4)}, raft.Server{ID: serverID("e", 5)})
	d, e2 := beacon{Node: "d", Process: 4, Cluster: 5, Last: 11}, beacon{Node: "e", Process: 55}
	if mayRecover(&a, five, others(b2, c2, d, e2)) {
		t.Error("another one knows more")
	}
	if !mayRecover(&d, five, others(b2, c2, a, e2)) {
		t.Error("the one that knows most does not")
	}
}

func FuzzParseBeacon(f *testing.F) {
	b, _ := json.Marshal(node("a", 1, "a", "b"))
	f.Add(b)
	f.Add([]byte(`{"node":"b","process":2,"cluster":3,"lease":true,"voters":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseBeacon(b)
		if ok && (h.Node == "" || h.Process == 0) {
			t.Fatalf("%+v", h)
		}
		self := node("a", 1, "a")
		mayFound(&self, others(h))
		mustAbandon(&self, others(h))
		mayRecover(&self, []raft.Server{{ID: serverID("a", 1)}, {ID: h.id()}}, others(h))
	})
}

// What a node renewed before it was dead says nothing about it now, nor does silence before it
// joined.
func TestANodeThatJoinsHasTimeToRenew(t *testing.T) {
	before := engine.Node{Name: "a", Incarnation: 1, State: engine.Up}
	led := newLeadership(nil, []engine.Node{before}, 10)
	for _, step := range []struct {
		n    engine.Node
		now  time.Duration
		want time.Duration
	}{
		{before, 20, 0},
		{engine.Node{Name: "a", Incarnation: 2, State: engine.Up}, 30, 30},
		{engine.Node{Name: "a", Incarnation: 2, State: engine.Up}, 40, 30},
		{engine.Node{Name: "a", Incarnation: 2, State: engine.Draining}, 50, 30},
		{engine.Node{Name: "b", Incarnation: 1, State: engine.Up}, 60, 60},
	} {
		if got := led.joinedAt(step.n, step.now); got != step.want {
			t.Errorf("%v at %d joined at %d, not %d", step.n, step.now, got, step.want)
		}
	}
}
