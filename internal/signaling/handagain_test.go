package signaling

import (
	"testing"

	"github.com/ieum-rtc/ieum/internal/room"
)

// A node may have handed a session over that came back to where its replicas come from. The replica
// is the later record, also of the same location.
func TestTheLatestRecordOfASessionIsHandedOver(t *testing.T) {
	for _, c := range []struct {
		handed, replica uint64 // epochs
		want            string
	}{
		{13, 13, "replica"},
		{12, 13, "replica"},
		{14, 13, "handed"},
		{13, 0, "handed"},
		{0, 13, "replica"},
	} {
		in(t, 2, nil, func(w *world) {
			h := w.nodes[0].hub
			record := func(epoch uint64, id string) *movedSession {
				at := Location{Node: "n1", Session: "s", Epoch: epoch}
				rec := sessionRecord{
					Version:  recordVersion,
					Location: at,
					Tenant:   w.cpCode,
					User:     "kim",
				}
				return &movedSession{Record: rec, Room: &room.Key{Tenant: w.cpCode, Room: id}}
			}
			if c.handed != 0 {
				h.mu.Lock()
				h.remember(record(c.handed, "handed"))
				h.mu.Unlock()
			}
			if c.replica != 0 {
				kept := string(encode(record(c.replica, "replica")))
				h.replicas.put(nodeLife{"n1", 1}, replicasMessage{
					round:   1,
					records: []string{sessionPrefix + "s", kept},
				})
			}
			for range 2 { // it answers the same again
				m, err := h.handAgain(takeMessage{Session: "s", To: Location{Node: "n1"}})
				if err != nil || m.Room.Room != c.want {
					w.Errorf("%+v: %+v, %v", c, m, err)
				}
			}
			if _, err := h.handAgain(takeMessage{Session: "unknown"}); err != errGone {
				w.Errorf("unknown: %v", err)
			}
		})
	}
}

// A node that joins again may have lost a room without knowing. It asks before it commands it.
func TestARoomInDoubtIsNotCommanded(t *testing.T) {
	in(t, 2, nil, func(w *world) {
		kim := w.user(0, "kim")
		w.room("K1", kim)
		h, key := w.nodes[0].hub, room.Key{Tenant: w.cpCode, Room: "K1"}
		own := h.own(key)
		h.owners.doubt()
		if _, ok := h.owners.term(key); ok || h.own(key) != own {
			t.Errorf("in doubt the owner is %v", h.own(key))
		}
		taken, err := w.nodes[1].hub.cfg.Directory.TakeRoom(
			t.Context(), key.Tenant, key.Room, own, "n1",
		)
		if err != nil {
			t.Fatal(err)
		}
		if owner, err := h.ownerOf(t.Context(), key); owner != taken || err != nil {
			t.Errorf("the owner is %v, %v; want %v", owner, err, taken)
		}
		get := &commandMessage{Key: key, Term: own.Term, Name: "Get", Body: []byte("{}")}
		if _, err := h.commandFromBus(get); err != errNotOwner {
			t.Errorf("a command of another node: %v", err)
		}
		h.owners.hold(key, own.Term)
		if _, ok := h.owners.term(key); !ok {
			t.Error("the room is in doubt after it was claimed again")
		}
	})
}
