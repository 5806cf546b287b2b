package signaling

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
)

func (p *peer) leaves() *peer {
	p.w.Helper()
	p.want("200", msg{"eventOp": "leaveRoom"})
	return p
}

func (p *peer) makesGroup(list ...string) string {
	p.w.Helper()
	return p.want("200", msg{
		"eventOp": "createGroup",
		"list":    list,
		"title":   "Team",
	}).str("groupId")
}

// empty fails unless all has ended, once nobody has been there for as long as an empty room stays.
func (w *world) empty() {
	w.Helper()
	time.Sleep(11 * time.Minute)
	synctest.Wait()
	for _, n := range w.nodes {
		if s := n.hub.Stats(); s.Sessions+s.Rooms+s.Rosters != 0 {
			w.Errorf("left over: %+v", s)
		}
	}
}

// As the original's page for groups does it: leave the main room, join the group, and come back
// when the group has ended.
func TestAGroupIsARoomToGoToAndToComeBackFrom(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee, pak := w.user(0, "host"), w.user(second, "lee"), w.user(0, "pak")
		main := host.want("200", msg{
			"eventOp":     "createVideoRoom",
			"capacity":    5,
			"talkingNoty": true,
		}).str("roomId")
		for _, p := range []*peer{host, lee, pak} {
			p.joins(main)
		}
		host.take()
		lee.take()
		id := lee.makesGroup("pak", "nobody", "lee")
		if m := pak.only(); m.str("type") != "createGroup" || m.str("groupId") != id ||
			m.str("user") != "lee" || m.str("roomId") != main {
			w.Errorf("got %v", m)
		}
		host.saw("")
		host.want("443", msg{"eventOp": "createRoom", "roomId": id})
		host.want("403", msg{"eventOp": "memberList", "roomId": id})
		pak.leaves()
		a := pak.want("200", msg{"eventOp": "joinRoom", "roomId": id})
		if a["media"] != true || a["talkingNoty"] != true || a["title"] != "Team" ||
			a["capacity"] != 5.0 {
			w.Errorf("the group is not of the main room's kind: %v", a)
		}
		lee.leaves().joins(id)
		pak.saw("join:lee:2 hostChange:lee:3 ")
		host.leaves() // the main room stays while its members are in the group
		host.joins(main)
		host.want("200", msg{"eventOp": "leaveRoom"})
		lee.want("200", msg{"eventOp": "sdp", "target": "pak"})
		pak.saw("sdp<lee ")

		pak.want("413", msg{"eventOp": "endGroup", "groupId": id})
		lee.take()
		lee.want("200", msg{"eventOp": "endGroup", "groupId": id})
		for _, p := range []*peer{lee, pak} {
			p.saw("leave:pak:4 leave:lee:5 destroy:lee:6 ")
		}
		lee.want("403", msg{"eventOp": "endGroup", "groupId": id})
		lee.want("441", msg{"eventOp": "joinRoom", "roomId": id})
		// It has ended with its last group, since nobody was in it.
		pak.want("441", msg{"eventOp": "joinRoom", "roomId": main})
		for _, p := range []*peer{host, lee, pak} {
			p.goAway(1000)
		}
		w.empty()
	})
}

func TestTheMainRoomWaitsForThoseInItsGroups(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee := w.user(0, "host"), w.user(second, "lee")
		w.room("K1", host, lee)
		id := host.makesGroup("lee")
		host.leaves().joins(id)
		lee.leaves().joins(id)
		time.Sleep(time.Hour)
		lee.leaves().joins("K1")
		lee.take()
		host.want("200", msg{"eventOp": "endGroup", "groupId": id})
		host.joins("K1")
		lee.saw("join:host:7 hostChange:host:8 ") // one order over all that time
		host.leaves()
		lee.leaves()
		lee.want("441", msg{"eventOp": "joinRoom", "roomId": "K1"})
		host.goAway(1000)
		lee.goAway(1000)
		w.empty()
	})
}

func TestWhoMayEndAGroup(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee, pak := w.trio(second)
		out := w.user(second, "out")
		ends := func(p *peer, code, id string) {
			w.Helper()
			p.want(code, msg{"eventOp": "endGroup", "groupId": id})
		}
		id := lee.makesGroup("pak")
		ends(pak, "413", id)
		ends(out, "413", id)
		ends(out, "403", "K1") // no group
		ends(out, "403", "nothing")
		out.want("421", msg{"eventOp": "endGroup"})
		ends(host, "200", id) // host of the main room
		id = lee.makesGroup("pak")
		lee.leaves()
		ends(lee, "200", id) // who made it, from anywhere
		lee.joins("K1")
		id = lee.makesGroup()
		pak.leaves().joins(id)
		ends(pak, "200", id) // its host, though it was not listed
		id = lee.makesGroup()
		host.want("200", msg{"eventOp": "destroyRoom", "roomId": "K1"})
		ends(host, "413", id) // of no room that has groups
		out.want("200", msg{"eventOp": "createRoom", "roomId": "K1"})
		out.joins("K1")
		ends(out, "413", id) // nor is who makes another room with its id
		ends(lee, "200", id)
	})
}

func TestGroupsCountAsRooms(t *testing.T) {
	in(t, 1, func(c *Config, p *license.Params) { c.Limits.Rooms, p.MaxRooms = 3, 5 },
		func(w *world) {
			host, lee := w.user(0, "host"), w.user(0, "lee")
			w.room("K1", host, lee)
			host.makesGroup()
			id := host.makesGroup()
			w.says(host.want("445", msg{"eventOp": "createGroup"}), "too many rooms")
			w.hits("rooms_per_user", 1)
			lee.makesGroup()
			lee.makesGroup()
			w.says(lee.want("445", msg{"eventOp": "createGroup"}), "maxRooms")
			host.want("200", msg{"eventOp": "endGroup", "groupId": id})
			lee.makesGroup()
			w.user(0, "out").want("410", msg{"eventOp": "createGroup"})
		})
}

func TestNobodyUsesUpTheGroupsOfOthers(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		host := w.user(0, "host")
		w.room("K1", host)
		for i := range 8 {
			p := w.user(0, fmt.Sprint("p", i)).joins("K1")
			for range 4 {
				p.makesGroup()
			}
			w.says(p.want("445", msg{"eventOp": "createGroup"}), "too many groups")
		}
		w.user(0, "late").joins("K1").want("445", msg{"eventOp": "createGroup"})
		for range 32 {
			host.makesGroup()
			time.Sleep(time.Second)
		}
		host.want("445", msg{"eventOp": "createGroup"})
		time.Sleep(11 * time.Minute) // nobody has gone to any
		host.makesGroup()
	})
}

// A token that names rooms admits to the groups that its user is listed for, and to no other.
func TestAUserTokenForRoomsAndGroups(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		only := func(p *license.UserParams) { p.Rooms = []string{"K1"} }
		host := w.user(0, "host")
		kim, lee := w.tokenUser(0, w.token("kim", only)), w.tokenUser(second, w.token("lee", only))
		w.room("K1", host, kim, lee)
		id, own := host.makesGroup("kim"), lee.makesGroup()
		for _, room := range []string{id, "nothing"} {
			w.says(lee.leaves().want("413", msg{
				"eventOp": "joinRoom",
				"roomId":  room,
			}), "does not grant access")
			lee.joins("K1")
		}
		kim.leaves().joins(id)
		lee.leaves().joins(own)
		kim.want("200", msg{"eventOp": "memberList", "roomId": id})
	})
}

func TestGroupsOutlastARestart(t *testing.T) {
	for range 5 { // rooms come back in any order
		withKeeper(t, func(w *world, cfg Config) {
			host, lee := w.user(0, "host"), w.user(0, "lee")
			w.room("K1", host, lee)
			id := host.makesGroup("lee")
			host.leaves().joins(id)
			lee.leaves().joins(id)
			w.restart(cfg)
			back := w.connect(0)
			back.register("host", "resume", host.secret)
			lee2 := w.connect(0)
			lee2.register("lee", "resume", lee.secret)
			time.Sleep(11 * time.Minute)
			back.take()
			lee2.want("413", msg{"eventOp": "endGroup", "groupId": id})
			back.want("200", msg{"eventOp": "endGroup", "groupId": id})
			lee2.take()
			// It has ended with its last group.
			lee2.want("441", msg{"eventOp": "joinRoom", "roomId": "K1"})
			back.goAway(1000)
			lee2.goAway(1000)
			w.empty()
			if all, _ := cfg.Keeper.Load(); len(all) != 0 {
				w.Errorf("%d records are left", len(all))
			}
		})
	}
}
