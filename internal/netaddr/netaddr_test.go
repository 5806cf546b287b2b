package netaddr

import (
	"net"
	"net/netip"
	"testing"
)

func TestPrefixes(t *testing.T) {
	const none = "invalid Prefix"
	for _, c := range []struct{ addr, prefix, source, site, network string }{
		{"192.0.2.7", "192.0.2.7/32", "192.0.2.7/32", "192.0.2.7/32", "192.0.2.0/24"},
		{"::ffff:192.0.2.7", "192.0.2.7/32", "192.0.2.7/32", "192.0.2.7/32", "192.0.2.0/24"},
		{
			"2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1:2::/64",
			"2001:db8:1::/48", "2001:db8:1::/48",
		},
		{"fe80::1%7", "fe80::/64", "fe80::/64", "fe80::/48", "fe80::/48"},
		{"127.0.0.2", "127.0.0.2/32", none, none, "127.0.0.0/24"},
		{"::ffff:127.0.0.2", "127.0.0.2/32", none, none, "127.0.0.0/24"},
		{"::1", "::/64", none, none, "::/48"},
		{"", none, none, none, none},
	} {
		a, _ := netip.ParseAddr(c.addr)
		source := Source(a)
		for name, p := range map[string]struct{ got, want string }{
			"prefix":  {Prefix(a).String(), c.prefix},
			"source":  {source.String(), c.source},
			"site":    {Site(source).String(), c.site},
			"network": {Network(a).String(), c.network},
		} {
			if p.got != p.want {
				t.Errorf("%s of %q: %s, want %s", name, c.addr, p.got, p.want)
			}
		}
	}
}

func TestHosts(t *testing.T) {
	for _, c := range []struct {
		s, host  string
		loopback bool
	}{
		{"example.org:443", "example.org", false},
		{"example.org", "example.org", false},
		{"localhost:80", "localhost", true},
		{"a.localhost", "a.localhost", true},
		{"notlocalhost", "notlocalhost", false},
		{"127.9.9.9:1", "127.9.9.9", true},
		{"[::1]:8443", "::1", true},
		{"[::1]", "::1", true},
		{"::1", "::1", true},
		{"::ffff:127.0.0.1", "::ffff:127.0.0.1", true},
		{"192.0.2.1", "192.0.2.1", false},
		{":80", "", false},
		{"[", "[", false},
		{"", "", false},
	} {
		if got := Host(c.s); got != c.host || IsLoopback(got) != c.loopback {
			t.Errorf("host of %q: %q, loopback %t", c.s, got, IsLoopback(got))
		}
	}
}

func TestWithin(t *testing.T) {
	list := []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("fe80::/64"),
	}
	for _, a := range []string{"::ffff:192.0.2.9", "fe80::1", "fe80::1%eth0"} {
		if !Within(netip.MustParseAddr(a), list) {
			t.Errorf("%s is not within %v", a, list)
		}
	}
	if !Within(netip.MustParseAddr("192.0.2.9"), list) ||
		Within(netip.MustParseAddr("192.0.3.9"), list) || Within(netip.Addr{}, list) {
		t.Error("wrong")
	}
}

// A source contains its address, a site its source, and both name the same party again.
func FuzzPrefixes(f *testing.F) {
	f.Add("192.0.2.7")
	f.Add("2001:db8:1:2:3::4")
	f.Add("::ffff:192.0.2.7")
	f.Add("fe80::1%eth0")
	f.Add("::1")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return
		}
		p, plain := Prefix(a), a.Unmap().WithZone("")
		if !p.IsValid() || !p.Contains(plain) || Prefix(p.Addr()) != p || p != p.Masked() {
			t.Errorf("prefix of %s: %s", s, p)
		}
		if !Network(a).Contains(plain) || !Network(a).Overlaps(p) {
			t.Errorf("network of %s: %s", s, Network(a))
		}
		source := Source(a)
		if source.IsValid() == plain.IsLoopback() || source.IsValid() && source != p {
			t.Errorf("source of %s: %s", s, source)
		}
		if source.IsValid() && !Site(source).Contains(source.Addr()) {
			t.Errorf("site of %s: %s", source, Site(source))
		}
	})
}

// Host gives back what JoinHostPort was given.
func FuzzHost(f *testing.F) {
	f.Add("example.org", "443")
	f.Add("::1", "")
	f.Add("[::1]", "8443")
	f.Add("a:b", "c")
	f.Fuzz(func(t *testing.T, host, port string) {
		joined := net.JoinHostPort(host, port)
		if h, _, err := net.SplitHostPort(joined); err == nil && Host(joined) != h {
			t.Errorf("host of %q: %q, want %q", joined, Host(joined), h)
		}
		if got := Host(host); len(got) > len(host) {
			t.Errorf("host of %q: %q", host, got)
		}
		IsLoopback(host)
	})
}
