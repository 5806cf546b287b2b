package signaling

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
)

func (w *world) hits(limit string, want uint64) {
	w.Helper()
	if got := w.nodes[0].hub.rejections()[limit](); got != want {
		w.Errorf("%d refusals by the limit %s, want %d", got, limit, want)
	}
}

// guesses registers with the world's license but for its last signs.
func (p *peer) guesses(want string) {
	p.w.Helper()
	p.want(want, msg{
		"eventOp": "register",
		"cpCode":  p.w.cpCode,
		"authKey": p.w.authKey[:len(p.w.authKey)-4] + "AAAA",
	})
}

func TestFailedLoginsOfAnAddressAreLimited(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		for range 12 { // an office: who gets in does not count
			w.from("192.0.2.1").register("")
		}
		live := w.from("192.0.2.1")
		live.register("live")
		lost := w.from("192.0.2.1")
		lost.register("lost")
		lost.lose()

		one, two := w.from("192.0.2.1"), w.from("192.0.2.1")
		for range 5 {
			one.guesses("401")
			two.guesses("401")
			time.Sleep(time.Second)
		}
		good := msg{"eventOp": "register", "cpCode": w.cpCode, "authKey": w.authKey}
		w.says(one.want("429", good), "from your address", "Wait a minute")
		one.guesses("429")
		w.from("192.0.2.1").guesses("429")
		w.hits("failed_logins", 3)
		w.from("192.0.2.1").register("")
		if n := w.nodes[0].hub.Stats().Refused["failed_logins"]; n != 3 {
			w.Errorf("%d refused logins have it as their reason, want 3", n)
		}

		// nobody else is concerned: not who is in, not who goes on, not other addresses
		live.want("200", msg{"eventOp": "keepAlive"})
		if a := w.from("192.0.2.1").register("lost", "resume", lost.secret); a["resumed"] != true {
			w.Errorf("resumed: %v", a)
		}
		w.from("192.0.2.2").register("")

		time.Sleep(55*time.Second - time.Nanosecond)
		synctest.Wait()
		one = w.from("192.0.2.1")
		one.guesses("429")
		one.want("429", good)
		time.Sleep(time.Nanosecond) // a minute since the first
		one.want("200", good)
	})
}

func TestFailedLoginsCountByPrefixAndNotOnLoopback(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		for range 11 {
			p := w.from("127.0.0.1")
			p.guesses("401")
			p.lose()
			p = w.connect(0) // of an address that is not known
			p.guesses("401")
			p.lose()
		}
		p := w.from("2001:db8::1")
		for range 10 {
			p.guesses("401")
		}
		w.from("2001:db8::ffff:2").guesses("429")
		w.from("2001:db8:0:1::1").guesses("401")
		w.hits("failed_logins", 1)
	})
}

// Tokens of a whole office run out together, and it comes with new ones.
func TestWhatIsGenuineIsNoGuess(t *testing.T) {
	in(t, 1, requireToken, func(w *world) {
		p := w.from("192.0.2.1")
		old := w.token("kim",
			func(u *license.UserParams) { u.Expires = time.Now().Add(time.Second) })
		time.Sleep(2 * time.Second)
		for range 11 {
			p.want("401", w.login(old))
			// The license alone admits nobody.
			p.want("401", msg{"eventOp": "register", "cpCode": w.cpCode, "authKey": w.authKey})
			p.want("413", w.login(w.token("kim", nil), "userId", "lee"))
			p.want("421", msg{"eventOp": "register", "cpCode": w.cpCode})
		}
		p.want("200", w.login(w.token("kim", nil)))
		p = w.from("192.0.2.1")
		forged := old[:len(old)-4] + "AAAA"
		for range 10 {
			p.want("401", w.login(forged))
		}
		p.want("429", w.login(w.token("lee", nil)))
		w.from("192.0.2.1").want("200", w.login(w.token("lee", nil)))
	})
}

// Whatever cpCode a guesser behind an address names, the users there with a genuine license log in.
func TestFailedLoginsLockNobodyOut(t *testing.T) {
	for name, c := range map[string]struct {
		cpCode func(w *world, i int) string
		limit  int // guesses that are answered 401
	}{
		"made-up tenants": {func(_ *world, i int) string { return fmt.Sprint("T", i) }, 40},
		"the same tenant": {func(w *world, _ int) string { return w.cpCode }, 10},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, 1, nil, func(w *world) {
				for i := range 200 {
					want := "401"
					if i >= c.limit {
						want = "429"
					}
					p := w.from("192.0.2.1")
					p.want(want, msg{
						"eventOp": "register",
						"cpCode":  c.cpCode(w, i),
						"authKey": w.authKey[:len(w.authKey)-4] + "AAAA",
					})
					p.goAway(1000)
				}
				w.hits("failed_logins", uint64(200-c.limit))
				if n := strings.Count(w.log.String(), "login refused"); n > 60 {
					t.Errorf("%d lines in the log", n)
				}
				w.from("192.0.2.1").register("kim")
				w.from("192.0.2.1").want("200", w.login(w.token("lee", nil)))
			})
		})
	}
}

func TestFailedLoginsHaveTheLimitThatIsSet(t *testing.T) {
	in(t, 1, func(c *Config, _ *license.Params) { c.Limits.FailedLogins = 2 }, func(w *world) {
		for _, want := range []string{"401", "401", "429"} {
			w.from("192.0.2.1").guesses(want)
		}
	})
	in(t, 1, func(c *Config, _ *license.Params) { c.Limits.FailedLogins = -1 }, func(w *world) {
		for range 30 {
			w.from("192.0.2.1").guesses("401")
		}
	})
}

func TestJoinsOfAUserAreLimited(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		lee := w.user(0, "lee")
		w.room("K1", lee)
		kim := w.user(0, "kim")
		for range 20 {
			kim.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
			kim.want("200", msg{"eventOp": "leaveRoom"})
		}
		lee.take()
		w.says(kim.want("429", msg{
			"eventOp": "joinRoom",
			"roomId":  "K1",
		}), "too often", "Wait a minute")
		// Whether or not there is such a room.
		kim.want("429", msg{"eventOp": "joinRoom", "roomId": "K2"})
		kim.goAway(1000)
		kim = w.user(0, "kim") // another session is no way round it
		kim.want("429", msg{"eventOp": "joinRoom", "roomId": "K1"})
		lee.saw("")
		w.user(0, "pak").want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		lee.saw("join:pak:42 ")
		w.hits("joins", 3)
		time.Sleep(time.Minute)
		kim.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		lee.saw("join:kim:43 ")
	})
}

func TestRoomsNamedInVainAreLimited(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		lee := w.user(0, "lee")
		w.room("K1", lee)
		kim := w.user(0, "kim")
		w.room("K2", kim)
		for range 4 { // each says whether there is such a room
			kim.want("441", msg{"eventOp": "memberList", "roomId": "none"})
			kim.want("441", msg{"eventOp": "leaveRoom", "roomId": "none"})
			kim.want("441", msg{"eventOp": "destroyRoom", "roomId": "none"})
			kim.want("441", msg{"eventOp": "chat", "message": "x", "roomId": "none"})
		}
		kim.want("200", msg{"eventOp": "leaveRoom"})
		for range 4 {
			kim.want("441", msg{"eventOp": "joinRoom", "roomId": "none"})
		}
		for _, id := range []string{"K1", "none"} { // one answer for both
			w.says(kim.want("429", msg{
				"eventOp": "joinRoom",
				"roomId":  id,
			}), "failed room lookups", "Wait a minute")
			kim.want("429", msg{"eventOp": "memberList", "roomId": id})
			kim.want("429", msg{"eventOp": "leaveRoom", "roomId": id})
			kim.want("429", msg{"eventOp": "destroyRoom", "roomId": id})
			kim.want("429", msg{"eventOp": "chat", "message": "x", "roomId": id})
		}
		w.hits("failed_joins", 10)
		lee.want("200", msg{"eventOp": "memberList", "roomId": "K1"})
		lee.saw("")
		time.Sleep(time.Minute)
		kim.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
	})
}

func TestWhoIsInARoomMayNameItAlways(t *testing.T) {
	in(t, 1, func(c *Config, _ *license.Params) { c.Limits.FailedJoins = 1 }, func(w *world) {
		kim := w.user(0, "kim")
		w.room("K1", kim)
		kim.want("441", msg{"eventOp": "memberList", "roomId": "none"})
		kim.want("429", msg{"eventOp": "memberList", "roomId": "none"})
		kim.want("200", msg{"eventOp": "memberList", "roomId": "K1"})
		kim.want("200", msg{"eventOp": "chat", "message": "x", "roomId": "K1"})
		kim.want("200", msg{"eventOp": "leaveRoom", "roomId": "K1"})
	})
}

func TestFailedJoinsOfAnAddressAreLimited(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		lee := w.from("192.0.2.1")
		lee.register("lee")
		w.room("K1", lee)
		lee.want("200", msg{"eventOp": "editRoomInfo", "roomId": "K1", "capacity": 1})
		pak := w.from("192.0.2.1")
		pak.register("pak")
		for range 20 { // a full room is no guess, but for the user it is enough
			pak.want("444", msg{"eventOp": "joinRoom", "roomId": "K1"})
		}
		pak.want("429", msg{"eventOp": "joinRoom", "roomId": "K1"})
		for i := range 10 {
			p := w.from("192.0.2.1")
			p.register("")
			for j := range 20 {
				p.want("441", msg{"eventOp": "joinRoom", "roomId": fmt.Sprint("none", i, "-", j)})
			}
		}
		kim := w.from("192.0.2.1")
		kim.register("kim")
		w.says(kim.want("429", msg{"eventOp": "joinRoom", "roomId": "none"}), "from your address")
		lee.want("200", msg{"eventOp": "memberList"})
		yun := w.from("192.0.2.2")
		yun.register("yun")
		yun.want("441", msg{"eventOp": "joinRoom", "roomId": "none"})
		w.hits("failed_joins_per_address", 1)
		w.hits("failed_joins", 1)
		time.Sleep(time.Minute)
		kim.want("441", msg{"eventOp": "joinRoom", "roomId": "none"})
	})
}

// A class asks for its room before the teacher has made it.
func TestAClassThatWaitsForItsRoomLocksNobodyOut(t *testing.T) {
	limits := func(c *Config, _ *license.Params) {
		c.Limits.FailedJoins,
			c.Limits.FailedJoinsOfAddress = 3, 2
	}
	in(t, 1, limits, func(w *world) {
		var class []*peer
		for range 30 {
			p := w.from("192.0.2.1")
			p.register("")
			p.want("441", msg{"eventOp": "joinRoom", "roomId": "K1"})
			p.want("441", msg{"eventOp": "joinRoom", "roomId": "K1"})
			class = append(class, p)
		}
		class[0].want("441", msg{"eventOp": "joinRoom", "roomId": "K1"})
		class[0].want("429", msg{"eventOp": "joinRoom", "roomId": "K1"})
		w.hits("failed_joins_per_address", 0)

		guesser := w.from("192.0.2.1")
		guesser.register("guesser")
		// The second name of the address.
		guesser.want("441", msg{"eventOp": "joinRoom", "roomId": "K2"})
		guesser.want("429", msg{"eventOp": "joinRoom", "roomId": "K3"})
		w.hits("failed_joins_per_address", 1)

		teacher := w.from("192.0.2.1")
		teacher.register("teacher")
		teacher.want("200", msg{"eventOp": "createRoom", "roomId": "K1"})
		// Of one's own room one knows.
		teacher.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		teacher.want("200", msg{"eventOp": "leaveRoom"})
		teacher.want("429", msg{"eventOp": "joinRoom", "roomId": "K1"}) // which has ended
		teacher.want("200", msg{"eventOp": "createRoom", "roomId": "K1"})
		teacher.want("200", msg{"eventOp": "destroyRoom", "roomId": "K1"})
		w.hits("failed_joins_per_address", 2)

		listed := w.from("192.0.2.1")
		listed.want("200",
			w.login(w.token("pupil", func(u *license.UserParams) { u.Rooms = []string{"K1"} })))
		for range 5 { // a token that lists the room is no guess, however often it is shown
			listed.want("441", msg{"eventOp": "memberList", "roomId": "K1"})
		}
		teacher.want("200", msg{"eventOp": "createRoom", "roomId": "K1"})
		teacher.joins("K1")
		listed.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		listed.want("200", msg{"eventOp": "leaveRoom"})
		listed.want("429", msg{"eventOp": "joinRoom", "roomId": "K9"})
		time.Sleep(time.Minute)
		class[1].joins("K1")
	})
}

func TestLimitsOfJoinsCanBeTurnedOff(t *testing.T) {
	off := func(c *Config, _ *license.Params) {
		c.Limits = Limits{Joins: -1, FailedJoins: -1, FailedJoinsOfAddress: -1}
	}
	in(t, 1, off, func(w *world) {
		lee := w.user(0, "lee")
		w.room("K1", lee)
		kim := w.from("192.0.2.1")
		kim.register("kim")
		for range 30 {
			kim.want("441", msg{"eventOp": "joinRoom", "roomId": "none"})
			kim.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
			kim.want("200", msg{"eventOp": "leaveRoom"})
			lee.take()
		}
	})
}

func TestCandidatesOfASessionAreLimited(t *testing.T) {
	in(t, 1, func(c *Config, _ *license.Params) { c.Burst = 5000 }, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", kim, lee)
		secret := kim.secret
		candidate := msg{"eventOp": "candidate", "target": "lee", "candidate": "x"}
		for i := range 1000 {
			if i == 500 { // coming back does not begin anew
				kim.lose()
				kim = w.connect(0)
				kim.register("kim", "resume", secret)
			}
			kim.want("200", candidate)
		}
		if n := len(lee.take()); n != 1000 {
			w.Errorf("%d came, want 1000", n)
		}
		w.says(kim.want("429", candidate), "too many candidates")
		// answered on failure, though nobody asked
		kim.raw(`{"eventOp":"candidate","target":"lee","candidate":"x"}`)
		if got := kim.told(); got != "answer:candidate:429 " {
			w.Errorf("kim saw %q", got)
		}
		lee.saw("")
		kim.want("200", msg{"eventOp": "sdp", "target": "lee", "sdp": "x"})
		lee.saw("sdp<kim ")
		lee.want("200", msg{"eventOp": "candidate", "target": "kim", "candidate": "x"})
		w.hits("candidates", 2)
		time.Sleep(time.Minute)
		kim.want("200", candidate)
		lee.saw("candidate<kim ")
	})
}

func TestCandidatesWithoutALimit(t *testing.T) {
	off := func(c *Config, _ *license.Params) { c.Burst, c.Limits.Candidates = 5000, -1 }
	in(t, 1, off, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", kim, lee)
		for range 1100 {
			kim.want("200", msg{"eventOp": "candidate", "target": "lee", "candidate": "x"})
		}
	})
}

func TestRoomsOfAUserAreLimited(t *testing.T) {
	in(t, 2, func(c *Config, _ *license.Params) { c.Limits.Rooms = 3 }, func(w *world) {
		kim := w.user(0, "kim")
		for _, id := range []string{"K1", "K2"} {
			kim.want("200", msg{"eventOp": "createRoom", "roomId": id})
		}
		kim.want("443", msg{"eventOp": "createRoom", "roomId": "K2"})
		kim.want("200", msg{"eventOp": "createVideoRoom"})
		w.says(kim.want("445", msg{
			"eventOp": "createRoom",
			"roomId":  "K4",
		}), "created too many rooms", "destroyRoom")
		kim.want("443", msg{"eventOp": "createRoom", "roomId": "K2"})
		w.hits("rooms_per_user", 1)
		w.user(0, "lee").want("200", msg{"eventOp": "createRoom", "roomId": "K4"})
		kim.want("200", msg{"eventOp": "destroyRoom", "roomId": "K1"})
		kim.want("200", msg{"eventOp": "createRoom", "roomId": "K5"})
		kim.goAway(1000)
		kim = w.user(0, "kim") // another session is no way round it
		kim.want("445", msg{"eventOp": "createRoom"})
		time.Sleep(10*time.Minute + time.Second) // nobody has entered them
		for range 3 {
			kim.want("200", msg{"eventOp": "createRoom"})
		}
		kim.want("445", msg{"eventOp": "createRoom"})
	})
	in(t, 1, func(c *Config, _ *license.Params) { c.Limits.Rooms = -1 }, func(w *world) {
		kim := w.user(0, "kim")
		for range 150 {
			kim.want("200", msg{"eventOp": "createRoom"})
		}
	})
}

func TestConnectionsEndedByALimitAreCounted(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		lee := w.user(0, "lee")
		long, silent := w.user(0, "long"), w.connect(0)
		silent.want("200", msg{"eventOp": "keepAlive"}) // is no login
		_ = long.ws.WriteMessage(1, make([]byte, 64<<10+1))
		if c := long.closeCode(); c != 1009 {
			w.Errorf("closed with %d, want 1009", c)
		}
		time.Sleep(10*time.Second - time.Nanosecond)
		if c := silent.closeCode(); c != 0 {
			w.Errorf("closed with %d before the time was up", c)
		}
		time.Sleep(time.Nanosecond)
		if c := silent.closeCode(); c != 1008 {
			w.Errorf("closed with %d, want 1008", c)
		}
		w.hits("message_size", 1)
		w.hits("login_time", 1)
		lee.want("200", msg{"eventOp": "keepAlive"})
	})
}
