package signaling

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
	"github.com/ieum-rtc/ieum/internal/signaling/enginetest"
)

func (w *world) drains(node int) int {
	w.Helper()
	h := w.nodes[node].hub
	rooms, err := h.Drain(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	synctest.Wait()
	return rooms
}

// A node drains: its rooms go to another one, while everybody stays connected and is told nothing.
// Then its clients come over.
func TestANodeDrainsAndNobodyNotices(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		in(t, nodes, nil, func(w *world) {
			kim, lee, other := w.user(0, "kim"), w.user(0, "lee"), w.user(1, "other")
			w.room("K1", kim, lee, other)
			before := w.ownerOf("K1")
			w.settled()
			other.take()
			if n := w.drains(0); n != 1 {
				w.Errorf("%d rooms were handed over", n)
			}
			w.settled()
			now := w.ownerOf("K1")
			if now.Node == "n0" || now.Term <= before.Term {
				w.Errorf("the room was owned by %v, and is by %v", before, now)
			}
			if s := w.nodes[nodes-1].hub.nodes.node("n0").State; s != engine.Draining {
				w.Errorf("n0 is %v for the others", s)
			}
			for _, p := range []*peer{kim, lee, other} {
				p.saw("")
			}
			lee.reaches(other)
			other.reaches(kim)
			kim.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "still here"})
			if got := other.told(); !strings.HasPrefix(got, "chat:kim:") {
				w.Errorf("other saw %q", got)
			}
			lee.take()
			kim.lose()
			lee.lose()
			kim, lee = kim.resumes(nodes-1), lee.resumes(1)
			w.sameRosters("K1")
			other.saw("")
			w.kill(0)
			w.local.Bury("n0")
			w.repaired()
			other.saw("")
			for _, p := range []*peer{kim, lee} {
				p.take()
				p.reaches(other)
				other.reaches(p)
			}
			w.sameRosters("K1")
		})
	}
}

// Commands that come while a room is handed over are carried out, by its next owner.
func TestCommandsWaitWhileARoomIsHandedOver(t *testing.T) {
	in(t, 3, nil, func(w *world) {
		w.local.RandomDelay(5 * time.Millisecond)
		all := []*peer{w.user(0, "u0"), w.user(1, "u1"), w.user(2, "u2")}
		ask := func(p *peer, m msg) { p.send(m); time.Sleep(100 * time.Millisecond) }
		ask(all[0], msg{"eventOp": "createRoom", "roomId": "K1"})
		for _, p := range all {
			ask(p, msg{"eventOp": "joinRoom", "roomId": "K1"})
		}
		w.settled()
		for _, p := range all {
			p.take()
		}
		const each = 20
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, err := w.nodes[0].hub.Drain(w.Context()); err != nil {
				w.Error(err)
			}
		}()
		for range each {
			for _, p := range all {
				p.send(msg{"eventOp": "chat", "roomId": "K1", "message": "hi", "reqId": "c"})
			}
			time.Sleep(time.Millisecond)
		}
		<-done
		time.Sleep(time.Second)
		synctest.Wait()
		for i, p := range all {
			got := p.told()
			if n := strings.Count(got, "answer:chat:200 "); n != each {
				w.Errorf("u%d got %d of %d answers: %s", i, n, each, got)
			}
			if n := strings.Count(" "+got, " chat:u"); n != 2*each ||
				strings.Contains(got, "leave") {
				w.Errorf("u%d saw %d messages: %s", i, n, got)
			}
		}
		w.sameRosters("K1")
	})
}

// A room stays where it is if no other node takes it.
func TestARoomThatNobodyTakesStays(t *testing.T) {
	in(t, 2, nil, func(w *world) {
		kim, other := w.user(0, "kim"), w.user(1, "other")
		w.room("K1", kim, other)
		w.settled()
		other.take()
		w.loses(1, enginetest.Request, `"adopt"`)
		if _, err := w.nodes[0].hub.Drain(w.Context()); err == nil {
			w.Error("a request was lost, and there is no error")
		}
		w.settled()
		if now := w.ownerOf("K1"); now.Node != "n0" {
			w.Errorf("the room is owned by %v", now)
		}
		other.saw("")
		kim.reaches(other)
		other.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "hi"})
		w.sameRosters("K1")
		if n, err := w.nodes[0].hub.HandOverRooms(w.Context()); n != 1 || err != nil {
			w.Errorf("%d rooms were handed over, %v", n, err)
		}
		w.repaired()
		w.sameRosters("K1")
	})
	in(t, 1, nil, func(w *world) {
		w.room("K1", w.user(0, "kim"))
		if n, err := w.nodes[0].hub.Drain(w.Context()); n != 0 || err != ErrLastNode {
			w.Errorf("%d rooms of the last node were handed over, %v", n, err)
		}
	})
}

// A node may end as soon as its last session has gone, though it has just sent it.
func TestTheLastSessionArrivesBeforeItsNodeEnds(t *testing.T) {
	var thin thinned
	for i := range 32 {
		if thin.skips(7) { // 7, so that each combination below is left
			continue
		}
		lost, to := i/2%2, 1+i%2 // the node with the replicas, and the other one
		in(t, 3, nil, func(w *world) {
			kim := w.user(0, "kim")
			session := w.sessionOf("kim").Session
			w.settled()
			w.drains(0)
			w.local.RandomDelay(100 * time.Millisecond)
			w.loses(lost, enginetest.Response, `"session"`)
			kim.lose()
			back := w.connect(to)
			back.send(w.login(w.authKey, "userId", "kim", "resume", kim.secret))
			h := w.nodes[0].hub
			for h.Stats().Sessions > 0 {
				time.Sleep(time.Millisecond)
				synctest.Wait()
			}
			h.AwaitDelivered(w.Context())
			synctest.Wait()
			if w.nodes[to].hub.session(session) == nil {
				w.Error("the session has not arrived")
			}
			w.kill(0)
			w.local.Bury("n0")
			time.Sleep(time.Second)
			synctest.Wait()
			if m := back.take(); len(m) != 1 || m[0]["resumed"] != true {
				w.Errorf("kim was told %v", m)
			}
		})
	}
}

// A node that drains, is cut off and joins again still drains.
func TestANodeThatJoinsAgainStillDrains(t *testing.T) {
	in(t, 3, nil, func(w *world) {
		w.room("K1", w.user(0, "kim"), w.user(1, "other"))
		w.settled()
		w.drains(0)
		w.cut(0, true)
		w.cut(0, false)
		w.settled()
		if s := w.nodes[1].hub.nodes.node("n0").State; s != engine.Draining {
			w.Errorf("n0 is %v", s)
		}
		w.sameRosters("K1")
	})
}

// The relay of a node goes on for sessions that moved to another node.
func TestTheRelayServesSessionsThatMoved(t *testing.T) {
	in(t, 2, nil, func(w *world) {
		kim := w.user(0, "kim")
		w.room("K1", kim)
		session := w.sessionOf("kim").Session
		w.drains(0)
		kim.lose()
		kim.resumes(1)
		time.Sleep(2 * handedOverLife)
		if m, ok := w.nodes[0].hub.InRoom(session); !ok || m.User != "kim" || m.Room != "K1" {
			w.Errorf("kim is %v, %v", m, ok)
		}
	})
}
