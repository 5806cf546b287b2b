package transport

import (
	"net/http"
	"net/netip"
	"strings"
)

// Source is what limits per address count by: an IPv4 address, or the /64 of an IPv6 address, since
// a host can use all addresses of its /64. It is invalid, and no limit applies, for loopback: a
// proxy that was not configured as trusted may run there, with all clients behind it.
func Source(a netip.Addr) netip.Prefix {
	if a = a.Unmap().WithZone(""); a.IsLoopback() {
		return netip.Prefix{}
	}
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}

// Site is the network in which one party may have many sources: the /48 of an IPv6 source, which is
// what a site is assigned (RFC 6177). An IPv4 address is its own site.
func Site(source netip.Prefix) netip.Prefix {
	if source.Addr().Is4() {
		return source
	}
	p, _ := source.Addr().Prefix(48)
	return p
}

// clientAddr returns the address of the client that sent the request. X-Forwarded-For is read from
// its end, where the nearest proxy wrote, up to the first address that is not a trusted proxy. What
// stands before that address may have been written by the client itself.
func clientAddr(r *http.Request, trusted []netip.Prefix) netip.AddrPort {
	direct, _ := netip.ParseAddrPort(r.RemoteAddr)
	direct = netip.AddrPortFrom(direct.Addr().Unmap(), direct.Port())
	if len(trusted) == 0 || !within(direct.Addr(), trusted) {
		return direct
	}
	addr := direct
	lines := r.Header.Values("X-Forwarded-For")
	for i := len(lines) - 1; i >= 0; i-- {
		hops := strings.Split(lines[i], ",")
		for j := len(hops) - 1; j >= 0; j-- {
			hop, err := parseHop(strings.TrimSpace(hops[j]))
			if err != nil {
				return addr
			}
			addr = netip.AddrPortFrom(hop, 0)
			if !within(hop, trusted) {
				return addr
			}
		}
	}
	return addr
}

// parseHop reads an address. Some proxies write the port too.
func parseHop(text string) (netip.Addr, error) {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr().Unmap().WithZone(""), nil
	}
	a, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return a.Unmap().WithZone(""), err
}

func within(a netip.Addr, list []netip.Prefix) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
