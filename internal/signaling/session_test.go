package signaling

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/transport"
)

func TestRegister(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		p := w.connect(0)
		p.want("401", msg{"eventOp": "createRoom"})
		p.want("200", msg{"eventOp": "keepAlive"})
		p.want("421", msg{"eventOp": "register", "authKey": w.authKey})
		p.want("401", msg{"eventOp": "register", "cpCode": w.cpCode, "authKey": w.authKey + "x"})
		swapped := p.want("401", msg{
			"eventOp": "register",
			"cpCode":  w.authKey,
			"authKey": w.cpCode,
		})
		if !strings.Contains(swapped.str("hint"), "swapped") {
			w.Errorf("no hint that the two are swapped: %v", swapped)
		}
		a := p.register("")
		if len(p.user) != 13 || p.user[0] != 'U' || p.secret == "" || a["resumeWindow"] != 20.0 ||
			a["resumed"] != false {
			w.Errorf("answer %v", a)
		}
		ice := a["iceServers"].([]any)
		if len(ice) != 2 || fmt.Sprint(ice[0].(map[string]any)["urls"]) != "[stun:ieum.test]" {
			w.Errorf("iceServers %v", ice)
		}
		if n := len(p.want("200", msg{"eventOp": "iceServers"})["iceServers"].([]any)); n != 2 {
			w.Errorf("%d ice servers", n)
		}
		p.want("400", msg{"eventOp": "register", "cpCode": w.cpCode, "authKey": w.authKey})
	})
}

func TestAConnectionThatDoesNotRegisterIsClosed(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		p, q := w.connect(0), w.user(0, "q")
		for range 3 { // keepAlive is no login
			time.Sleep(3 * time.Second)
			p.want("200", msg{"eventOp": "keepAlive"})
		}
		time.Sleep(1001 * time.Millisecond)
		if c := p.closeCode(); c != 1008 {
			w.Errorf("closed with %d, want 1008", c)
		}
		if c := q.closeCode(); c != 0 {
			w.Errorf("a registered connection was closed with %d", c)
		}
	})
}

func TestLicenseDecidesWhoGetsIn(t *testing.T) {
	in(t, 1, func(_ *Config, p *license.Params) {
		p.MaxUser, p.Origins, p.Relay = 2, []string{"https://app.example"}, "none"
	}, func(w *world) {
		foreign := w.connect(0, "Origin", "https://app.example.evil.test")
		foreign.want("413", msg{"eventOp": "register", "cpCode": w.cpCode, "authKey": w.authKey})
		if c := foreign.closeCode(); c != 1008 {
			w.Errorf("closed with %d, want 1008", c)
		}
		p := w.connect(0, "Origin", "https://app.example")
		a := p.register("one")
		if n := len(a["iceServers"].([]any)); n != 1 {
			w.Errorf("%d ice servers for a license without relay", n)
		}
		two := w.user(0, "two")
		three := w.connect(0)
		three.want("445", msg{"eventOp": "register", "cpCode": w.cpCode, "authKey": w.authKey})
		two.lose() // resumable sessions hold their seats
		three.want("445", msg{"eventOp": "register", "cpCode": w.cpCode, "authKey": w.authKey})
		p.goAway(1000)
		three.register("")
	})
}

func TestAUserIDBelongsToOneSession(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		first := w.user(0, "kim")
		w.room("K1", first)
		login := func(p *peer, extra ...any) msg {
			m := msg{
				"eventOp": "register",
				"cpCode":  w.cpCode,
				"authKey": w.authKey,
				"userId":  "kim",
			}
			for i := 0; i < len(extra); i += 2 {
				m[extra[i].(string)] = extra[i+1]
			}
			return p.ask(m)
		}
		p := w.connect(second)
		for _, a := range []msg{
			login(p),
			login(p, "forced", true),
			login(p, "forced", "true", "resume", "r1.AAAA.BBBB"),
		} {
			if a.str("code") != "409" || a.str("hint") == "" {
				w.Errorf("answer %v, want 409 with a hint", a)
			}
		}
		// the secret of another user's session proves nothing
		lee := w.user(second, "lee")
		if a := login(p, "forced", true, "resume", lee.secret); a.str("code") != "409" {
			w.Errorf("answer %v, want 409", a)
		}
		lee.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		first.take()
		// the session's own secret does: the old page leaves, then the new one is there, fresh
		if a := login(p, "forced", true, "resume", first.secret); a.str("code") != "200" ||
			a["resumed"] != false {
			w.Fatalf("answer %v", a)
		}
		if c := first.closeCode(); c != 4002 {
			w.Errorf("the old connection was closed with %d, want 4002", c)
		}
		lee.saw("leave:kim:3 hostChange:lee:4 ")
		p.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		lee.saw("join:kim:5 hostChange:kim:6 ") // kim made the room
		time.Sleep(time.Minute)
		lee.saw("") // a second leave never comes
	})
}

func TestForcedAloneWorksWhereTheLicenseSaysSo(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		grant := license.Grant{LegacyForced: true, MaxUser: 5}
		old := w.user(0, "kim")
		h := w.nodes[0].hub
		s := &session{hub: h, id: "another", tenant: w.cpCode, user: "kim", grant: grant}
		if err := h.claimUser(w.Context(), s, true, nil, true); err != nil {
			w.Fatal(err)
		}
		if c := old.closeCode(); c != 4002 {
			w.Errorf("closed with %d, want 4002", c)
		}
	})
}

func TestAPageThatGoesLeavesAtOnce(t *testing.T) {
	for name, leave := range map[string]func(w *world, p *peer){
		"close 1000": func(_ *world, p *peer) { p.goAway(1000) },
		"close 1001": func(_ *world, p *peer) { p.goAway(1001) },
		"POST /leave": func(w *world, p *peer) {
			c := w.nodes[0].post(w.T, "/leave", fmt.Sprintf(`{"resume":%q}`, p.secret))
			if c != 204 {
				w.Errorf("status %d", c)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, 1, nil, func(w *world) {
				kim, lee := w.user(0, "kim"), w.user(0, "lee")
				w.room("K1", kim, lee)
				start := time.Now()
				leave(w, lee)
				kim.saw("leave:lee:3 ")
				if d := time.Since(start); d > 500*time.Millisecond {
					w.Errorf("leave came after %v", d)
				}
				again := w.user(0, "lee") // no 409
				again.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
				kim.saw("join:lee:4 ")
			})
		})
	}
}

func TestLeaveNeedsTheSecret(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim := w.user(0, "kim")
		for _, body := range []string{
			``, `{}`, `{"resume":5}`, `{"resume":"r1.AAAA.AAAA"}`,
			fmt.Sprintf(`{"resume":"%sx"}`, kim.secret), strings.Repeat("x", 9000),
		} {
			if c := w.nodes[0].post(w.T, "/leave", body); c != 204 {
				w.Errorf("%.40q: status %d", body, c)
			}
		}
		kim.want("200", msg{"eventOp": "keepAlive"})
	})
}

// A page may say that it leaves to any node.
func TestLeaveEndsASessionOfAnotherNode(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		kim, lee := w.user(0, "kim"), w.user(second, "lee")
		w.room("K1", kim, lee)
		if c := w.nodes[0].post(w.T, "/leave", fmt.Sprintf(`{"resume":%q}`, lee.secret)); c != 204 {
			w.Errorf("status %d", c)
		}
		kim.saw("leave:lee:3 ")
		if c := lee.closeCode(); c != 4002 {
			w.Errorf("closed with %d", c)
		}
	})
}

// strictBus reaches other nodes only while the context lasts, as a bus over a network does.
type strictBus struct{ Bus }

func (strictBus) over(_ string, b Bus) Bus { return strictBus{b} }

func (b strictBus) Request(ctx context.Context, node string, payload []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return b.Bus.Request(ctx, node, payload)
}

// A page that unloads ends the connection of its POST /leave, and does not wait for the answer.
func TestLeaveOutlastsItsConnection(t *testing.T) {
	strict := func(cfg *Config, _ *license.Params) { cfg.Bus = strictBus{} }
	in(t, 2, strict, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(1, "lee")
		w.room("K1", kim, lee)
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		body := strings.NewReader(fmt.Sprintf(`{"resume":%q}`, lee.secret))
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/leave", body)
		w.nodes[0].hub.ServeLeave(httptest.NewRecorder(), r)
		kim.saw("leave:lee:3 ")
	})
}

func TestALostConnectionIsResumed(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		kim, lee := w.user(0, "kim"), w.user(second, "lee")
		w.room("K1", kim, lee)
		lee.lose()
		time.Sleep(19 * time.Second)
		kim.saw("") // nobody is told
		// what others send meanwhile waits; what the room says is in the state
		kim.want("200", msg{"eventOp": "sdp", "target": "lee", "n": 1})
		kim.want("200", msg{"eventOp": "candidate", "target": "lee", "n": 2})
		third := w.user(0, "third")
		third.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		kim.take()
		back := w.connect(second)
		a := back.want("200", msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"resume":  lee.secret,
		})
		room, _ := a["room"].(map[string]any)
		if a.str("userId") != "lee" || a["resumed"] != true || room["seq"] != 3.0 ||
			len(room["members"].(map[string]any)) != 3 {
			w.Fatalf("answer %v", a)
		}
		back.user = "lee again"
		back.saw("sdp<kim candidate<kim ")
		kim.saw("")
		third.saw("")
		back.want("200", msg{"eventOp": "sdp", "target": "kim"})
		kim.saw("sdp<lee ")
		time.Sleep(time.Minute)
		kim.saw("")
	})
}

func TestAResumedClientCanTellOneStayFromTheNext(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		kim, lee := w.user(0, "kim"), w.user(second, "lee")
		w.room("K1", kim, lee)
		since := func(a msg) any {
			room, _ := a["room"].(map[string]any)
			return room["members"].(map[string]any)["kim"].(map[string]any)["since"]
		}
		lee.lose()
		back := w.connect(second)
		before := since(back.register("lee", "resume", lee.secret))
		back.lose()
		kim.goAway(1001) // and its page is loaded again
		again := w.connect(0)
		again.register("kim")
		again.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		third := w.connect(second)
		if after := since(third.register("lee", "resume", lee.secret)); before != 1.0 ||
			after == before {
			w.Errorf("kim is there since %v, and after coming again since %v", before, after)
		}
	})
}

// said is what came of chat, inform, groups and kicks.
func (p *peer) said() (all string) {
	for _, m := range p.take() {
		switch m.str("type") {
		case "chat", "inform", "talking":
			all += fmt.Sprintf("%s %v:%v ", m.str("type"), m["seq"], m["message"])
		case "createGroup", "kickOut":
			all += m.str("type") + " "
		}
	}
	return all
}

func TestWhatWasSaidWhileAwayComesAfterTheResume(t *testing.T) {
	for name, n := range map[string]int{"on one node": 1, "on two": 2} {
		t.Run(name, func(t *testing.T) {
			in(t, n, nil, func(w *world) {
				kim, lee := w.user(0, "kim"), w.user(n-1, "lee")
				kim.want("200", msg{
					"eventOp":     "createVideoRoom",
					"roomId":      "K1",
					"talkingNoty": true,
				})
				kim.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
				lee.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
				kim.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "here"})
				if got := lee.said(); got != "chat 3:here " {
					w.Fatalf("lee saw %q", got)
				}
				lee.lose()
				kim.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "one"})
				kim.want("200", msg{"eventOp": "talking", "message": true})
				kim.want("200", msg{"eventOp": "inform", "message": "two"})
				kim.want("200", msg{"eventOp": "chat", "target": "lee", "message": "to you"})
				kim.want("200", msg{"eventOp": "createGroup", "list": []string{"lee"}})
				kim.want("200", msg{"eventOp": "kickOut", "target": "lee"})
				time.Sleep(2 * time.Second)
				back := w.connect(n - 1)
				a := back.register("lee", "resume", lee.secret)
				if r, _ := a["room"].(map[string]any); r["seq"] != 6.0 {
					w.Errorf("the state is %v", r["seq"])
				}
				if got := back.said(); got != "chat <nil>:to you createGroup kickOut chat "+
					"4:one inform 6:two " {
					w.Errorf("lee saw %q", got)
				}
				again := w.connect(n - 1) // it knows all of it by now
				again.register("lee", "resume", back.secret)
				if got := again.said(); got != "" {
					w.Errorf("lee saw %q twice", got)
				}
			})
		})
	}
}

// A connection that is dead and has not been noticed yet takes messages with it. Only the client
// knows which.
func TestWhatADeadConnectionTookIsSaidAgain(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", kim, lee)
		for _, text := range []string{"came", "lost", "lost too"} {
			kim.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": text})
		}
		lee.take()
		back := w.connect(0)
		back.register("lee", "resume", lee.secret, "seq", 3)
		if got := back.said(); got != "chat 4:lost chat 5:lost too " {
			w.Errorf("lee saw %q", got)
		}
		outsider := w.connect(0)
		outsider.register("lee", "resume", back.secret, "seq", 0)
		if got := outsider.said(); got != "chat 3:came chat 4:lost chat 5:lost too " {
			w.Errorf("lee saw %q", got)
		}
		w.connect(0).want("422", msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"resume":  outsider.secret,
			"seq":     -1,
		})
	})
}

func TestResumeTakesOverFromAConnectionThatHasNotDiedYet(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", kim, lee)
		back := w.connect(0)
		if a := back.register("lee", "resume", lee.secret); a["resumed"] != true {
			w.Fatalf("answer %v", a)
		}
		if c := lee.closeCode(); c != 4001 {
			w.Errorf("the old connection was closed with %d, want 4001", c)
		}
		back.want("200", msg{"eventOp": "sdp", "target": "kim"})
		kim.saw("sdp<lee ")
		time.Sleep(time.Minute)
		kim.saw("")
	})
}

func TestLeaveComesWhenTheResumeWindowIsOver(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", kim, lee)
		lee.lose()
		time.Sleep(20*time.Second - time.Millisecond)
		kim.saw("")
		time.Sleep(2 * time.Millisecond)
		kim.saw("leave:lee:3 ")
		p := w.connect(0)
		p.want("410", msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"resume":  lee.secret,
		})
		p.want("200", msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"userId":  "lee",
			"resume":  lee.secret,
			"forced":  true,
		})
	})
}

func TestASilentConnectionIsLostNotGone(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim := w.user(0, "kim")
		lee := w.user(0, "lee")
		w.room("K1", kim, lee)
		// lee's system stops answering: nothing is read any more, not even pings
		resume := lee.stall()
		kim.want("200", msg{"eventOp": "sdp", "target": "lee"})
		time.Sleep(40 * time.Second)
		kim.saw("")
		time.Sleep(45 * time.Second)
		resume()
		kim.saw("leave:lee:3 ")
		time.Sleep(10 * time.Minute)
		if c := kim.closeCode(); c != 0 {
			w.Errorf("a connection that answers pings was closed with %d", c)
		}
	})
}

func TestStoppingTellsClientsToComeBack(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", kim, lee)
		if err := w.nodes[0].ws.Close(w.Context()); err != nil {
			w.Error(err)
		}
		if a, b := kim.closeCode(), lee.closeCode(); a != 1001 || b != 1001 {
			w.Errorf("closed with %d and %d, want 1001", a, b)
		}
		kim.saw("") // no leave: they are all coming back
	})
}

func TestSecretsAreBoundToTenantUserAndKey(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim := w.user(0, "kim")
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
		p := w.connect(0)
		p.want("410", msg{
			"eventOp": "register",
			"cpCode":  "OTHER",
			"authKey": other,
			"resume":  kim.secret,
		})
		p.want("410", msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"userId":  "lee",
			"resume":  kim.secret,
		})
		head, tail, _ := strings.Cut(kim.secret[3:], ".")
		for _, s := range []string{
			"", "x", "r1", "r1." + head, "r1." + head + ".", "r2." + head + "." + tail,
			"r1." + head + "." + tail + "A", "r1." + strings.ToLower(head) + "." + tail,
		} {
			if _, err := w.nodes[0].hub.parseResumeToken(s); err == nil {
				w.Errorf("%q is taken for genuine", s)
			}
		}
		if _, err := w.nodes[0].hub.parseResumeToken(kim.secret); err != nil {
			w.Error(err)
		}
	})
}

func TestNothingSecretIsLogged(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", kim, lee)
		kim.want("200", msg{
			"eventOp": "sdp",
			"target":  "lee",
			"sdp":     msg{"sdp": "SECRET-SDP 192.0.2.77"},
		})
		p := w.connect(0)
		p.want("401", msg{"eventOp": "register", "cpCode": w.authKey, "authKey": "SECRET-KEY"})
		p.want("401", msg{"eventOp": "register", "cpCode": w.cpCode, "authKey": w.authKey + "x"})
		lee.lose()
		back := w.connect(0)
		back.register("lee", "resume", lee.secret)
		kim.goAway(1000)
		log := w.log.String()
		if !strings.Contains(log, "session opened") || !strings.Contains(log, "session ended") ||
			!strings.Contains(log, "login refused") {
			w.Errorf("the log does not tell a life:\n%s", log)
		}
		for _, s := range []string{
			"SECRET", "192.0.2.77", w.authKey, kim.secret, lee.secret, "127.0.0.1",
		} {
			if strings.Contains(log, s) {
				w.Errorf("the log contains %.20q", s)
			}
		}
	})
}

// When everybody has gone, nothing is left.
func TestNothingIsLeftOver(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		for round := range 5 {
			var all []*peer
			for i := range 6 {
				all = append(all, w.user(i%2*second, fmt.Sprintf("u%d", i)))
			}
			w.room(fmt.Sprintf("K%d", round%2), all...)
			for i, p := range all {
				if i%2 == 0 {
					p.goAway(1000)
				} else {
					p.lose()
				}
			}
			time.Sleep(21 * time.Second)
		}
		synctest.Wait()
		for _, n := range w.nodes {
			if s := n.hub.Stats(); s.Sessions+s.Rooms+s.Rosters != 0 || n.ws.Count() != 0 {
				w.Errorf("left over: %+v, %d connections", s, n.ws.Count())
			}
		}
		if n := len(w.local.users()) + len(w.local.rooms()) + len(w.local.seats()); n != 0 {
			w.Errorf("the directory holds %d entries", n)
		}
	})
}

// slowICE does something else while a register is being answered.
type slowICE struct{ meanwhile func() }

func (i *slowICE) ICEServers(host, tenant, session string, relay bool) []protocol.ICEServer {
	if f := i.meanwhile; f != nil {
		i.meanwhile = nil
		f()
	}
	return fixedICE{}.ICEServers(host, tenant, session, relay)
}

func TestATakeoverWhileRegisterIsAnsweredReachesTheClient(t *testing.T) {
	ice := &slowICE{}
	in(t, 1, func(c *Config, _ *license.Params) { c.ICE = ice }, func(w *world) {
		hub := w.nodes[0].hub
		ended := make(chan struct{})
		ice.meanwhile = func() {
			seat, err := w.local.Holder(t.Context(), w.cpCode, "kim")
			if err != nil || seat.Session == "" {
				w.Errorf("holder %v %v", seat, err)
			}
			go func() {
				defer close(ended)
				hub.endSession(seat, transport.StatusTakenOver, "taken over")
			}()
			for range 1000 { // it has every chance to overtake
				runtime.Gosched()
			}
		}
		kim := w.user(0, "kim")
		<-ended
		if c := kim.closeCode(); c != transport.StatusTakenOver {
			w.Errorf("closed with %d, want %d", c, transport.StatusTakenOver)
		}
	})
}

func sdp(i int) msg { return msg{"eventOp": "sdp", "target": "lee", "sdp": fmt.Sprint(i)} }

// sdps are the numbers of the descriptions that came, in order.
func (p *peer) sdps() (numbers []int) {
	for _, m := range p.take() {
		if m.str("eventOp") == "sdp" {
			n, _ := strconv.Atoi(m.str("sdp"))
			numbers = append(numbers, n)
		}
	}
	return numbers
}

func TestAllThatMayWaitIsDeliveredAfterTheResume(t *testing.T) {
	// How many of them are large, before the small ones.
	for name, large := range map[string]int{"many": 0, "large": 6} {
		t.Run(name, func(t *testing.T) {
			in(t, 1, func(c *Config, _ *license.Params) { c.Rate, c.Burst = 1e6, 1e6 },
				func(w *world) {
					kim, pak, lee := w.user(0, "kim"), w.user(0, "pak"), w.user(0, "lee")
					w.room("K1", kim, pak, lee)
					lee.lose()
					var taken []int
					codes := map[string]int{}
					for i := range 300 {
						m := sdp(i)
						if i < large {
							m["more"] = strings.Repeat("x", 60<<10)
						}
						from := kim
						if i%2 == 1 {
							from = pak
						}
						code := from.ask(m).str("code")
						if codes[code]++; code == "200" {
							taken = append(taken, i)
						}
					}
					// each sender has a share, and all together have the place
					if codes["429"] == 0 && codes["504"] == 0 ||
						codes["200"]+codes["429"]+codes["504"] != 300 {
						w.Errorf("answered %v", codes)
					}
					lee2 := w.connect(0)
					open := lee2.stall() // nothing is written before all is in the outbox
					_ = lee2.ws.WriteMessage(1,
						fmt.Appendf(nil, `{"eventOp":"register","cpCode":%q,"authKey":%q,`+
							`"resume":%q}`, w.cpCode, w.authKey, lee.secret))
					synctest.Wait()
					open()
					got := lee2.sdps()
					if c := lee2.closeCode(); c != 0 || len(taken) < 2 ||
						!slices.Equal(got, taken) {
						w.Fatalf("closed with %d; what came:\n%v\nwhat was answered 200:\n%v", c,
							got,
							taken)
					}
				})
		})
	}
}

func TestWhatIsSentToAConnectionThatIsClosingWaits(t *testing.T) {
	in(t, 1, func(c *Config, _ *license.Params) { c.Rate, c.Burst = 1e6, 1e6 }, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", kim, lee)
		open := lee.stall()
		for i := range 2100 { // more than its outbox takes
			kim.want("200", msg{"eventOp": "inform", "message": i})
		}
		kim.want("200", sdp(10_000))
		open()
		time.Sleep(2 * time.Second)
		if c := lee.closeCode(); c == 0 {
			w.Fatal("not closed")
		}
		lee2 := w.connect(0)
		lee2.register("lee", "resume", lee.secret)
		if got := lee2.sdps(); len(got) == 0 || got[len(got)-1] != 10_000 {
			w.Errorf("after the resume came %v, want what was sent since the outbox was full", got)
		}
	})
}

// The timer of an absence that is over may fire as the client comes back, and get its turn when the
// client is lost again.
func TestATimerOfAnEarlierDisconnectEndsNothing(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim := w.user(0, "kim")
		seat, _ := w.local.Holder(t.Context(), w.cpCode, "kim")
		s := w.nodes[0].hub.session(seat.Session)
		kim.lose()
		s.mu.Lock()
		first := s.disconnectSeq
		s.mu.Unlock()
		again := w.connect(0)
		again.register("kim", "resume", kim.secret)
		s.expire(first)
		again.want("200", msg{"eventOp": "keepAlive"})
		again.lose()
		s.expire(first)
		last := w.connect(0)
		if a := last.register("kim", "resume", kim.secret); a["resumed"] != true {
			w.Errorf("answer %v", a)
		}
	})
}

func TestSessionsEndWithTheirLicense(t *testing.T) {
	in(t, 1,
		func(_ *Config,
			p *license.Params) {
			p.End = time.Now().Add(30*time.Minute + time.Second)
		}, func(w *world) {
			kim, lost := w.user(0, "kim"), w.user(0, "lost")
			w.room("K1", kim, lost)
			time.Sleep(30*time.Minute - 5*time.Second)
			lost.lose()
			kim.want("200", msg{"eventOp": "keepAlive"})
			// The check ran when the license had a second left, and will be in a second.
			time.Sleep(34 * time.Second)
			if c := kim.closeCode(); c != 0 {
				w.Fatalf("closed with %d before sessions were looked through", c)
			}
			time.Sleep(2 * time.Second)
			if c := kim.closeCode(); c != transport.StatusLicenseEnded {
				w.Errorf("closed with %d, want %d", c, transport.StatusLicenseEnded)
			}
			if s := w.nodes[0].hub.Stats(); s.Sessions+s.Rooms+s.Rosters != 0 {
				w.Errorf("left over: %+v", s)
			}
			w.connect(0).want("401", msg{
				"eventOp": "register",
				"cpCode":  w.cpCode,
				"authKey": w.authKey,
				"resume":  kim.secret,
			})
		})
}

// A registration may come with the request for its connection. Whoever gives that connection up
// before it has opened has no secret to come back with, and wants the id at once; whoever has said
// another word since comes back as everybody.
func TestARegistrationThatCameWithTheRequest(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		early := func(fields msg) *peer {
			b, _ := json.Marshal(fields)
			p := w.connect(0, "Sec-WebSocket-Protocol",
				"ieum, ieum.hello."+base64.RawURLEncoding.EncodeToString(b))
			synctest.Wait()
			return p
		}
		register := msg{
			"eventOp": "register",
			"reqId":   "1",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"userId":  "alice",
		}
		first := early(register)
		if got := first.take(); len(got) != 1 || got[0].str("code") != "200" ||
			got[0].str("userId") != "alice" {
			t.Fatalf("answered %v", got)
		}
		_ = first.nc.Close()
		synctest.Wait()

		second := early(register)
		got := second.take()
		if len(got) != 1 || got[0].str("code") != "200" {
			t.Fatalf("the id was not free: %v", got)
		}
		second.want("200", msg{"eventOp": "keepAlive"})
		_ = second.nc.Close()
		synctest.Wait()

		register["resume"] = got[0].str("resume")
		third := early(register)
		if got := third.take(); len(got) != 1 || got[0]["resumed"] != true {
			t.Fatalf("not resumed: %v", got)
		}
		_ = third.nc.Close() // before it said a word: the session is older than this connection
		synctest.Wait()
		if got := early(register).take(); len(got) != 1 || got[0]["resumed"] != true {
			t.Fatalf("not resumed again: %v", got)
		}
	})
}

// What came with the request was refused, and the registration came over the connection: whoever
// sent it has the connection, and comes back as everybody.
func TestARegistrationBehindTheOneThatCameWithTheRequest(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		refused, _ := json.Marshal(msg{
			"eventOp": "register",
			"reqId":   "0",
			"cpCode":  w.cpCode,
			"authKey": "no such",
			"userId":  "alice",
		})
		p := w.connect(0, "Sec-WebSocket-Protocol",
			"ieum, ieum.hello."+base64.RawURLEncoding.EncodeToString(refused))
		synctest.Wait()
		if got := p.take(); len(got) != 1 || got[0].str("code") == "200" {
			t.Fatalf("answered %v", got)
		}
		register := msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"userId":  "alice",
		}
		register["resume"] = p.want("200", register).str("resume")
		_ = p.nc.Close()
		synctest.Wait()
		if got := w.connect(0).want("200", register); got["resumed"] != true {
			t.Errorf("not resumed: %v", got)
		}
	})
}
