package signaling

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// panickingICE is an issuer with a bug that one request can reach.
type panickingICE struct {
	fixedICE
	armed atomic.Bool
}

func (p *panickingICE) ICEServers(host, tenant, session string, relay bool) []protocol.ICEServer {
	if p.armed.Swap(false) {
		panic("bug in the issuer")
	}
	return p.fixedICE.ICEServers(host, tenant, session, relay)
}

func TestPanicEndsOnlyItsSession(t *testing.T) {
	ice := &panickingICE{}
	use := func(c *Config, _ *license.Params) { c.ICE = ice }
	in(t, 1, use, func(w *world) {
		kim, lee, choi := w.user(0, "kim"), w.user(0, "lee"), w.user(0, "choi")
		w.room("K1", lee, kim, choi)
		ice.armed.Store(true)
		kim.raw(`{"eventOp":"iceServers","reqId":"p"}`)
		if c := kim.closeCode(); c != transport.StatusInternalError {
			t.Errorf("closed with %d, want %d", c, transport.StatusInternalError)
		}
		lee.saw("leave:kim:4 ")
		choi.saw("leave:kim:4 ")
		lee.want("200", msg{"eventOp": "iceServers"})
		if n := w.nodes[0].hub.Stats().Sessions; n != 2 {
			t.Errorf("%d sessions, want 2", n)
		}

		again := w.connect(0) // the session is gone, and so a resume is refused
		again.want("410", msg{
			"eventOp": "register", "cpCode": w.cpCode, "authKey": w.authKey, "userId": "kim",
			"resume": kim.secret,
		})
		again.register("kim")
		again.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		lee.saw("join:kim:5 ")

		log := w.log.String()
		if strings.Count(log, "panic while handling a message") != 1 ||
			!strings.Contains(log, "panickingICE") {
			t.Errorf("no panic with its stack in the log: %s", log)
		}
		if strings.Contains(log, w.authKey) || strings.Contains(log, kim.secret) {
			t.Error("a secret is in the log")
		}
	})
}

// panickingDirectory panics in one of the next calls of an operation.
type panickingDirectory struct {
	Directory
	op   string
	next int
}

func (d *panickingDirectory) over(of Directory) Directory {
	d.Directory = of
	return d
}

func (d *panickingDirectory) call(op string) {
	if d.op != op {
		return
	}
	if d.next--; d.next == 0 {
		d.op = ""
		panic("bug in the directory")
	}
}

func (d *panickingDirectory) Holder(ctx context.Context, tenant, user string) (Location, error) {
	d.call("Holder")
	return d.Directory.Holder(ctx, tenant, user)
}

func (d *panickingDirectory) ClaimUser(
	ctx context.Context, tenant, user string, s Location, limit int,
) (Location, error) {
	d.call("ClaimUser")
	return d.Directory.ClaimUser(ctx, tenant, user, s, limit)
}

func (d *panickingDirectory) TakeUser(
	ctx context.Context, tenant, user string, from, s Location,
) (Location, error) {
	d.call("TakeUser")
	return d.Directory.TakeUser(ctx, tenant, user, from, s)
}

func (d *panickingDirectory) ReleaseUser(
	ctx context.Context, tenant, user string, s Location,
) error {
	d.call("ReleaseUser")
	return d.Directory.ReleaseUser(ctx, tenant, user, s)
}

// panickingKeeper panics at the next session that it is told of.
type panickingKeeper struct {
	memoryKeeper
	armed atomic.Bool
}

func (k *panickingKeeper) Keep(key string, value func() []byte) {
	if strings.HasPrefix(key, sessionPrefix) && k.armed.Swap(false) {
		panic("bug in the keeper")
	}
	k.memoryKeeper.Keep(key, value)
}

// crashes registers, and expects the connection to be closed because a handler panicked.
func (p *peer) crashes(user string, fields ...any) {
	p.w.Helper()
	m := msg{
		"eventOp": "register",
		"cpCode":  p.w.cpCode,
		"authKey": p.w.authKey,
		"userId":  user,
	}
	for i := 0; i < len(fields); i += 2 {
		m[fields[i].(string)] = fields[i+1]
	}
	b, err := json.Marshal(m)
	if err != nil {
		p.w.Fatal(err)
	}
	p.raw(string(b))
	if got := p.closeCode(); got != transport.StatusInternalError {
		p.w.Errorf("closed with %d, want %d", got, transport.StatusInternalError)
	}
	synctest.Wait()
}

// buggy are dependencies of a hub that panic once they are told to.
type buggy struct {
	dir    panickingDirectory
	ice    panickingICE
	keeper panickingKeeper
}

// Nothing is left of a session that a panic kept from beginning, wherever that was.
func TestPanicWhileASessionBegins(t *testing.T) {
	for name, c := range map[string]struct {
		arm  func(*buggy)
		over bool // it takes the id over from another session
	}{
		"before the claim":     {func(b *buggy) { b.dir.op, b.dir.next = "Holder", 1 }, false},
		"claim":                {func(b *buggy) { b.dir.op, b.dir.next = "ClaimUser", 1 }, false},
		"after the claim":      {func(b *buggy) { b.dir.op, b.dir.next = "Holder", 2 }, false},
		"persist":              {func(b *buggy) { b.keeper.armed.Store(true) }, false},
		"ICE servers":          {func(b *buggy) { b.ice.armed.Store(true) }, false},
		"takeover":             {func(b *buggy) { b.dir.op, b.dir.next = "TakeUser", 1 }, true},
		"eviction":             {func(b *buggy) { b.dir.op, b.dir.next = "ReleaseUser", 1 }, true},
		"after the takeover":   {func(b *buggy) { b.dir.op, b.dir.next = "Holder", 2 }, true},
		"takeover, ICE server": {func(b *buggy) { b.ice.armed.Store(true) }, true},
	} {
		t.Run(name, func(t *testing.T) { testPanicInRegister(t, c.arm, c.over) })
	}
}

func testPanicInRegister(t *testing.T, arm func(*buggy), over bool) {
	var b buggy
	b.keeper.kept = map[string][]byte{}
	in(t, 1, func(c *Config, _ *license.Params) {
		c.Directory, c.ICE, c.Keeper = &b.dir, &b.ice, &b.keeper
	}, func(w *world) {
		var fields []any
		var holder *peer
		if over {
			holder = w.from("192.0.2.1")
			holder.register("kim")
			fields = []any{"forced", true, "resume", holder.secret}
		}
		arm(&b)
		w.from("192.0.2.1").crashes("kim", fields...)
		if holder != nil {
			holder.goAway(1000)
			synctest.Wait()
		}
		h := w.nodes[0].hub
		seats, users := len(w.local.seats()), len(w.local.users())
		h.sources.mu.Lock()
		addresses := len(h.sources.counts)
		h.sources.mu.Unlock()
		sessions, records := h.Stats().Sessions, len(b.keeper.kept)
		if sessions+seats+users+addresses+records != 0 {
			t.Errorf("%d sessions, %d tenants with seats, %d users, %d addresses, %d records",
				sessions, seats, users, addresses, records)
		}
		w.from("192.0.2.1").register("kim")
	})
}

// panickingSink panics at the next event of a kind, as a hub with a bug.
type panickingSink struct {
	room.Sink
	kind room.Kind
}

func (s *panickingSink) Deliver(to []room.Address, e room.Event) {
	if e.Kind == s.kind {
		s.kind = 0
		panic("bug in the hub")
	}
	s.Sink.Deliver(to, e)
}

// A member whose join panics, before its session knows of the room, is no member afterwards.
func TestPanicInAJoinLeavesNoMember(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		h := w.nodes[0].hub
		sink := &panickingSink{Sink: h}
		h.rooms = room.NewRegistry(sink, room.Limits{}, room.Hooks{Gone: h.roomGone})
		lee := w.user(0, "lee")
		w.room("K1", lee)
		sink.kind = room.Entered
		kim := w.user(0, "kim")
		kim.raw(`{"eventOp":"joinRoom","roomId":"K1","reqId":"j"}`)
		if c := kim.closeCode(); c != transport.StatusInternalError {
			t.Errorf("closed with %d, want %d", c, transport.StatusInternalError)
		}
		synctest.Wait()
		members := lee.want("200", msg{"eventOp": "memberList"})["members"].(map[string]any)
		if len(members) != 1 {
			t.Errorf("members are %v, want lee alone", members)
		}
		again := w.user(0, "kim")
		again.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
	})
}

// A session that is taken over ends, also when the keeper panics. The record that it leaves
// behind does not outlast the resume window after a restart.
func TestPanicWhileASessionEnds(t *testing.T) {
	keeper := panickingKeeper{memoryKeeper: memoryKeeper{kept: map[string][]byte{}}}
	var cfg Config
	in(t, 1, func(c *Config, _ *license.Params) {
		c.Keeper = &keeper
		cfg = *c
	}, func(w *world) {
		kim := w.user(0, "kim")
		keeper.armed.Store(true)
		w.connect(0).crashes("kim", "forced", true, "resume", kim.secret)
		if c := kim.closeCode(); c != transport.StatusTakenOver {
			t.Errorf("the former session was closed with %d, want %d", c, transport.StatusTakenOver)
		}
		cfg.Node, cfg.Keeper = "n0", &keeper.memoryKeeper
		w.restart(cfg)
		time.Sleep(time.Minute)
		synctest.Wait()
		if records, _ := keeper.Load(); len(records) != 0 {
			t.Errorf("%d records are left", len(records))
		}
		w.user(0, "kim")
	})
}

// The room of a session whose resume panics goes on, and the others see the session leave.
func TestPanicInAResumeEndsOnlyItsSession(t *testing.T) {
	ice := &panickingICE{}
	in(t, 1, func(c *Config, _ *license.Params) { c.ICE = ice }, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", lee, kim)
		kim.lose()
		synctest.Wait()
		ice.armed.Store(true)
		w.connect(0).crashes("kim", "resume", kim.secret)
		lee.saw("leave:kim:3 ")
		lee.want("200", msg{"eventOp": "chat", "roomId": "K1", "message": "hi"})
		again := w.user(0, "kim")
		again.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		lee.saw("join:kim:5 ")
	})
}
