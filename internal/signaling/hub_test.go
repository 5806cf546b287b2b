package signaling

import (
	"encoding/json"
	"runtime"
	"testing"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// slowConn is a connection whose Send takes as long as the test wants, once asked to.
type slowConn struct{ held, free chan struct{} }

func (c *slowConn) Peer() transport.Peer               { return transport.Peer{} }
func (c *slowConn) Close(transport.StatusCode, string) {}
func (c *slowConn) Offer(m *transport.Message, _ transport.Share) error {
	c.Send(m)
	return nil
}

func (c *slowConn) Send(m *transport.Message) bool {
	m.Release()
	if c.held != nil {
		close(c.held)
		<-c.free
	}
	return true
}

// Locks are taken from outside in: registry, room, the hub's maps. Whoever counts must not hold the
// maps while it waits for the registry, since the registry may wait for a room, and a room for the
// maps.
func TestCountingHoldsNoLockThatARoomNeeds(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		hub := w.nodes[0].hub
		kim := w.user(0, "kim")
		w.room("K1", kim)
		lee := &slowConn{}
		c := hub.Accept(lee)
		login, _ := json.Marshal(msg{
			"eventOp": "register",
			"cpCode":  w.cpCode,
			"authKey": w.authKey,
			"userId":  "lee",
		})
		c.Message(login, lee)
		c.Message([]byte(`{"eventOp":"joinRoom","roomId":"K1"}`), lee)
		lee.held, lee.free = make(chan struct{}), make(chan struct{})
		_ = kim.ws.WriteMessage(1, []byte(`{"eventOp":"inform","message":1}`))
		<-lee.held // the room is locked
		done := make(chan struct{})
		// Holds the registry, waits for the room.
		go func() { hub.rooms.Close(); done <- struct{}{} }()
		runOthers()
		go func() { hub.Stats(); done <- struct{}{} }() // waits for the registry
		runOthers()
		if hub.mu.TryLock() {
			hub.mu.Unlock()
		} else {
			w.Error("the hub's maps are locked while the registry is waited for")
		}
		close(lee.free)
		<-done
		<-done
		c.Closed(transport.End{Gone: true})
	})
}

// runOthers lets other goroutines run until they wait for locks, which synctest does not count as
// waiting.
func runOthers() {
	for range 1000 {
		runtime.Gosched()
	}
}
