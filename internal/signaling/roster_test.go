package signaling

import (
	"testing"

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
