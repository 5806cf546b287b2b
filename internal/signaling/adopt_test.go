package signaling

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/enginetest"
)

// termOf is the term of a room's owner, and the owner.
func (w *world) ownerOf(id string) Owner { return w.local.rooms()[userKey{w.cpCode, id}] }

// settled waits until replicas have been sent.
func (w *world) settled() {
	time.Sleep(repairTime)
	synctest.Wait()
}

// A node dies that has sessions, or owns a room, or both. Nobody leaves; who was on it resumes on
// another node; the room goes on.
func TestANodeDiesAndNobodyNotices(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		for owner := range nodes {
			in(t, nodes, nil, func(w *world) {
				lee := w.user(owner, "lee")
				kim, other := w.user(0, "kim"), w.user(nodes-1, "other")
				w.room("K1", lee, kim, other)
				lee.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "before"})
				before, session := w.ownerOf("K1"), w.sessionOf("kim")
				other.take()
				w.dies(0)
				other.saw("")
				lee2 := lee
				if owner == 0 {
					lee2 = lee.resumes(1)
				}
				back := kim.resumes(nodes - 1)
				if now := w.sessionOf("kim"); now.Session != session.Session ||
					now.Epoch <= session.Epoch {
					w.Errorf("kim was %v, and is %v", session, now)
				}
				now := w.ownerOf("K1")
				if owner == 0 && (now.Node == before.Node || now.Term <= before.Term) {
					w.Errorf("the room was owned by %v, and is by %v", before, now)
				}
				w.sameRosters("K1")
				lee2.take()
				back.take()
				other.take()
				for _, p := range []*peer{lee2, other} {
					p.reaches(back)
					back.reaches(p)
				}
				back.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "after"})
				if got := other.told(); !strings.HasPrefix(got, "chat:kim:") {
					w.Errorf("other saw %q", got)
				}
				late := w.user(1, "late")
				late.joins("K1")
				if got := other.told(); !strings.HasPrefix(got, "join:late:") {
					w.Errorf("other saw %q", got)
				}
				back.want("200", msg{"eventOp": "leaveRoom"})
				if got := other.told(); !strings.HasPrefix(got, "leave:kim:") {
					w.Errorf("other saw %q", got)
				}
				w.sameRosters("K1")
			})
		}
	}
}

// Who does not come back after its node died leaves once, and its place in the license is free.
func TestWhoseNodeDiedAndDoesNotComeBackLeavesOnce(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		for owner := range nodes {
			in(t, nodes, nil, func(w *world) {
				kim, other := w.user(0, "kim"), w.user(nodes-1, "other")
				maker := w.user(owner, "maker")
				w.room("K1", maker, kim, other)
				w.user(0, "alone")
				w.settled()
				other.take()
				w.dies(0)
				time.Sleep(18 * time.Second)
				other.saw("")
				time.Sleep(4 * time.Second)
				synctest.Wait()
				got := other.told()
				if n := strings.Count(got, "leave:kim:"); n != 1 {
					w.Errorf("other saw %q", got)
				}
				leaves, left := 1, 2
				if owner == 0 {
					leaves, left = 2, 1
				}
				if n := strings.Count(got, "leave:"); n != leaves {
					w.Errorf("other saw %q", got)
				}
				w.sameRosters("K1")
				time.Sleep(10 * time.Second)
				other.saw("")
				if n := w.local.seats()[w.cpCode]; n != left {
					w.Errorf("%d user ids are taken, want %d: %v", n, left, w.local.users())
				}
			})
		}
	}
}

// A replica takes no more than it may.
func TestReplicasAreSmall(t *testing.T) {
	in(t, 2, nil, func(w *world) {
		const users = 50
		var all []*peer
		for range users {
			all = append(all, w.user(0, ""))
		}
		w.room("K1", all[:8]...)
		w.settled()
		h := w.nodes[1].hub
		h.replicas.mu.Lock()
		defer h.replicas.mu.Unlock()
		for life, set := range h.replicas.sets {
			if n := len(set.records); n != users+1 || life.node != "n0" {
				w.Errorf("%d records of %v", n, life)
			}
			if set.bytes > users*1024 {
				w.Errorf("%d bytes for %d sessions", set.bytes, users)
			}
			w.Logf("%d bytes a session", set.bytes/users)
		}
		if len(h.replicas.sets) != 1 {
			w.Errorf("replicas of %d nodes", len(h.replicas.sets))
		}
	})
}

// A client that is back before anybody knows of the death waits until they do.
func TestAResumeWaitsUntilTheDeathIsKnown(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		in(t, nodes, nil, func(w *world) {
			w.local.RandomDelay(2 * time.Millisecond)
			kim, lee := w.user(0, "kim"), w.user(nodes-1, "lee")
			settle := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
			settle(repairTime)
			kim.send(msg{"eventOp": "createRoom", "roomId": "K1"})
			kim.send(msg{"eventOp": "joinRoom", "roomId": "K1"})
			settle(repairTime)
			lee.send(msg{"eventOp": "joinRoom", "roomId": "K1"})
			settle(repairTime)
			lee.take()
			w.kill(0)
			back := w.connect(nodes - 1)
			back.send(w.login(w.authKey, "userId", "kim", "resume", kim.secret))
			lee.send(msg{"eventOp": "chat", "roomId": "K1", "message": "hi"})
			settle(detectTime - 10*time.Millisecond)
			back.saw("")
			w.local.Bury("n0")
			settle(time.Second)
			m := back.take()
			if len(m) == 0 || m[0]["resumed"] != true || m[0]["room"] == nil {
				w.Fatalf("kim was told %v", m)
			}
			if got := lee.told(); got != "answer:chat:543 " {
				w.Errorf("lee saw %q", got)
			}
			w.sameRosters("K1")
		})
	}
}

// setCut takes a node off the network, and from the directory, or has it join again.
func (w *world) setCut(node int, cut bool) {
	name := w.nodes[node].hub.cfg.Node
	for _, n := range w.nodes {
		if other := n.hub.cfg.Node; other != name {
			w.local.Cut(name, other, cut)
			w.local.Cut(other, name, cut)
		}
	}
	w.local.Isolate(name, cut)
	if !cut {
		w.local.Rejoin(name)
	}
}

// cut is setCut until the others know of it.
func (w *world) cut(node int, cut bool) {
	w.setCut(node, cut)
	if cut {
		time.Sleep(detectTime)
		w.local.Bury(w.nodes[node].hub.cfg.Node)
	}
	w.repaired()
}

// A node that was cut off for longer than its lease, and is back: what others have is theirs.
func TestANodeThatWasDeadIsBack(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		for owner := range nodes {
			for _, away := range []time.Duration{10 * time.Second, 30 * time.Second} {
				in(t, nodes, nil, func(w *world) { w.backAfter(owner, away) })
			}
		}
	}
}

func (w *world) backAfter(owner int, away time.Duration) {
	last := len(w.nodes) - 1
	maker, kim, lee := w.user(owner, "maker"), w.user(0, "kim"), w.user(last, "lee")
	w.room("K1", maker, kim, lee)
	w.user(0, "alone")
	w.settled()
	lee.take()
	kim.take()
	w.cut(0, true)
	lee.saw("")
	kim.ask(msg{"eventOp": "chat", "roomId": "K1", "message": "to those who are cut off too"})
	time.Sleep(away)
	w.cut(0, false)
	w.settled()
	if c := kim.closeCode(); c != 1001 {
		w.Errorf("away %v: kim was closed with %d", away, c)
	}
	if n := w.nodes[0].hub.Stats().Sessions; n != 0 {
		w.Errorf("%d sessions are left on the node", n)
	}
	back := w.connect(0)
	m := back.ask(w.login(w.authKey, "userId", "kim", "resume", kim.secret))
	inTime := away < 20*time.Second
	if want := map[bool]string{true: "200", false: "410"}[inTime]; m.str("code") != want {
		w.Errorf("away %v: kim resumes: %v", away, m)
	}
	w.sameRosters("K1")
	got := lee.told()
	if inTime {
		back.user = "kim"
		back.take()
		lee.reaches(back)
		back.reaches(lee)
		if got != "" {
			w.Errorf("lee saw %q", got)
		}
	} else if strings.Count(got, "leave:kim:") != 1 || strings.Count(got, "join:") != 0 {
		w.Errorf("away %v: lee saw %q", away, got)
	}
	time.Sleep(25 * time.Second)
	synctest.Wait()
	users := len(w.local.users())
	sessions := 0
	for _, n := range w.nodes {
		sessions += n.hub.Stats().Sessions
	}
	if users != sessions || w.local.seats()[w.cpCode] != users {
		w.Errorf("%d user ids of %d sessions: %v", users, sessions, w.local.users())
	}
}

// What only other nodes know of a room is not lost with its owner.
func TestARoomIsAsItsMembersKnowIt(t *testing.T) {
	in(t, 3, nil, func(w *world) {
		maker := w.user(0, "maker")
		a, b, c := w.user(1, "a"), w.user(2, "b"), w.user(1, "c")
		w.room("K1", maker, a, b)
		w.settled()
		w.local.Lose(func(f enginetest.Frame) bool {
			return f.From == "n0" && len(f.Payload) > 1 && f.Payload[1] == kindReplicas
		})
		c.joins("K1")
		b.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "hi"})
		d, e := w.user(0, "d"), w.user(1, "e")
		w.room("K2", d, e) // nobody has a replica of it
		w.dies(0)
		w.local.Lose(nil)
		w.repaired()
		for _, p := range []*peer{a, b, c} {
			inOrder(w, p)
		}
		w.sameRosters("K1")
		c.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "still in"})
		if got := a.told(); !strings.HasPrefix(got, "chat:c:") {
			w.Errorf("a saw %q", got)
		}
		if w.sameRosters("K2"); w.ownerOf("K2").Node == "n0" {
			w.Error("K2 has no new owner")
		}
	})
}

// Nobody has a replica of a session: its client must register again, and it leaves only once.
func TestASessionWithoutAReplicaLeavesAfterTheWindow(t *testing.T) {
	in(t, 3, nil, func(w *world) {
		lee := w.user(1, "lee")
		w.local.Lose(func(f enginetest.Frame) bool {
			return f.From == "n0" && len(f.Payload) > 1 && f.Payload[1] == kindReplicas
		})
		kim, max := w.user(0, "kim"), w.user(0, "max")
		w.room("K1", lee, kim, max)
		lee.take()
		w.dies(0)
		lee.saw("")
		w.connect(2).want("410", w.login(w.authKey, "userId", "kim", "resume", kim.secret))
		time.Sleep(18 * time.Second)
		lee.saw("")
		time.Sleep(4 * time.Second)
		if got := lee.told(); strings.Count(got, "leave:kim:") != 1 ||
			strings.Count(got, "leave:max:") != 1 {
			w.Errorf("lee saw %q", got)
		}
		w.sameRosters("K1")
		if n := w.local.seats()[w.cpCode]; n != 1 {
			w.Errorf("%d user ids are taken", n)
		}
	})
}

// One frame in four is lost while the others go on with what a dead node had.
func TestSessionsAreAdoptedThroughLosses(t *testing.T) {
	for seed := range 10 {
		in(t, 3, nil, func(w *world) {
			w.local.RandomDelay(2 * time.Millisecond)
			ask := func(p *peer, m msg) { p.send(m); time.Sleep(repairTime); synctest.Wait() }
			a, b, c := w.user(0, "a"), w.user(1, "b"), w.user(2, "c")
			ask(a, msg{"eventOp": "createRoom", "roomId": "K1"})
			for _, p := range []*peer{a, b, c} {
				ask(p, msg{"eventOp": "joinRoom", "roomId": "K1"})
			}
			n := 0
			w.local.Lose(func(enginetest.Frame) bool { n++; return (n+seed)%4 == 0 })
			w.dies(0)
			back := w.connect(1 + seed%2)
			back.send(w.login(w.authKey, "userId", "a", "resume", a.secret))
			time.Sleep(6 * time.Second)
			w.local.Lose(nil)
			w.local.Delay(nil)
			time.Sleep(6 * time.Second)
			synctest.Wait()
			m := back.take()
			if len(m) == 0 || m[0].str("code") == "410" {
				w.Fatalf("a resumes: %v", m)
			}
			if m[0].str("code") == "543" {
				a.resumes(1)
			}
			w.sameRosters("K1")
			for _, p := range []*peer{b, c} {
				for _, m := range p.take() {
					if m.str("type") == "leave" {
						w.Errorf("%s saw %v", p.user, m)
					}
				}
			}
			if n := w.sessions("a"); n != 1 {
				w.Errorf("a has %d sessions", n)
			}
		})
	}
}

// Whatever a node sends as replicas, it changes nothing but what is its own.
func TestForeignReplicasChangeNothing(t *testing.T) {
	in(t, 3, nil, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(1, "lee")
		w.room("K1", kim, lee)
		w.settled()
		lee.take()
		at := w.sessionOf("kim")
		session := w.nodes[0].hub.session(at.Session).moved()
		ro := w.nodes[0].hub.rosterOf(room.Key{Tenant: w.cpCode, Room: "K1"})
		bus := w.nodes[2].hub.cfg.Bus
		header := w.nodes[2].hub.replicaHeader()
		other := *session
		other.Record.Location.Node = "n2"
		other.Record.Location.Session = "unknown"
		for _, payload := range [][]byte{
			header[:5],
			append(slices.Clone(header), 0xff, 0xff, 0xff),
			appendFields(slices.Clone(header), "elsewhere/x", "{}"),
			appendFields(slices.Clone(header), sessionPrefix+at.Session, "{"),
			appendFields(slices.Clone(header), sessionPrefix+at.Session, string(encode(session))),
			appendFields(slices.Clone(header), sessionPrefix+"unknown", string(encode(other))),
			appendFields(slices.Clone(header), roomPrefix+"\x00K1", "null"),
			append(w.nodes[2].hub.completion(7), 1),
		} {
			if err := bus.Send("n1", payload); err != nil {
				w.Fatal(err)
			}
		}
		w.settled()
		w.dies(2)
		lee.saw("")
		kim.reaches(lee)
		if now := w.sessionOf("kim"); now != at || w.sessions("kim") != 1 {
			w.Errorf("kim was %v, and is %v", at, now)
		}
		if now := w.ownerOf("K1"); now.Node != "n0" || ro.ownedBy().Node != "n0" {
			w.Errorf("K1 is owned by %v", now)
		}
		time.Sleep(25 * time.Second)
		lee.saw("")
		w.sameRosters("K1")
	})
}

// slowTake is a Directory whose answer to TakeRoom takes a while.
type slowTake struct{ Directory }

func (d slowTake) over(of Directory) Directory { return slowTake{of} }

func (d slowTake) TakeRoom(
	ctx context.Context, tenant, id string, from Owner, node string,
) (Owner, error) {
	o, err := d.Directory.TakeRoom(ctx, tenant, id, from, node)
	time.Sleep(30 * time.Millisecond)
	return o, err
}

// Commands come between the decision that a room is here and the room itself.
func TestARoomIsNotMissedWhileItIsAdopted(t *testing.T) {
	for back := range 2 {
		in(t, 3, func(c *Config, _ *license.Params) { c.Directory = slowTake{} }, func(w *world) {
			kim, lee := w.user(0, "kim"), w.user(1, "lee")
			w.room("K1", kim, lee)
			w.settled()
			lee.take()
			w.kill(0)
			time.Sleep(detectTime)
			w.local.Bury("n0")
			q := w.connect(1 + back)
			q.send(w.login(w.authKey, "userId", "kim", "resume", kim.secret))
			w.repaired()
			if m := q.take(); len(m) == 0 || m[0]["room"] == nil {
				w.Errorf("kim was told %v", m)
			}
			lee.saw("")
			w.sameRosters("K1")
		})
	}
}

// What members send to a user whose session was adopted waits until the client is back.
func TestWhatIsSentToAnAdoptedSessionWaits(t *testing.T) {
	in(t, 3, nil, func(w *world) {
		kim, others := w.user(0, "kim"), []*peer{w.user(1, "lee"), w.user(2, "pat")}
		w.room("K1", others[0], others[1], kim)
		w.dies(0)
		for _, p := range others { // one of them is on the node that has adopted kim
			p.want("200", msg{"eventOp": "sdp", "target": "kim", "sdp": "while away"})
		}
		waited := 0
		for _, m := range kim.resumes(1).take() {
			if m.str("sdp") == "while away" {
				waited++
			}
		}
		if waited != len(others) {
			t.Errorf("%d of %d messages that were answered 200 arrived", waited, len(others))
		}
	})
}
