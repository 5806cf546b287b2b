package room

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// A node that was cut off still has a session that moved to another node meanwhile. Its client is
// not told that it left: it did not.
func TestRefreshRemovesNobodyWhoMoved(t *testing.T) {
	f := open(t, 4)
	defer f.reg.Close()
	for _, id := range []string{"moved", "here"} {
		f.do(nil, Join{Member: member(id)})
	}
	replaced := member("replaced")
	replaced.Address.Session = "s-new"
	f.do(nil, Join{Member: replaced})
	f.do(nil, Move{User: "moved", To: Address{"n2", "s-moved"}, Epoch: 2})
	f.do(nil, Refresh{Node: "n1", Members: []Actor{
		{"moved", at("s-moved")}, {"here", at("s-here")},
		{"replaced", at("s-replaced")}, {"gone", at("s-gone")},
	}})
	for session, want := range map[string]bool{
		"s-moved": false, "s-here": false, "s-replaced": true, "s-gone": true,
	} {
		removed := false
		for _, e := range f.rec.got[at(session)] {
			removed = removed || e.Kind == Removed
		}
		if removed != want {
			t.Errorf("%s was told %v", session, f.rec.got[at(session)])
		}
	}
}

// A leave that was sent again and again may arrive when the session has been on another node and is
// back.
func TestALateLeaveRemovesNobody(t *testing.T) {
	f := open(t, 4)
	defer f.reg.Close()
	f.do(nil, Join{Member: member("stays")})
	m := member("back")
	m.Epoch = 3
	f.do(nil, Join{Member: m})
	f.do(ErrNotIn, Leave{"back", m.Address, 1})
	f.do(nil, Leave{"back", m.Address, 3})
	f.do(nil, Join{Member: m})
	f.do(nil, Leave{"back", m.Address, 0}) // of an earlier version
}

// Who was asked to go does not stay by moving from node to node.
func TestMovingDelaysNoKick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := open(t, 4)
		defer f.reg.Close()
		f.do(nil, Join{Member: member("host")})
		f.do(nil, Join{Member: member("asked")})
		f.do(nil, Kick{By: Actor{"host", at("s-host")}, Target: "asked"})
		to := at("s-asked")
		for i := range 5 {
			time.Sleep(kickGrace / 4)
			synctest.Wait()
			to.Node = fmt.Sprint("n", i+2)
			move := Move{User: "asked", To: to, Epoch: uint64(i + 2)}
			if i < 3 {
				f.do(nil, move)
			} else {
				f.do(ErrNotIn, move)
			}
		}
	})
}
