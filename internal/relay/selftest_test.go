package relay

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/pion/stun/v4"
)

func TestSelfTestGetsAPacketThrough(t *testing.T) {
	asked := make(chan string, 64)
	s := start(t, func(c *Config) {
		c.AllowPeers = nil // as outside: nothing is allowed for the sake of the test
		c.Holder = func(_, session string) (Holder, bool) {
			asked <- session
			return Holder{}, false
		}
		c.Closed = func(r Record) { t.Errorf("a record of a self-test: %+v", r) }
	})
	for range 3 {
		if err := s.SelfTest(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Stats(); got.Allocations != 0 {
		t.Errorf("%d allocations are left", got.Allocations)
	}
	if len(asked) > 0 {
		t.Errorf("the rooms were asked for %s", <-asked)
	}
}

// Whoever learns the name of the session, which travels in clear, gains nothing while no test runs,
// even with the password.
func TestSessionOfTheSelfTestIsNobodyElse(t *testing.T) {
	s := start(
		t,
		func(c *Config) { c.Holder = func(_, _ string) (Holder, bool) { return Holder{}, false } },
	)
	c := dial(t, s, "udp", selfTenant, strings.TrimPrefix(s.self.session, selfTenant+"."))
	c.challenge()
	if got := code(c.ask(stun.MethodAllocate, transport(17))); got != 403 {
		t.Errorf("%d, want 403", got)
	}
}

func TestSelfTestSaysWhatIsWrong(t *testing.T) {
	full := start(t, func(c *Config) { c.Quota.Total = 1; c.AllowPeers = nil })
	dial(t, full, "udp", "t", "s").allocate()
	if err := full.SelfTest(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "allocate: refused with 486") {
		t.Errorf("%v from a relay that is full", err)
	}
	ended := start(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ended.SelfTest(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was given up", err)
	}
}
