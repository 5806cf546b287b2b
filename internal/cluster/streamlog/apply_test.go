package streamlog

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/ieum-rtc/ieum/internal/cluster/directory"
	"github.com/ieum-rtc/ieum/internal/cluster/lease"
	"github.com/ieum-rtc/ieum/internal/cluster/mismatch"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// feed is a Log that is given entries without a stream.
type feed struct {
	*Log
	*testing.T
}

func newFeed(t *testing.T) feed {
	return feed{&Log{
		cfg: Config{
			Node:         "own",
			Machine:      directory.NewMachine(),
			Fingerprints: func() []string { return nil },
			Log:          slog.New(slog.DiscardHandler),
		},
		waiting:  map[uint64]chan []byte{},
		renewals: map[string]renewal{},
		seen:     map[string]sighting{},
		asked:    map[uint64]asked{},
		warnings: mismatch.New(slog.New(slog.DiscardHandler)),
	}, t}
}

func (f feed) entry(kind kind, process uint64, content any) {
	f.Helper()
	payload, err := json.Marshal(content)
	if err != nil {
		f.Fatal(err)
	}
	e := entry{kind: kind, process: process, payload: payload}
	f.apply(e.append(nil))
}

// decided is a log that decides at once.
type decided struct{ *directory.Machine }

// Propose implements directory.Log.
func (d decided) Propose(_ context.Context, command []byte) ([]byte, error) {
	return d.Apply(command), nil
}

// Quorum implements directory.Log.
func (d decided) Quorum() error { return nil }

func (f feed) join(node string, process uint64) engine.Node {
	f.Helper()
	self := directory.Self{Node: node, Member: directory.Member{Process: process}}
	d := directory.Start(self, f.cfg.Machine, decided{f.cfg.Machine}, f.cfg.Log)
	<-d.Joined()
	d.Close()
	n, _ := f.cfg.Machine.Member(node)
	return n
}

// A node is not declared dead if it has renewed its lease since whoever asks for that looked.
func TestARenewalOnItsWayKeepsANodeAlive(t *testing.T) {
	f := newFeed(t)
	n := f.join("other", 7)
	f.entry(kindRenew, 7, renew{Node: "other"})
	late := bury{Node: "other", Incarnation: n.Incarnation, Process: 7, Renewals: 1}
	f.entry(kindRenew, 7, renew{Node: "other"})
	f.entry(kindBury, 1, late)
	if n, _ := f.cfg.Machine.Member("other"); n.State != engine.Up {
		t.Errorf("the node is %s", n.State)
	}
	late.Renewals++
	f.entry(kindBury, 1, late)
	f.entry(kindRenew, 7, renew{Node: "other"})
	if n, _ := f.cfg.Machine.Member("other"); n.State != engine.Dead {
		t.Errorf("the node is %s", n.State)
	}
}

// The silence of a node that joins again begins then, not with its last life.
func TestANodeThatJoinsAgainIsNotLate(t *testing.T) {
	f := newFeed(t)
	for range 3 {
		n := f.join("other", 7)
		f.entry(kindRenew, 7, renew{Node: "other"})
		r, seen := f.renewals["other"], f.seen["other"]
		seen.at -= 2 * deadAfter
		f.seen["other"] = seen
		f.entry(kindBury, 1, bury{
			Node: "other", Incarnation: n.Incarnation, Process: 7, Renewals: r.Count,
		})
		if n, _ := f.cfg.Machine.Member("other"); n.State != engine.Dead || r.Count != 1 {
			t.Fatalf("after %d renewals the node is %s", r.Count, n.State)
		}
		f.join("other", 7)
		f.buryOthers(lease.Now()) // without a stream it could not
		if silent := lease.Now() - f.seen["other"].at; silent > deadAfter {
			t.Errorf("silent for %s", silent)
		}
		if len(f.renewals) > 0 { // all nodes must count the same
			t.Errorf("looking at nodes has counted renewals: %v", f.renewals)
		}
		f.entry(kindBury, 1, bury{Node: "other", Incarnation: n.Incarnation + 1, Process: 7})
	}
}
