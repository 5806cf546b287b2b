package relay

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// A source prefix has its number of answers once, not once with each worker: a stranger chooses the worker by its port.
func TestAnswersToStrangersAreLimitedOverAllWorkers(t *testing.T) {
	s := &Server{}
	workers := []*worker{newWorker(s, 0), newWorker(s, 1), newWorker(s, 2), newWorker(s, 3)}
	answered := func(prefix string, now time.Duration) (n int) {
		a := netip.MustParsePrefix(prefix).Addr()
		for i := range 4 * answersBurst {
			w := workers[i%len(workers)]
			w.now = now
			p := path{remote: endpointOf(netip.AddrPortFrom(a, uint16(i)))}
			if w.stranger(&p, nil) {
				n++
			}
			// The next address of the same prefix.
			a = a.Next()
			if !netip.MustParsePrefix(prefix).Contains(a) {
				a = netip.MustParsePrefix(prefix).Addr()
			}
		}
		return n
	}
	for _, prefix := range []string{"192.0.2.0/24", "2001:db8::/48"} {
		if got := answered(prefix, time.Hour); got != answersBurst {
			t.Errorf("%s: %d answers at once, want %d", prefix, got, answersBurst)
		}
		if got := answered(prefix, time.Hour+time.Second); got != answersPerSecond {
			t.Errorf("%s: %d answers a second later, want %d", prefix, got, answersPerSecond)
		}
	}
	if got := s.stats.refused[unanswered].Load(); got != 2*(8*answersBurst-answersBurst-answersPerSecond) {
		t.Errorf("%d unanswered", got)
	}
}

// The smallest request there can be, with the longest realm, on the wire of each family.
func TestChallengeIsAtMostThreeTimesTheRequest(t *testing.T) {
	long := strings.Repeat("r", maxRealm)
	if err := (Config{Listen: ":0", Secret: secret, Realm: long + "r"}).Validate(); err == nil {
		t.Error("a longer realm is accepted")
	}
	for listen, headers := range map[string]int{"127.0.0.1:0": 28, "[::1]:0": 48} {
		s := start(t, func(c *Config) { c.Listen, c.Realm = listen, long })
		c := dial(t, s, "udp", "t", "s")
		for _, method := range []stun.Method{stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission, stun.MethodChannelBind} {
			m := stun.MustBuild(stun.TransactionID, stun.NewType(method, stun.ClassRequest))
			c.send(m.Raw)
			answer := c.answerTo(m)
			if code(answer) != 401 || len(answer.Raw)+headers > 3*(len(m.Raw)+headers) {
				t.Errorf("%v: %d bytes ask for %d: %v", method, len(m.Raw)+headers, len(answer.Raw)+headers, answer)
			}
		}
	}
}
