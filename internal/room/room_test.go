package room

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a Sink that keeps what each address was told.
type recorder struct {
	mu  sync.Mutex
	got map[Address][]Event
}

func (r *recorder) Deliver(to []Address, e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.got == nil {
		r.got = map[Address][]Event{}
	}
	for _, a := range to {
		r.got[a] = append(r.got[a], e)
	}
}

func (r *recorder) told(session string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := ""
	for _, e := range r.got[at(session)] {
		s += fmt.Sprintf("%d:%s:%s ", e.Seq, [...]string{
			"", "entered", "joined", "left", "host", "synced", "removed", "destroyed", "shared",
			"unshared", "said", "kicked", "edited", "editedMember", "permitted", "published",
			"grouped",
		}[e.Kind], e.Member.ID)
	}
	return s
}

func at(session string) Address { return Address{"n1", session} }

func member(id string) Member { return Member{ID: id, Address: at("s-" + id), Epoch: 1} }

var key = Key{"tenant", "K1"}

type fixture struct {
	*testing.T
	reg *Registry
	rec *recorder
}

func open(t *testing.T, capacity int) fixture {
	rec := &recorder{}
	f := fixture{t, NewRegistry(rec, Limits{Rooms: 3}, Hooks{}), rec}
	f.do(nil, Create{Capacity: capacity, Owner: "owner"})
	return f
}

func (f fixture) do(want error, cmd Command) *State {
	f.Helper()
	st, err := f.reg.Do(context.Background(), key, cmd)
	if !errors.Is(err, want) {
		f.Fatalf("%T: got %v, want %v", cmd, err, want)
	}
	return st
}

func (f fixture) told(session, want string) {
	f.Helper()
	if got := f.rec.told(session); got != want {
		f.Errorf("%s was told %q, want %q", session, got, want)
	}
}

func TestEveryMemberSeesOneOrderAndNotItself(t *testing.T) {
	f := open(t, 5)
	defer f.reg.Close()
	f.do(nil, Join{Member: member("a")})
	f.do(nil, Join{Member: member("b")})
	f.do(nil, Join{Member: member("c")})
	f.do(nil, Leave{"b", at("s-b"), 0})
	f.told("s-a", "1:entered:a 2:joined:b 3:joined:c 4:left:b ")
	f.told("s-b", "2:entered:b 3:joined:c ")
	f.told("s-c", "3:entered:c 4:left:b ")
	st := f.do(nil, Get{})
	if st.Seq != 4 || len(st.Members) != 2 || st.Members[0].ID != "a" || !st.Members[0].Host ||
		st.Members[1].Host {
		t.Errorf("state %+v", st)
	}
}

func TestEnteredHoldsTheRoomWithTheCallerInOrderOfJoining(t *testing.T) {
	f := open(t, 5)
	defer f.reg.Close()
	f.do(nil, Join{Member: member("z")})
	f.do(nil, Join{Member: member("a")})
	e := f.rec.got[at("s-a")][0]
	if e.Kind != Entered || e.State.Seq != 2 || e.State.Members[0].ID != "z" ||
		e.State.Members[1].ID != "a" {
		t.Errorf("entered %+v", e)
	}
}

func TestHostHandOver(t *testing.T) {
	f := open(t, 5)
	defer f.reg.Close()
	f.do(nil, Join{Member: member("a")})
	f.do(nil, Join{Member: member("owner")}) // the one who made the room takes over
	f.do(nil, Join{Member: member("b")})
	f.do(nil, Leave{"owner", at("s-owner"), 0}) // then the oldest member
	f.told("s-a", "1:entered:a 2:joined:owner 3:host:owner 4:joined:b 5:left:owner 6:host:a ")
	f.told("s-b", "4:entered:b 5:left:owner 6:host:a ")
	hosts := 0
	for _, m := range f.do(nil, Get{}).Members {
		if m.Host {
			hosts++
		}
	}
	if hosts != 1 {
		t.Errorf("%d hosts, want 1", hosts)
	}
}

func TestWhoEntersAsHostIsHost(t *testing.T) {
	f := open(t, 5)
	defer f.reg.Close()
	f.do(nil, Join{Member: member("a")})
	f.do(nil, Join{Member: member("b"), Host: true})
	f.do(nil, Join{Member: member("c")})
	f.do(nil, Join{Member: member("d"), Host: true}) // the last of several to come
	f.told("s-a", "1:entered:a 2:joined:b 3:host:b 4:joined:c 5:joined:d 6:host:d ")
	for _, m := range f.do(nil, Get{}).Members {
		if m.Host != (m.ID == "d") {
			t.Errorf("host of %s is %v", m.ID, m.Host)
		}
	}
	f.do(nil, Leave{"d", at("s-d"), 0})
	first := f.rec.got[at("s-c")]
	if e := first[len(first)-1]; e.Kind != HostChanged || e.Member.ID != "a" {
		t.Errorf("last event %+v, want the oldest member as host", e)
	}
}

func TestWhoEntersAnEmptyRoomAsHostIsToldOnce(t *testing.T) {
	f := open(t, 5)
	defer f.reg.Close()
	f.do(nil, Join{Member: member("a"), Host: true})
	f.told("s-a", "1:entered:a ")
}

func TestATenantsOwnLimitOfRooms(t *testing.T) {
	f := open(t, 5) // the first room; the server itself allows three
	defer f.reg.Close()
	create := func(tenant, id string, limit int, want error) {
		t.Helper()
		if _, err := f.reg.Do(context.Background(), Key{tenant, id}, Create{
			MaxRooms: limit,
		}); !errors.Is(err, want) {
			t.Errorf("%s/%s with limit %d: got %v, want %v", tenant, id, limit, err, want)
		}
	}
	create("tenant", "K2", 1, ErrTooManyRooms)
	create("tenant", "K1", 1, ErrExists) // what is there is said first
	create("other", "K2", 1, nil)        // counted by tenant
	create("tenant", "K2", 2, nil)
	create("tenant", "K3", 2, ErrTooManyRooms)
	create("tenant", "K3", 0, nil)
	create("tenant", "K4", 9, ErrTooManyRooms) // never more than the server allows
	f.do(nil, Join{Member: member("a")})
	f.do(nil, Leave{"a", at("s-a"), 0}) // a room that ended makes room for another
	create("tenant", "K4", 3, nil)
}

func TestRoomsOfOneMaker(t *testing.T) {
	f := open(t, 5)
	create := func(f fixture, tenant, id, by string, want error) {
		t.Helper()
		if _, err := f.reg.Do(context.Background(), Key{tenant, id}, Create{
			Owner:    by,
			MaxOwned: 1,
		}); !errors.Is(err, want) {
			t.Errorf("%s/%s by %s: got %v, want %v", tenant, id, by, err, want)
		}
	}
	create(f, "tenant", "K2", "owner", ErrTooManyOwned)
	create(f, "tenant", "K1", "owner", ErrExists) // what is there is said first
	create(f, "tenant", "K2", "another", nil)
	create(f, "other", "K1", "owner", nil) // counted by tenant
	before, _ := f.reg.Snapshot(key)
	f.do(nil, Join{Member: member("a")})
	f.do(nil, Leave{"a", at("s-a"), 0})
	create(f, "tenant", "K3", "owner", nil) // the first has ended
	f.reg.Close()

	f = restored(t, before) // what a restart brings back counts too
	create(f, "tenant", "K2", "owner", ErrTooManyOwned)
	f.do(nil, Join{Member: member("a")})
	f.do(nil, Leave{"a", at("s-a"), 0})
	if len(f.reg.makers) != 0 {
		t.Errorf("%d makers are remembered, and there are no rooms", len(f.reg.makers))
	}
	f.reg.Close()
}

func TestRefusals(t *testing.T) {
	f := open(t, 1)
	defer f.reg.Close()
	f.do(ErrExists, Create{})
	f.do(nil, Join{Member: member("a")})
	f.do(ErrAlreadyIn, Join{Member: member("a")})
	f.do(ErrFull, Join{Member: member("b")})
	f.do(ErrNotIn, Leave{"b", at("s-b"), 0})
	f.do(ErrNotIn, Leave{"a", at("another session"), 0})
	f.do(ErrNotIn, Sync{User: "a", Address: at("another session")})
	f.told("s-a", "1:entered:a ")
	f.do(nil, Leave{"a", at("s-a"), 0})
	f.do(ErrNoRoom, Join{Member: member("a")}) // ended with its last member
	for i := range 3 {
		key := Key{"tenant", fmt.Sprint(i)}
		if _, err := f.reg.Do(context.Background(), key, Create{}); err != nil {
			t.Fatal(err)
		}
	}
	f.do(ErrTooManyRooms, Create{})
	if _, err := f.reg.Do(context.Background(), Key{"other tenant", "K1"}, Create{}); err != nil {
		t.Errorf("another tenant's room: %v", err)
	}
}

func TestNewerSessionReplacesOneThatEndedWithoutAWord(t *testing.T) {
	f := open(t, 2)
	defer f.reg.Close()
	f.do(nil, Join{Member: member("a")})
	f.do(nil, Join{Member: member("b")})
	newer := Member{ID: "b", Address: at("s-b2"), Epoch: 2}
	f.do(nil, Join{Member: newer})
	f.told("s-a", "1:entered:a 2:joined:b 3:left:b 4:joined:b ")
	f.do(ErrStale, Join{Member: member("b")})
	f.do(ErrNotIn, Leave{"b", at("s-b"), 0})
}

func TestSyncSendsTheStateAndTellsNobodyElse(t *testing.T) {
	f := open(t, 2)
	defer f.reg.Close()
	f.do(nil, Join{Member: member("a")})
	f.do(nil, Join{Member: member("b")})
	f.do(nil, Sync{User: "a", Address: at("s-a")})
	f.told("s-a", "1:entered:a 2:joined:b 2:synced:a ")
	f.told("s-b", "2:entered:b ")
}

func TestSyncTellsWhatWasSaidMeanwhile(t *testing.T) {
	f := open(t, 4)
	defer f.reg.Close()
	say := func(user, word, text string) {
		f.do(nil, Broadcast{
			By:   Actor{user, at("s-" + user)},
			Type: word,
			Body: json.RawMessage(strconv.Quote(text)),
		})
	}
	f.do(nil, Join{Member: member("a")})
	say("a", "chat", "before b came")
	f.do(nil, Join{Member: member("b")})
	f.do(nil, Join{Member: member("c")})
	say("a", "chat", "one")
	say("b", "inform", "my own")
	say("c", "inform", "two")
	for _, seen := range []uint64{0, 5, 7} { // 0 claims not to know even what was said before
		f.do(nil, Sync{User: "b", Address: at("s-b"), Seen: seen})
	}
	f.told("s-b", "3:entered:b 4:joined:c 5:said:a 7:said:c 7:synced:b 5:said:a 7:said:c "+
		"7:synced:b 7:said:c 7:synced:b ")

	remembered := func() int {
		f.rec.mu.Lock()
		f.rec.got = nil
		f.rec.mu.Unlock()
		f.do(nil, Sync{User: "c", Address: at("s-c"), Seen: 7})
		return strings.Count(f.rec.told("s-c"), ":said:a")
	}
	for range 2 * maxBacklog {
		say("a", "chat", "much")
	}
	const others = 2 // what b and c said, which a cannot drive out
	if got := remembered(); got != maxBacklog-others {
		t.Errorf("%d messages of %d are remembered, want %d", got, 2*maxBacklog, maxBacklog-others)
	}
	for range 3 {
		say("a", "chat", strings.Repeat("x", maxBacklogBytes/2-20))
	}
	if got := remembered(); got != 2 {
		t.Errorf("%d long messages are remembered, want 2", got)
	}
	// Too long by its quotes: it drives out all of a's and is not kept.
	say("a", "chat", strings.Repeat("x", maxBacklogBytes))
	if got := remembered(); got != 0 {
		t.Errorf("%d messages are remembered, want none", got)
	}
	f.do(nil, Join{Member: member("d")})
	say("d", "chat", "three")
	f.rec.mu.Lock()
	f.rec.got = nil
	f.rec.mu.Unlock()
	f.do(nil, Sync{User: "b", Address: at("s-b"), Seen: 6})
	if got := f.rec.told("s-b"); strings.Count(got, ":said:c") != 1 ||
		strings.Count(got, ":said:d") != 1 {
		t.Errorf("of what others said b is told %q", got)
	}
}

func TestEmptyRoomsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone []Key
		reg := NewRegistry(&recorder{}, Limits{}, Hooks{
			Gone: func(k Key) { gone = append(gone, k) },
		})
		defer reg.Close()
		ctx := context.Background()
		kept := Key{"tenant", "kept"}
		for k, keep := range map[Key]bool{key: false, kept: true} {
			if _, err := reg.Do(ctx, k, Create{Capacity: 2, Keep: keep}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := reg.Do(ctx, kept, Join{Member: member("a")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		if len(gone) != 1 || gone[0] != key {
			t.Fatalf("gone %v, want the room nobody entered", gone)
		}
		if _, err := reg.Do(ctx, kept, Leave{"a", at("s-a"), 0}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(23 * time.Hour)
		if reg.Count() != 1 {
			t.Fatal("a kept room ended early")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if reg.Count() != 0 || len(gone) != 2 {
			t.Errorf("%d rooms left, gone %v", reg.Count(), gone)
		}
	})
}

// Many users come and go at once: nobody may be told of an order that another did not see, and the
// room must end empty.
func TestConcurrentJoinAndLeaveKeepOneOrder(t *testing.T) {
	rec := &recorder{}
	reg := NewRegistry(rec, Limits{}, Hooks{})
	defer reg.Close()
	ctx := context.Background()
	if _, err := reg.Do(ctx, key, Create{Capacity: 100, Keep: true}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for u := range 8 {
		wg.Go(func() {
			for i := range 50 {
				m := Member{
					ID:      fmt.Sprint(u),
					Address: at(fmt.Sprintf("%d-%d", u, i)),
					Epoch:   uint64(i),
				}
				if _, err := reg.Do(ctx, key, Join{Member: m}); err != nil {
					t.Error(err)
				}
				if _, err := reg.Do(ctx, key, Leave{m.ID, m.Address, 0}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for a, events := range rec.got {
		for i, e := range events[1:] {
			if e.Seq != events[i].Seq+1 {
				t.Fatalf("%v was told %d after %d", a, e.Seq, events[i].Seq)
			}
		}
	}
}
