package signaling

import (
	"net/netip"
	"testing"

	"github.com/ieum-rtc/ieum/internal/netaddr"
)

func TestNetworksAreNamedWhereTheyAreKnown(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		name := func(a string) string {
			return w.nodes[0].hub.network(netaddr.Source(netip.MustParseAddr(a)))
		}
		for _, a := range []string{
			"127.0.0.1", "::1", "192.168.1.10", "10.1.2.3", "172.16.0.1", "100.64.0.1",
			"169.254.1.1", "fd00::1", "fe80::1", "0.0.0.0",
		} {
			if got := name(a); got != "" {
				w.Errorf("%s: %q, want none", a, got)
			}
		}
		v4, v6 := name("203.0.113.7"), name("2001:db8:1:2::7")
		if len(v4) != 9 || v4[0] != '4' || len(v6) != 9 || v6[0] != '6' {
			w.Errorf("%q, %q", v4, v6)
		}
		if v4 != name("::ffff:203.0.113.7") || v6 != name("2001:db8:1:2:ffff::1") {
			w.Error("one network has two names")
		}
		if v4 == name("203.0.113.8") || v6 == name("2001:db8:1:3::7") {
			w.Error("two networks have one name")
		}
	})
}

func TestMembersKnowWhoIsInTheirNetwork(t *testing.T) {
	in(t, 1, nil, func(w *world) {
		for i, from := range []string{"203.0.113.7", "203.0.113.7", "198.51.100.1", "192.168.1.2"} {
			p := w.from(from)
			p.register(string(rune('a' + i)))
			if i == 0 {
				p.want("200", msg{"eventOp": "createRoom", "roomId": "R"})
			}
			p.want("200", msg{"eventOp": "joinRoom", "roomId": "R"})
			if i < 3 {
				continue
			}
			members := p.want("200", msg{
				"eventOp": "memberList",
				"roomId":  "R",
			})["members"].(map[string]any)
			net := func(id string) any { return members[id].(map[string]any)["net"] }
			if net("a") == nil || net("a") != net("b") || net("c") == nil ||
				net("c") == net("a") || net("d") != nil {
				w.Errorf("%v, %v, %v, %v", net("a"), net("b"), net("c"), net("d"))
			}
		}
	})
}
