package relay

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// Relayed clients reach each other inside the relay when they are of one license and one room, and
// no others do, whatever they have permitted: a permission names an address, and all of them have
// ours. Where the relay does not know rooms, the license decides.
func TestRelayedClientsOfOthersDoNotReachEachOther(t *testing.T) {
	type who struct{ license, room string }
	everybody := []who{{"t1", "a"}, {"t1", "b"}, {"t1", ""}, {"t2", "a"}, {"t2", "b"}, {"t2", ""}}
	s := start(t, func(c *Config) {
		c.Holder = func(tenant, session string) (Holder, bool) {
			h := Holder{License: tenant, User: session}
			if session[0] != '-' {
				h.Room = session[:1]
			}
			return h, true
		}
	})
	client := func(network string, w who, n int) (*rawClient, netip.AddrPort) {
		name := w.room
		if name == "" {
			name = "-"
		}
		c := dial(t, s, network, w.license, fmt.Sprint(name, n))
		return c, c.allocate()
	}
	refused := uint64(0)
	for _, network := range transports {
		for i, from := range everybody {
			for _, to := range everybody {
				a, atA := client(network, from, 1)
				b, atB := client(network, to, 2)
				trusted, atTrusted := client(network, to, 3) // whom b lets in
				if one, two := b.permit(atTrusted.Addr()), b.permit(atA.Addr()); one != 0 ||
					two != 0 {
					t.Fatalf("permissions: %d, %d", one, two)
				}
				if got := a.bind(0x4000, atB); got != 0 {
					t.Fatalf("channel: %d", got)
				}
				want := from.license == to.license &&
					(from.room == to.room || from.room == "" || to.room == "")
				a.channelData(0x4000, "by channel")
				a.indicate(atB, "by indication")
				if want {
					for _, text := range []string{"by channel", "by indication"} {
						if data, at := b.receive(); data != text || at != atA {
							t.Errorf("%d, %v to %v: b got %q from %v", i, from, to, data, at)
						}
					}
				} else {
					refused += 2
					eventually(t, func() bool { return refusedBy(s, reasonOtherRoom) == refused })
				}
				if got := trusted.permit(atB.Addr()); got != 0 {
					t.Fatalf("permission: %d", got)
				}
				// What b's own counterpart sends comes next: nothing else has come before it.
				trusted.indicate(atB, "from its own")
				if data, at := b.receive(); data != "from its own" || at != atTrusted {
					t.Errorf("%v to %v: b got %q from %v", from, to, data, at)
				}
				for _, c := range []*rawClient{a, b, trusted} {
					c.refresh(0)
					_ = c.conn.Close() // or there would be too many that wait
				}
			}
		}
	}
	if got := refusedBy(s, reasonOtherRoom); got != refused || refused == 0 {
		t.Errorf("%d packets refused, want %d", got, refused)
	}
}

// A session that goes to another room takes its allocations along.
func TestAnAllocationFollowsItsSessionToAnotherRoom(t *testing.T) {
	var rooms sync.Map
	rooms.Store("one", "a")
	rooms.Store("two", "b")
	s, clock := startWithClock(t, func(c *Config) {
		c.Holder = func(tenant, session string) (Holder, bool) {
			room, in := rooms.Load(session)
			if !in {
				return Holder{}, false
			}
			return Holder{License: tenant, User: session, Room: room.(string)}, true
		}
	})
	one, two := dial(t, s, "udp", "t", "one"), dial(t, s, "udp", "t", "two")
	atOne, atTwo := one.allocate(), two.allocate()
	if a, b := one.bind(0x4000, atTwo), two.bind(0x4000, atOne); a != 0 || b != 0 {
		t.Fatalf("channels: %d, %d", a, b)
	}
	reaches := func() bool {
		before := refusedBy(s, reasonOtherRoom)
		one.channelData(0x4000, "hello")
		passed := false
		eventually(t, func() bool {
			passed = s.Stats().PeerToClient.Packets > 0
			return passed || refusedBy(s, reasonOtherRoom) > before
		})
		return passed
	}
	if reaches() {
		t.Error("clients of two rooms reach each other")
	}
	rooms.Store("two", "a")
	for limit := time.Now().Add(failSafe); !reaches(); {
		if time.Now().After(limit) {
			t.Fatal("clients of one room never reach each other")
		}
		clock.pass(holderInterval)
		settle(one)
		settle(two)
	}
	if data, _ := two.receive(); data != "hello" {
		t.Errorf("%q", data)
	}
}
