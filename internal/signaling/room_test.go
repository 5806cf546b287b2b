package signaling

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
)

// room makes a room and lets the users join it in order.
func (w *world) room(id string, users ...*peer) {
	w.Helper()
	users[0].want("200", msg{"eventOp": "createRoom", "roomId": id})
	for _, u := range users {
		u.want("200", msg{"eventOp": "joinRoom", "roomId": id})
	}
	for _, u := range users {
		u.take()
	}
}

// The same scenes run on one node and on two: a second node changes nothing that a client can see.
func onOneAndTwoNodes(t *testing.T, f func(w *world, second int)) {
	t.Run("one node", func(t *testing.T) { in(t, 1, nil, func(w *world) { f(w, 0) }) })
	t.Run("two nodes", func(t *testing.T) { in(t, 2, nil, func(w *world) { f(w, 1) }) })
}

func TestJoinAndLeave(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		kim, lee := w.user(0, "kim"), w.user(second, "lee")
		id := kim.want("200", msg{
			"eventOp":  "createRoom",
			"title":    "Weekly",
			"capacity": "2",
		}).str("roomId")
		if len(id) != 13 || id[0] != 'K' {
			w.Errorf("room id %q", id)
		}
		a := kim.want("200", msg{"eventOp": "joinRoom", "roomId": id})
		if a.str("title") != "Weekly" || a["seq"] != 1.0 || a["isRecording"] != false ||
			len(a.str("createdAt")) != 19 {
			w.Errorf("answer %v", a)
		}
		a = lee.want("200", msg{"eventOp": "joinRoom", "roomId": id})
		host, members := a["host"].(map[string]any), a["members"].(map[string]any)
		if host["userId"] != "kim" || host["userType"] != "host" || len(members) != 2 ||
			members["lee"].(map[string]any)["userType"] != "guest" {
			w.Errorf("answer %v", a)
		}
		kim.saw("join:lee:2 ")
		lee.saw("")
		third := w.user(second, "third")
		third.want("444", msg{"eventOp": "joinRoom", "roomId": id})
		lee.want("442", msg{"eventOp": "joinRoom", "roomId": id})
		lee.want("200", msg{"eventOp": "leaveRoom"})
		kim.saw("leave:lee:3 ")
		lee.want("410", msg{"eventOp": "leaveRoom", "roomId": id})
		third.want("200", msg{"eventOp": "joinRoom", "roomId": id})
		kim.want("200", msg{"eventOp": "leaveRoom", "roomId": id})
		third.saw("leave:kim:5 hostChange:third:6 ")
		third.want("200", msg{"eventOp": "leaveRoom"})
		third.want("441", msg{"eventOp": "joinRoom", "roomId": id})
	})
}

func TestMembersAreAnObjectInOrderOfJoining(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		z, a := w.user(0, "z"), w.user(0, "a")
		w.room("K1", z, a)
		m := a.want("200", msg{"eventOp": "memberList"})["members"].(map[string]any)
		if len(m) != 2 || m["z"].(map[string]any)["id"] != "z" {
			w.Errorf("members %v", m)
		}
		a.want("200", msg{"eventOp": "memberList", "roomId": "K1"})
		b := w.user(0, "b")
		b.want("403", msg{"eventOp": "memberList", "roomId": "K1"})
		b.want("441", msg{"eventOp": "memberList", "roomId": "K2"})
		b.want("410", msg{"eventOp": "memberList"})
	})
}

func TestRoomsOfTenantsAreApart(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim := w.user(0, "kim")
		w.room("K1", kim)
		other, err := w.verifier.Issue(license.Params{
			Name:        "O",
			CpCode:      "OTHER",
			CompanyCode: "O",
			MaxUser:     9,
			Start:       time.Now(),
			End:         time.Now().Add(time.Hour),
		})
		if err != nil {
			w.Fatal(err)
		}
		outsider := w.connect(0)
		outsider.register("kim", "cpCode", "OTHER", "authKey", other)
		outsider.want("441", msg{"eventOp": "joinRoom", "roomId": "K1"})
		w.room("K1", outsider)
		outsider.want("403", msg{"eventOp": "sdp", "target": "lee", "sdp": msg{}})
		kim.saw("")
	})
}

func TestRelayReachesTheTargetWithTheSenderStamped(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		kim, lee, out := w.user(0, "kim"), w.user(second, "lee"), w.user(0, "out")
		w.room("K1", kim, lee)
		for i, m := range []string{
			`{"eventOp":"sdp","target":"lee","sdp":{"type":"offer","sdp":"v=0\r\n"},` +
				`"type":"cam","gen":1,"own":[1,{"x":"é"}]}`,
			`{"eventOp":"candidate","userId":"kim","target":"lee",` +
				`"candidates":[{"candidate":"c"}]}`,
			`{"eventOp":"publish","target":"lee","type":"cam","epoch":1,"audio":true,"video":true}`,
			`{"eventOp":"unpublish","target":"lee","type":"cam","epoch":1}`,
		} {
			kim.raw(m)
			got := lee.take()
			if len(got) != 1 || got[0].str("userId") != "kim" {
				w.Fatalf("message %d: got %v", i, got)
			}
		}
		kim.want("200", msg{"eventOp": "sdp", "target": "lee", "sdp": msg{"type": "answer"}})
		if got := lee.take(); len(got) != 1 || got[0]["reqId"] != nil {
			w.Errorf("the sender's reqId reached the target: %v", got)
		}
		// the same refusal for a user that exists elsewhere, one that does not exist, and oneself
		// in no room
		x, y := kim.want("403", msg{
			"eventOp": "sdp",
			"target":  "out",
		}), kim.want("403", msg{"eventOp": "sdp", "target": "nobody"})
		if x.str("message") != y.str("message") || x.str("hint") != y.str("hint") {
			w.Errorf("answers tell users apart: %v %v", x, y)
		}
		out.want("403", msg{"eventOp": "candidate", "target": "kim"})
		kim.want("421", msg{"eventOp": "sdp"})
		kim.raw(`{"eventOp":"sdp","target":"out"}`)
		kim.saw("answer:sdp:403 ") // refused even without a reqId
		lee.want("200", msg{"eventOp": "leaveRoom"})
		kim.take()
		kim.want("403", msg{"eventOp": "sdp", "target": "lee"})
		lee.saw("")
		out.saw("")
	})
}

func TestSpoofedSenderIsRefused(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", kim, lee)
		kim.want("413", msg{"eventOp": "sdp", "userId": "lee", "target": "lee"})
		kim.want("413", msg{"eventOp": "leaveRoom", "userId": "lee"})
		kim.raw(`{"eventOp":"sdp","userId":"kim","userId":"lee","target":"lee","reqId":"d"}`)
		kim.raw(`{"eventOp":"sdp","user\u0049d":"lee","target":"lee","reqId":"d"}`)
		kim.saw("answer::400 answer::400 ")
		lee.saw("")
		if s := w.nodes[0].hub.Stats(); s.Spoofed != 2 {
			w.Errorf("%d spoofed messages counted, want 2", s.Spoofed)
		}
	})
}

func TestMalformedMessagesAreAnsweredAndChangeNothing(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", kim, lee)
		for text, want := range map[string]string{
			`hello`:                                  "answer::400 ",
			`[]`:                                     "answer::400 ",
			`{}`:                                     "answer::404 ",
			`{"eventOp":5}`:                          "answer::404 ",
			`{"eventOp":"dance"}`:                    "answer:dance:404 ",
			`{"eventOp":"sdpRoom"}`:                  "answer:sdpRoom:405 ",
			`{"eventOp":"register"}`:                 "answer:register:400 ",
			`{"eventOp":"joinRoom"}`:                 "answer:joinRoom:421 ",
			`{"eventOp":"joinRoom","roomId":7}`:      "answer:joinRoom:422 ",
			`{"eventOp":"createRoom","roomId":"K1"}`: "answer:createRoom:443 ",
			`{"eventOp":"createRoom","capacity":"many"}`: "answer:createRoom:422 ",
			`{"eventOp":"joinRoom","roomId":"K2"}`:       "answer:joinRoom:442 ",
			`{"eventOp":"leaveRoom","roomId":"K2"}`:      "answer:leaveRoom:441 ",
			`{"eventOp":"sdp","target":{"a":1}}`:         "answer:sdp:421 ",
			strings.Repeat("[", 1000):                    "answer::400 ",
		} {
			kim.raw(text)
			if got := kim.told(); got != want {
				w.Errorf("%.60s was answered %q, want %q", text, got, want)
			}
		}
		lee.saw("")
		lee.want("200", msg{"eventOp": "keepAlive"})
	})
}

func TestFloodClosesTheSenderAlone(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", kim, lee)
		for i := range 10_000 {
			if kim.ws.WriteMessage(1, []byte(`{"eventOp":"keepAlive"}`)) != nil {
				break
			}
			if i%100 == 99 {
				synctest.Wait() // answers are read: it is the flood that ends it, not a full outbox
			}
		}
		if c := kim.closeCode(); c != 1008 {
			w.Errorf("closed with %d, want 1008", c)
		}
		lee.want("200", msg{"eventOp": "keepAlive"})
		if w.nodes[0].hub.Stats().Flooded != 1 {
			w.Error("not counted")
		}
	})
}

func TestAMemberThatDoesNotReadIsDroppedAndDelaysNobody(t *testing.T) {
	in(t, 1, func(c *Config, _ *license.Params) { c.Rate, c.Burst = 1e6, 1e6 }, func(w *world) {
		kim, slow := w.user(0, "kim"), w.user(0, "slow")
		w.room("K1", kim, slow)
		resume := slow.stall()
		const more = 2100 // than an outbox takes
		for i := range more {
			kim.want("200", msg{"eventOp": "inform", "message": i})
		}
		if n := w.nodes[0].ws.Count(); n != 2 {
			w.Fatalf("%d connections", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		resume()
		if c := slow.closeCode(); c == 0 {
			w.Error("the slow connection was not closed")
		}
		kim.saw("") // still within its resume window: nobody is told
		time.Sleep(21 * time.Second)
		kim.saw(fmt.Sprintf("leave:slow:%d ", more+3))
	})
}
