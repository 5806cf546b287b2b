package main

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lxzan/gws"
)

// signal sends a signal to the process of a node: SIGSTOP, SIGCONT.
func (n *netNode) signal(s syscall.Signal) {
	n.t.Helper()
	n.must(n.process.Signal(s))
}

// long is one value in a long run, and otherwise another.
func long[T any](short, long T) T {
	if os.Getenv("IEUM_SOAK") != "" {
		return long
	}
	return short
}

// village makes rooms of which each node owns one. Two users of each room are at the last node,
// which is the one that tests cut off.
func (n *network) village() *village {
	n.t.Helper()
	a, b, c := n.nodes[0], n.nodes[1], n.nodes[2]
	authKey := n.license("acme", 100)
	return n.settle(authKey,
		[]*netNode{a, b, c, c}, []*netNode{b, a, c, c}, []*netNode{c, c, a, b})
}

// during does something to nodes while everybody speaks. Then all of them are well again: everybody
// is in, hears the others, has the session from before, and nobody has seen a leave.
func (v *village) during(what string, maxChanges int, f func()) {
	v.t.Helper()
	before := make([]int, len(v.rooms))
	for i, in := range v.rooms {
		before[i] = ownerChanges(in)
	}
	over := make(chan struct{})
	var speakers sync.WaitGroup
	for _, r := range v.all {
		speakers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				case <-time.After(200 * time.Millisecond):
					r.say(fmt.Sprint(what, " ", i, " of ", r.user))
				}
			}
		})
	}
	f()
	close(over)
	v.heal()
	healed := time.Now()
	for _, n := range v.nodes {
		n.awaitQuorum()
	}
	v.awaitWhole()
	speakers.Wait()
	v.check()
	if n := v.lostSessions(); n > 0 {
		v.t.Errorf("%s: %d sessions are lost", what, n)
	}
	var changes []int
	for i, in := range v.rooms {
		changes = append(changes, ownerChanges(in)-before[i])
	}
	v.t.Logf("%s: well again after %v, changes of owner %v", what, time.Since(healed), changes)
	if slices.Max(changes) > maxChanges {
		v.t.Errorf("%s: rooms have changed their owner %v times", what, changes)
	}
	if v.t.Failed() {
		v.t.FailNow()
	}
}

// Nodes are cut off from each other, and one is stopped.
func TestNodesThatAreCutOff(t *testing.T) {
	n := newNetwork(t, "--resume-window", long(time.Minute, 3*time.Minute).String())
	v := n.village()
	v.during("one against two", 1, func() { v.oneAgainstTwo(n.nodes[2]) })
	v.during("one way", 1, func() {
		n.cut(n.nodes[0], n.nodes[1])
		<-time.After(long(5*time.Second, 30*time.Second))
	})
	v.during("flapping", 1, func() {
		owner := v.owner()
		for range long(3, 8) {
			n.isolate(owner)
			<-time.After(2 * time.Second)
			n.heal()
			<-time.After(2 * time.Second)
		}
	})
	v.during("stopped", 1, func() {
		owner := v.owner()
		owner.signal(syscall.SIGSTOP)
		v.speakTo(owner, "late")
		<-time.After(long(4*time.Second, 10*time.Second))
		owner.signal(syscall.SIGCONT)
	})
}

// owner is the node that has most of the rooms.
func (n *network) owner() *netNode {
	return slices.MaxFunc(n.nodes, func(a, b *netNode) int {
		return cmp.Compare(a.metric("ieum_signaling_rooms"), b.metric("ieum_signaling_rooms"))
	})
}

// oneAgainstTwo cuts a node off, which admits nobody and goes on with its rooms. The others go on
// with everything.
func (v *village) oneAgainstTwo(alone *netNode) {
	v.t.Helper()
	owned := v.rooms[2]
	early, err := alone.visit("/signal") // does not register yet
	v.must(err)
	defer early.leave()
	v.isolate(alone)
	url := "http://" + alone.ip + ":" + netPort + "/socket.io/?EIO=4&transport=polling"
	until(v.t, "a node that is cut off answers 503", func() bool {
		r, err := v.browser.Get(url)
		v.must(err)
		_ = r.Body.Close()
		return r.StatusCode == http.StatusServiceUnavailable && r.Header.Get("Retry-After") != ""
	})
	if a := early.ask(map[string]any{
		"eventOp": "register", "cpCode": "acme", "authKey": v.authKey, "userId": "late",
	}); a["code"] != "543" || a["hint"] == nil {
		v.t.Errorf("a node that is cut off answers %v to register", a)
	}
	if code := owned[0].say("to ourselves"); code != "200" {
		v.t.Errorf("chat in a room of a node that is cut off: %s", code)
	}
	until(v.t, "members hear each other at a node that is cut off", func() bool {
		return owned[1].hears("to ourselves")
	})
	for _, at := range v.nodes {
		if at != alone {
			v.goesOn(at)
		}
	}
	until(v.t, "/readyz says that a node is cut off", func() bool {
		return alone.status("/readyz") == http.StatusServiceUnavailable
	})
	<-time.After(long(time.Second, 2*time.Minute))
}

// goesOn checks that a node admits others, also to a room whose owner is cut off, and that those
// who are cut off keep their ids.
func (v *village) goesOn(at *netNode) {
	v.t.Helper()
	fresh, err := at.enter("acme", v.authKey, "fresh at "+at.name)
	v.must(err)
	fresh.do(v.t, "joinRoom", "room2")
	fresh.do(v.t, "leaveRoom", "room2")
	fresh.quit()
	for _, r := range v.all {
		g, a := at.register(map[string]any{
			"eventOp": "register", "cpCode": "acme", "authKey": v.authKey, "userId": r.user,
		})
		if a["code"] != "409" {
			v.t.Errorf("%s is free: %v", r.user, a)
		}
		if g != nil {
			g.leave()
		}
	}
}

// speakTo sends chat messages to a node that does not answer.
func (v *village) speakTo(at *netNode, text string) {
	for _, r := range v.all {
		if g := r.connection(); g != nil && r.at == at {
			_ = g.ws.WriteMessage(gws.OpcodeText, fmt.Appendf(nil,
				`{"eventOp":"chat","roomId":%q,"message":%q}`, r.room, text))
		}
	}
}

// Two of three nodes are killed within a second, and started again. Everybody comes back, with a
// new session where the old one was lost, and nobody is in who has not come back.
func TestTwoOfThreeNodesAreKilled(t *testing.T) {
	n := newNetwork(t, "--resume-window", "5s")
	v := n.village()
	for range long(1, 10) {
		for _, survivor := range n.nodes {
			lost := v.lostSessions()
			var killed []*netNode
			for _, victim := range n.nodes {
				if victim != survivor {
					victim.kill()
					killed = append(killed, victim)
					<-time.After(300 * time.Millisecond)
				}
			}
			for _, victim := range killed {
				victim.start()
			}
			began := time.Now()
			for _, node := range n.nodes {
				node.awaitQuorum()
			}
			v.awaitWhole()
			t.Logf("all but %s were killed: well again after %v, %d sessions lost",
				survivor.name, time.Since(began), v.lostSessions()-lost)
		}
	}
	<-time.After(long(6*time.Second, time.Minute)) // longer than the resume window
	v.awaitWhole()
}
