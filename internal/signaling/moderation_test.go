package signaling

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/room"
)

// Whatever a member does to shed what the host decided: it is bound to its id, in the room.
func TestWhatTheHostDecidedStays(t *testing.T) {
	for name, shed := range map[string]func(w *world, cfg Config, lee *peer) *peer{
		"leave and join": func(_ *world, _ Config, lee *peer) *peer {
			return lee.leaves()
		},
		"another session": func(w *world, _ Config, lee *peer) *peer {
			lee.goAway(1000)
			return w.user(0, "lee")
		},
		"a takeover": func(w *world, _ Config, lee *peer) *peer {
			p := w.connect(0)
			p.register("lee", "forced", true, "resume", lee.secret)
			return p
		},
		"a resume": func(w *world, _ Config, lee *peer) *peer {
			lee.lose()
			p := w.connect(0)
			p.register("lee", "resume", lee.secret)
			return p.leaves()
		},
		"a restart": func(w *world, cfg Config, lee *peer) *peer {
			lee.leaves()
			w.restart(cfg)
			p := w.connect(0)
			p.register("lee", "resume", lee.secret)
			return p
		},
		"a new host": func(w *world, _ Config, lee *peer) *peer {
			lee.leaves()
			pak := w.user(0, "pak").joins("K1")
			seat, _ := w.local.Holder(w.Context(), w.cpCode, "host")
			w.nodes[0].hub.session(seat.Session).end(nil, 1008, "gone")
			pak.take()
			return lee
		},
	} {
		t.Run(name, func(t *testing.T) {
			withKeeper(t, func(w *world, cfg Config) {
				host, lee, keeps := w.user(0, "host"), w.user(0, "lee"), w.user(0, "keeps")
				w.room("K1", host, lee, keeps)
				host.want("200", msg{
					"eventOp": "permit",
					"target":  "lee",
					"chat":    false,
					"screen":  false,
				})
				lee.want("413", msg{"eventOp": "chat", "roomId": "K1", "message": "x"})
				lee = shed(w, cfg, lee).joins("K1")
				lee.want("413", msg{"eventOp": "chat", "roomId": "K1", "message": "x"})
				lee.want("413", msg{"eventOp": "screen"})
				lee.want("200", msg{"eventOp": "inform", "message": "data of the application"})
			})
			withKeeper(t, func(w *world, cfg Config) {
				host, lee, keeps := w.user(0, "host"), w.user(0, "lee"), w.user(0, "keeps")
				w.room("K1", host, lee, keeps)
				host.want("200", msg{"eventOp": "kickOut", "target": "lee"})
				lee = shed(w, cfg, lee)
				for range 3 {
					w.says(lee.want("413", msg{
						"eventOp": "joinRoom",
						"roomId":  "K1",
					}), "put you out")
					time.Sleep(5 * time.Second)
				}
			})
		})
	}
}

// A host token overrides a kick, and the room does not put the user out later for it.
func TestAUserWhomATokenMadeHostStaysAfterARestart(t *testing.T) {
	withKeeper(t, func(w *world, cfg Config) {
		host, lee := w.user(0, "host"), w.user(0, "lee")
		w.room("K1", host, lee)
		host.want("200", msg{"eventOp": "kickOut", "target": "lee"})
		time.Sleep(4 * time.Second)
		lee.goAway(1000)
		token := w.token("lee", func(u *license.UserParams) { u.Host = true })
		lee = w.tokenUser(0, token).joins("K1")
		w.restart(cfg)
		back, lee2 := w.connect(0), w.connect(0)
		back.register("host", "resume", host.secret)
		lee2.want("200", w.login(token, "resume", lee.secret))
		time.Sleep(4 * time.Second)
		back.saw("")
		lee2.want("200", msg{"eventOp": "editRoomInfo", "roomId": "K1", "title": "mine"})
	})
}

func TestAPermitThatIsGivenBackIsForgotten(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		host, lee := w.user(0, "host"), w.user(0, "lee")
		w.room("K1", host, lee)
		host.want("200", msg{"eventOp": "permit", "target": "lee", "chat": false})
		host.want("200", msg{"eventOp": "permit", "target": "lee", "chat": true})
		lee.leaves().joins("K1").want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "x"})
		snap, _ := w.nodes[0].hub.rooms.Snapshot(room.Key{Tenant: w.cpCode, Room: "K1"})
		if len(snap.Restrictions) != 0 {
			w.Errorf("remembered: %v", snap.Restrictions)
		}
	})
}

// Who was asked to go, and was not out yet when the server stopped, is put out after it.
func TestAKickOutlastsARestart(t *testing.T) {
	withKeeper(t, func(w *world, cfg Config) {
		host, lee := w.user(0, "host"), w.user(0, "lee")
		w.room("K1", host, lee)
		host.want("200", msg{"eventOp": "kickOut", "target": "lee"})
		w.restart(cfg)
		back, lee2 := w.connect(0), w.connect(0)
		back.register("host", "resume", host.secret)
		lee2.register("lee", "resume", lee.secret)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		back.saw("leave:lee:3 ")
		lee2.want("413", msg{"eventOp": "joinRoom", "roomId": "K1"})
		time.Sleep(10 * time.Minute)
		lee2.joins("K1")
	})
}

func TestChatToARoomAndAUserReachesEachOnce(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee, pak := w.trio(second)
		out := w.user(second, "out")
		both := func(p *peer, code, target string) {
			w.Helper()
			p.want(code, msg{"eventOp": "chat", "roomId": "K1", "target": target, "message": "x"})
		}
		both(lee, "200", "pak")
		host.saw("chat:lee:4 ")
		pak.saw("chat:lee:4 ")
		both(lee, "200", "out")
		host.saw("chat:lee:5 ")
		pak.saw("chat:lee:5 ")
		out.saw("chat:lee:<nil> ")
		both(lee, "200", "nobody")
		both(lee, "200", "lee")
		host.saw("chat:lee:6 chat:lee:7 ")
		lee.saw("")
		out.want("410", msg{"eventOp": "chat", "roomId": "K1", "target": "pak", "message": "x"})
		lee.want("441", msg{"eventOp": "chat", "roomId": "K9", "target": "pak", "message": "x"})
		host.want("200", msg{"eventOp": "permit", "target": "lee", "chat": false})
		pak.take()
		both(lee, "413", "pak")
		both(lee, "413", "out")
		pak.saw("")
		out.saw("")
	})
}

// What is refused has not been said to anybody: whoever sends it again says it once.
func TestAChatThatIsRefusedIsNotSaid(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		host, lee, _ := w.trio(0)
		w.user(0, "out")
		host.take()
		said, refused := 0, 0
		for range 20 {
			switch a := lee.ask(msg{
				"eventOp": "chat",
				"roomId":  "K1",
				"target":  "out",
				"message": "x",
			}); a["code"] {
			case "200":
				said++
			case "429":
				refused++
			default:
				w.Fatalf("%v", a)
			}
		}
		if got := strings.Count(host.told(), "chat:lee"); got != said || refused == 0 {
			w.Errorf("%d were answered 200, %d were refused, and the room was told %d", said,
				refused, got)
		}
	})
}

func TestTalkingHasBothNames(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee := w.user(0, "host"), w.user(second, "lee")
		id := host.want("200", msg{"eventOp": "createVideoRoom", "talkingNoty": true}).str("roomId")
		host.joins(id)
		lee.joins(id)
		host.take()
		for _, c := range []struct {
			said msg
			want bool
		}{
			{msg{"talking": true}, true}, {msg{"message": true}, true},
			{msg{"talking": "false"}, false}, {msg{"message": false}, false},
			{msg{"talking": true, "message": false}, true},
		} {
			c.said["eventOp"] = "talking"
			lee.want("200", c.said)
			if m := host.only(); m["talking"] != c.want || m["message"] != c.want ||
				m.str("user") != "lee" || m.str("roomId") != id {
				w.Errorf("%v came as %v", c.said, m)
			}
		}
		lee.want("421", msg{"eventOp": "talking"})
		lee.want("422", msg{"eventOp": "talking", "talking": 5})
		lee.want("422", msg{"eventOp": "talking", "message": msg{"any": 1}})
		host.saw("")
	})
}

func TestAFeedHasItsOwnersFields(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee := w.user(0, "host"), w.connect(second)
		lee.register("lee", "name", "Lee", "device", "mobile")
		id := host.want("200", msg{"eventOp": "createVideoRoom"}).str("roomId")
		host.joins(id)
		lee.joins(id)
		host.take()
		lee.want("200", msg{"eventOp": "editUserInfo", "video": false, "broadcast": false})
		lee.want("200", msg{
			"eventOp": "publish",
			"type":    "cam",
			"epoch":   3,
			"audio":   false,
			"video":   true,
		})
		late := w.user(0, "late").joins(id)
		member := host.want("200", msg{
			"eventOp": "memberList",
		})["members"].(map[string]any)["lee"].(map[string]any)
		for _, p := range []*peer{host, late} {
			for _, m := range p.take() {
				if m.str("type") != "publish" {
					continue
				}
				feed := m["feeds"].([]any)[0].(map[string]any)
				// Its own.
				want := map[string]any{
					"user":  "lee",
					"type":  "cam",
					"epoch": 3.0,
					"audio": false,
					"video": true,
				}
				for k, v := range member {
					if _, own := want[k]; !own {
						want[k] = v
					}
				}
				if fmt.Sprint(feed) != fmt.Sprint(want) {
					w.Errorf("%s got the feed\n%v, want\n%v", p.user, feed, want)
				}
				p.saw("")
				p.user = "told"
			}
			if p.user != "told" {
				w.Errorf("%s was told of no feed", p.user)
			}
		}
	})
}
