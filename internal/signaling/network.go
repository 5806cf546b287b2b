package signaling

import (
	"encoding/base64"
	"net/netip"
)

// sharedAddresses are of providers that put many networks behind one (RFC 6598).
var sharedAddresses = netip.MustParsePrefix("100.64.0.0/10")

// network names what a client is connected from, so that two clients can tell whether that is the
// same: only then may they reach each other's private addresses. Others learn nothing from the name
// but that. Where the address is a private one the server is inside some network itself, and knows
// nothing.
func (h *Hub) network(source netip.Prefix) string {
	a := source.Addr()
	if !source.IsValid() || !a.IsGlobalUnicast() || a.IsPrivate() || sharedAddresses.Contains(a) {
		return ""
	}
	family := "6"
	if a.Is4() {
		family = "4"
	}
	sum := mac(h.keys.Load().resume[0], "network "+source.String())
	return family + base64.RawURLEncoding.EncodeToString(sum[:6])
}
