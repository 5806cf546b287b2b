package signaling

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/limit"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// attack is one kind of message of which something is stored or multiplied at others' expense.
type attack struct {
	messages []msg // sent in turn; each with the text as long as it may be, or short
	outside  bool  // by a user who is not in the room
}

// attacks are all there are, for an attacker who is host of the room R, with the members victim and
// honest.
func attacks(text string) map[string]attack {
	one := func(m msg) attack { return attack{messages: []msg{m}} }
	short := text[:min(len(text), 200)]
	all := map[string]attack{
		"sdp": one(msg{
			"eventOp": "sdp",
			"target":  "victim",
			"sdp":     text,
			"type":    "cam",
			"gen":     1,
		}),
		"candidate": one(msg{
			"eventOp":   "candidate",
			"target":    "victim",
			"candidate": text[:min(len(text), 31<<10)],
		}),
		"subscribe": one(msg{
			"eventOp": "subscribe",
			"target":  "victim",
			"type":    "cam",
			"x":       text,
		}),
		"publish to one": one(msg{
			"eventOp": "publish",
			"target":  "victim",
			"type":    "cam",
			"epoch":   1,
			"x":       text,
		}),
		"unpublish to one": one(msg{
			"eventOp": "unpublish",
			"target":  "victim",
			"type":    "cam",
			"epoch":   1,
			"x":       text,
		}),
		"chat to one":   one(msg{"eventOp": "chat", "target": "victim", "message": text}),
		"inform to one": one(msg{"eventOp": "inform", "target": "victim", "message": text}),
		"chat":          one(msg{"eventOp": "chat", "roomId": "R", "message": text}),
		"inform":        one(msg{"eventOp": "inform", "message": text}),
		"talking":       one(msg{"eventOp": "talking", "message": text}),
		"editUserInfo":  one(msg{"eventOp": "editUserInfo", "name": short}),
		"editUserInfo to one": one(msg{
			"eventOp": "editUserInfo",
			"name":    short,
			"target":  "victim",
		}),
		"changeName": one(msg{"eventOp": "changeName", "name": short}),
		"screen":     {messages: []msg{{"eventOp": "screen"}, {"eventOp": "shareStop"}}},
		"screen to one": {
			messages: []msg{{"eventOp": "screen", "target": "victim"}, {"eventOp": "shareStop"}},
		},
		"publish": {
			messages: []msg{{
				"eventOp": "publish",
				"type":    "cam",
				"epoch":   1,
			}, {"eventOp": "unpublish", "type": "cam"}},
		},
		"permit":       one(msg{"eventOp": "permit", "target": "victim", "draw": false}),
		"editRoomInfo": one(msg{"eventOp": "editRoomInfo", "roomId": "R", "title": short}),
		"kickOut":      one(msg{"eventOp": "kickOut", "target": "victim"}),
		"createGroup": one(msg{
			"eventOp": "createGroup",
			"list":    []string{"victim", "honest"},
		}),
		"endGroup": {
			messages: []msg{{
				"eventOp": "createGroup",
				"list":    []string{"victim"},
			}, {"eventOp": "endGroup", "groupId": "G"}},
		},
		"joinRoom": {
			messages: []msg{{"eventOp": "joinRoom", "roomId": "R"}, {"eventOp": "leaveRoom"}},
			outside:  true,
		},
		"chat from outside": {
			messages: []msg{{"eventOp": "chat", "target": "victim", "message": text}},
			outside:  true,
		},
		"inform from outside": {
			messages: []msg{{"eventOp": "inform", "target": "victim", "message": text}},
			outside:  true,
		},
	}
	for name, a := range all { // and each with what hurts nobody else, but costs the room
		if !a.outside && len(text) < 1000 {
			a.messages = append(slices.Clone(a.messages), msg{"eventOp": "memberList"})
			all[name+" with memberList"] = a
		}
	}
	return all
}

// Operations of which nobody else is told, or that end a room for those in it, which who made it
// may.
var alone = []string{
	"createRoom", "createVideoRoom", "destroyRoom", "iceServers", "keepAlive", "leaveRoom",
	"memberList", "register", "sdpRoom",
}

func TestEveryOperationIsAttackedOrTellsNobody(t *testing.T) {
	attacked := map[string]bool{}
	for _, a := range attacks("x") {
		for _, m := range a.messages {
			attacked[m.str("eventOp")] = true
		}
	}
	for op := range handlers {
		if _, room := roomCosts[op]; !attacked[op] && (room || !slices.Contains(alone, op)) {
			t.Errorf("%s is not attacked", op)
		}
	}
}

// flood sends messages without waiting, until the connection is closed or they are sent.
func (p *peer) flood(messages []msg, n int) {
	texts := make([][]byte, len(messages))
	for i, m := range messages {
		b, err := protocol.Marshal(m)
		if err != nil {
			p.w.Fatal(err)
		}
		texts[i] = b
	}
	for i := range n {
		if p.ws.WriteMessage(gws.OpcodeText, texts[i%len(texts)]) != nil {
			return
		}
	}
	synctest.Wait()
}

// scene is a room with its victim, who is live, slow or away.
type scene struct {
	*world
	how            string
	honest, victim *peer
	attackers      []*peer
	read           func() // lets a slow victim read on
	codes          map[string]string
}

func newScene(w *world, how string, attackers int) *scene {
	s := &scene{world: w, how: how, codes: map[string]string{}, read: func() {}}
	host := w.user(0, "a0")
	host.want("200", msg{
		"eventOp":     "createVideoRoom",
		"roomId":      "R",
		"capacity":    50,
		"talkingNoty": true,
	})
	s.attackers = []*peer{host}
	for i := range attackers - 1 {
		s.attackers = append(s.attackers, w.user(0, fmt.Sprintf("a%d", i+1)))
	}
	s.honest, s.victim = w.user(0, "honest"), w.user(0, "victim")
	for _, p := range append(slices.Clone(s.attackers), s.honest, s.victim) {
		p.want("200", msg{"eventOp": "joinRoom", "roomId": "R"})
	}
	switch how {
	case "slow":
		s.read = s.victim.stall()
		s.honest.want("200", msg{
			"eventOp": "sdp",
			"target":  "victim",
			"sdp":     "the one that it reads",
		})
	case "away":
		s.victim.lose()
	}
	return s
}

// speak sends what an honest member does. Each message has its name in it.
func (s *scene) speak() {
	for name, m := range map[string]msg{
		"sdp": {"eventOp": "sdp", "target": "victim", "sdp": "honest sdp"},
		"candidate": {
			"eventOp":   "candidate",
			"target":    "victim",
			"candidate": "honest candidate",
		},
		"chat":        {"eventOp": "chat", "roomId": "R", "message": "honest chat"},
		"chat to one": {"eventOp": "chat", "target": "victim", "message": "honest chat to one"},
	} {
		s.codes[name] = s.honest.ask(m).str("code")
	}
}

// check lets the victim read, or come back. What was answered 200 must have come.
func (s *scene) check(name string, strict bool) {
	s.Helper()
	s.read()
	if s.how == "away" {
		back := s.connect(0)
		back.register("victim", "resume", s.victim.secret)
		s.victim = back
	}
	got := map[string]bool{}
	for _, m := range s.victim.take() {
		for _, text := range []string{m.str("sdp"), m.str("candidate"), m.str("message")} {
			got[text] = true
		}
	}
	if c := s.victim.closeCode(); c != 0 {
		s.Fatalf("%s: the victim was closed with %d", name, c)
	}
	if c := s.honest.closeCode(); c != 0 {
		s.Fatalf("%s: the honest member was closed with %d", name, c)
	}
	for what, code := range s.codes {
		switch {
		case code == "200" && !got["honest "+what]:
			s.Errorf("%s: the %s was answered 200, and did not come", name, what)
		case code != "200" && (strict || code != "429" && code != "504"):
			s.Errorf("%s: the %s was answered %s", name, what, code)
		}
	}
	if a := s.victim.ask(msg{"eventOp": "keepAlive"}); a.str("code") != "200" {
		s.Errorf("%s: afterwards the victim's own request was answered %v", name, a)
	}
}

// sizes are those of messages, with how many of them are more than any budget.
var sizes = map[string]struct {
	text string
	n    int
}{
	"short": {"x", 350},
	"long":  {strings.Repeat("<", 60<<10), 60},
}

// One attacker with any kind of message keeps nothing of others from anybody.
func TestOneSenderTakesNothingFromOthers(t *testing.T) {
	var n thinned
	for _, how := range []string{"live", "slow", "away"} {
		for size, of := range sizes {
			for name, a := range attacks(of.text) {
				if n.skips(6) {
					continue
				}
				in(t, 1, nil, func(w *world) {
					s := newScene(w, how, 1)
					from := s.attackers[0]
					if a.outside {
						from = w.user(0, "outside")
					}
					from.flood(a.messages, of.n)
					s.speak()
					from.flood(a.messages, of.n)
					s.check(fmt.Sprint(how, ", ", size, " ", name), true)
				})
			}
		}
	}
}

// An attacker with all kinds of messages at once may leave no place, but closes nobody, and what is
// dropped is said.
func TestOneSenderOfEverythingClosesNobody(t *testing.T) {
	for _, how := range []string{"live", "slow", "away"} {
		for size, of := range sizes {
			in(t, 1, nil, func(w *world) {
				s := newScene(w, how, 1)
				var all []msg
				for _, a := range attacks(of.text) {
					if !a.outside {
						all = append(all, a.messages...)
					}
				}
				s.attackers[0].flood(all, 2*of.n)
				s.speak()
				s.attackers[0].flood(all, 2*of.n)
				s.check(how+", "+size+" everything", false)
			})
		}
	}
}

// However many they are: what can be refused is, before a connection is closed for it.
func TestManySendersToOneCloseNobody(t *testing.T) {
	var n thinned
	for _, how := range []string{"live", "slow", "away"} {
		for size, of := range sizes {
			if n.skips(3) {
				continue
			}
			in(t, 1, nil, func(w *world) {
				s := newScene(w, how, 12)
				var all []msg
				for name, a := range attacks(of.text) {
					if m := a.messages[0]; m.str("target") == "victim" &&
						!strings.HasSuffix(name, "memberList") && roomCosts[m.str("eventOp")] == 0 {
						all = append(all, m)
					}
				}
				for _, p := range s.attackers {
					p.flood(all, of.n)
				}
				s.speak()
				s.check(how+", "+size+" of many", false)
			})
		}
	}
}

// All members of a room together may say at once what they may, and close nobody for it, whether or
// not they read.
func TestManySendersToTheirRoomCloseNobody(t *testing.T) {
	var n thinned
	for _, c := range []struct {
		how     string
		members int
	}{{"live", 14}, {"slow", 14}, {"slow", 40}} {
		for name, a := range attacks("short") {
			if _, room := roomCosts[a.messages[0].str("eventOp")]; !room || a.outside ||
				len(a.messages) > 1 || a.messages[0].str("target") != "" {
				continue
			}
			if n.skips(4) {
				continue
			}
			in(t, 1, nil, func(w *world) {
				s := newScene(w, c.how, c.members)
				for _, p := range s.attackers {
					p.flood(a.messages, 120)
				}
				s.speak()
				s.check(fmt.Sprint(c.how, ", ", name, " of ", c.members), false)
			})
		}
	}
}

// A stranger may come as often as it likes under another id: what a member sends has its place all
// the same.
func TestUsersOutsideWithoutEndTakeNothingFromMembers(t *testing.T) {
	var n thinned
	for _, how := range []string{"live", "slow", "away"} {
		for size, of := range sizes {
			if n.skips(3) {
				continue
			}
			in(t, 1, nil, func(w *world) {
				s := newScene(w, how, 1)
				for i := range 40 {
					p := w.user(0, fmt.Sprint("stranger", i))
					p.flood([]msg{{"eventOp": "inform", "target": "victim", "message": of.text}}, 8)
					p.goAway(1000)
				}
				s.speak()
				s.check(how+", "+size+" of strangers", true)
			})
		}
	}
}

// What waits for a user who is away, of those outside its room, has a place of its own, and each of
// them a part of it.
func TestWhatWaitsFromOutsideTheRoom(t *testing.T) {
	for size, of := range map[string]struct {
		text       string
		each, both int
	}{"short": {"x", 4, 8}, "long": {strings.Repeat("x", 3<<10), 2, 5}} {
		in(t, 1, nil, func(w *world) {
			s := newScene(w, "away", 1)
			for _, name := range []string{"one", "two", "three"} {
				p := w.user(0, name)
				for range 6 { // whatever becomes of them: the sender may not learn who is there
					p.want("200", msg{"eventOp": "inform", "target": "victim", "message": of.text})
					time.Sleep(time.Second)
				}
			}
			s.speak()
			back := w.connect(0)
			back.register("victim", "resume", s.victim.secret)
			got := map[string]int{}
			for _, m := range back.take() {
				if m.str("type") == "inform" {
					got[m.str("user")]++
				}
			}
			if got["one"] != of.each || got["one"]+got["two"]+got["three"] != of.both {
				t.Errorf("%s: of the first %d, in all %v, want %d and %d", size, got["one"], got,
					of.each, of.both)
			}
		})
	}
}

// A client that answers each message it gets, as a browser answers offers, is not made to flood the
// server.
func TestAClientIsNotClosedForAnswering(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		s := newScene(w, "live", 12)
		answers := 0
		s.victim.mu.Lock()
		s.victim.answer = func(m msg) {
			if op := m.str("eventOp"); m.str("code") == "" && (op == "sdp" || op == "publish") {
				answers++
				_ = s.victim.ws.WriteMessage(gws.OpcodeText,
					fmt.Appendf(nil, `{"eventOp":"sdp","target":%q,"sdp":"answer"}`,
						m.str("userId")))
			}
		}
		s.victim.mu.Unlock()
		for range 30 { // seconds
			for _, p := range s.attackers {
				p.flood([]msg{
					{
						"eventOp": "sdp",
						"target":  "victim",
						"sdp":     "offer",
					}, {"eventOp": "publish", "target": "victim", "type": "cam", "epoch": 1},
				}, 28)
			}
			time.Sleep(time.Second)
		}
		if answers < 300 {
			t.Fatalf("only %d answers: not what is tested here", answers)
		}
		s.check("answering", false)
	})
}

func TestContactsAreFew(t *testing.T) {
	var c contacts
	f := limit.NewRate(15, 120)
	for i := range 10_000 {
		c.take(uint64(i), 0, f, 1)
	}
	if len(c) != maxContacts {
		t.Errorf("%d are remembered, want %d", len(c), maxContacts)
	}
	for c.take(7, 0, f, 1) {
	}
	for i := range 10_000 { // who was sent the most is not forgotten for others
		c.take(uint64(100+i), 0, f, 1)
	}
	if c.take(7, 0, f, 1) {
		t.Error("a budget was refilled by sending to others")
	}
	c.release(time.Second)
	if c == nil {
		t.Error("forgotten too early")
	}
	c.take(8, time.Hour, f, 1)
	if len(c) > maxContacts {
		t.Errorf("%d are remembered", len(c))
	}
	if c.release(2 * time.Hour); c != nil {
		t.Error("not forgotten")
	}
}

// A silent session has no memory of what it once sent, and what still counts is not forgotten.
func TestAnIdleSessionForgetsWhatItSent(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("R", kim, lee)
		seat, _ := w.local.Holder(t.Context(), w.cpCode, "kim")
		s := w.nodes[0].hub.session(seat.Session)
		remembers := func() bool {
			kim.want("200", msg{"eventOp": "keepAlive"})
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.outgoing != nil
		}
		if remembers() {
			t.Error("before anything was sent")
		}
		kim.want("200", msg{"eventOp": "candidate", "target": "lee", "candidate": "x"})
		time.Sleep(59 * time.Second)
		if !remembers() {
			t.Error("the candidates of a minute were forgotten before it was over")
		}
		time.Sleep(time.Second)
		if remembers() {
			t.Error("nothing counts any more")
		}
	})
}

// A mesh of the default size whose clients send each candidate by itself, twice in a row, as after
// a resume.
func TestAMeshStaysWithinItsBudgets(t *testing.T) {
	in(t, 1, func(_ *Config, p *license.Params) { p.MaxUser = 30 }, func(w *world) {
		var all []*peer
		for i := range 8 {
			all = append(all, w.user(0, fmt.Sprintf("u%d", i)))
		}
		w.room("R", all...)
		description := strings.Repeat("x", 7<<10)
		for range 2 {
			for _, p := range all {
				for _, q := range all {
					if p == q {
						continue
					}
					p.want("200", msg{"eventOp": "sdp", "target": q.user, "sdp": description})
					p.want("200", msg{
						"eventOp": "publish",
						"target":  q.user,
						"type":    "cam",
						"epoch":   1,
					})
					for range 20 {
						p.want("200", msg{
							"eventOp":   "candidate",
							"target":    q.user,
							"candidate": strings.Repeat("c", 250),
						})
					}
					time.Sleep(500 * time.Millisecond) // a session's own rate
					q.take()
				}
			}
		}
	})
}

// A room that large members have filled can be joined no more, and those who are in it can come
// back and ask for the list of members.
func TestAFullStateHarmsNobodyInTheRoom(t *testing.T) {
	if underRace {
		t.Skip("encodes hundreds of full states in one goroutine: make race runs it without " +
			"the race detector")
	}
	in(t, 1, func(_ *Config, p *license.Params) { p.MaxUser = 1100 }, func(w *world) {
		hub := w.nodes[0].hub
		victim := w.user(0, "victim")
		victim.want("200", msg{"eventOp": "createRoom", "roomId": "R", "capacity": 1000})
		victim.want("200", msg{"eventOp": "joinRoom", "roomId": "R"})
		text := strings.Repeat(`"`, 256) // two bytes each on the wire
		full := hub.count("joinRoom", "444")
		n := 0
		var conns []*client
		for ; n < 1000 && hub.count("joinRoom", "444") == full; n++ {
			c := hub.Accept(&sink{}).(*client)
			conns = append(conns, c)
			login, _ := protocol.Marshal(msg{
				"eventOp":  "register",
				"cpCode":   w.cpCode,
				"authKey":  w.authKey,
				"userId":   fmt.Sprint(n, strings.Repeat("&", 124)),
				"name":     text,
				"device":   text,
				"features": slices.Repeat([]string{`""""""""""""""""`}, 16),
			})
			c.Message(login, c.conn)
			c.Message([]byte(`{"eventOp":"joinRoom","roomId":"R"}`), c.conn)
			victim.take()
		}
		if n < 100 || n == 1000 {
			t.Fatalf("%d large members got in", n)
		}
		members := victim.want("200", msg{"eventOp": "memberList"})["members"].(map[string]any)
		if len(members) != n {
			t.Errorf("%d members are listed, want %d", len(members), n)
		}
		secret := victim.secret
		victim.lose()
		victim = w.connect(0)
		if a := victim.register("victim", "resume", secret); a["resumed"] != true ||
			a["room"] == nil {
			t.Errorf("resumed %v", a["resumed"])
		}
		if c := victim.closeCode(); c != 0 {
			t.Errorf("closed with %d", c)
		}
		for _, c := range conns {
			c.Closed(transport.End{Gone: true})
		}
	})
}

// The list of members is as much as many messages, and counts like them.
func TestLargeAnswersCount(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim := w.connect(0)
		kim.register("kim", "name", strings.Repeat("x", 256), "device", strings.Repeat("x", 256))
		w.room("R", kim)
		asked := func() (n int) {
			for kim.ask(msg{"eventOp": "memberList"}).str("code") == "200" {
				n++
			}
			return n
		}
		if n := asked(); n < 250 {
			t.Errorf("a small list was answered %d times", n)
		}
		time.Sleep(time.Minute)
		for i := range 15 {
			p := w.connect(0)
			p.register(fmt.Sprint("m", i), "name", strings.Repeat("x", 256), "device",
				strings.Repeat("x", 256))
			p.want("200", msg{"eventOp": "joinRoom", "roomId": "R"})
		}
		kim.take()
		if n := asked(); n > 160 {
			t.Errorf("a list of 14 KiB was answered %d times", n)
		}
	})
}

func TestNobodyTakesTheShareUnseen(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("R", kim, lee)
		kim.want("422", msg{"eventOp": "screen", "target": "kim"})
		lee.want("200", msg{"eventOp": "screen"})
		kim.saw("screen:lee:3 ")
	})
}

// One message with candidates is bounded, and what they weigh counts.
func TestCandidatesCountByTheirBytes(t *testing.T) {
	in(t, 1, func(c *Config, _ *license.Params) { c.Burst = 5000 }, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("R", kim, lee)
		candidates := func(n int) msg {
			return msg{
				"eventOp":    "candidate",
				"target":     "lee",
				"candidates": strings.Repeat("x", n),
			}
		}
		kim.want("445", candidates(maxCandidates))
		lee.saw("")
		n := 0
		for kim.ask(candidates(10<<10)).str("code") == "200" {
			n++
		}
		if most := 1000/11 + 1; n > most {
			t.Errorf("%d messages of 10 KiB passed, want %d at most", n, most)
		}
		w.hits("candidates", 2)
	})
}

// Where memory is scarce nothing more waits for those who are away, and senders are told.
func TestNothingMoreWaitsWhereMemoryIsScarce(t *testing.T) {
	backlog := transport.NewBacklog(100 << 10)
	in(t, 1, func(c *Config, _ *license.Params) { c.Backlog = backlog }, func(w *world) {
		s := newScene(w, "away", 1)
		long := msg{"eventOp": "sdp", "target": "victim", "sdp": strings.Repeat("x", 60<<10)}
		s.attackers[0].want("200", long)
		s.honest.want("504", long)
		s.speak()
		s.check("scarce", false)
		if got := backlog.Stats(); got.Bytes != 0 || got.Shed != 0 {
			t.Errorf("%+v", got)
		}
	})
}
