package room

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// consistent recomputes every count of the registry from the rooms it holds.
func consistent(t *testing.T, g *Registry, after string) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	tenants, makers, sources := count[string]{}, count[maker]{}, count[maker]{}
	for key, r := range g.rooms {
		tenants.add(key.Tenant)
		makers.add(r.makerKey())
		for _, from := range r.sourceKeys() {
			sources.add(from)
		}
		r.mu.Lock()
		if len(r.members) == 0 && r.expiry == nil && len(g.groups[key]) == 0 {
			t.Fatalf("after %s: nothing ends %v, which nobody is in", after, key)
		}
		r.mu.Unlock()
	}
	for parent, groups := range g.groups {
		if len(groups) == 0 {
			t.Fatalf("after %s: %v has an entry without groups", after, parent)
		}
		for key, maker := range groups {
			if r := g.rooms[key]; r == nil || r.parent != parent || r.maker != maker {
				t.Fatalf("after %s: %v is counted as a group of %v, made by %s", after, key,
					parent, maker)
			}
		}
	}
	if !maps.Equal(g.tenants, tenants) {
		t.Fatalf("after %s: rooms of tenants %v, counted %v", after, tenants, g.tenants)
	}
	if !maps.Equal(g.sources, sources) {
		t.Fatalf("after %s: rooms of addresses %v, counted %v", after, sources, g.sources)
	}
	if !maps.Equal(g.makers, makers) {
		t.Fatalf("after %s: rooms of makers %v, counted %v", after, makers, g.makers)
	}
}

// crowd drives one registry with random commands of a few users, each with one session at a time.
type crowd struct {
	*testing.T
	rng   *rand.Rand
	reg   *Registry
	epoch map[string]uint64
}

func (c *crowd) pick(of ...string) string { return of[c.rng.IntN(len(of))] }

func (c *crowd) user() string { return c.pick("a", "b", "c", "d", "e") }

func (c *crowd) room() Key { return Key{c.pick("T1", "T2"), c.pick("K1", "K2", "K3", "G1", "G2")} }

func (c *crowd) actor(user string) Actor {
	return Actor{user, at(fmt.Sprintf("%s-%d", user, c.epoch[user]))}
}

func (c *crowd) do(key Key, cmd Command) {
	_, _ = c.reg.Do(context.Background(), key, cmd) // most are refused, as they may be
	consistent(c.T, c.reg, fmt.Sprintf("%T", cmd))
}

// step is one random command. Sessions that are replaced leave no word, as those of a server that
// has crashed.
func (c *crowd) step() {
	key, user := c.room(), c.user()
	by := c.actor(user)
	switch c.rng.IntN(18) {
	case 16:
		if key.Room[0] == 'K' {
			group := Key{key.Tenant, c.pick("G1", "G2")}
			c.do(group, Create{
				Capacity: 4,
				Owner:    user,
				MaxRooms: 4,
				Parent:   key.Room,
				Listed:   []string{"a", "b"},
			})
		}
	case 17:
		c.do(key, EndGroup{By: by})
	case 0, 1, 2:
		c.do(key, Create{
			Capacity: 4, Owner: user, Keep: c.rng.IntN(4) == 0, MaxRooms: 3, MaxOwned: 2,
			Source: c.pick("", "x", "y"), MaxFromSource: 2, Site: c.pick("", "z"), MaxFromSite: 3,
		})
	case 3, 4, 5, 6:
		m := Member{ID: user, Address: by.Address, Epoch: c.epoch[user]}
		c.do(key, Join{Member: m, Host: c.rng.IntN(8) == 0})
	case 7, 8:
		c.do(key, Leave{user, by.Address, 0})
	case 9, 10:
		c.do(key, Edit{By: by, Host: c.user()})
	case 11:
		c.do(key, Kick{By: by, Target: c.user()})
	case 12:
		c.do(key, Destroy{By: by})
	case 13:
		c.epoch[user]++
	case 14:
		time.Sleep(time.Duration(c.rng.IntN(int(4 * time.Second))))
		synctest.Wait()
		consistent(c.T, c.reg, "waiting")
	case 15:
		if c.rng.IntN(4) == 0 {
			c.restart()
		}
	}
}

// restart brings all rooms back in another registry, with some of their members.
func (c *crowd) restart() {
	var kept []Snapshot
	for key := range c.reg.rooms {
		s, _ := c.reg.Snapshot(key)
		kept = append(kept, s)
	}
	c.reg.Close()
	c.reg = NewRegistry(&recorder{}, Limits{}, Hooks{})
	for _, s := range kept {
		if err := c.reg.Restore(s, func(Member) bool { return c.rng.IntN(3) > 0 }); err != nil {
			c.Fatal(err)
		}
		consistent(c.T, c.reg, "restart")
	}
}

// No rooms, no counts: whatever happened to host, owner, sessions and server meanwhile.
func TestCountsFollowTheRooms(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			c := &crowd{t, rand.New(rand.NewPCG(seed, 0)),
				NewRegistry(&recorder{}, Limits{}, Hooks{}), map[string]uint64{}}
			defer func() { c.reg.Close() }()
			for range 300 {
				c.step()
			}
			for key := range maps.Clone(c.reg.rooms) {
				s, there := c.reg.Snapshot(key)
				if !there { // it waited for its last group
					continue
				}
				for _, m := range s.State.Members {
					c.do(key, Leave{m.ID, m.Address, 0})
				}
			}
			time.Sleep(25 * time.Hour)
			synctest.Wait()
			consistent(t, c.reg, "the end")
			n := len(c.reg.rooms) + len(c.reg.tenants) + len(c.reg.makers) +
				len(c.reg.sources) + len(c.reg.groups)
			if n != 0 {
				t.Errorf("seed %d: nobody is left, and the registry holds %v %v %v", seed,
					c.reg.rooms, c.reg.tenants, c.reg.makers)
			}
		})
	}
}

func TestAHandedOnRoomCountsForItsMaker(t *testing.T) {
	f := open(t, 2)
	defer f.reg.Close()
	f.do(nil, Join{Member: member("owner")})
	f.do(nil, Join{Member: member("b")})
	f.do(nil, Edit{By: Actor{"owner", at("s-owner")}, Host: "b"})
	create := func(by, id string, want error) {
		t.Helper()
		if _, err := f.reg.Do(context.Background(), Key{"tenant", id}, Create{
			Owner:    by,
			MaxOwned: 1,
		}); err != want {
			t.Errorf("%s by %s: %v, want %v", id, by, err, want)
		}
	}
	create("b", "K2", nil)
	create("owner", "K3", ErrTooManyOwned)
	f.do(nil, Leave{"owner", at("s-owner"), 0})
	f.do(nil, Leave{"b", at("s-b"), 0})
	create("owner", "K3", nil)

	// the new host is host again when it comes back, also after a restart
	f.do(nil, Create{Capacity: 3, Owner: "owner"})
	f.do(nil, Join{Member: member("owner")})
	f.do(nil, Join{Member: member("b")})
	f.do(nil, Edit{By: Actor{"owner", at("s-owner")}, Host: "b"})
	f.do(nil, Leave{"b", at("s-b"), 0})
	before, _ := f.reg.Snapshot(key)
	g := restored(t, before, "owner")
	defer g.reg.Close()
	g.do(nil, Join{Member: member("b")})
	g.do(nil, Edit{By: Actor{"b", at("s-b")}})
	if got := g.reg.makers; !maps.Equal(got, count[maker]{{"tenant", "owner"}: 1}) {
		t.Errorf("makers after a restart: %v", got)
	}
}
