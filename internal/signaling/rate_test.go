package signaling

import (
	"testing"
	"time"
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
