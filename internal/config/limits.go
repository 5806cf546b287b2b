package config

import (
	"errors"
	"net/netip"

	"github.com/ieum-rtc/ieum/internal/signaling"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// LimitSettings bound what clients may cost. nil is the default, -1 unlimited.
type LimitSettings struct {
	// Open signaling connections of all transports; see transport.ConnLimiterConfig.
	Connections  *int
	Unregistered *int // of them per client address, before they register
	QueuedBytes  *int // for all clients together; see transport.NewBacklog

	RoomsPerUser *int // open rooms created by one user

	// Per client address, of clients without user tokens.
	SessionsPerAddress, RoomsPerAddress *int

	// Per minute; see signaling.Limits.
	FailedLogins, Joins, FailedJoins, FailedJoinsPerAddress, Candidates, Takeovers *int
}

// plan returns the limits of the transports and of signaling.
func (l LimitSettings) plan() (
	conns transport.ConnLimiterConfig, limits signaling.Limits, _ error,
) {
	var errs []error
	var queued int // see Queued
	for _, of := range []struct {
		flag string
		n    *int
		into *int
	}{
		{"--max-queued-bytes", l.QueuedBytes, &queued},
		{"--max-connections", l.Connections, &conns.Connections},
		{"--max-unregistered-per-address", l.Unregistered, &conns.Unregistered},
		{"--max-rooms-per-user", l.RoomsPerUser, &limits.Rooms},
		{"--max-sessions-per-address", l.SessionsPerAddress, &limits.AddressSessions},
		{"--max-rooms-per-address", l.RoomsPerAddress, &limits.AddressRooms},
		{"--max-failed-logins", l.FailedLogins, &limits.FailedLogins},
		{"--max-joins", l.Joins, &limits.Joins},
		{"--max-failed-joins", l.FailedJoins, &limits.FailedJoins},
		{"--max-failed-joins-per-address", l.FailedJoinsPerAddress, &limits.FailedJoinsOfAddress},
		{"--max-candidates", l.Candidates, &limits.Candidates},
		{"--max-takeovers", l.Takeovers, &limits.Takeovers},
	} {
		switch {
		case of.n == nil:
		case *of.n == 0 || *of.n < -1:
			errs = append(
				errs, blamef(of.flag, "must be at least 1, or -1 for unlimited, not %d", *of.n),
			)
		default:
			*of.into = *of.n
		}
	}
	return conns, limits, errors.Join(errs...)
}

// Queued is QueuedBytes as transport.NewBacklog takes it.
func (l LimitSettings) Queued() int {
	if l.QueuedBytes == nil {
		return 0
	}
	return *l.QueuedBytes
}

// parseProxies reads networks or single addresses.
func parseProxies(list []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	var errs []error
	for _, s := range list {
		n, err := netip.ParsePrefix(s)
		if a, alone := netip.ParseAddr(s); alone == nil && a.Zone() == "" {
			n, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil || n.Addr().Is4In6():
			errs = append(
				errs,
				blamef(
					"--trusted-proxy",
					"%q is neither an IP address nor a network like 192.0.2.0/24", s,
				),
			)
		case n.Bits() == 0:
			errs = append(errs, blamef(
				"--trusted-proxy",
				"%q is every address, so that any client could claim any address: list the proxies",
				s,
			))
		default:
			networks = append(networks, n.Masked())
		}
	}
	return networks, errors.Join(errs...)
}
