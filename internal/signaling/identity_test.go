package signaling

import (
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
)

// identityOf is what the members of K1 are shown of a user, by whoever is there to ask.
func (p *peer) identityOf(user string) string {
	p.w.Helper()
	members := p.want("200", msg{"eventOp": "memberList"})["members"].(map[string]any)
	m, _ := members[user].(map[string]any)
	id := msg(m).str("identity")
	if !regexp.MustCompile(`^[\w-]{11}$`).MatchString(id) {
		p.w.Fatalf("the identity of %s is %q", user, id)
	}
	return id
}

func (p *peer) joins(id string) *peer {
	p.w.Helper()
	p.want("200", msg{"eventOp": "joinRoom", "roomId": id})
	return p
}

func TestIdentityIsTheSameWhereThereIsProof(t *testing.T) {
	const ended, free = true, false
	for name, c := range map[string]struct {
		ends  bool // the earlier session has ended when the next begins
		again func(w *world, first *peer) *peer
		same  bool
	}{
		"a page that was reloaded": {free, func(w *world, first *peer) *peer {
			p := w.connect(0)
			p.register("kim", "forced", true, "resume", first.secret)
			return p
		}, true},
		"the same, after its last word": {ended, func(w *world, first *peer) *peer {
			p := w.connect(0)
			p.register("kim", "forced", true, "resume", first.secret)
			return p
		}, true},
		"a page that came back too late": {ended, func(w *world, first *peer) *peer {
			p := w.connect(0)
			p.want("410", w.login(w.authKey, "userId", "kim", "resume", first.secret))
			p.register("kim")
			return p
		}, true},
		"a page without the secret": {ended, func(w *world, first *peer) *peer {
			// Another connection showed it.
			w.connect(0).want("410", w.login(w.authKey, "userId", "kim", "resume", first.secret))
			return w.user(0, "kim")
		}, false},
		"a page with a secret that is broken": {ended, func(w *world, first *peer) *peer {
			p := w.connect(0)
			signature := strings.LastIndexByte(first.secret, '.') + 1
			// Another character of base64url's alphabet, or none of it.
			flipped := string(first.secret[signature] ^ 1)
			p.register("kim", "forced", true, "resume",
				first.secret[:signature]+flipped+first.secret[signature+1:])
			return p
		}, false},
		"a page with another user's secret": {ended, func(w *world, _ *peer) *peer {
			other := w.user(0, "other")
			p := w.connect(0)
			p.want("410", w.login(w.authKey, "resume", other.secret+"A"))
			p.want("409", w.login(w.authKey, "userId", "other", "forced", true))
			p.register("kim", "forced", true, "resume", other.secret)
			return p
		}, false},
		"a user token, where there was none": {ended, func(w *world, _ *peer) *peer {
			return w.tokenUser(0, w.token("kim", nil))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, 1, nil, func(w *world) {
				host, kim := w.user(0, "host"), w.user(0, "kim")
				w.room("K1", host, kim)
				before := host.identityOf("kim")
				if c.ends {
					w.nodes[0].post(t, "/leave", `{"resume":"`+kim.secret+`"}`)
				}
				c.again(w, kim).joins("K1")
				if after := host.identityOf("kim"); (after == before) != c.same {
					w.Errorf("the identity was %s and is %s, want the same: %v", before, after,
						c.same)
				}
			})
		})
	}
}

func TestAUserTokenProvesTheIdentity(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		host := w.user(0, "host")
		w.room("K1", host, w.tokenUser(0, w.token("kim", nil)), w.tokenUser(0, w.token("lee", nil)))
		first := host.identityOf("kim")
		if first == host.identityOf("lee") {
			w.Error("two users have one identity")
		}
		again := w.tokenUser(0, w.token("kim", nil), "forced", true).joins("K1")
		if got := host.identityOf("kim"); got != first {
			w.Errorf("with another token %s, want %s", got, first)
		}
		again.goAway(1000)
		w.user(0, "kim").joins("K1") // who has the license alone
		if host.identityOf("kim") == first {
			w.Error("without a token the identity is the same")
		}
	})
}

func TestIdentityIsShownWhereverAMemberIs(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, kim := w.user(0, "host"), w.user(second, "kim")
		w.room("K1", host)
		a := kim.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		of := func(m any, path ...string) string {
			for _, p := range path {
				inner, _ := m.(map[string]any)
				m = inner[p]
			}
			s, _ := m.(string)
			return s
		}
		want := kim.identityOf("host")
		members, chief := of(map[string]any(a), "members", "host", "identity"),
			of(map[string]any(a), "host", "identity")
		if members != want || chief != want {
			w.Errorf("in the answer to joinRoom %q and %q, want %q", members, chief, want)
		}
		if got, want := of(host.only()["user"], "identity"), host.identityOf("kim"); got != want {
			w.Errorf("in join %q, want %q", got, want)
		}
	})
}

func TestIdentityOutlastsARestart(t *testing.T) {
	withKeeper(t, func(w *world, cfg Config) {
		host, kim, lee := w.user(0, "host"), w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", host, kim, lee)
		first, other := host.identityOf("kim"), host.identityOf("lee")
		w.restart(cfg)
		back := w.connect(0)
		back.register("host", "resume", host.secret)
		kim2 := w.connect(0)
		kim2.register("kim", "resume", kim.secret)
		kim2.want("200", msg{"eventOp": "leaveRoom"})
		kim2.joins("K1")
		time.Sleep(21 * time.Second) // lee comes too late
		synctest.Wait()
		lee2 := w.connect(0)
		lee2.register("lee", "forced", true, "resume", lee.secret)
		lee2.joins("K1")
		if a, b := back.identityOf("kim"), back.identityOf("lee"); a != first || b != other {
			w.Errorf("%s and %s, want %s and %s", a, b, first, other)
		}
	})
}

// The secret carries ids as JSON, and has to fit into the register that brings it back.
func TestTheSecretOfAnyIDCanBeShown(t *testing.T) {
	in(t, 1, func(_ *Config, p *license.Params) { p.MaxUser = 10 }, func(w *world) {
		for _, sign := range []string{"<", "&", "\"", "\\", "a", "\u2028"} {
			id := "a" + strings.Repeat(sign, 126/len(sign)) + "a"
			p := w.user(0, id)
			p.lose()
			a := w.connect(0).want("200", w.login(w.authKey, "userId", id, "resume", p.secret))
			if a["resumed"] != true {
				w.Errorf("%.3s…: %v", id, a)
			}
		}
	})
}
