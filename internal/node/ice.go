package node

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ieum-rtc/ieum/internal/certs"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/relay"
)

// iceIssuer turns the relay's addresses and credentials into what a browser wants: STUN on both ports, TURN over UDP and over one
// kind of stream. More would be asked for nothing: a browser allocates for each URL.
type iceIssuer struct {
	relay  *relay.Server
	public string // as told to clients; empty: the name by which they reached us
	listen string // of the relay
	stun   string // of the second port
	cert   *certs.Source
}

// ICEServers implements signaling.ICEIssuer.
func (i *iceIssuer) ICEServers(reached, tenant, session string, allowed bool) []protocol.ICEServer {
	host := i.host(i.listen, reached)
	at := net.JoinHostPort(host, strconv.Itoa(i.relay.Port()))
	stun := []string{"stun:" + at}
	if port := i.relay.STUNPort(); port != 0 {
		stun = append(stun, "stun:"+net.JoinHostPort(i.host(i.stun, reached), strconv.Itoa(port)))
	}
	servers := []protocol.ICEServer{{URLs: stun}}
	if allowed {
		user, password := i.relay.Credentials(tenantHash(tenant), session)
		stream := "turn:"
		if certs.Covers(i.cert.Get(), host) {
			stream = "turns:"
		}
		servers = append(servers, protocol.ICEServer{
			URLs: []string{"turn:" + at + "?transport=udp", stream + at + "?transport=tcp"}, Username: user, Credential: password,
		})
	}
	return servers
}

// host is how a client reaches what listens there. One that listens on all addresses is reached by the name by which the client
// reached us; so is one whose certificate has that name. One that is bound to an address is reached by it, or by what stands for it
// outside: pages may be served elsewhere, by a proxy even.
func (i *iceIssuer) host(listen, reached string) string {
	if i.public != "" {
		return strings.Trim(i.public, "[]")
	}
	name := strings.Trim(reached, "[]")
	if h, _, err := net.SplitHostPort(reached); err == nil {
		name = h
	}
	bound, _, _ := net.SplitHostPort(listen)
	ip, err := netip.ParseAddr(bound)
	if err != nil || ip.IsUnspecified() || certs.Covers(i.cert.Get(), name) {
		return name
	}
	for _, a := range i.relay.Addresses() {
		if a.Private == ip {
			return a.Public.String()
		}
	}
	return bound
}

// tenantHash stands for the tenant in relay user names, which travel in clear.
func tenantHash(tenant string) string {
	sum := sha256.Sum256([]byte(tenant))
	return hex.EncodeToString(sum[:8])
}
