package relay

import (
	"net/netip"
	"slices"
)

// specialPurpose are the networks no call peer is in: every row of the IANA IPv4 and IPv6
// Special-Purpose Address Registries (RFC 6890), the few globally reachable ones included, since
// those are anycast services. 64:ff9b::/96 is missing here because an address in it stands for the
// IPv4 address inside, which is judged instead.
var specialPurpose = prefixes(
	"0.0.0.0/8",      // this network, RFC 791
	"10.0.0.0/8",     // private use, RFC 1918
	"100.64.0.0/10",  // shared address space, RFC 6598
	"127.0.0.0/8",    // loopback, RFC 1122
	"169.254.0.0/16", // link local and cloud metadata, RFC 3927
	"172.16.0.0/12",  // private use, RFC 1918
	// Not in the registry: a virtual address inside every network of Azure, which serves its
	// internal DNS.
	"168.63.129.16/32",
	// IETF protocol assignments with DS-Lite, PCP and TURN anycast, NAT64 discovery, RFC 6890.
	"192.0.0.0/24",
	"192.0.2.0/24",    // documentation, RFC 5737
	"192.31.196.0/24", // AS112, RFC 7535
	"192.52.193.0/24", // AMT, RFC 7450
	"192.88.99.0/24",  // 6to4 relay anycast, RFC 7526
	"192.168.0.0/16",  // private use, RFC 1918
	"192.175.48.0/24", // AS112 direct delegation, RFC 7534
	"198.18.0.0/15",   // benchmarking, RFC 2544
	"198.51.100.0/24", // documentation, RFC 5737
	"203.0.113.0/24",  // documentation, RFC 5737
	"224.0.0.0/4",     // multicast, RFC 5771
	"240.0.0.0/4",     // reserved and broadcast, RFC 1112, RFC 919

	"::/96",          // unspecified, loopback and IPv4-compatible, RFC 4291
	"::ffff:0:0/96",  // IPv4-mapped, RFC 4291; what is left of it after unmapping
	"64:ff9b:1::/48", // local-use translation, RFC 8215
	"100::/64",       // discard-only, RFC 6666
	"100:0:0:1::/64", // dummy prefix, RFC 9780
	// IETF protocol assignments with Teredo, benchmarking, AMT, ORCHID, drone identities, RFC 2928.
	"2001::/23",
	"2001:db8::/32",     // documentation, RFC 3849
	"2002::/16",         // 6to4, RFC 3056
	"2620:4f:8000::/48", // AS112 direct delegation, RFC 7534
	"3fff::/20",         // documentation, RFC 9637
	"5f00::/16",         // segment routing identifiers, RFC 9602
	"fc00::/7",          // unique local, RFC 4193
	"fe80::/10",         // link local, RFC 4291
	"fec0::/10",         // site local, RFC 3879
	"ff00::/8",          // multicast, RFC 4291
)

var (
	globalUnicast = netip.MustParsePrefix("2000::/3")
	translated    = netip.MustParsePrefix("64:ff9b::/96")
	compatible    = netip.MustParsePrefix("::/96")
	sixToFour     = netip.MustParsePrefix("2002::/16")
	teredo        = netip.MustParsePrefix("2001::/32")
	thisNetwork   = netip.MustParsePrefix("0.0.0.0/8")
	broadcast     = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// isGlobal tells whether an address lies in the public Internet and nothing special is assigned to
// it.
func isGlobal(a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	// Of IPv6 only 2000::/3 is handed out, so everything else is refused without being listed.
	if a.Is6() && !globalUnicast.Contains(a) && !translated.Contains(a) {
		return false
	}
	return !slices.ContainsFunc(specialPurpose, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isNeverPeer are addresses that no exception can allow: they are no single host. Linux takes
// 0.0.0.0 for itself.
func isNeverPeer(a netip.Addr) bool {
	return a.IsMulticast() || a.IsUnspecified() || thisNetwork.Contains(a) || a == broadcast
}

// embeddedIPv4 appends the IPv4 addresses that an IPv6 address carries: a translator or tunnel on
// the way may deliver to them.
func embeddedIPv4(a netip.Addr) []netip.Addr {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	v4 := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	switch {
	case translated.Contains(a):
		return []netip.Addr{v4(12)}
	case compatible.Contains(a) && !a.IsUnspecified() && !a.IsLoopback():
		return []netip.Addr{v4(12)}
	case sixToFour.Contains(a):
		return []netip.Addr{v4(2)}
	case teredo.Contains(a):
		// RFC 4380 section 4: the server, and the client with all bits inverted.
		client := [4]byte{^b[12], ^b[13], ^b[14], ^b[15]}
		return []netip.Addr{v4(4), netip.AddrFrom4(client)}
	}
	return nil
}

// policy says which peers a client may reach. It is immutable.
type policy struct {
	allow []netip.Prefix
	// relays are our public relay addresses: allowed, and judged by port at each write.
	relays []netip.Addr
	// local are the other addresses of this machine: refused even when they are public, unless an
	// exception names them.
	local []netip.Addr
}

func newPolicy(allow []netip.Prefix, relays []Address, local []netip.Addr) policy {
	var p policy
	for _, prefix := range allow {
		if a := prefix.Addr(); a.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
		}
		p.allow = append(p.allow, prefix.Masked())
	}
	for _, r := range relays {
		p.relays = append(p.relays, r.Public)
		if r.Private != r.Public {
			p.local = append(p.local, r.Private)
		}
	}
	for _, a := range local {
		if !slices.Contains(p.relays, a) {
			p.local = append(p.local, a)
		}
	}
	return p
}

// allows judges a peer's address.
func (p policy) allows(a netip.Addr) bool {
	a = a.Unmap()
	if a.Zone() != "" || !p.allowsAddr(a) {
		return false
	}
	for _, inner := range embeddedIPv4(a) {
		// An address of ours in another dress would pass by the port check at the write.
		if !p.allowsAddr(inner) || slices.Contains(p.relays, inner) ||
			slices.Contains(p.local, inner) {
			return false
		}
	}
	return true
}

// allowsAddr judges an address without looking for others inside it.
func (p policy) allowsAddr(a netip.Addr) bool {
	if !a.IsValid() || isNeverPeer(a) {
		return false
	}
	if slices.Contains(p.relays, a) ||
		slices.ContainsFunc(p.allow, func(n netip.Prefix) bool { return n.Contains(a) }) {
		return true
	}
	return isGlobal(a) && !slices.Contains(p.local, a)
}
