package signaling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// slowDirectory takes a random time before and after each step: with every seed another schedule of
// those who ask at the same time. Steps that are asked for with a session locked only let others go
// first, since virtual time stands still while somebody waits for a lock.
type slowDirectory struct {
	Directory
	*slowness
}

type slowness struct {
	mu  sync.Mutex
	rng *rand.Rand
	max time.Duration // 0: it is not slow yet
}

func (d *slowDirectory) over(of Directory) Directory { return &slowDirectory{of, d.slowness} }

func (d *slowness) pause() {
	d.mu.Lock()
	var n time.Duration
	if d.max > 0 {
		n = time.Duration(d.rng.Int64N(int64(d.max)))
	}
	d.mu.Unlock()
	time.Sleep(n)
}

func (d *slowness) yield() {
	d.mu.Lock()
	n := d.rng.IntN(20)
	d.mu.Unlock()
	for range n {
		runtime.Gosched()
	}
}

func (d *slowDirectory) ClaimUser(ctx context.Context, tenant, user string, s Location,
	limit int) (Location, error) {
	d.slowness.pause()
	defer d.slowness.pause()
	return d.Directory.ClaimUser(ctx, tenant, user, s, limit)
}

func (d *slowDirectory) TakeUser(ctx context.Context, tenant, user string, from,
	s Location) (Location, error) {
	d.slowness.pause()
	defer d.slowness.pause()
	return d.Directory.TakeUser(ctx, tenant, user, from, s)
}

func (d *slowDirectory) Holder(ctx context.Context, tenant, user string) (Location, error) {
	d.yield()
	defer d.yield()
	return d.Directory.Holder(ctx, tenant, user)
}

func (d *slowDirectory) ReleaseUser(ctx context.Context, tenant, user string, s Location) error {
	d.yield()
	defer d.yield()
	return d.Directory.ReleaseUser(ctx, tenant, user, s)
}

// schedules runs f under many seeds, with n nodes, a directory that is slow at random from slow on,
// and no limit of takeovers.
func schedules(t *testing.T, nodes, seeds int, f func(w *world, rng *rand.Rand, slow func())) {
	for seed := range uint64(seeds) {
		d := &slowDirectory{slowness: &slowness{rng: rand.New(rand.NewPCG(seed, 1))}}
		slow := func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.max = 5 * time.Millisecond
		}
		in(t, nodes, func(c *Config, _ *license.Params) {
			c.Limits.Takeovers = -1
			c.Directory = d
		}, func(w *world) { f(w, rand.New(rand.NewPCG(seed, 2)), slow) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// send sends without waiting for anything.
func (p *peer) send(m msg) {
	b, _ := json.Marshal(m)
	_ = p.ws.WriteMessage(gws.OpcodeText, b)
}

// end is what a page knows at last of its attempt to have the id: in, refused (with a sentence),
// put out (with a close code).
func (p *peer) end() string {
	code := p.closeCode()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.got {
		if m.str("eventOp") != "register" {
			continue
		}
		switch {
		case m.str("code") != "200" && m.str("message") == "":
			return "refused without a word"
		case m.str("code") != "200":
			return "refused " + m.str("code")
		case code == 0:
			return "in"
		}
		return fmt.Sprint("out ", code)
	}
	return "not answered"
}

// oneHolds fails unless one of the pages holds the id, and the others were told that they do not.
func (w *world) oneHolds(user string, pages []*peer) {
	w.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	in := 0
	for _, p := range pages {
		switch end := p.end(); end {
		case "in":
			in++
		case "refused 409", "refused 410", "out 4001", "out 4002":
		default:
			w.Errorf("a page ended as %q", end)
		}
	}
	seat, err := w.local.Holder(w.Context(), w.cpCode, user)
	if err != nil {
		w.Fatal(err)
	}
	sessions := 0
	for _, n := range w.nodes {
		for _, s := range n.hub.all() {
			if s.user == user {
				sessions++
			}
		}
		if s := n.hub.session(seat.Session); s != nil && s.location == seat &&
			s.client.Load() == nil {
			w.Error("the holder has no connection")
		}
	}
	if in != 1 || sessions != 1 || seat.Session == "" {
		w.Errorf("%d pages are in, of %d sessions, the holder is %v", in, sessions, seat)
	}
}

func TestOfPagesThatTakeAnIDOverAtOnceOneHoldsIt(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		schedules(t, nodes, 100, func(w *world, rng *rand.Rand, slow func()) {
			token := w.token("kim", nil)
			pages := make([]*peer, 8)
			for i := range pages {
				pages[i] = w.connect(rng.IntN(nodes))
			}
			slow()
			for _, p := range pages {
				go p.send(w.login(token, "forced", true))
			}
			w.oneHolds("kim", pages)
		})
	}
}

// A session that is live, was lost or is about to expire, its own page that comes back, the same
// page reloaded, and others that take the id over: all at about the same time.
func TestTakeoversThatCrossResumesAndTheEndOfTheWindow(t *testing.T) {
	for _, nodes := range []int{1, 2} {
		schedules(t, nodes, 200, func(w *world, rng *rand.Rand, slow func()) {
			lee := w.user(0, "lee")
			kim := w.connect(0)
			kim.register("kim", "authKey", w.token("kim", nil))
			w.room("K1", lee, kim)
			token := w.token("kim", nil)
			if rng.IntN(3) > 0 {
				kim.lose()
				if rng.IntN(2) == 0 {
					time.Sleep(20*time.Second - time.Duration(rng.IntN(int(30*time.Millisecond))))
				}
			}
			slow()
			pages := make([]*peer, 6)
			for i := range pages {
				p := w.connect(rng.IntN(nodes))
				pages[i] = p
				// At least one of them may have it whatever happens.
				m := w.login(token, "forced", true)
				switch what := rng.IntN(4); {
				case i == 0:
				case what == 0:
					m = w.login(token, "resume", kim.secret)
					m["userId"] = "kim"
				case what == 1:
					m = w.login(token, "forced", true, "resume", kim.secret)
				case what == 2:
					m = w.login(token)
				}
				after := time.Duration(rng.IntN(int(20 * time.Millisecond)))
				go func() {
					time.Sleep(after)
					p.send(m)
				}()
			}
			w.oneHolds("kim", pages)
			if c := lee.closeCode(); c != 0 {
				w.Errorf("another user was closed with %d", c)
			}
			leaves := 0
			for _, m := range lee.take() {
				if m.str("type") == "leave" && m.str("user") == "kim" {
					leaves++
				}
			}
			if leaves != 1 {
				w.Errorf("others saw %d leaves of kim, want one", leaves)
			}
		})
	}
}

// A client gives up a connection that is not answered in time, and its register may come after that
// of the next connection: the session stays where the client listens.
func TestALateAttemptTakesNothingFromItsSuccessor(t *testing.T) {
	plain := func(w *world, _ *peer) msg { return w.login(w.authKey, "userId", "kim") }
	tests := map[string]struct {
		before bool // there is a session
		late   func(w *world, before *peer) msg
		next   func(w *world, before *peer) msg // nil: the same
		code   string                           // of the late attempt
	}{
		"resume": {before: true, code: "409", late: func(w *world, before *peer) msg {
			return w.login(w.authKey, "userId", "kim", "resume", before.secret)
		}},
		"resume, then a new session": {
			before: true,
			code:   "410",
			late: func(w *world, before *peer) msg {
				return w.login(w.authKey, "userId", "kim", "resume", before.secret)
			},
			next: func(w *world, before *peer) msg {
				return w.login(w.authKey, "userId", "kim", "resume", before.secret, "forced", true)
			},
		},
		"takeover with a resume token": {
			before: true,
			code:   "409",
			late: func(w *world, before *peer) msg {
				return w.login(w.authKey, "userId", "kim", "resume", before.secret, "forced", true)
			},
		},
		"takeover with a user token": {
			before: true,
			code:   "409",
			late: func(w *world, _ *peer) msg {
				return w.login(w.token("kim", nil), "forced", true)
			},
		},
		"first session": {code: "409", late: plain},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			in(t, 1, nil, func(w *world) {
				var before *peer
				if tt.before {
					before = w.connect(0)
					before.register("kim", "instance", "page", "attempt", 1)
					before.lose()
				}
				if tt.next == nil {
					tt.next = tt.late
				}
				attempt := func(n int, m msg) msg {
					m["instance"], m["attempt"] = "page", n
					return m
				}
				late, page := w.connect(0), w.connect(0)
				page.want("200", attempt(3, tt.next(w, before)))
				late.want(tt.code, attempt(2, tt.late(w, before)))
				late.lose()
				time.Sleep(time.Minute)
				page.want("200", msg{"eventOp": "keepAlive"})
			})
		})
	}
}

// An attempt that was answered although nobody listens does not hold the id against its successor.
func TestAnAttemptSucceedsTheOneThatItsClientGaveUp(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		givenUp := w.connect(0) // its network is gone: nobody closes it
		givenUp.register("kim", "instance", "page", "attempt", 1)
		page := w.connect(0)
		page.register("kim", "instance", "page", "attempt", 2)
		if c := givenUp.closeCode(); c != transport.StatusTakenOver {
			t.Errorf("closed with %d, want %d", c, transport.StatusTakenOver)
		}
		again := w.connect(0)
		again.register("kim", "resume", page.secret, "instance", "page", "attempt", 4)
		w.connect(0).want("409",
			w.login(w.authKey, "resume", page.secret, "instance", "page", "attempt", 3))
		again.want("200", msg{"eventOp": "keepAlive"})
	})
}

// The numbers of another page mean nothing: it takes a session over, or does not, as without them.
func TestAnotherPageTakesOverWhateverItsNumber(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		page := w.connect(0)
		page.register("kim", "instance", "page", "attempt", 9)
		for _, instance := range []string{"", "other"} {
			m := w.login(w.authKey, "userId", "kim", "instance", instance, "attempt", 10)
			w.connect(0).want("409", m)
		}
		other := w.connect(0)
		other.register("kim", "resume", page.secret, "instance", "other", "attempt", 1)
		if c := page.closeCode(); c != transport.StatusSessionResumed {
			t.Errorf("closed with %d, want %d", c, transport.StatusSessionResumed)
		}
		third := w.connect(0)
		third.register("kim", "resume", other.secret, "forced", true, "instance", "third",
			"attempt", 1)
		if c := other.closeCode(); c != transport.StatusTakenOver {
			t.Errorf("closed with %d, want %d", c, transport.StatusTakenOver)
		}
	})
}

// A crash may keep the record of a session that was taken over, beside that of the one which took
// over.
func TestAfterACrashTheNewerSessionHasTheID(t *testing.T) {
	for range 10 { // records come in any order
		withKeeper(t, func(w *world, cfg Config) {
			old := w.user(0, "kim")
			k := cfg.Keeper.(*memoryKeeper)
			before, _ := k.Load()
			p := w.connect(0)
			p.register("kim", "forced", true, "resume", old.secret)
			for key, value := range before {
				k.kept[key] = value
			}
			w.restart(cfg)
			w.connect(0).want("410", w.login(w.authKey, "userId", "kim", "resume", old.secret))
			if a := w.connect(0).register("kim", "resume", p.secret); a["resumed"] != true {
				w.Errorf("answer %v", a)
			}
			if kept, _ := k.Load(); len(kept) != 1 {
				w.Errorf("%d records are kept, want one", len(kept))
			}
		})
	}
}

// deafBus reaches no other node from n1 once it is deaf.
type deafBus struct {
	Bus
	deaf *atomic.Bool
}

func (d deafBus) over(node string, b Bus) Bus {
	if node != "n1" {
		return b
	}
	return deafBus{b, d.deaf}
}

func (d deafBus) Request(ctx context.Context, node string, payload []byte) ([]byte, error) {
	if d.deaf.Load() {
		return nil, errors.New("no answer")
	}
	return d.Bus.Request(ctx, node, payload)
}

// Where a session's node does not answer the id goes on all the same, and its room knows the newer
// session.
func TestAnIDIsTakenOverFromANodeThatDoesNotAnswer(t *testing.T) {
	var deaf atomic.Bool
	over := func(cfg *Config, _ *license.Params) { cfg.Bus = deafBus{deaf: &deaf} }
	in(t, 2, over, func(w *world) {
		lee := w.user(1, "lee")
		old := w.connect(0)
		old.register("kim", "authKey", w.token("kim", nil))
		w.room("K1", lee, old)
		deaf.Store(true)
		p := w.connect(1)
		p.want("200", w.login(w.token("kim", nil), "forced", true))
		p.joins("K1")
		lee.saw("leave:kim:3 join:kim:4 ")
		old.want("410", msg{"eventOp": "kickOut", "target": "lee"})
	})
}

// What a room refuses is never answered as a fault of the server.
func TestEveryRefusalOfARoomHasACode(t *testing.T) {
	for _, err := range roomErrors {
		if a, known := outcome(err); !known || a.Message == "" {
			t.Errorf("%v is answered %+v", err, a)
		}
	}
}
