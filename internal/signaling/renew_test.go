package signaling

import (
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
)

// Keys rotate under sessions: first a new key comes before the old one, then the old one goes.
func TestKeysRotateUnderSessions(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		h := w.nodes[0].hub
		rotate := func(keys ...string) *license.Verifier {
			var all [][]byte
			for _, k := range keys {
				all = append(all, []byte(k))
			}
			v, err := license.New(license.Config{Keys: all})
			if err != nil {
				w.Fatal(err)
			}
			h.Renew(v, v.DeriveAll("resume secret", 32))
			return v
		}
		const oldKey, newKey = "0123456789abcdef0123456789abcdef",
			"another key, of thirty-two bytes."
		oldLicense := w.authKey
		kim, lee, pak := w.user(0, "kim"), w.user(0, "lee"), w.user(0, "pak")
		w.room("K1", kim, lee, pak)

		v := rotate(newKey, oldKey)
		newLicense, err := v.Issue(license.Params{
			Name:        "New",
			CpCode:      w.cpCode,
			CompanyCode: "T",
			MaxUser:     100,
			Start:       time.Now().Add(-time.Hour),
			End:         time.Now().Add(time.Hour),
		})
		if err != nil {
			w.Fatal(err)
		}
		kim.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "still here"})
		lee.lose()
		back := w.connect(0)
		if a := back.register("lee", "resume", lee.secret); a["resumed"] != true ||
			back.secret == lee.secret {
			w.Errorf("with a secret of the old key: %v", a)
		}
		w.user(0, "old")
		fresh := w.connect(0)
		fresh.register("new", "authKey", newLicense)

		rotate(newKey)
		kim.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "still here"})
		w.connect(0).want("401", msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": oldLicense,
		})
		pak.lose()
		w.connect(0).want("410", msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": newLicense,
			"resume":  pak.secret,
		})
		back.lose() // its secret was renewed when it came back
		again := w.connect(0)
		a := again.register("lee", "authKey", newLicense, "resume", back.secret)
		if a["resumed"] != true {
			w.Errorf("with a secret of the new key: %v", a)
		}
		kim.take()
		w.nodes[0].post(w.T, "/leave", `{"resume":"`+pak.secret+`"}`) // as nobody's
		kim.saw("")
		w.nodes[0].post(w.T, "/leave", `{"resume":"`+again.secret+`"}`)
		kim.saw("leave:lee:6 ")
	})
}
