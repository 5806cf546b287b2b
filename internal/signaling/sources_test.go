package signaling

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// sessions are those that are counted, by address.
func (c *addressSessions) sessions() map[userKey]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

func TestSessionsOfAnAddressAreLimited(t *testing.T) {
	in(t, 1, func(c *Config, _ *license.Params) { c.Limits.AddressSessions = 3 }, func(w *world) {
		login := func(from, user string, extra ...any) (string, *peer) {
			p := w.from(from)
			a := p.ask(w.login(w.authKey, append([]any{"userId", user}, extra...)...))
			p.user, p.secret = user, a.str("resume")
			return a.str("code"), p
		}
		want := func(code, from, user string, extra ...any) *peer {
			w.Helper()
			got, p := login(from, user, extra...)
			if got != code {
				w.Errorf("%s from %s: %s, want %s", user, from, got, code)
			}
			return p
		}
		a := want("200", "192.0.2.1", "a")
		b := want("200", "192.0.2.1", "b")
		c := want("200", "192.0.2.1", "c")
		want("445", "192.0.2.1", "d")
		want("445", "192.0.2.1", "")
		want("200", "192.0.2.2", "other")
		for range 5 {
			want("200", "127.0.0.1", "") // nobody knows who is behind it
		}
		p := w.from("192.0.2.1")
		p.want("200", w.login(w.token("kim", nil))) // whom its backend knows
		w.hits("sessions_per_address", 2)

		// who is in stays: away, back from elsewhere, or reloaded
		a.lose()
		want("445", "192.0.2.1", "d")
		want("200", "192.0.2.9", "a", "resume", a.secret)
		want("445", "192.0.2.1", "d")
		b2 := want("200", "192.0.2.1", "b", "forced", true, "resume", b.secret)
		want("445", "192.0.2.1", "d")
		want("409", "192.0.2.1", "c", "forced", true) // without proof
		c.goAway(1000)
		want("200", "192.0.2.1", "d")
		b2.lose()
		time.Sleep(21 * time.Second)
		synctest.Wait()
		want("200", "192.0.2.1", "e")
		want("445", "192.0.2.1", "f")
		for _, s := range w.nodes[0].hub.all() {
			s.end(nil, 1008, "test")
		}
		if n := w.nodes[0].hub.sources.sessions(); len(n) != 0 {
			w.Errorf("no sessions, and counted are %v", n)
		}
	})
}

func TestRoomsOfAnAddressAreLimited(t *testing.T) {
	in(t, 1, func(c *Config, _ *license.Params) { c.Limits.AddressRooms = 2 }, func(w *world) {
		make := func(code, from, room string) *peer {
			w.Helper()
			p := w.from(from)
			p.register("")
			p.want(code, msg{"eventOp": "createRoom", "roomId": room})
			return p
		}
		make("200", "192.0.2.1", "K1")
		p := make("200", "192.0.2.1", "K2") // another id is no way round it
		w.says(make("445", "192.0.2.1", "K3").want("445", msg{
			"eventOp": "createVideoRoom",
		}), "your address", "--max-rooms-per-address")
		p.joins("K1").want("445", msg{"eventOp": "createGroup"})
		w.hits("rooms_per_address", 3)
		make("200", "192.0.2.2", "K3")
		kim := w.from("192.0.2.1")
		kim.want("200", w.login(w.token("kim", nil)))
		kim.want("200", msg{"eventOp": "createRoom", "roomId": "K4"})
		p.leaves() // K1 ends
		make("200", "192.0.2.1", "K1")
	})
}

// Whoever has a /48 has 65,536 sources.
func TestASiteCountsAsAFewAddresses(t *testing.T) {
	address := func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i) }
	const other = "2001:db8:2::1"
	for name, c := range map[string]struct {
		limits Limits
		again  func(w *world, from string) string // one more of what is limited, from there
		code   string
	}{
		"sessions": {Limits{AddressSessions: 1}, func(w *world, from string) string {
			return w.from(from).ask(w.login(w.authKey)).str("code")
		}, "445"},
		"rooms": {Limits{AddressRooms: 1}, func(w *world, from string) string {
			p := w.from(from)
			p.register("")
			return p.ask(msg{"eventOp": "createRoom"}).str("code")
		}, "445"},
		"failed logins": {Limits{FailedLogins: 1}, func(w *world, from string) string {
			p := w.from(from)
			forged := w.authKey[:len(w.authKey)-4] + "AAAA"
			if code := p.ask(w.login(forged)).str("code"); code != "401" {
				return code
			}
			return "200"
		}, "429"},
		"failed joins": {Limits{FailedJoinsOfAddress: 1}, func(w *world, from string) string {
			p := w.from(from)
			p.register("")
			if code := p.ask(msg{
				"eventOp": "joinRoom",
				"roomId":  "none",
			}).str("code"); code != "441" {
				return code
			}
			return "200"
		}, "429"},
	} {
		in(t, 1, func(cfg *Config, _ *license.Params) { cfg.Limits = c.limits }, func(w *world) {
			for i := range transport.SourcesPerSite {
				if code := c.again(w, address(i)); code != "200" {
					w.Fatalf("%s: the first of source %d: %s", name, i, code)
				}
			}
			if code := c.again(w, address(1000)); code != c.code {
				w.Errorf("%s: of one more source of the site: %s, want %s", name, code, c.code)
			}
			if code := c.again(w, other); code != "200" {
				w.Errorf("%s: of another site: %s", name, code)
			}
		})
	}
}

// Pages of one tenant do not lock out the users of another behind the same address, and all tenants
// together have a limit too.
func TestTenantsHaveTheirPartOfAnAddress(t *testing.T) {
	for name, c := range map[string]struct {
		limits Limits
		most   int
		again  func(p *peer, tenant, key string) string // one more of what is limited
	}{
		"failed logins": {Limits{FailedLogins: 2}, 2, func(p *peer, tenant, key string) string {
			m := msg{"eventOp": "register", "cpCode": tenant, "authKey": key[:len(key)-4] + "AAAA"}
			if code := p.ask(m).str("code"); code != "401" {
				return code
			}
			return "200"
		}},
		"logins": {Limits{
			AddressSessions: 1,
		}, addressTurnover, func(p *peer, tenant, key string) string {
			code := p.ask(msg{"eventOp": "register", "cpCode": tenant, "authKey": key}).str("code")
			p.goAway(1000)
			return code
		}},
		"joins": {Limits{
			AddressSessions: 1,
		}, addressTurnover, func(p *peer, tenant, _ string) string {
			code := p.w.resident(tenant).ask(msg{"eventOp": "joinRoom", "roomId": "K1"}).str("code")
			p.w.resident(tenant).ask(msg{"eventOp": "leaveRoom"})
			return code
		}},
		"failed joins": {Limits{
			FailedJoinsOfAddress: 2,
		}, 2, func(p *peer, tenant, _ string) string {
			room := fmt.Sprint("none", p.w.count())
			if code := p.w.resident(tenant).ask(msg{
				"eventOp": "joinRoom",
				"roomId":  room,
			}).str("code"); code != "441" {
				return code
			}
			return "200"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, 1, func(cfg *Config, _ *license.Params) { cfg.Limits = c.limits },
				func(w *world) {
					keys := map[string]string{}
					w.residents = map[string]*peer{}
					for i := range tenantsPerSource + 2 {
						tenant := fmt.Sprint("T", i)
						keys[tenant] = w.issue(tenant)
						owner, p := w.connect(0), w.from("192.0.2.1")
						owner.want("200", msg{
							"eventOp": "register",
							"cpCode":  tenant,
							"authKey": keys[tenant],
						})
						owner.want("200", msg{"eventOp": "createRoom", "roomId": "K1"})
						owner.joins("K1")
						if strings.Contains(name, "joins") {
							p.want("200", msg{
								"eventOp": "register",
								"cpCode":  tenant,
								"authKey": keys[tenant],
							})
							w.residents[tenant] = p
						}
					}
					time.Sleep(time.Minute)
					want := func(code, from, tenant string) {
						w.Helper()
						if got := c.again(w.from(from), tenant, keys[tenant]); got != code {
							w.Errorf("%s from %s: %s, want %s", tenant, from, got, code)
						}
					}
					for i := range tenantsPerSource {
						for range c.most {
							want("200", "192.0.2.1", fmt.Sprint("T", i))
						}
						want("429", "192.0.2.1", fmt.Sprint("T", i))
					}
					// The address has had what all tenants may.
					want("429", "192.0.2.1", fmt.Sprint("T", tenantsPerSource))
					time.Sleep(time.Minute)
					want("200", "192.0.2.1", fmt.Sprint("T", tenantsPerSource))
				})
		})
	}
}

// Under another id whoever comes again is told to others again, and has all budgets again.
func TestComingsOfAnAddressAreLimited(t *testing.T) {
	const most = 2 * addressTurnover
	in(t, 1, func(c *Config, _ *license.Params) { c.Limits.AddressSessions = 2 }, func(w *world) {
		host, other := w.user(0, "host"), w.user(0, "other")
		w.room("K1", host, other)
		come := func(code, from string) {
			w.Helper()
			p := w.from(from)
			if p.want(code, w.login(w.authKey)); code == "200" {
				p.goAway(1000)
			}
		}
		for range most {
			come("200", "192.0.2.1")
		}
		come("429", "192.0.2.1")
		w.hits("logins_per_address", 1)
		come("200", "192.0.2.2")
		w.from("192.0.2.1").want("200", w.login(w.token("kim", nil)))
		for range most + 1 {
			come("200", "127.0.0.1")
		}
		time.Sleep(time.Minute)

		kim := w.from("192.0.2.1")
		kim.register("lee")
		for range most {
			kim.joins("K1").leaves()
		}
		host.take()
		w.says(kim.want("429", msg{"eventOp": "joinRoom", "roomId": "K1"}), "your address")
		host.saw("")
		w.hits("joins_per_address", 1)
		other.leaves().joins("K1") // of another address
		time.Sleep(time.Minute)
		kim.joins("K1")
	})
}

func TestSessionsAndRoomsOfAnAddressOutlastARestart(t *testing.T) {
	withKeeper(t, func(w *world, cfg Config) {
		p := w.from("192.0.2.1")
		p.register("kim")
		w.room("K1", p)
		w.restart(cfg)
		h := w.nodes[0].hub
		if n := len(h.sources.sessions()); n != 1 {
			w.Errorf("%d addresses are counted, want one", n)
		}
		kept, _ := cfg.Keeper.Load()
		for _, v := range kept {
			if strings.Contains(string(v), "192.0.2.1") {
				w.Error("an address is kept")
			}
		}
		w.empty()
		if n := len(h.sources.sessions()); n != 0 {
			w.Errorf("%d addresses are counted, want none", n)
		}
	})
}

// A secret of one's own lifts the limit on failed logins only while its session lives, and fills no
// log.
func TestAnEndedSessionsSecretIsNoWayRoundFailedLogins(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim := w.from("192.0.2.1")
		kim.register("kim")
		guess := w.login(w.authKey[:len(w.authKey)-4]+"AAAA", "userId", "kim", "resume", kim.secret)
		p := w.from("192.0.2.1")
		for range 200 {
			p.want("401", guess)
		}
		if n := strings.Count(w.log.String(), "login refused"); n != 60 {
			w.Errorf("%d lines in the log, want 60", n)
		}
		w.nodes[0].post(t, "/leave", `{"resume":"`+kim.secret+`"}`)
		for range 10 {
			p.want("401", guess)
		}
		p.want("429", guess)
		w.hits("failed_logins", 1)
		time.Sleep(10 * time.Second)
		w.from("192.0.2.2").guesses("401")
		if n := strings.Count(w.log.String(), "login refused"); n != 61 {
			w.Errorf("%d lines in the log, want one more", n)
		}
	})
}

func TestATokenForRoomsReachesNobodyElse(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		pak, out := w.user(0, "pak"), w.user(second, "out")
		w.room("K2", out)
		kim := w.tokenUser(second,
			w.token("kim", func(p *license.UserParams) { p.Rooms = []string{"K1"} }))
		w.room("K1", pak)
		kim.joins("K1")
		for _, op := range []string{"chat", "inform"} {
			for _, user := range []string{"out", "nobody"} {
				kim.want("403", msg{"eventOp": op, "target": user, "message": "x"})
			}
			kim.want("403", msg{"eventOp": "chat", "roomId": "K1", "target": "out", "message": "x"})
			kim.want("200", msg{"eventOp": op, "target": "pak", "message": "x"})
		}
		out.saw("")
		n := 0
		for _, op := range []string{"memberList", "leaveRoom", "destroyRoom"} {
			for _, room := range []string{"K2", "nothing"} {
				w.says(kim.want("413", msg{"eventOp": op, "roomId": room}), "does not grant access")
				n++
			}
		}
		for ; n < 20; n++ {
			kim.want("413", msg{"eventOp": "memberList", "roomId": "nothing"})
		}
		kim.want("429", msg{"eventOp": "memberList", "roomId": "nothing"})
	})
}

func TestIDsThatLookLikeOthersAreRefused(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		p := w.connect(0)
		for _, id := range []string{
			"alice\u200b", "\u202ealice", "al\u00adice", "alice ", " alice", "alice\u3000",
			"\ufeffalice", "alice\u3164", "al\u115fice", "al\u034fice", "alice\u2800",
			"alice\ufe0f",
		} {
			p.want("422", w.login(w.authKey, "userId", id))
		}
		p.register("김 철수") // a space within
		for _, id := range []string{"K1\u200b", "K1 "} {
			p.want("422", msg{"eventOp": "createRoom", "roomId": id})
		}
	})
}
