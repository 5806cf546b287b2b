package signaling

import (
	"context"
	"crypto/sha256"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// revocable gives the nodes a list of revoked licenses. What it returns puts tokens on it, as who
// has read the operator's file does.
func revocable(w **world) (change func(*Config, *license.Params), revoke func(tokens ...string)) {
	list := new(license.Revoked)
	change = func(c *Config, _ *license.Params) {
		v, err := license.New(license.Config{
			Keys:    [][]byte{[]byte("0123456789abcdef0123456789abcdef")},
			Revoked: list,
		})
		if err != nil {
			panic(err)
		}
		c.Licenses = v
	}
	return change, func(tokens ...string) {
		hashes := license.RevocationList{}
		for _, t := range tokens {
			hashes[sha256.Sum256([]byte(t))] = struct{}{}
		}
		list.Set(hashes)
		for _, n := range (*w).nodes {
			n.hub.EndWithLicenses()
		}
	}
}

// otherLicense is of the same tenant.
func (w *world) otherLicense() string {
	w.Helper()
	key, err := w.verifier.Issue(license.Params{
		Name:        "Other",
		CpCode:      w.cpCode,
		CompanyCode: "T",
		MaxUser:     100,
		Start:       time.Now().Add(-time.Hour),
		End:         time.Now().Add(time.Hour),
	})
	if err != nil {
		w.Fatal(err)
	}
	return key
}

func TestSessionsEndWithARevokedLicense(t *testing.T) {
	var w *world
	change, revoke := revocable(&w)
	in(t, 2, change, func(world *world) {
		w = world
		kim, away, other := w.user(0, "kim"), w.user(1, "away"), w.connect(0)
		other.register("other", "authKey", w.otherLicense())
		w.room("K1", other, kim, away)
		away.lose()
		other.take()
		revoke(w.authKey)
		if c := kim.closeCode(); c != transport.StatusLicenseEnded {
			w.Errorf("closed with %d, want %d", c, transport.StatusLicenseEnded)
		}
		w.isNowhere(0, kim)
		w.isNowhere(1, away)
		w.isIn(0, other, "K1")
		other.saw("leave:kim:4 leave:away:5 ")
		other.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "still here"})

		// no way back: not with the secret, not anew, and no word that says more than a bad key
		// gets
		bad := w.authKey[:len(w.authKey)-4] + "AAAA"
		for _, more := range []msg{{}, {
			"resume": kim.secret,
		}, {"userId": "kim", "forced": true, "resume": kim.secret}} {
			answer := func(key string) msg {
				q := msg{"eventOp": "register", "cpCode": w.cpCode, "authKey": key}
				maps.Copy(q, more)
				a := w.connect(0).want("401", q)
				delete(a, "reqId")
				return a
			}
			if a, b := answer(w.authKey), answer(bad); !maps.Equal(a, b) {
				w.Errorf("with %v a revoked license is answered %v, a bad one %v", more, a, b)
			}
		}
		stats := w.nodes[0].hub.Stats()
		if stats.Refused["revoked"] != 3 || stats.Refused["license"] != 3 {
			w.Errorf("counted %v", stats.Refused)
		}
		if strings.Contains(w.log.String(), w.authKey) ||
			!strings.Contains(w.log.String(), "revoked") {
			w.Errorf("the log is to say revoked, and no key:\n%s", w.log)
		}

		revoke()
		w.user(1, "kim")
	})
}

func TestARevokedUserTokenEndsItsSessionAlone(t *testing.T) {
	var w *world
	change, revoke := revocable(&w)
	in(t, 1, change, func(world *world) {
		w = world
		mint := func(user string) string {
			token, err := w.verifier.IssueUser(license.UserParams{
				CpCode:  w.cpCode,
				ID:      user,
				License: w.authKey,
				Expires: time.Now().Add(time.Minute),
			})
			if err != nil {
				w.Fatal(err)
			}
			return token
		}
		token := mint("kim")
		kim, lee := w.connect(0), w.connect(0)
		kim.register("kim", "authKey", token)
		lee.register("lee", "authKey", mint("lee"))
		kim.lose()
		time.Sleep(2 * time.Second)
		revoke(token)
		lee.want("200", msg{"eventOp": "keepAlive"})
		// Past the tokens' end, which a page that comes back need not mind.
		time.Sleep(2 * time.Minute)
		w.connect(0).want("401", msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": token,
			"resume":  kim.secret,
		})
		lee.lose()
		w.connect(0).register("lee", "authKey", mint("lee"), "resume", lee.secret)
		if s := w.nodes[0].hub.Stats(); s.Sessions != 1 {
			w.Errorf("%d sessions", s.Sessions)
		}
	})
}

// lateDirectory lets something happen between the look at a license and the session that comes of
// it.
type lateDirectory struct {
	Directory
	claimed func()
}

func (d *lateDirectory) over(of Directory) Directory {
	d.Directory = of
	return d
}

func (d *lateDirectory) ClaimUser(ctx context.Context, tenant, user string, s Location,
	limit int) (Location, error) {
	if d.claimed != nil {
		d.claimed()
	}
	return d.Directory.ClaimUser(ctx, tenant, user, s, limit)
}

// The license was good when it was looked at, and is revoked before the session is there to be
// ended.
func TestALoginThatIsOvertakenByTheRevocation(t *testing.T) {
	var w *world
	change, revoke := revocable(&w)
	late := &lateDirectory{}
	in(t, 1, func(c *Config, p *license.Params) {
		change(c, p)
		c.Directory = late
	}, func(world *world) {
		w = world
		late.claimed = func() { revoke(w.authKey) }
		w.connect(0).want("401", msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"userId":  "kim",
		})
		late.claimed = nil
		if s := w.nodes[0].hub.Stats(); s.Sessions != 0 {
			w.Errorf("%d sessions", s.Sessions)
		}
		revoke()
		w.user(0, "kim") // the id is free
	})
}

func TestSessionsOfARevokedLicenseDoNotOutlastARestart(t *testing.T) {
	var w *world
	change, revoke := revocable(&w)
	var cfg Config
	in(t, 1, func(c *Config, p *license.Params) {
		change(c, p)
		c.Keeper, c.Node = &memoryKeeper{kept: map[string][]byte{}}, "n0"
		cfg = *c
	}, func(world *world) {
		w = world
		kim := w.user(0, "kim")
		w.room("K1", kim)
		nodes := w.nodes
		w.nodes = nil // revoked while the server is away
		revoke(w.authKey)
		w.nodes = nodes
		w.restart(cfg)
		// The room waits a while for somebody to come.
		if s := w.nodes[0].hub.Stats(); s.Sessions+s.Rosters != 0 {
			w.Errorf("came back: %+v", s)
		}
	})
}
