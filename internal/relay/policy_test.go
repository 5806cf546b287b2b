package relay

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

func nets(list ...string) []netip.Prefix { return prefixes(list...) }

// Every row of the IANA registries, by its first and last address, and the forms under which an
// IPv4 address can travel.
func TestSpecialPurposeNetworksAreRefused(t *testing.T) {
	p := newPolicy(nil, nil, nil)
	for _, row := range []string{
		"0.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
		"172.16.0.0/12", "192.0.0.0/24",
		"192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32", "192.0.0.170/32",
		"192.0.0.171/32", "192.0.2.0/24",
		"192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.88.99.2/32", "192.168.0.0/16",
		"192.175.48.0/24", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32",
		"::1/128", "::/128", "::ffff:0:0/127", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64",
		"2001::/23", "2001::/32", "2001:1::1/128",
		"2001:1::2/128", "2001:1::3/128", "2001:2::/48", "2001:3::/32", "2001:4:112::/48",
		"2001:10::/28", "2001:20::/28", "2001:30::/28",
		"2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7",
		"fe80::/10", "fec0::/10", "ff00::/8",
		"168.63.129.16/32", // not in the registry: DNS and metadata inside Azure
		// Not in the registry, and not handed out either.
		"::/96", "::2:0:0:0/80", "400::/6", "1000::/4", "4000::/3", "6000::/3", "8000::/3",
		"a000::/3", "c000::/3", "e000::/4", "f000::/5",
	} {
		prefix := netip.MustParsePrefix(row)
		for _, a := range []netip.Addr{prefix.Addr(), lastOf(prefix)} {
			for name, form := range forms(a) {
				if p.allows(form) {
					t.Errorf("%s of %s is allowed as %s (%s)", a, row, form, name)
				}
			}
		}
	}
}

// lastOf is the last address of a network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// forms are the addresses that stand for an address.
func forms(a netip.Addr) map[string]netip.Addr {
	out := map[string]netip.Addr{"itself": a}
	if !a.Is4() {
		return out
	}
	v4 := a.As4()
	build := func(start string, at int, value [4]byte) netip.Addr {
		b := netip.MustParseAddr(start).As16()
		copy(b[at:], value[:])
		return netip.AddrFrom16(b)
	}
	var inverted [4]byte
	binary.BigEndian.PutUint32(inverted[:], ^binary.BigEndian.Uint32(v4[:]))
	out["mapped"] = build("::ffff:0:0", 12, v4)
	out["compatible"] = build("::", 12, v4)
	out["translated"] = build("64:ff9b::", 12, v4)
	out["6to4"] = build("2002::", 2, v4)
	out["Teredo server"] = build("2001::", 4, v4)
	out["Teredo client"] = build("2001:0:808:808::", 12, inverted)
	return out
}

func TestPublicPeersAreAllowed(t *testing.T) {
	p := newPolicy(nil, nil, nil)
	for _, s := range []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
		"172.15.255.255", "172.32.0.0", "192.0.1.0",
		"192.167.255.255", "198.17.255.255", "198.20.0.0", "223.255.255.255", "::ffff:8.8.8.8",
		"64:ff9b::8.8.8.8",
		"2001:200::1", "2001:4860:4860::8888", "2606:4700::1", "2a00::1", "3ffe:ffff::1",
	} {
		if !p.allows(netip.MustParseAddr(s)) {
			t.Errorf("%s is refused", s)
		}
	}
	for _, a := range []netip.Addr{
		{}, netip.MustParseAddr("2606:4700::1%eth0"), netip.MustParseAddr("fe80::1%1"),
	} {
		if p.allows(a) {
			t.Errorf("%v is allowed", a)
		}
	}
}

func TestExceptions(t *testing.T) {
	p := newPolicy(nets(
		"10.0.0.0/8",
		"127.0.0.1/32",
		"fd00::/16",
		"2001:db8::1/32",
		"::ffff:192.168.1.0/120",
		"64:ff9b::/96",
		"2002::/16",
	), nil, nil)
	for s, want := range map[string]bool{
		"10.1.2.3": true, "127.0.0.1": true, "127.0.0.2": false, "fd00::5": true, "fd01::5": false,
		"2001:db8:5::": true,
		"192.168.1.9":  true, "192.168.2.9": false, "::ffff:10.0.0.1": true, "172.16.0.1": false,
		// What is inside is judged too, exception or not.
		"64:ff9b::10.0.0.1": true, "64:ff9b::172.16.0.1": false, "2002:a00:1::": true,
		"2002:ac10:1::": false, "2002:7f00:2::1": false,
	} {
		if got := p.allows(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: allowed is %v", s, got)
		}
	}
}

func TestNoExceptionAllowsWhatIsNoHost(t *testing.T) {
	p := newPolicy(nets("0.0.0.0/0", "::/0"), nil, nil)
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "239.1.1.1", "::", "ff02::1",
		"::ffff:0.0.0.0", "64:ff9b::224.0.0.1",
	} {
		if p.allows(netip.MustParseAddr(s)) {
			t.Errorf("%s is allowed", s)
		}
	}
	if !p.allows(netip.MustParseAddr("127.0.0.1")) || !p.allows(netip.MustParseAddr("fe80::1")) {
		t.Error("the exception has no effect")
	}
}

func TestOwnAddresses(t *testing.T) {
	addr := netip.MustParseAddr
	relays := []Address{
		{Public: addr("203.0.113.7"), Private: addr("10.0.0.7")},
		{Public: addr("fd00::7"), Private: addr("fd00::7")},
	}
	local := []netip.Addr{addr("10.0.0.7"), addr("9.9.9.9"), addr("fd00::7"), addr("127.0.0.1")}
	p := newPolicy(nil, relays, local)
	for s, want := range map[string]bool{
		// Relayed clients meet here.
		"203.0.113.7": true, "fd00::7": true, "::ffff:203.0.113.7": true,
		"10.0.0.7": false, "9.9.9.9": false, "127.0.0.1": false, "fd00::8": false,
		"64:ff9b::203.0.113.7": false, "64:ff9b::9.9.9.9": false, "2002:cb00:7107::1": false,
	} {
		if got := p.allows(addr(s)); got != want {
			t.Errorf("%s: allowed is %v", s, got)
		}
	}
	if !newPolicy(nets("9.9.9.9/32"), relays, local).allows(addr("9.9.9.9")) {
		t.Error("an exception must open our other addresses")
	}
}

// FuzzPolicy: without exceptions nothing passes that the standard library, or the address inside,
// calls special.
func FuzzPolicy(f *testing.F) {
	for _, s := range []string{
		"127.0.0.1", "8.8.8.8", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::",
		"2001:0:7f00:1::", "ff02::1", "2606::1",
	} {
		f.Add(netip.MustParseAddr(s).AsSlice())
	}
	strict, open := newPolicy(nil, nil, nil), newPolicy(nets("10.0.0.0/8", "fd00::/8"), nil, nil)
	special := func(a netip.Addr) bool {
		return !a.IsValid() || a.IsPrivate() || a.IsLoopback() || a.IsMulticast() ||
			a.IsUnspecified() ||
			a.IsLinkLocalUnicast() ||
			!a.IsGlobalUnicast()
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, _ := netip.AddrFromSlice(b)
		plain := a.Unmap()
		if strict.allows(a) {
			if special(plain) {
				t.Errorf("%s is allowed", a)
			}
			for _, inner := range embeddedIPv4(plain) {
				if special(inner) {
					t.Errorf("%s is allowed with %s inside", a, inner)
				}
			}
			if !open.allows(a) {
				t.Errorf("an exception refuses %s", a)
			}
		} else if open.allows(a) && !plain.IsPrivate() {
			for _, inner := range embeddedIPv4(plain) {
				if inner.IsPrivate() {
					return
				}
			}
			t.Errorf("an exception for others allows %s", a)
		}
		if strict.allows(a) != strict.allows(plain) {
			t.Errorf("%s is judged by its form", a)
		}
	})
}
