package signaling

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
)

func TestComingBackDoesNotRefillTheRate(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		lee := w.user(0, "lee")
		kim := w.user(0, "kim")
		w.room("K1", lee, kim)
		secret := kim.secret
		for range 249 { // and the joinRoom; register counts for the connection
			kim.want("200", msg{"eventOp": "keepAlive"})
		}
		kim.lose()
		kim = w.connect(0)
		kim.register("kim", "resume", secret)
		for range 50 {
			kim.want("200", msg{"eventOp": "keepAlive"})
		}
		for range 1200 { // four times as many are refused
			w.says(kim.want("429", msg{"eventOp": "keepAlive"}), "too many messages")
		}
		w.hits("message_flood", 0)
		kim.ask(msg{"eventOp": "keepAlive"})
		if c := kim.closeCode(); c != 1008 {
			t.Errorf("closed with %d, want 1008", c)
		}
		w.hits("message_flood", 1)
		w.hits("message_rate", 1200)
		lee.want("200", msg{"eventOp": "keepAlive"})
		lee.saw("") // nobody has left

		kim = w.connect(0) // a session is not lost by it
		kim.register("kim", "resume", secret)
		time.Sleep(time.Second)
		for range 30 {
			kim.want("200", msg{"eventOp": "keepAlive"})
		}
		for range 120 {
			kim.want("429", msg{"eventOp": "keepAlive"})
		}
		kim.ask(msg{"eventOp": "keepAlive"})
		if c := kim.closeCode(); c != 1008 {
			t.Errorf("closed with %d, want 1008", c)
		}
	})
}

// Each resume locks the room while its state is encoded, so a session that does nothing but resume
// would keep the others of a large room waiting.
func TestResumesAreLimitedByTheStateTheyCost(t *testing.T) {
	for name, c := range map[string]struct {
		members, most int
	}{
		"alone":  {0, 6},
		"a room": {30, 2},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, 1, func(c *Config, _ *license.Params) { c.Rate, c.Burst = 1, 6 }, func(w *world) {
				kim := w.user(0, "kim")
				kim.want("200", msg{"eventOp": "createRoom", "roomId": "K1", "capacity": 100})
				kim.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
				for i := range c.members {
					p := w.connect(0)
					p.register(fmt.Sprint("u", i), "name", strings.Repeat("n", 250))
					p.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
				}
				resume := func() string {
					again := w.connect(0)
					return again.ask(msg{
						"eventOp": "register",
						"cpCode":  w.cpCode,
						"authKey": w.authKey,
						"resume":  kim.secret,
					}).str("code")
				}
				n := 0
				for n <= c.most && resume() == "200" {
					n++
				}
				if n != c.most {
					t.Errorf("%d resumes at once, want %d", n, c.most)
				}
				w.hits("message_rate", 1)
				time.Sleep(5 * time.Second)
				if code := resume(); code != "200" {
					t.Errorf("five seconds later a resume is answered %s", code)
				}
			})
		})
	}
}

// A session that is resumed on another node has used up there what it has used up here.
func TestMovingDoesNotRefillTheRate(t *testing.T) {
	in(t, 2, nil, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(1, "lee")
		w.room("K1", lee, kim)
		for range 249 {
			kim.want("200", msg{"eventOp": "keepAlive"})
		}
		for i := range 6 {
			kim = kim.resumes((i + 1) % 2)
		}
		passed := 0
		for kim.ask(msg{"eventOp": "keepAlive"}).str("code") == "200" {
			passed++
		}
		if passed > 50 {
			t.Errorf("%d messages passed after the moves, want 50 at most", passed)
		}
	})
}
