package relay

import (
	"net/netip"

	"github.com/ieum-rtc/ieum/internal/netaddr"
)

// source is whom a limit by address counts.
type source struct {
	addr  netip.Prefix
	scope uint32
}

// sourceOf is an IPv4 address, or the /64 of an IPv6 address, since a host can use all addresses of
// its /64. Of link-local addresses each counts, for all of a link are in one /64. Loopback counts
// as well: no proxy hides UDP clients.
func sourceOf(e endpoint) source {
	a := netip.AddrFrom16(e.ip).Unmap()
	if isLinkLocal(e.ip) {
		return source{netip.PrefixFrom(a, a.BitLen()), e.scope}
	}
	return source{netaddr.Prefix(a), e.scope}
}

// prefix is the network around a source: an IPv4 /24, an IPv6 /48, a link.
func (s source) prefix() source {
	if a := s.addr.Addr(); a.IsLinkLocalUnicast() && a.Is6() {
		s.addr = netaddr.Prefix(a)
	} else {
		s.addr = netaddr.Network(a)
	}
	return s
}

func (s source) is6() bool { return s.addr.Addr().Is6() }
