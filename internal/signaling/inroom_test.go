package signaling

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/room"
)

// at asks the node where a user's session is, as a relay does that knows the session's id alone.
func (w *world) at(node int, p *peer) (Membership, bool) {
	w.Helper()
	secret, err := w.nodes[node].hub.parseResumeToken(p.secret)
	if err != nil {
		w.Fatal(err)
	}
	synctest.Wait()
	return w.nodes[node].hub.InRoom(secret.ID)
}

func (w *world) isIn(node int, p *peer, room string) {
	w.Helper()
	if got, ok := w.at(node, p); !ok || got != (Membership{w.cpCode, p.user, room}) {
		w.Errorf("%s is in %+v (%v), want %s", p.user, got, ok, room)
	}
}

func (w *world) isNowhere(node int, p *peer) {
	w.Helper()
	if got, ok := w.at(node, p); ok {
		w.Errorf("%s is in %+v", p.user, got)
	}
}

func TestInRoomFollowsTheSession(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee, pak := w.user(0, "host"), w.user(second, "lee"), w.user(second, "pak")
		w.isNowhere(0, host)
		w.room("K1", host, lee, pak)
		w.isIn(0, host, "K1")
		w.isIn(second, lee, "K1")

		lee.want("200", msg{"eventOp": "leaveRoom"})
		w.isNowhere(second, lee)
		lee.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		w.isIn(second, lee, "K1")

		host.want("200", msg{"eventOp": "kickOut", "target": "lee"})
		w.isIn(second, lee, "K1") // it has three seconds to go by itself
		time.Sleep(3100 * time.Millisecond)
		w.isNowhere(second, lee)

		pak.goAway(1000)
		w.isNowhere(second, pak)

		host.lose()
		time.Sleep(19 * time.Second)
		w.isIn(0, host, "K1")
		back := w.connect(0)
		back.register("host", "resume", host.secret)
		w.isIn(0, back, "K1")
		back.lose()
		time.Sleep(19 * time.Second)
		w.isIn(0, back, "K1")
		time.Sleep(2 * time.Second)
		w.isNowhere(0, back)
		if _, ok := w.nodes[0].hub.InRoom("nobody"); ok {
			w.Error("nobody is in a room")
		}
	})
}

func TestInRoomEndsWithTheRoomAndWithTheTakeover(t *testing.T) {
	onOneAndTwoNodes(t, func(w *world, second int) {
		host, lee := w.user(0, "host"), w.user(second, "lee")
		w.room("K1", host, lee)
		other := w.connect(second)
		other.register("lee", "forced", true, "resume", lee.secret)
		w.isNowhere(second, lee)
		other.want("200", msg{"eventOp": "joinRoom", "roomId": "K1"})
		host.want("200", msg{"eventOp": "destroyRoom", "roomId": "K1"})
		w.isNowhere(0, host)
		w.isNowhere(second, other)
	})
}

// The session itself ends within half a minute; what it may relay ends at once.
func TestInRoomEndsWithTheLicense(t *testing.T) {
	in(t, 1, func(_ *Config, p *license.Params) { p.End = time.Now().Add(90 * time.Second) },
		func(w *world) {
			kim := w.user(0, "kim")
			w.room("K1", kim)
			time.Sleep(89 * time.Second)
			w.isIn(0, kim, "K1")
			time.Sleep(time.Second)
			w.isNowhere(0, kim)
		})
}

func TestInRoomOutlastsARestart(t *testing.T) {
	withKeeper(t, func(w *world, cfg Config) {
		kim := w.user(0, "kim")
		w.room("K1", kim)
		w.restart(cfg)
		w.isIn(0, kim, "K1")
		time.Sleep(21 * time.Second)
		w.isNowhere(0, kim)
	})
}

// A relay may be asked for an allocation as soon as the client has the answer.
func TestInRoomIsTrueBeforeTheJoinIsAnswered(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		kim, h := w.user(0, "kim"), w.nodes[0].hub
		kim.want("200", msg{"eventOp": "createRoom", "roomId": "K1"})
		secret, err := h.parseResumeToken(kim.secret)
		if err != nil {
			w.Fatal(err)
		}
		s, answered := h.session(secret.ID), false
		s.op.Lock()
		defer s.op.Unlock()
		_, err = s.awaitState(func(room.Event) { // where joinRoom answers
			_, answered = h.InRoom(s.id)
		}, func() error {
			member := room.Member{ID: "kim", Address: s.address(), Epoch: s.location.Epoch}
			return h.do(t.Context(), room.Key{
				Tenant: w.cpCode,
				Room:   "K1",
			}, room.Join{Member: member})
		})
		if err != nil || !answered {
			w.Errorf("in the room when it is answered: %v, %v", answered, err)
		}
	})
}
