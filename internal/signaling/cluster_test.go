package signaling

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/enginetest"
)

// repairTime is within what rooms shared with a node are up to date after a loss.
const repairTime = 100 * time.Millisecond

// loses loses the next n frames of a kind that hold a text, and settles.
func (w *world) loses(n int, kind enginetest.Kind, text string) {
	w.local.Lose(func(f enginetest.Frame) bool {
		lose := n > 0 && f.Kind == kind && bytes.Contains(f.Payload, []byte(text))
		if lose {
			n--
		}
		return lose
	})
}

func (w *world) repaired() {
	time.Sleep(repairTime)
	synctest.Wait()
}

// sameRosters fails unless every roster of a room is what its owner has.
func (w *world) sameRosters(id string) {
	w.Helper()
	key := room.Key{Tenant: w.cpCode, Room: id}
	var want []string
	for _, n := range w.nodes {
		if n.killed {
			continue
		}
		if snap, ok := n.hub.rooms.Snapshot(key); ok {
			for _, m := range snap.State.Members {
				want = append(want, m.ID+" "+m.Address.Session)
			}
		}
	}
	slices.Sort(want)
	for _, n := range w.nodes {
		if n.killed {
			continue
		}
		ro := n.hub.rosterOf(key)
		if ro == nil {
			continue
		}
		ro.mu.RLock()
		var got []string
		for _, e := range ro.members {
			got = append(got, e.user+" "+e.addr.Session)
		}
		stale := ro.stale
		ro.mu.RUnlock()
		slices.Sort(got)
		if !slices.Equal(got, want) || stale {
			w.Errorf("%s has %v (stale: %t), the room has %v", n.hub.cfg.Node, got, stale, want)
		}
	}
}

// reaches fails unless one member can send to the other.
func (p *peer) reaches(other *peer) {
	p.w.Helper()
	p.want("200", msg{"eventOp": "candidate", "target": other.user, "candidate": msg{}})
	if !strings.Contains(other.told(), "candidate<"+p.user+" ") {
		p.w.Errorf("%s does not reach %s", p.user, other.user)
	}
}

func event(k room.Kind) string { return fmt.Sprintf(`"Kind":%d,`, k) }

// Whatever one event says that is lost, members elsewhere are told of it, each once and in order.
func TestALostEventIsToldLater(t *testing.T) {
	for name, c := range map[string]struct {
		kind room.Kind
		do   func(a, c *peer)
		want string
	}{
		"join": {room.Joined, func(_, c *peer) { c.joins("K1") }, "join:c:3 "},
		"leave": {room.Left, func(_, c *peer) {
			c.joins("K1")
			c.want("200", msg{"eventOp": "leaveRoom"})
		}, "join:c:3 leave:c:4 "},
		"host": {room.HostChanged, func(a, _ *peer) {
			a.want("200", msg{"eventOp": "editRoomInfo", "roomId": "K1", "host": "b"})
		}, "editRoomInfo:a:3 hostChange:b:4 "},
		"name": {room.MemberEdited, func(a, _ *peer) {
			a.want("200", msg{"eventOp": "changeName", "name": "A"})
		}, "editUserInfo:a:3 "},
		"title": {room.Edited, func(a, _ *peer) {
			a.want("200", msg{"eventOp": "editRoomInfo", "roomId": "K1", "title": "T"})
		}, "editRoomInfo:a:3 "},
		"permit": {room.Permitted, func(a, _ *peer) {
			a.want("200", msg{"eventOp": "permit", "target": "b", "chat": false})
		}, "permit:b:3 "},
		"share": {room.ShareStarted, func(a, _ *peer) {
			a.want("200", msg{"eventOp": "screen"})
		}, "screen:a:3 "},
		"chat": {room.Broadcasted, func(a, _ *peer) {
			a.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "hi"})
		}, "chat:a:3 "},
	} {
		t.Run(name, func(t *testing.T) {
			for _, nodes := range []int{2, 3} {
				in(t, nodes, nil, func(w *world) {
					a, b, c2 := w.user(0, "a"), w.user(1, "b"), w.user(nodes-1, "c")
					w.room("K1", a, b)
					b.take()
					w.loses(1, enginetest.Message, event(c.kind))
					c.do(a, c2)
					w.repaired()
					if w.local.Lost() != 1 {
						w.Fatal("nothing was lost")
					}
					b.saw(c.want)
					w.sameRosters("K1")
					// and what comes next has its place behind that
					a.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "next"})
					if got := b.told(); !strings.HasPrefix(got, "chat:a:") {
						w.Errorf("b saw %q", got)
					}
				})
			}
		})
	}
}

func TestALostJoinLeavesNobodyUnreachable(t *testing.T) {
	in(t, 2, nil, func(w *world) {
		a, b := w.user(0, "a"), w.user(1, "b")
		w.room("K1", a, b)
		w.loses(1, enginetest.Message, event(room.Joined))
		c := w.user(0, "c")
		c.joins("K1")
		w.repaired()
		b.take()
		c.take()
		b.reaches(c)
		c.reaches(b)
	})
}

// The request, its response or the room's state may be lost: the join is answered once, and counts
// once.
func TestAJoinIsAnsweredWhateverIsLost(t *testing.T) {
	for _, lost := range []struct {
		kind enginetest.Kind
		text string
	}{
		{enginetest.Request, `"Join"`},
		{enginetest.Response, ""},
		{enginetest.Message, event(room.Entered)},
	} {
		in(t, 2, nil, func(w *world) {
			a, b := w.user(0, "a"), w.user(1, "b")
			w.room("K1", a)
			w.loses(1, lost.kind, lost.text)
			b.send(msg{"eventOp": "joinRoom", "roomId": "K1"})
			w.repaired()
			if got := b.told(); got != "answer:joinRoom:200 " || w.local.Lost() != 1 {
				w.Errorf("%v lost: b was told %q", lost, got)
			}
			a.saw("join:b:2 ")
			w.sameRosters("K1")
			b.want("200", msg{"eventOp": "leaveRoom"})
			a.saw("leave:b:3 ")
		})
	}
}

// Nothing arrives: the client is told to come again, and the member that the room may have is gone
// when the nodes reach each other.
func TestAJoinThroughACut(t *testing.T) {
	for _, cut := range [][2]string{{"n0", "n1"}, {"n1", "n0"}} {
		in(t, 2, nil, func(w *world) {
			a, b := w.user(0, "a"), w.user(1, "b")
			w.room("K1", a)
			w.local.Cut(cut[0], cut[1], true)
			b.ask(msg{"eventOp": "joinRoom", "roomId": "K1"})
			time.Sleep(6 * time.Second)
			if got := b.told(); got != "answer:joinRoom:543 " {
				w.Errorf("b was told %q", got)
			}
			w.local.Cut(cut[0], cut[1], false)
			time.Sleep(10 * time.Second)
			a.take()
			b.joins("K1")
			a.saw(fmt.Sprintf("join:b:%d ", map[bool]int{true: 4, false: 2}[cut[0] == "n0"]))
			w.sameRosters("K1")
		})
	}
}

// A session that ends while its room cannot be reached leaves it later.
func TestALeaveThroughACut(t *testing.T) {
	in(t, 2, nil, func(w *world) {
		a, b := w.user(0, "a"), w.user(1, "b")
		w.room("K1", a, b)
		a.take()
		w.local.Cut("n1", "n0", true)
		b.goAway(1000)
		a.saw("")
		time.Sleep(8 * time.Second)
		w.local.Cut("n1", "n0", false)
		time.Sleep(8 * time.Second)
		a.saw("leave:b:3 ")
		w.sameRosters("K1")
	})
}

// One frame in four is lost, of all kinds, while members come, go and talk: at the end everybody
// has the same room.
func TestRostersAreTheSameAfterManyLosses(t *testing.T) {
	for seed := range uint64(10) {
		in(t, 3, func(c *Config, _ *license.Params) { c.Limits.Joins = -1 }, func(w *world) {
			var all []*peer
			for i := range 9 {
				all = append(all, w.user(i%3, fmt.Sprint("u", i)))
			}
			w.room("K1", all[0])
			n := 0
			w.local.Lose(func(enginetest.Frame) bool { n++; return (n+int(seed))%4 == 0 })
			for i := range 60 {
				p := all[1+(i*7+int(seed))%8]
				switch i % 4 {
				case 0, 1:
					p.send(msg{"eventOp": "joinRoom", "roomId": "K1"})
				case 2:
					p.send(msg{"eventOp": "chat", "roomId": "K1", "message": "hi"})
				case 3:
					p.send(msg{"eventOp": "leaveRoom"})
				}
				time.Sleep(time.Duration(i%5) * 10 * time.Millisecond)
			}
			w.local.Lose(nil)
			time.Sleep(20 * time.Second)
			synctest.Wait()
			w.sameRosters("K1")
			for _, p := range all {
				inOrder(w, p)
			}
		})
	}
}

// inOrder fails if a client was told something twice, or too late.
func inOrder(w *world, p *peer) {
	w.Helper()
	last := 0.0
	got := p.take()
	for _, m := range got {
		if m.str("code") == "200" && m.str("eventOp") == "joinRoom" {
			last, _ = m["seq"].(float64)
			continue
		}
		if seq, ok := m["seq"].(float64); ok {
			if seq <= last {
				w.Errorf("%s was told %s %v after event %v", p.user, m.str("type"), seq, last)
				p.got = got
				w.Fatal(p.told())
			}
			last = seq
		}
	}
}

// What a node says of a room that another one owns by now is refused.
func TestAnEarlierOwnerIsNotListenedTo(t *testing.T) {
	in(t, 2, nil, func(w *world) {
		a, b := w.user(0, "a"), w.user(1, "b")
		w.room("K1", a, b)
		b.take()
		key := room.Key{Tenant: w.cpCode, Room: "K1"}
		ro := w.nodes[1].hub.rosterOf(key)
		ro.mu.Lock()
		ro.owner.Term++ // it has heard of a later one
		ro.mu.Unlock()
		a.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "late"})
		b.saw("")
		// and the owner does not obey who takes it for another's
		h := w.nodes[0].hub
		get := &commandMessage{Key: key, Term: ro.owner.Term, Name: "Get", Body: []byte("{}")}
		_, err := h.commandFromBus(get)
		if err != errNotOwner {
			w.Errorf("a command for another term: %v", err)
		}
	})
}

// countingDirectory counts the look-ups of rooms.
type countingDirectory struct {
	Directory
	looks *atomic.Int64
}

func (d countingDirectory) over(of Directory) Directory { return countingDirectory{of, d.looks} }

func (d countingDirectory) RoomOwner(ctx context.Context, tenant, id string) (Owner, error) {
	d.looks.Add(1)
	return d.Directory.RoomOwner(ctx, tenant, id)
}

func TestACommandOfAMemberCostsNoLookUp(t *testing.T) {
	d := countingDirectory{nil, &atomic.Int64{}}
	in(t, 2, func(c *Config, _ *license.Params) { c.Directory = d }, func(w *world) {
		a, b := w.user(0, "a"), w.user(1, "b")
		w.room("K1", a, b)
		before := d.looks.Load()
		for _, p := range []*peer{a, b} {
			p.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "hi"})
			p.want("200", msg{"eventOp": "memberList"})
			p.want("200", msg{"eventOp": "screen"})
			p.want("200", msg{"eventOp": "shareStop"})
			p.want("200", msg{"eventOp": "leaveRoom"})
		}
		if n := d.looks.Load() - before; n != 0 {
			w.Errorf("%d look-ups", n)
		}
	})
}

// Each of two takeovers ends a session on the other node, whose room is on the node that takes.
func TestTakeoversThatCrossDoNotWaitForEachOther(t *testing.T) {
	in(t, 2, nil, func(w *world) {
		w.local.RandomDelay(time.Millisecond)
		a, b := w.user(0, "a"), w.user(1, "b")
		settle := func() { time.Sleep(50 * time.Millisecond); synctest.Wait() }
		ask := func(p *peer, m msg) { p.send(m); settle() }
		ask(a, msg{"eventOp": "createRoom", "roomId": "R0"})
		ask(b, msg{"eventOp": "createRoom", "roomId": "R1"})
		ask(a, msg{"eventOp": "joinRoom", "roomId": "R1"})
		ask(b, msg{"eventOp": "joinRoom", "roomId": "R0"})
		x, y := w.connect(1), w.connect(0)
		began := time.Now()
		x.send(w.login(w.authKey, "userId", "a", "forced", true, "resume", a.secret))
		y.send(w.login(w.authKey, "userId", "b", "forced", true, "resume", b.secret))
		settle()
		if x.end() != "in" || y.end() != "in" || time.Since(began) > time.Second {
			w.Errorf("after %v: %s, %s", time.Since(began), x.end(), y.end())
		}
		if p, q := a.closeCode(), b.closeCode(); p != 4002 || q != 4002 {
			w.Errorf("closed with %d and %d", p, q)
		}
	})
}

// A dead node ends no sessions.
func TestAnIDIsTakenOverFromADeadNode(t *testing.T) {
	in(t, 2, nil, func(w *world) {
		old := w.user(0, "kim")
		w.local.Kill("n0")
		w.local.Bury("n0")
		began := time.Now()
		p := w.connect(1)
		p.want("200", w.login(w.authKey, "userId", "kim", "forced", true, "resume", old.secret))
		if d := time.Since(began); d != 0 {
			w.Errorf("it took %v", d)
		}
	})
}

func TestWithoutAQuorumNobodyNewIsLetIn(t *testing.T) {
	in(t, 2, nil, func(w *world) {
		a, b := w.user(0, "a"), w.user(0, "b")
		w.room("K1", a, b)
		a.take()
		w.local.Isolate("n0", true)
		m := w.connect(0).want("543", w.login(w.authKey, "userId", "new"))
		if m.str("hint") == "" {
			w.Errorf("no hint in %v", m)
		}
		// what there is goes on
		a.reaches(b)
		a.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "hi"})
		b.saw("chat:a:3 ")
		b.want("200", msg{"eventOp": "leaveRoom"})
		a.saw("leave:b:4 ")
		b.goAway(1000)
		a.goAway(1000)
		w.local.Isolate("n0", false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := len(w.local.users()) + len(w.local.rooms()); n != 0 {
			w.Errorf("the directory still has %v %v", w.local.users(), w.local.rooms())
		}
	})
}
