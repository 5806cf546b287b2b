package signaling

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
)

// token mints a user token as the tenant's backend would; change may be nil.
func (w *world) token(user string, change func(*license.UserParams)) string {
	w.Helper()
	p := license.UserParams{
		CpCode:  w.cpCode,
		ID:      user,
		Expires: time.Now().Add(5 * time.Minute),
		License: w.authKey,
	}
	if change != nil {
		change(&p)
	}
	token, err := w.verifier.IssueUser(p)
	if err != nil {
		w.Fatal(err)
	}
	return token
}

// login is a register message with a user token.
func (w *world) login(token string, extra ...any) msg {
	m := msg{"eventOp": "register", "cpCode": w.cpCode, "authKey": token}
	for i := 0; i < len(extra); i += 2 {
		m[extra[i].(string)] = extra[i+1]
	}
	return m
}

// tokenUser connects and registers with a user token.
func (w *world) tokenUser(node int, token string, extra ...any) *peer {
	w.Helper()
	p := w.connect(node)
	a := p.want("200", w.login(token, extra...))
	p.user, p.secret = a.str("userId"), a.str("resume")
	return p
}

// says fails unless the answer's message and hint contain all parts.
func (w *world) says(a msg, parts ...string) {
	w.Helper()
	for _, part := range parts {
		if !strings.Contains(a.str("message")+a.str("hint"), part) {
			w.Errorf("%v does not say %q", a, part)
		}
	}
}

func requireToken(_ *Config, p *license.Params) { p.RequireUserToken = true }

func TestAUserTokenSaysWhoTheUserIs(t *testing.T) {
	in(t, 1, requireToken, func(w *world) {
		token := w.token("kim", func(p *license.UserParams) { p.Name = "Kim" })
		p := w.connect(0)
		w.says(p.want("401", w.login(w.authKey, "userId", "kim")), "requires a user token",
			"Sign a user token on your backend with userTokenKey")
		w.says(p.want("413", w.login(token, "userId", "lee")), "another user id")
		w.says(p.want("401", w.login(token[:len(token)-3])), "not signed", "docs/protocol.md")
		w.says(p.want("401", msg{
			"eventOp": "register",
			"cpCode":  "KP-2",
			"authKey": token,
		}), "not signed")
		w.says(p.want("401", msg{
			"eventOp": "register",
			"cpCode":  token,
			"authKey": w.cpCode,
		}), "swapped")
		if n := w.nodes[0].hub.Stats().Sessions; n != 0 {
			w.Fatalf("%d sessions, though nobody got in", n)
		}
		a := p.want("200", w.login(token))
		if a.str("userId") != "kim" {
			w.Fatalf("answer %v", a)
		}
		p.want("413", msg{"eventOp": "createRoom", "userId": "lee"})
		other := w.tokenUser(0, w.token("lee", func(p *license.UserParams) { p.Name = "Lee" }),
			"userId", "lee", "name", "Somebody")
		w.room("K1", p)
		members := other.want("200", msg{
			"eventOp": "joinRoom",
			"roomId":  "K1",
		})["members"].(map[string]any)
		kimName := msg(members["kim"].(map[string]any)).str("name")
		leeName := msg(members["lee"].(map[string]any)).str("name")
		if kimName != "Kim" || leeName != "Somebody" {
			w.Errorf("names %q and %q: the token's, unless the client gives another",
				kimName, leeName)
		}
	})
}

func TestAUserTokenExpiresForWhoWantsInNotForWhoIsIn(t *testing.T) {
	in(t, 1, requireToken, func(w *world) {
		token := w.token("kim", nil)
		kim, lee := w.tokenUser(0, token), w.tokenUser(0, w.token("lee", nil))
		w.room("K1", kim, lee)
		time.Sleep(5 * time.Minute)
		kim.want("200", msg{"eventOp": "keepAlive"})
		kim.lose()
		back := w.connect(0)
		a := back.want("200", w.login(token, "resume", kim.secret))
		if a["resumed"] != true || a.str("userId") != "kim" || a["room"] == nil {
			w.Errorf("the session did not go on: %v", a)
		}
		lee.saw("")
		fresh := w.connect(0)
		secret := a.str("resume")
		for name, m := range map[string]msg{
			"no secret":               w.login(token),
			"a new session":           w.login(token, "forced", true, "resume", secret),
			"another's secret":        w.login(token, "userId", "kim", "resume", lee.secret),
			"a secret that is broken": w.login(token, "resume", secret+"x"),
		} {
			if a := fresh.ask(m); a.str("code") != "401" ||
				!strings.Contains(a.str("message"), "expired") {
				w.Errorf("%s: %v", name, a)
			}
		}
		back.goAway(1000)
		fresh.want("401", w.login(token, "resume", secret)) // its session has ended
		fresh.want("200", w.login(w.token("kim", nil)))
		lee.saw("leave:kim:3 hostChange:lee:4 ")
	})
}

func TestAResumedSessionKeepsItsGrant(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim := w.tokenUser(0,
			w.token("kim", func(p *license.UserParams) { p.Rooms = []string{"K1"} }))
		kim.lose()
		for _, key := range []string{w.authKey, w.token("kim", nil)} {
			back := w.connect(0)
			if a := back.want("200", w.login(key, "resume", kim.secret)); a["resumed"] != true {
				w.Fatalf("answer %v", a)
			}
			back.want("413", msg{"eventOp": "createRoom", "roomId": "K2"})
		}
		// nor does a token of another user take up the session
		w.connect(0).want("410", w.login(w.token("lee", nil), "resume", kim.secret))
	})
}

func TestTheEndOfTheLicenseCountsForWhoComesBack(t *testing.T) {
	in(t, 1, func(_ *Config, p *license.Params) {
		p.RequireUserToken, p.End = true, time.Now().Add(6*time.Minute+10*time.Second)
	}, func(w *world) {
		token := w.token("kim", nil)
		kim := w.tokenUser(0, token)
		time.Sleep(6*time.Minute + 9*time.Second)
		kim.lose()
		time.Sleep(2 * time.Second)
		w.says(w.connect(0).want("401", w.login(token, "resume", kim.secret)),
			"license has expired")
	})
}

func TestAUserTokenOutlastsARestart(t *testing.T) {
	withKeeper(t, func(w *world, cfg Config) {
		token := w.token("kim",
			func(
				p *license.UserParams) {
				p.Rooms = []string{"K1"}
				p.Expires = time.Now().Add(time.Second)
			})
		kim := w.tokenUser(0, token)
		w.room("K1", kim)
		w.restart(cfg)
		time.Sleep(2 * time.Second)
		back := w.connect(0)
		if a := back.want("200", w.login(token, "resume", kim.secret)); a["resumed"] != true ||
			a["room"] == nil {
			w.Fatalf("answer %v", a)
		}
		back.want("200", msg{"eventOp": "leaveRoom"})
		back.want("413", msg{"eventOp": "joinRoom", "roomId": "K2"})
	})
}

func TestAUserTokenTakesItsUserIDOver(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", lee, kim)
		token := w.token("kim", nil)
		p := w.connect(second)
		w.says(p.want("409", w.login(token)), "forced", "user token")
		p.want("413", w.login(token, "userId", "lee", "forced", true)) // proof for its own id only
		if c := lee.closeCode(); c != 0 {
			w.Errorf("another user was closed with %d", c)
		}
		if a := p.want("200", w.login(token, "forced", true)); a["resumed"] != false {
			w.Errorf("answer %v", a)
		}
		if c := kim.closeCode(); c != 4002 {
			w.Errorf("closed with %d, want 4002", c)
		}
		lee.saw("leave:kim:3 ")
		p.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		lee.saw("join:kim:4 ")
	})
}

func TestTakeoversAreLimited(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		token := w.token("kim", nil)
		last := w.tokenUser(0, token)
		other := w.tokenUser(0, w.token("lee", nil))
		for range 3 {
			last = w.tokenUser(0, token, "forced", true)
			time.Sleep(10 * time.Second)
		}
		p := w.connect(0)
		w.says(p.want("429", w.login(token, "forced", true)), "Too many takeovers")
		if c := last.closeCode(); c != 0 {
			w.Errorf("the holder was closed with %d", c)
		}
		w.tokenUser(0, w.token("lee", nil), "forced", true) // counted by user
		if c := other.closeCode(); c != 4002 {
			w.Errorf("closed with %d, want 4002", c)
		}
		// a page's own secret is good for one takeover, so reloading is not limited
		page := last
		for range 5 {
			page = w.tokenUser(0, token, "forced", true, "resume", page.secret)
		}
		p.want("429", w.login(token, "forced", true))
		time.Sleep(30*time.Second - time.Millisecond)
		synctest.Wait()
		w.connect(0).want("429", w.login(token, "forced", true))
		time.Sleep(time.Millisecond) // a minute since the first
		w.tokenUser(0, token, "forced", true)
		if n := w.nodes[0].hub.rejections()["takeovers"](); n != 3 {
			w.Errorf("%d were counted as refused, want 3", n)
		}
	})
}

func TestAUserTokenMayNameTheRooms(t *testing.T) {
	in(t, 1, requireToken, func(w *world) {
		teacher := w.tokenUser(0, w.token("teacher", nil))
		w.room("K3", teacher)
		kim := w.tokenUser(0,
			w.token("kim", func(p *license.UserParams) { p.Rooms = []string{"K1", "K2"} }))
		for _, m := range []msg{
			{"eventOp": "createRoom", "roomId": "K4"}, {"eventOp": "createRoom"},
			{"eventOp": "createVideoRoom", "roomId": "K4"},
			{"eventOp": "createRoom", "roomId": "K3"}, {"eventOp": "joinRoom", "roomId": "K3"},
			{"eventOp": "joinRoom", "roomId": "K4"},
		} {
			w.says(kim.want("413", m), "does not grant access", "rooms")
		}
		if n := w.nodes[0].hub.Stats().Rooms; n != 1 {
			w.Errorf("%d rooms, want the teacher's alone", n)
		}
		kim.want("200", msg{"eventOp": "createVideoRoom", "roomId": "K2"})
		kim.want("441", msg{"eventOp": "joinRoom", "roomId": "K1"})
		kim.want("200", msg{"eventOp": "joinRoom", "roomId": "K2"})
		teacher.saw("")
		teacher.want("200", msg{"eventOp": "leaveRoom"})
		// A token without rooms admits to all.
		teacher.want("200", msg{"eventOp": "joinRoom", "roomId": "K2"})
		kim.saw("join:teacher:2 ")
	})
}

func TestAUserTokenMayMakeItsUserHost(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", kim, lee)
		teacher := w.tokenUser(second,
			w.token("teacher", func(p *license.UserParams) { p.Host = true }))
		teacher.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		lee.saw("join:teacher:3 hostChange:teacher:4 ")
		kim.want("413", msg{"eventOp": "kickOut", "target": "lee"})
		teacher.want("200", msg{"eventOp": "kickOut", "target": "lee"})
	})
}

func TestALicenseMayLimitTheRooms(t *testing.T) {
	in(t, 1, func(_ *Config, p *license.Params) { p.MaxRooms = 2 }, func(w *world) {
		kim, lee := w.user(0, "kim"), w.tokenUser(0, w.token("lee", nil))
		w.room("K1", kim)
		lee.want("200", msg{"eventOp": "createRoom", "roomId": "K2"})
		w.says(kim.want("445", msg{"eventOp": "createRoom", "roomId": "K3"}), "maxRooms")
		kim.want("445", msg{"eventOp": "createVideoRoom"})
		lee.want("445", msg{"eventOp": "createRoom"}) // the token's license counts alike
		kim.want("443", msg{"eventOp": "createRoom", "roomId": "K2"})
		lee.want("441", msg{"eventOp": "joinRoom", "roomId": "K3"})
		kim.want("200", msg{"eventOp": "leaveRoom"}) // K1 ends
		lee.want("200", msg{"eventOp": "createRoom", "roomId": "K3"})
	})
}

func TestPinnedLicense(t *testing.T) {
	// signed with a key that this server does not have; the days of synctest begin in 2000
	const foreign = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." +
		"eyJuYW1lIjoiTW92ZWQiLCJtYXhVc2VyIjoiMyIsInN0YXJ0RGF0ZSI6IjIwMDAtMDEtMDEiLCJlbmRE" +
		"YXRlIjoiMjAwMC0xMi0zMSIsImF1dGhDb2RlIjoiTU9WRUQtMDEifQ." +
		"c2lnbmF0dXJlIG9mIHNvbWVib2R5IGVsc2Uh"
	in(t, 1, func(c *Config, _ *license.Params) {
		list := []license.Pinned{{
			CpCode:  "MOVED-01",
			AuthKey: foreign,
			Origins: []string{"https://app.example"},
			Relay:   "none",
		}}
		v, err := license.New(license.Config{
			Keys:   [][]byte{[]byte("0123456789abcdef0123456789abcdef")},
			Pinned: list,
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Licenses = v
	}, func(w *world) {
		login := func(extra ...any) msg {
			m := w.login(foreign, extra...)
			m["cpCode"] = "MOVED-01"
			return m
		}
		at := func(origin string) *peer { return w.connect(0, "Origin", origin) }
		at("https://other.example").want("413", login("userId", "kim"))
		first := at("https://app.example")
		if n := len(first.want("200", login("userId", "kim"))["iceServers"].([]any)); n != 1 {
			w.Errorf("%d ice servers, want no relay", n)
		}
		second := at("https://app.example")
		second.want("409", login("userId", "kim"))
		for range 3 { // as in the original
			second = at("https://app.example")
			second.want("200", login("userId", "kim", "forced", "true"))
			if c := first.closeCode(); c != 4002 {
				w.Errorf("closed with %d, want 4002", c)
			}
			first = second
		}
		// but not without end
		at("https://app.example").want("429", login("userId", "kim", "forced", "true"))
		// a user token need not name the license, since it is listed
		token, err := w.verifier.IssueUser(license.UserParams{
			CpCode:  "MOVED-01",
			ID:      "lee",
			Expires: time.Now().Add(time.Minute),
		})
		if err != nil {
			t.Fatal(err)
		}
		m := w.login(token)
		m["cpCode"] = "MOVED-01"
		if a := at("https://app.example").want("200", m); a.str("userId") != "lee" {
			w.Errorf("answer %v", a)
		}
		bare := w.token("pak", func(p *license.UserParams) { p.License = "" })
		w.says(w.connect(0).want("401", w.login(bare)), "contains no license", "--licenses")
	})
}

func TestNoTokenIsLogged(t *testing.T) {
	in(t, 1, requireToken, func(w *world) {
		token := w.token("kim", nil)
		p := w.connect(0)
		p.want("401", w.login(token[:len(token)-3]))
		p.want("401", w.login(w.authKey))
		p.want("200", w.login(token))
		secrets := append(strings.Split(token, "."), strings.Split(w.authKey, ".")[1:]...)
		for _, secret := range secrets {
			if strings.Contains(w.log.String(), secret[:len(secret)-3]) {
				w.Errorf("the log has a part of a token:\n%s", w.log)
			}
		}
		if !strings.Contains(w.log.String(), "login refused") {
			w.Error("a refused login is not logged")
		}
	})
}
