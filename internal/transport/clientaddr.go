package transport

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/ieum-rtc/ieum/internal/netaddr"
)

// clientAddr returns the address of the client that sent the request. X-Forwarded-For is read from
// its end, where the nearest proxy wrote, up to the first address that is not a trusted proxy. What
// stands before that address may have been written by the client itself.
func clientAddr(r *http.Request, trusted []netip.Prefix) netip.AddrPort {
	direct, _ := netip.ParseAddrPort(r.RemoteAddr)
	direct = netip.AddrPortFrom(direct.Addr().Unmap(), direct.Port())
	if len(trusted) == 0 || !netaddr.Within(direct.Addr(), trusted) {
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
			if !netaddr.Within(hop, trusted) {
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
