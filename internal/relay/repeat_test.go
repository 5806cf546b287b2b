package relay

import (
	"bytes"
	"slices"
	"testing"

	"github.com/pion/stun/v4"
)

// Who asks again because an answer was lost gets the same answer; who asks for more, 437 (RFC 8656
// section 7.2).
func TestRepeatedAllocateGetsTheSameAnswer(t *testing.T) {
	for _, network := range transports {
		s, _ := startWithClock(t, nil)
		for name, attrs := range map[string][]stun.Setter{
			"any port": nil, "a pair of ports": {evenPort()},
		} {
			c := dial(t, s, network, "t", "s")
			c.challenge()
			m := c.signed(stun.MethodAllocate, append(attrs, transport(17), life(1000))...)
			c.send(m.Raw)
			first := slices.Clone(c.answerTo(m).Raw)
			for range 2 {
				c.send(m.Raw)
				if again := c.answerTo(m); !bytes.Equal(again.Raw, first) || code(again) != 0 {
					t.Errorf("%s, %s: %x, at first %x", network, name, again.Raw, first)
				}
			}
			if got := code(
				c.ask(stun.MethodAllocate, append(attrs, transport(17))...),
			); got != 437 {
				t.Errorf("%s, %s: another request: %d", network, name, got)
			}
		}
		if st := s.Stats(); st.Created != 2 || st.Allocations != 2 || s.quota.of("t.s") != 2 {
			t.Errorf("%s: %+v, the quota counts %v", network, st, s.quota.sessions)
		}
	}
}
