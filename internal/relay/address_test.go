package relay

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"203.0.113.7":          "203.0.113.7",
		"203.0.113.7/10.0.0.7": "203.0.113.7/10.0.0.7",
		"10.0.0.7/10.0.0.7":    "10.0.0.7",
		"2001:db8::1":          "2001:db8::1",
		"2001:DB8::1/fd00::1":  "2001:db8::1/fd00::1",
		"::ffff:203.0.113.7":   "203.0.113.7",
		"127.0.0.1":            "127.0.0.1",
	} {
		a, err := ParseAddress(in)
		if err != nil || a.String() != want {
			t.Errorf("%s: got %v, %v", in, a, err)
		}
	}
	for _, in := range []string{
		"", "/", "host", "203.0.113.7/", "/10.0.0.7", "203.0.113.7/24", "203.0.113.7:3478",
		"[2001:db8::1]", "203.0.113.7/fd00::1", "0.0.0.0",
		"::", "224.0.0.1", "255.255.255.255", "fe80::1", "fe80::1%eth0", "2001:db8::1%eth0",
		"1.2.3.4/5.6.7.8/9", " 1.2.3.4", "01.2.3.4",
	} {
		if a, err := ParseAddress(in); err == nil {
			t.Errorf("%q: accepted as %v", in, a)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"203.0.113.7", "203.0.113.7/10.0.0.7", "2001:db8::1/fd00::1", "::ffff:1.2.3.4",
		"fe80::1%eth0", "1.2.3.4/::1", "/",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		if a.Public.Is4() != a.Private.Is4() || a.Public.IsUnspecified() ||
			a.Public.IsMulticast() ||
			a.Public.Zone() != "" {
			t.Errorf("%q: accepted as %v", s, a)
		}
		if again, err := ParseAddress(a.String()); err != nil || again != a {
			t.Errorf("%q: %v reads as %v, %v", s, a, again, err)
		}
	})
}

func TestChoiceOfRelayAddress(t *testing.T) {
	list := func(s ...string) []netip.Addr {
		var out []netip.Addr
		for _, one := range s {
			out = append(out, netip.MustParseAddr(one))
		}
		return out
	}
	for name, c := range map[string]struct {
		all, routed []netip.Addr
		want        string
	}{
		"a public one before private ones": {
			list("127.0.0.1", "172.17.0.1", "8.8.4.4"), list("172.17.0.1"), "8.8.4.4",
		},
		"the routed one among equals": {
			list("172.17.0.1", "192.168.1.5", "10.0.0.1"), list("192.168.1.5"), "192.168.1.5",
		},
		"the first without a route": {list("172.17.0.1", "192.168.1.5"), nil, "172.17.0.1"},
		"one of each family": {
			list("10.0.0.1", "fd00::1", "2a00::1", "2a00::2"), list("2a00::2"), "10.0.0.1 2a00::2",
		},
		"IPv6 only":             {list("::1", "fe80::1", "2a00::1"), nil, "2a00::1"},
		"loopback is not taken": {list("127.0.0.1", "::1"), list("127.0.0.1"), ""},
	} {
		var got []string
		for _, a := range selectFrom(c.all, c.routed) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestLocalAddressesContainLoopback(t *testing.T) {
	all, err := localAddresses()
	if err != nil || !slices.Contains(all, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("got %v, %v", all, err)
	}
}

func TestOnlyPrivate(t *testing.T) {
	for address, want := range map[string]bool{
		"10.0.0.1": true, "192.0.2.5": true, "fd00::1": true, "8.8.8.8/10.0.0.1": false,
		"2a00::1": false,
	} {
		a, err := ParseAddress(address)
		if err != nil {
			t.Fatal(err)
		}
		s := &Server{}
		s.hostAddrs.Store(&hostAddresses{relays: []*relayAddress{{Address: a}}})
		if s.OnlyPrivate() != want {
			t.Errorf("%s: OnlyPrivate is not %v", address, want)
		}
	}
}
