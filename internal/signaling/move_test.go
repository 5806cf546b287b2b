package signaling

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/enginetest"
)

// resumes connects to a node and takes the session of p up there.
func (p *peer) resumes(node int, extra ...any) *peer {
	p.w.Helper()
	q := p.w.connect(node)
	a := q.register(p.user, append([]any{"resume", p.secret}, extra...)...)
	if a["resumed"] != true || a.str("userId") != p.user {
		p.w.Errorf("%s resumed on node %d: %v", p.user, node, a)
	}
	return q
}

// The session that moves may own the room on its old node, be a guest there or elsewhere.
func TestASessionIsResumedOnAnotherNode(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		for owner := range nodes {
			in(t, nodes, nil, func(w *world) {
				lee := w.user(owner, "lee")
				kim, other := w.user(0, "kim"), w.user(nodes-1, "other")
				w.room("K1", lee, kim, other)
				session := w.sessionOf("kim")
				lee.take()
				other.take()
				kim.lose()
				time.Sleep(time.Second)
				lee.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "missed"})
				lee.want("200", msg{"eventOp": "candidate", "target": "kim", "candidate": msg{}})
				back := kim.resumes(1)
				if now := w.sessionOf("kim"); now.Session != session.Session || now.Node != "n1" {
					w.Errorf("kim was %v, and is %v", session, now)
				}
				if got := back.told(); !strings.Contains(got, "candidate<lee ") ||
					!strings.Contains(got, "chat:lee:4 ") {
					w.Errorf("waiting for kim was %q", got)
				}
				lee.saw("")
				other.saw("chat:lee:4 ")
				w.sameRosters("K1")
				for _, p := range []*peer{lee, other} {
					p.reaches(back)
					back.reaches(p)
				}
				back.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "here"})
				lee.saw("chat:kim:5 ")
				// and to a third place, from the first node's own, while the connection is there
				again := back.resumes(0)
				if c := back.closeCode(); c != 4001 {
					w.Errorf("the former connection was closed with %d", c)
				}
				again.reaches(lee)
				again.want("200", msg{"eventOp": "leaveRoom"})
				lee.saw("leave:kim:6 ")
				if n := w.sessions("kim"); n != 1 {
					w.Errorf("kim has %d sessions", n)
				}
			})
		}
	}
}

func (w *world) sessionOf(user string) Location {
	w.Helper()
	l, err := w.local.Holder(w.Context(), w.cpCode, user)
	if err != nil {
		w.Fatal(err)
	}
	return l
}

// sessions counts those of a user on all nodes.
func (w *world) sessions(user string) (n int) {
	for _, node := range w.nodes {
		if node.killed {
			continue
		}
		for _, s := range node.hub.all() {
			if s.user == user {
				n++
			}
		}
	}
	return n
}

func TestASessionThatMovedAndIsNotResumedLeaves(t *testing.T) {
	in(t, 2, nil, func(w *world) {
		lee, kim := w.user(0, "lee"), w.user(0, "kim")
		w.room("K1", lee, kim)
		kim.lose()
		back := kim.resumes(1)
		back.lose()
		time.Sleep(19 * time.Second)
		lee.saw("")
		time.Sleep(2 * time.Second)
		lee.saw("leave:kim:3 ")
		w.connect(0).want("410", w.login(w.authKey, "userId", "kim", "resume", kim.secret))
		if l := w.sessionOf("kim"); l.Session != "" {
			w.Errorf("the id is still held by %v", l)
		}
	})
}

// A secret from before the move ends the session where it is now.
func TestLeaveReachesTheNodeThatHasTheSession(t *testing.T) {
	in(t, 3, nil, func(w *world) {
		lee, kim := w.user(2, "lee"), w.user(0, "kim")
		w.room("K1", lee, kim)
		w.nodes[1].post(t, "/leave", `{"resume":"`+kim.secret+`"}`)
		lee.saw("leave:kim:3 ")
		if c := kim.closeCode(); c != 4002 {
			w.Errorf("closed with %d", c)
		}
		kim = w.user(0, "kim")
		kim.joins("K1")
		lee.saw("join:kim:4 ")
		kim.resumes(1)
		w.nodes[0].post(t, "/leave", `{"resume":"`+kim.secret+`"}`)
		lee.saw("leave:kim:5 ")
		if n := w.sessions("kim"); n != 0 {
			w.Errorf("kim has %d sessions", n)
		}
	})
}

// Whatever message of the move is lost, the session is in one place.
func TestASessionMovesThroughLosses(t *testing.T) {
	for _, lost := range []struct {
		kind enginetest.Kind
		text string
	}{
		{enginetest.Request, `"take"`},
		{enginetest.Response, `"session"`},
		{enginetest.Request, `"Move"`},
		{enginetest.Message, event(room.Moved)},
		{enginetest.Request, `"Sync"`},
	} {
		in(t, 2, nil, func(w *world) {
			lee, kim := w.user(0, "lee"), w.user(0, "kim")
			w.room("K1", lee, kim)
			kim.lose()
			w.loses(1, lost.kind, lost.text)
			q := w.connect(1)
			q.send(w.login(w.authKey, "userId", "kim", "resume", kim.secret))
			time.Sleep(time.Second)
			synctest.Wait()
			if w.local.Lost() != 1 {
				w.Errorf("%v: %d were lost", lost, w.local.Lost())
			}
			if got := q.told(); !strings.HasPrefix(got, "answer:register:200 ") {
				w.Errorf("%v: told %q", lost, got)
			}
			q.user = "kim"
			lee.reaches(q)
			q.reaches(lee)
			w.sameRosters("K1")
			if n := w.sessions("kim"); n != 1 {
				w.Errorf("kim has %d sessions", n)
			}
		})
	}
}

// A user token that has expired meanwhile does not keep its session from moving.
func TestASessionOfAnExpiredTokenMoves(t *testing.T) {
	in(t, 2, nil, func(w *world) {
		token := w.token("kim", func(p *license.UserParams) {
			p.Expires = time.Now().Add(time.Minute)
		})
		kim := w.tokenUser(0, token)
		time.Sleep(2 * time.Minute)
		kim.lose()
		kim.resumes(1, "authKey", token)
	})
}
