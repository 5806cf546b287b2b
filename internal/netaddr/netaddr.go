// Package netaddr parses addresses for several packages: the prefixes that limits count by (IPv6:
// /64 and /48), and the host of a "host:port".
package netaddr

import (
	"net"
	"net/netip"
	"strings"
)

// Prefix is what one host may use: an IPv4 address, or the /64 of an IPv6 address. Zones and the
// IPv4-mapped form are dropped. The prefix of an invalid address is invalid.
func Prefix(a netip.Addr) netip.Prefix { return prefix(a, 32, 64) }

// Source is the Prefix that limits per address count by. It is invalid, and no limit applies, for
// loopback: a proxy that was not configured as trusted may run there, with all clients behind it.
func Source(a netip.Addr) netip.Prefix {
	if a.Unmap().IsLoopback() {
		return netip.Prefix{}
	}
	return Prefix(a)
}

// Site is the network in which one party may have many sources: the /48 of an IPv6 source, which is
// what a site is assigned (RFC 6177). An IPv4 address is its own site.
func Site(source netip.Prefix) netip.Prefix { return prefix(source.Addr(), 32, 48) }

// Network is the network around an address: an IPv4 /24 or an IPv6 /48. It names no user.
func Network(a netip.Addr) netip.Prefix { return prefix(a, 24, 48) }

func prefix(a netip.Addr, bits4, bits6 int) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := bits6
	if a.Is4() {
		bits = bits4
	}
	p, _ := a.Prefix(bits)
	return p
}

// Within reports whether a network of the list contains the address, whatever its zone and whether
// or not it has the IPv4-mapped form.
func Within(a netip.Addr, list []netip.Prefix) bool {
	a = a.Unmap().WithZone("")
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Host is the host of "host:port" or "host", without the brackets of an IPv6 address.
func Host(s string) string {
	if host, _, err := net.SplitHostPort(s); err == nil {
		return host
	}
	if len(s) > 1 && s[0] == '[' && s[len(s)-1] == ']' {
		return s[1 : len(s)-1]
	}
	return s
}

// IsLoopback reports whether a host, without a port, names this machine: a loopback address,
// localhost, or a name under it (RFC 6761 section 6.3).
func IsLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
