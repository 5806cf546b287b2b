package signaling

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/room"
)

// trio is a room with a host and two guests.
func (w *world) trio(second int) (host, lee, pak *peer) {
	w.Helper()
	host, lee, pak = w.user(0, "host"), w.user(second, "lee"), w.user(0, "pak")
	w.room("K1", host, lee, pak)
	return host, lee, pak
}

func (p *peer) only() msg {
	p.w.Helper()
	got := p.take()
	if len(got) != 1 {
		p.w.Fatalf("%s got %v, want one message", p.user, got)
	}
	return got[0]
}

func TestSharing(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee, pak := w.trio(second)
		lee.want("200", msg{"eventOp": "shareStop"}) // nothing is shared: nobody is told
		host.saw("")
		lee.want("200", msg{"eventOp": "screen"})
		host.saw("screen:lee:4 ")
		pak.saw("screen:lee:4 ")
		lee.saw("")
		pak.want("440", msg{"eventOp": "screen"})
		pak.want("200", msg{"eventOp": "shareStop"}) // not his to stop
		lee.want("200", msg{"eventOp": "screen", "target": "host"})
		host.saw("screen:lee:<nil> ")
		late := w.user(second, "late")
		a := late.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		if s, _ := a["share"].(map[string]any); s["user"] != "lee" || s["type"] != "screen" {
			w.Errorf("a newcomer is not told of the share: %v", a)
		}
		host.saw("join:late:5 ")
		lee.want("200", msg{"eventOp": "shareStop"})
		host.saw("shareStop:lee:6 ")
		lee.want("200", msg{"eventOp": "screen"})
		host.take()
		lee.want("200", msg{"eventOp": "leaveRoom"})
		host.saw("shareStop:lee:8 leave:lee:9 ")
		pak.want("200", msg{"eventOp": "screen"})
		host.want("200", msg{"eventOp": "permit", "target": "late", "screen": false})
		pak.want("200", msg{"eventOp": "shareStop"})
		late.want("413", msg{"eventOp": "screen"})
		lee.want("410", msg{"eventOp": "screen"})
		lee.want("200", msg{"eventOp": "shareStop"})
	})
}

func TestChatAndInform(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee, pak := w.trio(second)
		out := w.user(second, "out")
		lee.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "안녕"})
		if m := host.only(); m.str("type") != "chat" || m.str("user") != "lee" ||
			m.str("message") != "안녕" || m["seq"] != 4.0 {
			w.Errorf("got %v", m)
		}
		pak.saw("chat:lee:4 ")
		lee.want("200", msg{"eventOp": "inform", "message": msg{"any": []int{1}}})
		if m := pak.only(); fmt.Sprint(m["message"]) != "map[any:[1]]" {
			w.Errorf("got %v", m)
		}
		host.take()
		// one user, in the room or not: always 200, whether or not there is such a user
		for _, op := range []string{"chat", "inform"} {
			lee.want("200", msg{"eventOp": op, "target": "out", "message": "x"})
			if m := out.only(); m.str("type") != op || m.str("user") != "lee" || m["seq"] != nil {
				w.Errorf("got %v", m)
			}
			a := lee.want("200", msg{"eventOp": op, "target": "nobody", "message": "x"})
			b := lee.want("200", msg{"eventOp": op, "target": "pak", "message": "x"})
			if a.str("message") != b.str("message") {
				w.Errorf("answers tell users apart: %v %v", a, b)
			}
		}
		pak.saw("chat:lee:<nil> inform:lee:<nil> ")
		host.saw("")
		lee.want("421", msg{"eventOp": "chat", "roomId": "K1"})
		lee.want("421", msg{"eventOp": "chat", "message": "x"})
		lee.want("422", msg{"eventOp": "chat", "roomId": "K1", "message": 5})
		lee.want("441", msg{"eventOp": "chat", "roomId": "K9", "message": "x"})
		out.want("410", msg{"eventOp": "chat", "roomId": "K1", "message": "x"})
		out.want("410", msg{"eventOp": "inform", "message": "x"})
		host.want("200", msg{"eventOp": "permit", "target": "lee", "chat": "false"})
		lee.want("413", msg{"eventOp": "chat", "roomId": "K1", "message": "x"})
		lee.want("413", msg{"eventOp": "chat", "target": "pak", "message": "x"})
		pak.saw("permit:lee:6 ")
	})
}

func TestKickOut(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee, pak := w.trio(second)
		lee.want("413", msg{"eventOp": "kickOut", "target": "pak"})
		host.want("410", msg{"eventOp": "kickOut", "target": "nobody"})
		host.want("421", msg{"eventOp": "kickOut"})
		host.want("200", msg{"eventOp": "kickOut", "target": "lee"})
		if m := lee.only(); m.str("type") != "kickOut" || m.str("user") != "lee" ||
			m.str("sender") != "host" || m.str("roomId") != "K1" {
			w.Errorf("got %v", m)
		}
		pak.saw("")
		time.Sleep(2900 * time.Millisecond)
		pak.saw("")
		time.Sleep(200 * time.Millisecond)
		pak.saw("leave:lee:4 ")
		host.saw("leave:lee:4 ")
		lee.saw("leave:lee:4 ") // so that its page knows
		lee.want("403", msg{"eventOp": "sdp", "target": "pak"})
		w.says(lee.want("413", msg{
			"eventOp": "joinRoom",
			"roomId":  "K1",
		}), "put you out", "ten minutes")
		time.Sleep(10*time.Minute - 3200*time.Millisecond)
		lee.want("413", msg{"eventOp": "joinRoom", "roomId": "K1"})
		time.Sleep(100 * time.Millisecond)
		lee.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		host.take()
		pak.take()
		// who goes by itself cannot come back either, in the same session or in another
		host.want("200", msg{"eventOp": "kickOut", "target": "lee"})
		lee.want("200", msg{"eventOp": "leaveRoom"})
		lee.want("413", msg{"eventOp": "joinRoom", "roomId": "K1"})
		lee.goAway(1000)
		w.user(second, "lee").want("413", msg{"eventOp": "joinRoom", "roomId": "K1"})
		time.Sleep(4 * time.Second)
		pak.saw("leave:lee:6 ")
		// but who puts itself out may, and who is host by its user token
		host.want("200", msg{"eventOp": "kickOut", "target": "host"})
		host.want("200", msg{"eventOp": "leaveRoom"})
		host.joins("K1")
		host.want("200", msg{"eventOp": "kickOut", "target": "pak"})
		pak.goAway(1000)
		token := w.token("pak", func(p *license.UserParams) { p.Host = true })
		w.tokenUser(0, token).joins("K1")
	})
}

func TestDestroyRoom(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee, pak := w.trio(second)
		out := w.user(second, "out")
		lee.want("413", msg{"eventOp": "destroyRoom", "roomId": "K1"})
		out.want("413", msg{"eventOp": "destroyRoom", "roomId": "K1"})
		out.want("441", msg{"eventOp": "destroyRoom", "roomId": "K9"})
		out.want("421", msg{"eventOp": "destroyRoom"})
		host.want("200", msg{"eventOp": "destroyRoom", "roomId": "K1"})
		for _, p := range []*peer{host, lee, pak} {
			p.saw("leave:host:4 leave:lee:5 leave:pak:6 destroy:host:7 ")
			p.want("410", msg{"eventOp": "leaveRoom"})
			p.want("441", msg{"eventOp": "joinRoom", "roomId": "K1"})
		}
		out.want("200", msg{"eventOp": "createRoom", "roomId": "K1"})
		// Who made it may, from outside.
		out.want("200", msg{"eventOp": "destroyRoom", "roomId": "K1"})
		out.want("441", msg{"eventOp": "joinRoom", "roomId": "K1"})
	})
}

func TestEditRoomAndUser(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee, pak := w.trio(second)
		lee.want("413", msg{"eventOp": "editRoomInfo", "roomId": "K1", "title": "Mine"})
		host.want("422", msg{"eventOp": "editRoomInfo", "roomId": "K1", "capacity": 2})
		host.want("410", msg{"eventOp": "editRoomInfo", "roomId": "K1", "host": "nobody"})
		host.want("200", msg{
			"eventOp":  "editRoomInfo",
			"roomId":   "K1",
			"title":    "New",
			"capacity": 3,
			"host":     "lee",
		})
		m := pak.take()
		if len(m) != 2 || m[0].str("type") != "editRoomInfo" || m[0].str("title") != "New" ||
			m[0]["capacity"] != 3.0 || m[0].str("host") != "lee" ||
			m[1].str("type") != "hostChange" {
			w.Errorf("got %v", m)
		}
		host.want("413", msg{"eventOp": "editRoomInfo", "roomId": "K1", "title": "Mine"})
		out := w.user(0, "out")
		out.want("444", msg{"eventOp": "joinRoom", "roomId": "K1"})
		lee.take()

		pak.want("200", msg{"eventOp": "editUserInfo", "name": "Park", "video": "false"})
		if m := lee.only(); m.str("type") != "editUserInfo" || m.str("name") != "Park" ||
			m["video"] != false || m["audio"] != true {
			w.Errorf("got %v", m)
		}
		pak.want("200", msg{"eventOp": "editUserInfo", "audio": false, "broadcast": false})
		lee.saw("")
		pak.want("200", msg{"eventOp": "editUserInfo", "audio": true, "target": "lee"})
		lee.saw("editUserInfo:pak:<nil> ")
		pak.want("200", msg{"eventOp": "changeName", "name": "P"})
		lee.saw("editUserInfo:pak:7 ")
		members := lee.want("200", msg{"eventOp": "memberList"})["members"].(map[string]any)
		if p := members["pak"].(map[string]any); p["name"] != "P" || p["video"] != false ||
			p["audio"] != true {
			w.Errorf("member %v", p)
		}
		out.want("200", msg{"eventOp": "changeName", "name": "Outsider"})
		lee.want("200", msg{"eventOp": "editRoomInfo", "roomId": "K1", "capacity": 4})
		out.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		if m := pak.take(); m[len(m)-1]["user"].(map[string]any)["name"] != "Outsider" {
			w.Errorf("got %v", m)
		}
	})
}

func TestPermit(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee, pak := w.trio(second)
		lee.want("413", msg{"eventOp": "permit", "target": "pak", "chat": false})
		host.want("421", msg{"eventOp": "permit", "target": "pak"})
		host.want("421", msg{"eventOp": "permit", "chat": false})
		host.want("410", msg{"eventOp": "permit", "target": "nobody", "chat": false})
		host.want("200", msg{"eventOp": "permit", "target": "pak", "draw": false, "screen": "true"})
		for _, p := range []*peer{host, lee, pak} {
			m := p.only()
			if permit, _ := m["permit"].(map[string]any); m.str("user") != "pak" ||
				permit["draw"] != false || permit["screen"] != true {
				w.Errorf("got %v", m)
			}
		}
	})
}

func TestWhoComesBackIsToldOfTheFeeds(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee := w.user(0, "host"), w.user(second, "lee")
		id := host.want("200", msg{"eventOp": "createVideoRoom"}).str("roomId")
		host.want("200", msg{"eventOp": "joinRoom", "roomId": id})
		lee.want("200", msg{"eventOp": "joinRoom", "roomId": id})
		lee.want("200", msg{"eventOp": "publish", "type": "cam", "epoch": 1, "video": true})
		lee.lose()
		host.want("200", msg{"eventOp": "publish", "type": "screen", "epoch": 4, "video": true})
		back := w.connect(second)
		back.register("lee", "resume", lee.secret)
		m := back.only()
		feeds, _ := m["feeds"].([]any)
		if m.str("type") != "publish" || m["seq"] != nil || len(feeds) != 1 ||
			feeds[0].(map[string]any)["user"] != "host" {
			w.Errorf("got %v, want one publish without seq, after the answer, with the feed of "+
				"the other", m)
		}
	})
}

func TestFeedsOfAGroupRoom(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee := w.user(0, "host"), w.user(second, "lee")
		id := host.want("200", msg{"eventOp": "createVideoRoom", "talkingNoty": true}).str("roomId")
		a := host.want("200", msg{"eventOp": "joinRoom", "roomId": id})
		if a["media"] != true || a["talkingNoty"] != true {
			w.Errorf("answer %v", a)
		}
		lee.want("200", msg{"eventOp": "joinRoom", "roomId": id})
		lee.saw("") // no feeds yet
		host.take()
		host.want("200", msg{
			"eventOp": "publish",
			"type":    "cam",
			"epoch":   1,
			"audio":   true,
			"video":   true,
		})
		host.saw("")
		m := lee.only()
		feeds, _ := m["feeds"].([]any)
		if m.str("type") != "publish" || len(feeds) != 1 ||
			feeds[0].(map[string]any)["user"] != "host" ||
			feeds[0].(map[string]any)["type"] != "cam" {
			w.Errorf("got %v", m)
		}
		lee.want("200", msg{"eventOp": "publish", "type": "screen", "epoch": 1, "video": true})
		host.take()
		late := w.user(second, "late")
		members := late.want("200", msg{
			"eventOp": "joinRoom",
			"roomId":  id,
		})["members"].(map[string]any)
		if members["host"].(map[string]any)["publishing"] != true {
			w.Errorf("members %v", members)
		}
		// After the answer, and never one's own.
		if feeds, _ := late.only()["feeds"].([]any); len(feeds) != 2 {
			w.Errorf("feeds %v", feeds)
		}
		host.want("200", msg{"eventOp": "unpublish", "type": "cam"})
		host.want("422", msg{"eventOp": "publish", "type": "document"})
		host.want("421", msg{"eventOp": "publish"})
		host.want("200", msg{"eventOp": "talking", "message": true})
		host.take()
		late.saw("talking:host:6 ")
		host.want("200", msg{
			"eventOp": "subscribe",
			"target":  "lee",
			"type":    "screen",
			"video":   true,
			"audio":   true,
		})
		lee.take()
		for i := range 5 {
			w.user(0, fmt.Sprint("m", i)).want("200", msg{"eventOp": "joinRoom", "roomId": id})
		}
		// A mesh of eight by default.
		w.user(0, "ninth").want("444", msg{"eventOp": "joinRoom", "roomId": id})
	})
}

// A refused editUserInfo leaves the name as it was, in this room and in the next.
func TestARefusedNameIsNotTakenToTheNextRoom(t *testing.T) {
	long := strings.Repeat(`"`, 256)
	for name, c := range map[string]struct {
		code    string
		request msg
		prepare func(w *world)
	}{
		"no such member": {"410", msg{
			"eventOp": "editUserInfo",
			"name":    "Other",
			"target":  "nobody",
		}, func(*world) {}},
		"no room for it": {"445", msg{
			"eventOp": "editUserInfo",
			"name":    long,
		}, func(w *world) { w.fill("K1") }},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, 1, nil, func(w *world) {
				kim, lee := w.user(0, "kim"), w.user(0, "lee")
				kim.want("200", msg{"eventOp": "createRoom", "roomId": "K1", "capacity": 1000})
				kim.want("200", msg{"eventOp": "editUserInfo", "name": "Kim"})
				kim.joins("K1")
				c.prepare(w)
				kim.want(c.code, c.request)
				kim.leaves()
				w.room("K2", lee)
				kim.joins("K2")
				if m := lee.only(); m.str("type") != "join" ||
					m["user"].(map[string]any)["name"] != "Kim" {
					w.Errorf("lee is told %v", m)
				}
			})
		})
	}
}

// fill lets members into a room until its state is as large as it may be.
func (w *world) fill(id string) {
	n := 0
	for _, size := range []int{100_000, 10_000, 1000, 0} {
		for err := error(nil); err == nil; n++ {
			m := room.Member{
				ID:      fmt.Sprint(n),
				Name:    strings.Repeat("x", size),
				Address: room.Address{Node: "n0", Session: fmt.Sprint(n)},
			}
			err = w.nodes[0].hub.do(w.Context(), room.Key{
				Tenant: w.cpCode,
				Room:   id,
			}, room.Join{Member: m})
		}
	}
}
