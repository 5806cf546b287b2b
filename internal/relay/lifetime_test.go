package relay

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// lifetimeIn is the LIFETIME of an answer in seconds.
func lifetimeIn(t *testing.T, answer *stun.Message) uint32 {
	t.Helper()
	v, err := answer.Get(stun.AttrLifetime)
	if err != nil || len(v) != 4 {
		t.Fatalf("no lifetime in %v", answer)
	}
	return binary.BigEndian.Uint32(v)
}

func TestLifetimesThatAreGranted(t *testing.T) {
	s, _ := startWithClock(t, nil)
	for asked, want := range map[uint32]uint32{
		1: 600, 600: 600, 601: 601, 3600: 3600, 3601: 3600, 1<<32 - 1: 3600,
	} {
		c := dial(t, s, "udp", "t", "s")
		c.challenge()
		if got := lifetimeIn(
			t, c.ask(stun.MethodAllocate, transport(17), life(asked)),
		); got != want {
			t.Errorf("Allocate for %d s: %d s", asked, got)
		}
		if got := lifetimeIn(t, c.ask(stun.MethodRefresh, life(asked))); got != want {
			t.Errorf("Refresh for %d s: %d s", asked, got)
		}
	}
	c := dial(t, s, "udp", "t", "s")
	c.challenge()
	for _, method := range []stun.Method{stun.MethodAllocate, stun.MethodRefresh} {
		if got := lifetimeIn(t, c.ask(method, transport(17))); got != 600 {
			t.Errorf("%v without a wish: %d s", method, got)
		}
	}
	if got := lifetimeIn(t, c.ask(stun.MethodRefresh, life(0))); got != 0 {
		t.Errorf("the end: %d s", got)
	}
}

func TestAllocationThatIsNotRefreshedEnds(t *testing.T) {
	s, clock := startWithClock(t, nil)
	stays, goes := dial(t, s, "udp", "t", "s"), dial(t, s, "udp", "t", "s")
	stays.allocate()
	goes.allocate()
	clock.pass(allocationLife - time.Second)
	if got := stays.refresh(600); got != 0 {
		t.Fatalf("refresh: %d", got)
	}
	settle(stays, goes)
	if got := s.Stats().Allocations; got != 2 {
		t.Errorf("%d allocations a second before the end", got)
	}
	clock.pass(time.Second)
	settle(stays, goes)
	if got := s.Stats().Allocations; got != 1 {
		t.Errorf("%d allocations at the end of one", got)
	}
	if got := stays.refresh(600); got != 0 {
		t.Errorf("the one that was refreshed: %d", got)
	}
}

// A permission lasts five minutes and a channel ten (RFC 8656 sections 9 and 12); a new binding
// renews both.
func TestPermissionsAndChannelsEnd(t *testing.T) {
	s, clock := startWithClock(t, nil)
	far, other := udpPeer(t, peerHost(t)), udpPeer(t, "127.0.0.3")
	c := dial(t, s, "udp", "t", "s")
	relayed := c.allocate()
	if one, two := c.bind(0x4000, localOf(far)), c.permit(localOf(other).Addr()); one != 0 ||
		two != 0 {
		t.Fatalf("channel: %d, permission: %d", one, two)
	}
	try := func() (upByChannel, upByPermission, down bool) {
		up, dn := passed(s, c)
		c.channelData(0x4000, "up")
		afterChannel, _ := passed(s, c)
		c.indicate(localOf(other), "up")
		afterSend, _ := passed(s, c)
		refused := refusedBy(s, reasonNoPermission) // one of them may be what was just sent
		sendFrom(t, far, relayed, "down")
		eventually(t, func() bool {
			return s.Stats().PeerToClient.Packets == dn+1 ||
				refusedBy(s, reasonNoPermission) > refused
		})
		_, now := passed(s, c)
		return afterChannel > up, afterSend > afterChannel, now > dn
	}
	check := func(when string, channel, permission, back bool) {
		t.Helper()
		s.stats.rejected[reasonNoPermission].Store(0)
		if a, b, d := try(); a != channel || b != permission || d != back {
			t.Errorf("%s: up by the channel %v, by the permission %v, down %v", when, a, b, d)
		}
	}
	check("at first", true, true, true)
	clock.pass(permissionLife - time.Second)
	check("before the permissions end", true, true, true)
	clock.pass(time.Second)
	check("without permissions", true, false, false)
	if got := c.bind(0x4000, localOf(far)); got != 0 {
		t.Fatalf("channel again: %d", got)
	}
	check("with the channel renewed", true, false, true)
	c.refresh(3600)
	clock.pass(channelLife - time.Second)
	check("before the channel ends", true, false, false)
	clock.pass(time.Second)
	check("at the end of the channel", false, false, false)
	c.renew()
	// Number and peer are free again, apart from each other.
	if one, two := c.bind(0x4000, localOf(other)), c.bind(0x4001, localOf(far)); one != 0 ||
		two != 0 {
		t.Errorf("bound the other way: %d, %d", one, two)
	}
}

func TestGreatestAge(t *testing.T) {
	var mu sync.Mutex
	var records []Record
	s, clock := startWithClock(t, func(c *Config) {
		c.MaxAge = time.Hour
		c.Closed = func(r Record) { mu.Lock(); records = append(records, r); mu.Unlock() }
	})
	c := dial(t, s, "udp", "t", "s")
	c.challenge()
	if got := lifetimeIn(t, c.ask(stun.MethodAllocate, transport(17), life(3600))); got != 3600 {
		t.Errorf("%d s at first", got)
	}
	clock.pass(50 * time.Minute)
	c.renew()
	if got := lifetimeIn(t, c.ask(stun.MethodRefresh, life(3600))); got != 600 {
		t.Errorf("%d s after 50 minutes", got)
	}
	clock.pass(10*time.Minute - time.Second)
	settle(c)
	if got := s.Stats().Allocations; got != 1 {
		t.Errorf("%d allocations before the end", got)
	}
	clock.pass(time.Second)
	settle(c)
	mu.Lock()
	defer mu.Unlock()
	if len(records) != 1 || records[0].Reason != closedExpired || records[0].Duration != time.Hour {
		t.Errorf("records are %+v", records)
	}
}

// A session that is in a room may allocate; when it leaves, what it holds ends within five seconds,
// and nothing of others.
func TestAllocationsLiveWithTheirSession(t *testing.T) {
	var mu sync.Mutex
	rooms, asked, records := map[string]Holder{}, map[string]int{}, []Record(nil)
	s, clock := startWithClock(t, func(c *Config) {
		c.Holder = func(tenant, session string) (Holder, bool) {
			mu.Lock()
			defer mu.Unlock()
			asked[tenant+"."+session]++
			h, ok := rooms[tenant+"."+session]
			return h, ok
		}
		c.Closed = func(r Record) { mu.Lock(); records = append(records, r); mu.Unlock() }
	})
	early := dial(t, s, "udp", "t", "leaves")
	early.challenge()
	if got := code(early.ask(stun.MethodAllocate, transport(17))); got != 403 ||
		refusedBy(s, reasonNotInRoom) != 1 {
		t.Errorf("in no room: %d", got)
	}
	leaver := Holder{License: "l", User: "u", Room: "r"}
	mu.Lock()
	rooms["t.leaves"], rooms["t.stays"] = leaver, Holder{User: "v"}
	mu.Unlock()
	one, two, other := dial(
		t,
		s,
		"udp",
		"t",
		"leaves",
	), dial(
		t,
		s,
		"tcp",
		"t",
		"leaves",
	), dial(
		t,
		s,
		"udp",
		"t",
		"stays",
	)
	for _, c := range []*rawClient{one, two, other} {
		c.allocate()
	}
	for range 3 {
		clock.pass(2 * time.Second)
		settle(one, other)
	}
	if got := s.Stats().Allocations; got != 3 {
		t.Fatalf("%d allocations while all are in a room", got)
	}
	mu.Lock()
	delete(rooms, "t.leaves")
	mu.Unlock()
	for range 3 {
		clock.pass(time.Second)
		settle(one, other)
	}
	eventually(t, func() bool { return s.Stats().Allocations == 1 })
	mu.Lock()
	if len(records) != 2 || records[0].Reason != closedSession ||
		records[1].Reason != closedSession ||
		records[0].Holder != leaver ||
		records[1].Holder != leaver {
		t.Errorf("records are %+v", records)
	}
	// Once at the Allocate, and then at most once in two seconds with each worker.
	if n, most := asked["t.stays"], 1+6*len(s.workers); n < 2 || n > most {
		t.Errorf("asked %d times about a session, at most %d are needed", n, most)
	}
	mu.Unlock()
	if got := one.refresh(600); got != 437 {
		t.Errorf("refresh by who has left: %d", got)
	}
	if got := other.refresh(600); got != 0 {
		t.Errorf("refresh by who has stayed: %d", got)
	}
	if got := code(one.ask(stun.MethodAllocate, transport(17))); got != 403 {
		t.Errorf("Allocate by who has left: %d", got)
	}
}

// Whoever sends packets at chosen moments delays no sweep beyond the promised 3 s: a driver wakes a
// worker at the latest when it has been idle for a sweepInterval.
func TestPacketsDelayNoSweep(t *testing.T) {
	for _, pause := range []time.Duration{0, time.Millisecond, 499 * time.Millisecond,
		999 * time.Millisecond, sweepInterval - 1} {
		w, _ := offline(4)
		in := true
		w.server.cfg.Holder = func(string, string) (Holder, bool) { return Holder{}, in }
		offlineAllocation(t, w, offlinePath(1))
		for range 3 {
			w.now += sweepInterval
			w.sweep()
		}
		in = false
		for left := w.now; len(w.owned) > 0; w.sweep() {
			w.now += min(pause, sweepInterval)
			w.sweep()
			w.now += sweepInterval
			if w.now-left > 3*time.Second {
				t.Errorf("packets after %v: an allocation outlives its session by %v",
					pause, w.now-left)
				break
			}
		}
	}
}
