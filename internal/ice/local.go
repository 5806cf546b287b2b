package ice

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ieum-rtc/ieum/internal/certs"
	"github.com/ieum-rtc/ieum/internal/netaddr"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/relay"
)

// Local implements signaling.ICEIssuer for the relay of this process: STUN on both of its ports,
// TURN over UDP and over one kind of stream. A browser allocates for each URL: more would be waste.
//
// All fields are static.
type Local struct {
	Relay      *relay.Server
	PublicHost string // as told to clients; empty: the name by which they reached this server
	Listen     string // address of the relay
	STUNListen string // address of its second STUN port
	Cert       *certs.Source
}

// ICEServers implements signaling.ICEIssuer.
func (l *Local) ICEServers(reached, tenant, session string, allowed bool) []protocol.ICEServer {
	host := l.host(l.Listen, reached)
	at := net.JoinHostPort(host, strconv.Itoa(l.Relay.Port()))
	stun := []string{"stun:" + at}
	if port := l.Relay.STUNPort(); port != 0 {
		second := net.JoinHostPort(l.host(l.STUNListen, reached), strconv.Itoa(port))
		stun = append(stun, "stun:"+second)
	}
	servers := []protocol.ICEServer{{URLs: stun}}
	if allowed {
		user, password := l.Relay.Credentials(TenantHash(tenant), session)
		stream := "turn:"
		if certs.Covers(l.Cert.Get(), host) {
			stream = "turns:"
		}
		servers = append(servers, protocol.ICEServer{
			URLs:       []string{"turn:" + at + "?transport=udp", stream + at + "?transport=tcp"},
			Username:   user,
			Credential: password,
		})
	}
	return servers
}

// host is how a client reaches a listen address. If it is unspecified, or the certificate covers
// the name by which the client reached this server, it is that name. Otherwise it is the bound
// address, or its public address behind 1:1 NAT: pages may come from elsewhere, a proxy for
// example.
func (l *Local) host(listen, reached string) string {
	if l.PublicHost != "" {
		return strings.Trim(l.PublicHost, "[]")
	}
	name := netaddr.Host(reached)
	bound, _, _ := net.SplitHostPort(listen)
	ip, err := netip.ParseAddr(bound)
	if err != nil || ip.IsUnspecified() || certs.Covers(l.Cert.Get(), name) {
		return name
	}
	for _, a := range l.Relay.Addresses() {
		if a.Private == ip {
			return a.Public.String()
		}
	}
	return bound
}
