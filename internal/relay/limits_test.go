package relay

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// The ceiling holds for each allocation and direction apart, over the wire and inside, and counts
// the headers.
func TestBandwidthCeiling(t *testing.T) {
	const rate, size = 100_000, 1000 - overhead // a hundred packets a second
	s, clock := startWithClock(t, func(c *Config) { c.Bandwidth = rate })
	far := udpPeer(t, peerHost(t))
	c, b := dial(t, s, "udp", "t", "c"), dial(t, s, "udp", "t", "b")
	relayed, atB := c.allocate(), b.allocate()
	if one, two, three := c.bind(
		0x4000, localOf(far),
	), c.bind(0x4001, atB), b.bind(0x4000, relayed); one != 0 ||
		two != 0 ||
		three != 0 {
		t.Fatalf("channels: %d, %d, %d", one, two, three)
	}
	data := strings.Repeat("x", size)
	const burst = int(burstTime / (time.Second * 1000 / rate)) // packets after a pause
	dropped := func() int { return int(refusedBy(s, reasonOverBandwidth)) }
	up := func(channel uint16, n int) int {
		before, _ := passed(s, c)
		for range n {
			c.channelData(channel, data)
		}
		after, _ := passed(s, c)
		return int(after - before)
	}
	if got := up(0x4000, burst+10); got != burst || dropped() != 10 {
		t.Errorf("%d up at once, %d dropped, want %d", got, dropped(), burst)
	}
	clock.pass(100 * time.Millisecond)
	if got := up(0x4000, 15); got != 10 || dropped() != 15 {
		t.Errorf("%d up in a tenth of a second, %d dropped in all", got, dropped())
	}
	// The way down has a ceiling of its own.
	_, before := passed(s, c)
	for range burst + 10 {
		sendFrom(t, far, relayed, data)
	}
	eventually(t, func() bool { return dropped() == 25 })
	if _, after := passed(s, c); int(after-before) != burst {
		t.Errorf("%d down at once, want %d", after-before, burst)
	}
	// Between two clients the way up of the one and the way down of the other count: the first has
	// nothing left.
	if got := up(0x4001, 5); got != 0 || dropped() != 30 {
		t.Errorf("%d inside from a client over its ceiling, %d dropped", got, dropped())
	}
	clock.pass(time.Second)
	if got := up(0x4001, burst+1); got != burst || dropped() != 31 {
		t.Errorf("%d inside at once, %d dropped", got, dropped())
	}
	sent, _ := passed(s, b)
	b.channelData(0x4000, data)
	if now, _ := passed(s, b); now != sent+1 || dropped() != 31 {
		t.Errorf("%d on the way back, %d dropped", now-sent, dropped())
	}
	clock.pass(time.Hour)
	if c.renew(); c.refresh(600) != 437 {
		t.Error("the allocation outlived its time")
	}
}

func TestNoBandwidthCeiling(t *testing.T) {
	s, _ := startWithClock(t, func(c *Config) { c.Bandwidth = -1 })
	far := udpPeer(t, peerHost(t))
	c := dial(t, s, "udp", "t", "s")
	c.allocate()
	c.bind(0x4000, localOf(far))
	const packets = 300
	for range packets {
		c.channelData(0x4000, strings.Repeat("x", 8000))
		receiveAt(t, far)
	}
	if got := s.Stats().ClientToPeer; got != (Traffic{packets, packets * 8000}) {
		t.Errorf("counted %+v", got)
	}
}

// Each quota counts what it is for, refuses with 486 and is given back.
func TestQuotas(t *testing.T) {
	type who struct{ host, tenant, session string }
	const here, there = "127.0.0.1", "127.0.0.3"
	for name, c := range map[string]struct {
		quota       Quota
		full, other who // of one group with {here, "t", "s"}, and of another
		none        bool
	}{
		"session": {Quota{Session: 2}, who{there, "t", "s"}, who{here, "t", "s2"}, false},
		"tenant":  {Quota{Tenant: 2}, who{there, "t", "s2"}, who{here, "t2", "s"}, false},
		"source":  {Quota{Source: 2}, who{here, "t2", "s2"}, who{there, "t", "s"}, false},
		"total":   {Quota{Total: 2, Tenant: -1}, who{there, "t2", "s2"}, who{}, true},
	} {
		s := start(t, func(cfg *Config) {
			cfg.Listen, cfg.Addresses, cfg.Quota = ":0", []Address{loopback("127.0.0.1")}, c.quota
		})
		from := func(w who) *rawClient {
			conn := dialFrom(
				t,
				netip.AddrPortFrom(netip.MustParseAddr(w.host), 0),
				netip.AddrPortFrom(netip.MustParseAddr(here), uint16(s.Port())),
			)
			client := &rawClient{t: t, conn: conn}
			client.user, client.pass = s.Credentials(w.tenant, w.session)
			client.challenge()
			return client
		}
		try := func(c *rawClient) int { return code(c.ask(stun.MethodAllocate, transport(17))) }
		first, second := from(who{here, "t", "s"}), from(who{here, "t", "s"})
		if one, two := try(first), try(second); one != 0 || two != 0 {
			t.Fatalf("%s: %d, %d", name, one, two)
		}
		extra := from(c.full)
		if got := try(extra); got != 486 || refusedBy(s, reasonOverQuota) != 1 {
			t.Errorf("%s: one too many: %d", name, got)
		}
		if !c.none {
			if got := try(from(c.other)); got != 0 {
				t.Errorf("%s: another pays: %d", name, got)
			}
		}
		first.refresh(0)
		if got := try(extra); got != 0 {
			t.Errorf("%s: after one has ended: %d", name, got)
		}
	}
}

// An IPv6 client has 2^64 addresses, which count as one. On a link all addresses are in one /64,
// and each link has the same.
func TestSourceIsAPrefix(t *testing.T) {
	for _, c := range []struct {
		a, b           string
		one, neighbour bool // one source; at least in the network around it
	}{
		{"192.0.2.1", "192.0.2.1", true, true},
		{"192.0.2.1", "::ffff:192.0.2.1", true, true},
		{"192.0.2.1", "192.0.2.2", false, true},
		{"192.0.2.1", "192.0.3.1", false, false},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::", true, true},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:3::", false, true},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:2:2:3:4:5:6", false, false},
		{"fe80::1%3", "fe80::1%3", true, true},
		{"fe80::1%3", "fe80::2%3", false, true},
		{"fe80::1%3", "fe80::1%4", false, false},
	} {
		a, b := sourceAt(c.a), sourceAt(c.b)
		if (a == b) != c.one || (a.prefix() == b.prefix()) != c.neighbour {
			t.Errorf("%s and %s: one is %v, neighbour is %v",
				c.a, c.b, a == b, a.prefix() == b.prefix())
		}
	}
}
