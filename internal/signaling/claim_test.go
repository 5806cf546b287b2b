package signaling

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// uncertainDirectory carries out the next claim and does not say so.
type uncertainDirectory struct {
	Directory
	claim, take bool
}

func (d *uncertainDirectory) over(of Directory) Directory {
	d.Directory = of
	return d
}

func (d *uncertainDirectory) ClaimUser(
	ctx context.Context, tenant, user string, l Location, limit int,
) (Location, error) {
	l, err := d.Directory.ClaimUser(ctx, tenant, user, l, limit)
	if d.claim {
		d.claim = false
		return Location{}, context.DeadlineExceeded
	}
	return l, err
}

func (d *uncertainDirectory) TakeUser(
	ctx context.Context, tenant, user string, from, l Location,
) (Location, error) {
	l, err := d.Directory.TakeUser(ctx, tenant, user, from, l)
	if d.take {
		d.take = false
		return Location{}, context.DeadlineExceeded
	}
	return l, err
}

func TestUnansweredClaimLeavesNothing(t *testing.T) {
	var d uncertainDirectory
	in(t, 1, func(c *Config, _ *license.Params) { c.Directory = &d }, func(w *world) {
		d.claim = true
		kim := w.from("192.0.2.1")
		a := kim.ask(msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"userId":  "kim",
		})
		if a.str("code") == "200" {
			t.Fatalf("registered without an answer of the directory: %v", a)
		}
		if users := w.local.users(); len(users) != 0 {
			t.Errorf("the id stays with %v", users)
		}
		h := w.nodes[0].hub
		h.sources.mu.Lock()
		counted := len(h.sources.counts)
		h.sources.mu.Unlock()
		if counted != 0 {
			t.Errorf("%d addresses still counted", counted)
		}
		kim.register("kim")
	})
}

// After a takeover that was carried out unanswered, the id is free and its former session ends: it
// has no id any more.
func TestUnansweredTakeoverFreesTheID(t *testing.T) {
	var d uncertainDirectory
	in(t, 1, func(c *Config, _ *license.Params) { c.Directory = &d }, func(w *world) {
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		w.room("K1", lee, kim)
		d.take = true
		a := w.connect(0).ask(msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"userId":  "kim",
			"forced":  true,
			"resume":  kim.secret,
		})
		if a.str("code") == "200" {
			t.Fatalf("registered without an answer of the directory: %v", a)
		}
		synctest.Wait()
		if c := kim.closeCode(); c != transport.StatusTakenOver {
			t.Errorf("the former session was closed with %d, want %d", c, transport.StatusTakenOver)
		}
		lee.saw("leave:kim:3 ")
		if users := w.local.users(); len(users) != 1 {
			t.Errorf("ids taken by %v, want that of lee alone", users)
		}
		w.user(0, "kim")
	})
}

// A takeover that was not carried out, which nobody knows, leaves the former session alone.
func TestLostTakeoverLeavesTheSession(t *testing.T) {
	var d lostTake
	in(t, 1, func(c *Config, _ *license.Params) { c.Directory = &d }, func(w *world) {
		kim := w.user(0, "kim")
		d.lose = true
		w.connect(0).ask(msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"userId":  "kim",
			"forced":  true,
			"resume":  kim.secret,
		})
		kim.want("200", msg{"eventOp": "keepAlive"})
		if n := w.nodes[0].hub.Stats().Sessions; n != 1 {
			t.Errorf("%d sessions, want 1", n)
		}
		if users := w.local.users(); len(users) != 1 {
			t.Errorf("ids taken by %v, want that of kim", users)
		}
	})
}

// lostTake does not carry out the next takeover, and does not say so.
type lostTake struct {
	Directory
	lose bool
}

func (d *lostTake) over(of Directory) Directory {
	d.Directory = of
	return d
}

func (d *lostTake) TakeUser(
	ctx context.Context, tenant, user string, from, l Location,
) (Location, error) {
	if d.lose {
		d.lose = false
		return Location{}, context.DeadlineExceeded
	}
	return d.Directory.TakeUser(ctx, tenant, user, from, l)
}
