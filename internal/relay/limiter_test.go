package relay

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// answerRate is how many answers there are a second, and at once after a pause.
type answerRate struct{ perSecond, burst int }

var (
	unverifiedAnswers = answerRate{100, 200}
	prefixAnswers     = answerRate{1000, 2000}
	verifiedAnswers   = answerRate{500, 1000}
)

// Each level of the limiter, over all workers: a stranger chooses the worker by its port. What one
// network uses up another has still.
func TestAnswersToUnverifiedSourcesAreLimited(t *testing.T) {
	one := func(a string) func(int) netip.Addr {
		return func(int) netip.Addr { return netip.MustParseAddr(a) }
	}
	many := func(form string) func(int) netip.Addr {
		return func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(form, i%250)) }
	}
	for name, c := range map[string]struct {
		from  func(i int) netip.Addr
		known bool
		want  answerRate
	}{
		"an IPv4 address":      {one("192.0.2.1"), false, unverifiedAnswers},
		"an IPv4 /24":          {many("192.0.2.%d"), false, prefixAnswers},
		"an IPv6 address":      {one("2001:db8::1"), false, unverifiedAnswers},
		"an IPv6 /64":          {many("2001:db8::%x"), false, unverifiedAnswers},
		"an IPv6 /48":          {many("2001:db8:0:%x::"), false, prefixAnswers},
		"a link-local address": {one("fe80::1%2"), false, unverifiedAnswers},
		"a link":               {many("fe80::%x%%2"), false, prefixAnswers},
		"a known address":      {one("192.0.2.1"), true, verifiedAnswers},
		"a known /64":          {many("2001:db8::%x"), true, verifiedAnswers},
	} {
		w, _ := offline(1)
		s := w.server
		if c.known {
			s.Expect(c.from(0), 1)
		}
		workers := []*worker{newWorker(s, 0), newWorker(s, 1), newWorker(s, 2), newWorker(s, 3)}
		answered := func(now time.Duration) (n int) {
			for i := range 4 * c.want.burst {
				w := workers[i%len(workers)]
				w.now = now
				if w.mayAnswer(
					&path{remote: endpointOf(netip.AddrPortFrom(c.from(i), uint16(i)))},
					nil,
				) {
					n++
				}
			}
			return n
		}
		// Of addresses that meet in one slot fewer are answered.
		near := func(got, want int) bool { return got <= want && got > want*9/10 }
		if got := answered(time.Hour); !near(got, c.want.burst) {
			t.Errorf("%s: %d answers at once, want %d", name, got, c.want.burst)
		}
		if got := answered(time.Hour + time.Second); !near(got, c.want.perSecond) {
			t.Errorf("%s: %d answers a second later, want %d", name, got, c.want.perSecond)
		}
		other := path{remote: endpointOf(netip.MustParseAddrPort("203.0.113.77:1"))}
		if !workers[0].mayAnswer(&other, nil) {
			t.Errorf("%s: another network pays", name)
		}
	}
}

// However many addresses have proved themselves or have sessions, others are strangers: a network
// that packets are forged from gets no more answers than it would.
func TestManyKnownAddressesMakeNoOthersKnown(t *testing.T) {
	for how, know := range map[string]func(s *Server, a netip.Addr){
		"proved": func(s *Server, a netip.Addr) {
			s.limiter.prove(sourceOf(endpointOf(netip.AddrPortFrom(a, 1))), time.Hour)
		},
		"with session": func(s *Server, a netip.Addr) { s.Expect(a, 1) },
	} {
		w, _ := offline(1)
		last := netip.Addr{}
		for i := range 4 * limiterSlots { // the /64 of one /48
			last = netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%x::1", i))
			know(w.server, last)
		}
		w.now = time.Hour + time.Second
		answered := 0
		for i := range 10 * prefixAnswers.burst {
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 1)
			if w.mayAnswer(&path{remote: endpointOf(from)}, nil) {
				answered++
			}
		}
		if answered > prefixAnswers.burst {
			t.Errorf("%s: %d answers to a network of strangers, want %d",
				how, answered, prefixAnswers.burst)
		}
		n := 0
		for range 2 * verifiedAnswers.burst {
			if w.mayAnswer(&path{remote: endpointOf(netip.AddrPortFrom(last, 1))}, nil) {
				n++
			}
		}
		if n != verifiedAnswers.burst {
			t.Errorf("%s: %d answers to one that is known, want %d", how, n, verifiedAnswers.burst)
		}
	}
}

// While somebody uses up all answers for a network, with forged addresses or his own, a client
// there that is known still gets its own: it has shown a nonce, it has a session, or it has an
// allocation. The same for both families, and for whichever way the network is filled.
func TestAFullNetworkAnswersWhoIsKnown(t *testing.T) {
	for _, c := range []struct{ honest, attacker string }{
		{"192.0.2.9", "192.0.2.%d"}, {"2001:db8:0:fff::9", "2001:db8:0:%x::1"}, {
			"fe80::fff:9%3", "fe80::%x%%3",
		},
	} {
		for how, known := range map[string]bool{
			"": false, "a nonce": true, "a session": true, "an allocation": true,
		} {
			w, d := offline(4)
			honest := &path{
				remote: endpointOf(netip.AddrPortFrom(netip.MustParseAddr(c.honest), 9)),
				local:  offlinePath(1).local,
				via:    &listener{},
			}
			request := stun.MustBuild(
				stun.TransactionID,
				stun.NewType(stun.MethodRefresh, stun.ClassRequest),
			)
			switch how {
			case "a nonce":
				w.signAs(request, honest, "s", "wrong")
				w.fromClient(honest, nil, request.Raw)
			case "a session":
				w.server.Expect(netip.MustParseAddr(c.honest), 1)
			case "an allocation":
				offlineAllocation(t, w, honest)
			}
			for i := range 20_000 {
				from := netip.MustParseAddr(fmt.Sprintf(c.attacker, 10+i%200))
				w.fromClient(
					&path{
						remote: endpointOf(netip.AddrPortFrom(from, uint16(i))),
						via:    &listener{},
					},
					nil,
					bindingRequest,
				)
			}
			d.forget()
			for range 20 {
				w.fromClient(honest, w.lookup(honest), bindingRequest)
			}
			if got := len(d.replies); got != 20 && known || got == 20 && !known {
				t.Errorf("%s, known by %q: %d of 20 answers", c.honest, how, got)
			}
			if how == "a session" {
				w.server.Expect(netip.MustParseAddr(c.honest), -1)
				d.forget()
				if w.fromClient(honest, nil, bindingRequest); len(d.replies) != 0 {
					t.Errorf("%s is known after its session has ended", c.honest)
				}
			}
		}
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
		for _, method := range []stun.Method{
			stun.MethodAllocate, stun.MethodRefresh, stun.MethodCreatePermission,
			stun.MethodChannelBind,
		} {
			m := stun.MustBuild(stun.TransactionID, stun.NewType(method, stun.ClassRequest))
			c.send(m.Raw)
			answer := c.answerTo(m)
			if code(answer) != 401 || len(answer.Raw)+headers > 3*(len(m.Raw)+headers) {
				t.Errorf("%v: %d bytes ask for %d: %v",
					method, len(m.Raw)+headers, len(answer.Raw)+headers, answer)
			}
		}
	}
}
