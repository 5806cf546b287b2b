package room

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// deaf is a Sink for tests of many members.
type deaf struct{}

func (deaf) Deliver([]Address, Event) {}

func openDeaf(t *testing.T) fixture {
	f := fixture{t, NewRegistry(deaf{}, Limits{}, Hooks{}), nil}
	f.do(nil, Create{Capacity: 1000, Owner: "owner"})
	return f
}

// What a room's state may take is used up by large members, and nobody gets in who would make it
// larger still.
func TestTheStateIsBounded(t *testing.T) {
	f := openDeaf(t)
	defer f.reg.Close()
	large := func(i int) Member {
		m := member(fmt.Sprint(i))
		m.Name, m.Device = strings.Repeat(`"`, 256), strings.Repeat("\u2028", 85)
		m.Features = slices.Repeat([]string{"0123456789abcdef"}, 16)
		return m
	}
	n := 0
	for ; n < 1000; n++ {
		if _, err := f.reg.Do(t.Context(), key, Join{Member: large(n)}); err != nil {
			break
		}
	}
	if n < 100 || n == 1000 {
		t.Fatalf("%d large members got in", n)
	}
	f.do(ErrFull, Join{Member: large(n)})
	state := f.do(nil, Get{})
	// In another spelling than on the wire.
	if b, _ := json.Marshal(state.Members); len(b) > 2*maxState {
		t.Errorf("the state has %d bytes", len(b))
	}

	by := Actor{"0", at("s-0")}
	name := func(n int) *string { s := strings.Repeat("x", n); return &s }
	f.do(nil, EditMember{By: by, Name: name(1)}) // what becomes smaller may
	f.do(nil, EditMember{By: by, Name: name(256)})
	feed := func(i int) PublishFeed {
		return PublishFeed{
			By:   Actor{fmt.Sprint(i), at(fmt.Sprint("s-", i))},
			Feed: Feed{Type: "cam"},
		}
	}
	refused := false
	for i := range 10 {
		_, err := f.reg.Do(t.Context(), key, feed(i))
		refused = refused || err == ErrStateTooLarge
	}
	if !refused {
		t.Error("feeds make the state larger than its bound")
	}
	f.do(nil, Leave{User: "1", Address: at("s-1")})
	f.do(nil, Leave{User: "2", Address: at("s-2")})
	f.do(nil, Join{Member: member("late")})
}

// The largest room has place for members with names as people have them.
func TestTheLargestRoomFillsUp(t *testing.T) {
	f := openDeaf(t)
	defer f.reg.Close()
	for i := range 1000 {
		m := member(fmt.Sprintf("U%012d", i))
		m.Name, m.Device, m.Features = "홍길동 (서울)", "Chrome 140 on Windows", []string{
			"pair", "publish", "candidates", "roster", "warm", "standby",
		}
		f.do(nil, Join{Member: m})
	}
}

func TestLongWordsOfARoomAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := open(t, 4)
		defer f.reg.Close()
		for _, id := range []string{"a", "b", "c"} {
			f.do(nil, Join{Member: member(id)})
		}
		say := func(want error, user string, n int) {
			t.Helper()
			f.do(want, Broadcast{
				By:   Actor{user, at("s-" + user)},
				Type: "inform",
				Body: json.RawMessage(strconv.Quote(strings.Repeat("x", n-2))),
			})
		}
		for i := range broadcastBurst / (64 << 10) {
			say(nil, []string{"a", "b"}[i%2], 64<<10)
		}
		say(ErrBusy, "a", 64<<10)
		say(ErrBusy, "c", 64<<10)
		say(nil, "c", freeMessage) // short ones are not concerned
		if st := f.do(nil, Get{}); st.Seq != 3+broadcastBurst/(64<<10)+1 {
			t.Errorf("seq %d: what was refused took a number", st.Seq)
		}
		time.Sleep(time.Second / 2)
		say(nil, "c", 64<<10)
		say(ErrBusy, "c", 64<<10)
	})
}

// An announcement carries its member: those of members who have much to say of themselves count as
// words do.
func TestAnnouncementsOfLargeMembersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := open(t, 4)
		defer f.reg.Close()
		large := member("large")
		large.Name, large.Device = strings.Repeat("n", 256), strings.Repeat("d", 256)
		large.Features = slices.Repeat([]string{strings.Repeat("f", 32)}, 8)
		f.do(nil, Join{Member: large})
		f.do(nil, Join{Member: member("small")})
		refused := map[string]int{}
		for i := range 1000 {
			for _, id := range []string{"large", "small"} {
				_, err := f.reg.Do(t.Context(), key, PublishFeed{
					By:   Actor{id, at("s-" + id)},
					Feed: Feed{Type: "cam", Epoch: i},
				})
				if errors.Is(err, ErrBusy) {
					refused[id]++
				}
			}
		}
		if refused["large"] < 500 || refused["small"] != 0 {
			t.Errorf("of 1,000 announcements each were refused: %v", refused)
		}
	})
}

// A list is a set: each member of it is told once.
func TestAGroupIsToldToEachOnce(t *testing.T) {
	f := open(t, 5)
	defer f.reg.Close()
	for _, id := range []string{"a", "b", "c"} {
		f.do(nil, Join{Member: member(id)})
	}
	by := Actor{"a", at("s-a")}
	f.do(ErrGroupTooLarge, AnnounceGroup{
		By:    by,
		Group: "G1",
		List:  slices.Repeat([]string{"b"}, 6),
	})
	f.rec.got = nil
	f.do(nil, AnnounceGroup{By: by, Group: "G1", List: []string{"b", "b", "c", "a", "b"}})
	if len(f.rec.got[at("s-b")]) != 1 || len(f.rec.got[at("s-c")]) != 1 ||
		len(f.rec.got[at("s-a")]) != 0 {
		t.Errorf("told %v", f.rec.got)
	}
}

func TestAnEmptyRoomForgetsWhatWasSaid(t *testing.T) {
	f := fixture{t, NewRegistry(&recorder{}, Limits{}, Hooks{}), &recorder{}}
	defer f.reg.Close()
	f.do(nil, Create{Capacity: 2, Owner: "a", Keep: true})
	f.do(nil, Join{Member: member("a")})
	f.do(nil, Broadcast{By: Actor{"a", at("s-a")}, Type: "chat", Body: json.RawMessage(`"x"`)})
	f.do(nil, Leave{User: "a", Address: at("s-a")})
	r := f.reg.lookup(key)
	defer r.mu.Unlock()
	if r.backlog != nil {
		t.Errorf("%d words are kept for nobody", len(r.backlog))
	}
}
