package room

import (
	"testing"
	"testing/synctest"
	"time"
)

// restored is a registry with the room of s, to which those come back that here lists.
func restored(t *testing.T, s Snapshot, here ...string) fixture {
	t.Helper()
	rec := &recorder{}
	f := fixture{t, NewRegistry(rec, Limits{}, Hooks{}), rec}
	err := f.reg.Restore(s, func(m Member) bool {
		for _, id := range here {
			if m.ID == id {
				return true
			}
		}
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWhatBelongsToThoseWhoDoNotComeBackEnds(t *testing.T) {
	f := open(t, 4)
	defer f.reg.Close()
	for _, id := range []string{"a", "b"} {
		f.do(nil, Join{Member: member(id)})
	}
	by := Actor{"a", at("s-a")}
	f.do(nil, StartShare{By: by, Type: "screen"})
	for name, here := range map[string][]string{"some come back": {"b"}, "nobody comes back": nil} {
		t.Run(name, func(t *testing.T) {
			before, _ := f.reg.Snapshot(key)
			f := restored(t, before, here...)
			defer f.reg.Close()
			c := Member{ID: "c", Address: at("s-c"), Epoch: 1}
			f.do(nil, Join{Member: c})
			f.do(nil, StartShare{By: Actor{"c", c.Address}, Type: "screen"})
		})
	}
	f.do(ErrSharing, StartShare{By: Actor{"b", at("s-b")}, Type: "screen"})
}

func TestARoomKeepsItsLifeOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fixture{t, NewRegistry(&recorder{}, Limits{}, Hooks{}), &recorder{}}
		defer f.reg.Close()
		f.do(nil, Create{Capacity: 2, Keep: true})
		never, _ := f.reg.Snapshot(key)
		f.do(nil, Join{Member: member("a")})
		f.do(nil, Leave{"a", at("s-a"), 0})
		left, _ := f.reg.Snapshot(key)
		for s, life := range map[*Snapshot]time.Duration{
			&never: 10 * time.Minute,
			&left:  24 * time.Hour,
		} {
			f := restored(t, *s)
			time.Sleep(life - time.Second)
			synctest.Wait()
			if f.reg.Count() != 1 {
				t.Errorf("seq %d: ended before %v", s.State.Seq, life)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if f.reg.Count() != 0 {
				t.Errorf("seq %d: lives longer than %v", s.State.Seq, life)
			}
			f.reg.Close()
		}
	})
}

// Another node has the room: it is forgotten without a word, and counts no more. The room that it
// was the last group of does not wait for it.
func TestADroppedRoomIsForgotten(t *testing.T) {
	f := open(t, 4)
	defer f.reg.Close()
	f.do(nil, Join{Member: member("a")})
	group := Key{key.Tenant, "G1"}
	if _, err := f.reg.Do(t.Context(), group, Create{Owner: "a", Parent: key.Room}); err != nil {
		t.Fatal(err)
	}
	f.do(nil, Leave{"a", at("s-a"), 0})
	if f.reg.Count() != 2 {
		t.Fatalf("%d rooms", f.reg.Count())
	}
	before, _ := f.reg.Snapshot(group)
	f.rec.got = nil
	got, ok := f.reg.Drop(group)
	if !ok || got.State.Key != before.State.Key || got.Maker != before.Maker {
		t.Errorf("dropped %v, %t", got, ok)
	}
	if _, ok := f.reg.Drop(group); ok {
		t.Error("dropped twice")
	}
	consistent(t, f.reg, "drop")
	if f.reg.Count() != 0 || len(f.rec.got) != 0 {
		t.Errorf("%d rooms are left, told %v", f.reg.Count(), f.rec.got)
	}
	st := before.State
	if s := SnapshotOf(st); s.Version != snapshotVersion || s.State.Key != st.Key {
		t.Errorf("snapshot %v", s)
	}
}
