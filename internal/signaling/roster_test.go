package signaling

import (
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/room"
)

// Between the moment a room lets a member go and the moment its session knows, another may enter.
func TestWhoEntersAsTheLastOneLeavesDoesNotMeetIt(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		hub := w.nodes[0].hub
		kim, lee := w.user(0, "kim"), w.user(0, "lee")
		kim.want("200", msg{"eventOp": "createRoom", "roomId": "K1", "destroy": false})
		kim.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		key := room.Key{Tenant: w.cpCode, Room: "K1"}
		seat, _ := w.local.Holder(t.Context(), w.cpCode, "kim")
		s := hub.session(seat.Session)
		if err := hub.do(t.Context(), key, room.Leave{
			User:    "kim",
			Address: s.address(),
		}); err != nil {
			w.Fatal(err)
		}
		lee.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		s.leftRoom(key)
		lee.want("403", msg{"eventOp": "sdp", "target": "kim", "sdp": 1})
		kim.saw("")
	})
}

// What a room says to a session that has given up its join, or is in another room by now, changes
// nothing for it.
func TestEventsOfAnotherRoomAreIgnored(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		hub := w.nodes[0].hub
		kim, lee := lists(w, "kim"), w.user(0, "lee")
		w.room("K1", lee)
		w.room("K2", kim)
		time.Sleep(batchInterval)
		kim.take()
		seat, _ := w.local.Holder(t.Context(), w.cpCode, "kim")
		s := hub.session(seat.Session)
		key := room.Key{Tenant: w.cpCode, Room: "K1"}
		state, err := hub.get(t.Context(), key)
		if err != nil {
			w.Fatal(err)
		}
		from := Owner{Node: hub.cfg.Node}
		hub.deliver([]*session{s}, room.Event{
			Kind:   room.Entered,
			Key:    key,
			Seq:    9,
			Member: room.Member{ID: "kim", Address: s.address()},
			State:  state,
		}, from)
		for seq := range 3 {
			hub.deliver([]*session{s}, room.Event{
				Kind:   room.Joined,
				Key:    key,
				Seq:    uint64(10 + seq),
				Member: room.Member{ID: "choi"},
			}, from)
		}
		time.Sleep(batchInterval)
		kim.saw("")
		kim.want("200", msg{"eventOp": "leaveRoom", "roomId": "K2"})
		lee.want("200", msg{"eventOp": "leaveRoom"})
		if n := hub.Stats().Rosters; n != 0 {
			t.Errorf("%d rosters are left", n)
		}
	})
}
