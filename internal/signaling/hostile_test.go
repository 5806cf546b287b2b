package signaling

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// What docs/security.md says of attacks, as far as no other test of this package shows it.

// tenant is a license of another tenant of the same server.
func (w *world) tenant(cpCode string, maxUser int) string {
	w.Helper()
	key, err := w.verifier.Issue(license.Params{
		Name:        cpCode,
		CpCode:      cpCode,
		CompanyCode: "T",
		MaxUser:     maxUser,
		Start:       time.Now().Add(-time.Hour),
		End:         time.Now().Add(time.Hour),
	})
	if err != nil {
		w.Fatal(err)
	}
	return key
}

// Whatever a user of one tenant sends to a user of another is answered as if there were no such
// user, and does not arrive.
func TestUsersOfAnotherTenantDoNotExist(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		kim, lee := w.user(0, "kim"), w.user(second, "lee")
		w.room("K1", kim, lee)
		pak := w.connect(second)
		pak.register("pak", "cpCode", "OTHER", "authKey", w.tenant("OTHER", 9))
		w.room("K1", pak) // a room of the same name, and not the same
		for _, m := range []msg{
			{"eventOp": "sdp", "sdp": msg{"type": "offer", "sdp": "x"}},
			{"eventOp": "candidate", "candidate": "x"},
			{"eventOp": "publish", "type": "cam", "epoch": 1},
			{"eventOp": "unpublish", "type": "cam", "epoch": 1},
			{"eventOp": "subscribe", "type": "cam"}, {"eventOp": "chat", "message": "x"},
			{"eventOp": "inform", "message": "x"}, {"eventOp": "kickOut"},
			{"eventOp": "permit", "chat": "false"}, {"eventOp": "editUserInfo", "name": "x"},
		} {
			answer := func(target string) msg {
				q := maps.Clone(m)
				q["target"] = target
				a := pak.ask(q)
				delete(a, "reqId")
				return a
			}
			there, nowhere := answer("lee"), answer("nobody")
			if there == nil || there.str("code") != nowhere.str("code") ||
				there.str("message") != nowhere.str("message") ||
				there.str("hint") != nowhere.str("hint") {
				w.Errorf("%v: answers tell users apart: %v, %v", m["eventOp"], there, nowhere)
			}
			if op := m.str("eventOp"); (op == "sdp" || op == "candidate") &&
				there.str("code") != "403" {
				w.Errorf("%s is answered %v, want 403", op, there)
			}
		}
		pak.want("200", msg{"eventOp": "createGroup", "title": "x", "list": []string{"lee", "kim"}})
		lee.saw("")
		kim.saw("")
	})
}

// The connection that lost a session may have sent something before it knew. It comes to nothing.
func TestALateMessageOfALostSessionIsDropped(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		kim, lee := w.user(0, "kim"), w.user(second, "lee")
		w.room("K1", lee, kim)
		secret, err := w.nodes[0].hub.parseResumeToken(kim.secret)
		if err != nil {
			w.Fatal(err)
		}
		old := w.nodes[0].hub.session(secret.ID).client.Load()
		again := w.connect(second)
		again.register("kim", "forced", true, "resume", kim.secret)
		if c := kim.closeCode(); c != transport.StatusTakenOver {
			w.Fatalf("closed with %d, want %d", c, transport.StatusTakenOver)
		}
		again.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		lee.take()
		relayed := w.nodes[0].hub.Stats().Relayed
		reply := &noReply{t: w.T}
		for _, text := range []string{
			`{"eventOp":"sdp","target":"lee","sdp":"late","reqId":"1"}`,
			`{"eventOp":"candidate","target":"lee","candidate":"late"}`,
			`{"eventOp":"chat","roomId":"K1","message":"late"}`,
			`{"eventOp":"leaveRoom","roomId":"K1"}`, `{"eventOp":"shareStop"}`,
		} {
			old.Message([]byte(text), reply)
		}
		lee.saw("")
		again.saw("")
		if n := w.nodes[0].hub.Stats().Relayed; n != relayed {
			w.Errorf("%d messages were passed on", n-relayed)
		}
		again.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "mine"})
	})
}

// noReply is the way back of a connection from which nothing may come.
type noReply struct{ t *testing.T }

func (r *noReply) Send(m *transport.Message) bool {
	r.t.Errorf("answered %s", m.B)
	m.Release()
	return true
}

// Seats are counted for all servers together, also those of users who wait for their connection,
// and nobody has to make room.
func TestSeatsAreCountedOverAllNodes(t *testing.T) {
	in(t, 3, func(_ *Config, p *license.Params) { p.MaxUser = 4 }, func(w *world) {
		var in []*peer
		for i, id := range []string{"a", "b", "c", "d"} {
			in = append(in, w.user(i%3, id))
		}
		full := func() {
			w.Helper()
			for node := range 3 {
				w.says(w.connect(node).want("445", msg{
					"eventOp": "register",
					"cpCode":  w.cpCode,
					"authKey": w.authKey,
				}), "full")
			}
		}
		full()
		in[1].lose()
		time.Sleep(19 * time.Second)
		full()
		for _, p := range []*peer{in[0], in[2], in[3]} {
			p.want("200", msg{"eventOp": "keepAlive"}) // nobody had to go
		}
		time.Sleep(2 * time.Second) // the resume window is over
		w.user(2, "e")
		full()
	})
}

// Origins are compared as a whole. Everybody else stays, and the page is told why before it is
// closed.
func TestOriginsAreComparedExactly(t *testing.T) {
	const origin = "https://app.example:8443"
	in(t, 1,
		func(_ *Config,
			p *license.Params) {
			p.Origins = []string{origin, "https://other.example"}
		}, func(w *world) {
			good := w.connect(0, "Origin", origin)
			good.register("kim")
			for _, o := range []string{
				"http://app.example:8443", "https://app.example", "https://app.example:443",
				"https://app.example:84430", "https://app.example:844",
				"https://app.example.evil.test:8443", "https://evil-app.example:8443",
				"https://sub.app.example:8443", "https://APP.example:8443",
				"https://app.example.:8443",
				"https://app-example:8443", "https://other.example:8443",
			} {
				p := w.connect(0, "Origin", o)
				a := p.want("413",
					msg{"eventOp": "register", "cpCode": w.cpCode, "authKey": w.authKey})
				w.says(a, "origin")
				if c := p.closeCode(); c != transport.StatusPolicyViolation {
					w.Errorf("%s: closed with %d, want %d", o, c, transport.StatusPolicyViolation)
				}
			}
			w.connect(0, "Origin", "https://other.example").register("lee")
			w.connect(0).register("app") // no browser, no origin
			good.want("200", msg{"eventOp": "keepAlive"})
			if n := w.nodes[0].hub.Stats().Refused["origin"]; n != 12 {
				w.Errorf("%d counted, want 12", n)
			}
		})
}

// Frames that keep a WebSocket alive are no login.
func TestPingsAreNoLogin(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, p := w.user(0, "kim"), w.connect(0)
		for range 9 {
			time.Sleep(time.Second)
			_ = p.ws.WritePing(nil)
			if c := p.closeCode(); c != 0 {
				w.Fatalf("closed with %d", c)
			}
		}
		time.Sleep(1001 * time.Millisecond)
		if c := p.closeCode(); c != transport.StatusPolicyViolation {
			w.Errorf("closed with %d, want %d", c, transport.StatusPolicyViolation)
		}
		kim.want("200", msg{"eventOp": "keepAlive"})
	})
}

// An id that the server makes cannot be guessed: 60 random bits, 12 signs of Crockford's 32.
func TestMadeRoomIDsAreRandom(t *testing.T) {
	const signs = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	seen, at := map[string]bool{}, make([]map[rune]bool, 12)
	for i := range at {
		at[i] = map[rune]bool{}
	}
	for range 2000 {
		id := newID("K")
		if len(id) != 13 || id[0] != 'K' || strings.Trim(id[1:], signs) != "" || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
		for i, r := range id[1:] {
			at[i][r] = true
		}
	}
	for i := range at { // with 2000 ids a sign is missing by chance once in 10^24 times
		if len(at[i]) != len(signs) {
			t.Errorf("at place %d there are %d different signs, want %d", i, len(at[i]), len(signs))
		}
	}
	in(t, 1, nil, func(w *world) {
		kim := w.user(0, "kim")
		for _, op := range []string{"createRoom", "createVideoRoom"} {
			if id := kim.want("200", msg{
				"eventOp": op,
			}).str("roomId"); len(id) != 13 || strings.Trim(id[1:], signs) != "" {
				w.Errorf("%s made %q", op, id)
			}
		}
	})
}
