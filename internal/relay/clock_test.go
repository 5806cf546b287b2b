package relay

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// clock is a server's time, which passes when the test says so.
type clock struct {
	now atomic.Int64
	s   *Server
}

// startWithClock runs a relay in virtual time.
func startWithClock(t *testing.T, change func(*Config)) (*Server, *clock) {
	c := &clock{}
	c.now.Store(int64(time.Hour)) // nothing is at zero
	c.s = start(t, func(cfg *Config) {
		cfg.clock = func() time.Duration { return time.Duration(c.now.Load()) }
		if change != nil {
			change(cfg)
		}
	})
	return c.s, c
}

// pass lets time pass and the workers look at it.
func (c *clock) pass(d time.Duration) {
	c.now.Add(int64(d))
	for _, w := range c.s.workers {
		w.driver.wake()
	}
}

// settle returns when the worker of a UDP client has swept since the time last passed: a worker
// sweeps after each batch, and the second request is in another batch than the first.
func settle(clients ...*rawClient) {
	for _, c := range clients {
		for range 2 {
			c.ask(stun.MethodBinding)
		}
	}
}

// passed is how many packets have gone up or down, once the worker of a UDP client has served what
// was sent before.
func passed(s *Server, c *rawClient) (up, down uint64) {
	settle(c)
	st := s.Stats()
	return st.ClientToPeer.Packets, st.PeerToClient.Packets
}
