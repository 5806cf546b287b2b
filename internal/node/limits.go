package node

import (
	"errors"
	"net/netip"

	"github.com/ieum-rtc/ieum/internal/signaling"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// LimitSettings bound what clients may cost. nil is the default, -1 no limit.
type LimitSettings struct {
	Connections *int // open at a time, of both carriers; see transport.ConnLimiterConfig, as for Strangers
	Strangers   *int // of one address, whose users are not known yet
	UserRooms   *int // at a time, made by one user

	AddressSessions, AddressRooms *int // at a time, of one address without user tokens
	Unread                        *int // bytes that wait for all clients together; see transport.NewBacklog

	// A minute; see signaling.Limits.
	FailedLogins, Joins, FailedJoins, FailedJoinsOfAddress, Candidates, Takeovers *int
}

// plan returns the limits of the carriers and of signaling, and every fault.
func (l LimitSettings) plan() (gate transport.ConnLimiterConfig, limits signaling.Limits, _ error) {
	var faults []error
	var unread int // see backlog
	for _, of := range []struct {
		flag string
		n    *int
		into *int
	}{
		{"--max-unread", l.Unread, &unread},
		{"--max-connections", l.Connections, &gate.Connections},
		{"--max-strangers", l.Strangers, &gate.Unregistered},
		{"--max-user-rooms", l.UserRooms, &limits.Rooms},
		{"--max-address-sessions", l.AddressSessions, &limits.AddressSessions},
		{"--max-address-rooms", l.AddressRooms, &limits.AddressRooms},
		{"--max-failed-logins", l.FailedLogins, &limits.FailedLogins},
		{"--max-joins", l.Joins, &limits.Joins},
		{"--max-failed-joins", l.FailedJoins, &limits.FailedJoins},
		{"--max-failed-joins-address", l.FailedJoinsOfAddress, &limits.FailedJoinsOfAddress},
		{"--max-candidates", l.Candidates, &limits.Candidates},
		{"--max-takeovers", l.Takeovers, &limits.Takeovers},
	} {
		switch {
		case of.n == nil:
		case *of.n == 0 || *of.n < -1:
			faults = append(faults, blamef(of.flag, "must be at least 1, or -1 for no limit, not %d", *of.n))
		default:
			*of.into = *of.n
		}
	}
	return gate, limits, errors.Join(faults...)
}

// backlog is the bound of what waits for clients, as transport.NewBacklog takes it.
func (l LimitSettings) backlog() int {
	if l.Unread == nil {
		return 0
	}
	return *l.Unread
}

// sessions is the bound of the carrier for Socket.IO: those that have just ended, which the gate has let go, need a place too.
func sessions(connections int) int {
	if connections < 0 {
		return -1
	}
	return connections + connections/4
}

// parseProxies reads networks or single addresses.
func parseProxies(list []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	var faults []error
	for _, s := range list {
		n, err := netip.ParsePrefix(s)
		if a, alone := netip.ParseAddr(s); alone == nil && a.Zone() == "" {
			n, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil || n.Addr().Is4In6():
			faults = append(faults, blamef("--trusted-proxy", "%q is neither an address nor a network like 192.0.2.0/24", s))
		case n.Bits() == 0:
			faults = append(faults, blamef("--trusted-proxy", "%q is everybody, and everybody could then come from any address: name the proxies", s))
		default:
			networks = append(networks, n.Masked())
		}
	}
	return networks, errors.Join(faults...)
}
