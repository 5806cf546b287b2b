package signaling

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/room"
)

// recordsOf reads what an earlier build kept of one room: kim made it and handed it on to lee, took
// chat from choi, and kicked park out.
func recordsOf(t *testing.T, file string) map[string][]byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	kept := map[string][]byte{}
	for key, value := range raw {
		kept[key] = value
	}
	return kept
}

// resumed is the connection that a user of an earlier build comes back with.
func (w *world) resumed(user string) *peer {
	w.Helper()
	h := w.nodes[0].hub
	for _, s := range h.all() {
		if s.user != user {
			continue
		}
		p := w.connect(0)
		if a := p.register(user, "resume", h.newResumeToken(s)); a["resumed"] != true {
			w.Errorf("%s: %v", user, a)
		}
		return p
	}
	w.Fatalf("no session of %s is restored", user)
	return nil
}

func TestRecordsOfEarlierBuildsAreRead(t *testing.T) {
	for file, want := range map[string]struct{ maker, banned string }{
		"records-owner.json":       {"lee", "200"}, // knew neither makers nor bans
		"records-owner-marks.json": {"kim", "413"},
		"records-marks.json":       {"kim", "413"},
	} {
		t.Run(file, func(t *testing.T) { testRecords(t, file, want.maker, want.banned) })
	}
}

func testRecords(t *testing.T, file, maker, banned string) {
	var cfg Config
	k := &memoryKeeper{kept: recordsOf(t, file)}
	in(t, 1, func(c *Config, _ *license.Params) {
		c.Keeper, c.Node = k, "n0"
		cfg = *c
	}, func(w *world) {
		check := func() {
			w.Helper()
			snap, ok := w.nodes[0].hub.rooms.Snapshot(room.Key{Tenant: w.cpCode, Room: "K1"})
			if !ok || snap.State.Owner != "lee" || snap.Maker != maker ||
				len(snap.State.Members) < 3 {
				w.Errorf("restored: %v, owner %q, maker %q, %d members",
					ok, snap.State.Owner, snap.Maker, len(snap.State.Members))
			}
		}
		check()
		chat := msg{"eventOp": "chat", "roomId": "K1", "message": "hi"}
		join := msg{"eventOp": "joinRoom", "roomId": "K1"}
		choi := w.resumed("choi")
		choi.want("413", chat)
		choi.want("200", msg{"eventOp": "leaveRoom"})
		choi.want("200", join)
		choi.want(banned, chat)
		w.resumed("kim").want("200", chat)
		w.resumed("park").want(banned, join)

		// What is written from now on has the present names, and is read like the old.
		w.resumed("lee").want("200", msg{"eventOp": "changeName", "name": "Lee"})
		synctest.Wait()
		for key, value := range k.kept {
			changed := strings.HasPrefix(key, roomPrefix) || strings.Contains(string(value), "Lee")
			if changed && !strings.Contains(string(value), `"Version":1`) ||
				strings.Contains(string(value), "Marks") {
				w.Errorf("%s: %s", key, value)
			}
		}
		w.restart(cfg)
		check()
		w.resumed("choi").want(banned, chat)
	})
}

func TestRecordsOfLaterBuildsAreForgotten(t *testing.T) {
	k := &memoryKeeper{kept: recordsOf(t, "records-marks.json")}
	for key, value := range k.kept {
		k.kept[key] = []byte(`{"Version":9,` + string(value[1:]))
	}
	in(t, 1, func(c *Config, _ *license.Params) { c.Keeper, c.Node = k, "n0" }, func(w *world) {
		if s := w.nodes[0].hub.Stats(); s.Sessions+s.Rooms != 0 || len(k.kept) != 0 {
			w.Errorf("%+v, and %d records", s, len(k.kept))
		}
	})
}
