package main

import (
	"strings"

	"github.com/alecthomas/kong"

	"github.com/ieum-rtc/ieum/internal/config"
)

// limitFlags bound what clients may cost. They are pointers, since 0 would admit nobody and is an
// error.
type limitFlags struct {
	MaxConnections            *int     `help:"Signaling connections; resuming sessions may use an eighth more (default ${max_connections}; -1 unlimited)." placeholder:"N"`
	MaxUnregisteredPerAddress *int     `help:"Unregistered connections per client address (default ${max_unregistered_per_address}; -1 unlimited)." placeholder:"N"`
	MaxFailedLogins           *int     `help:"Failed logins per minute and client address before further ones are rejected (default ${max_failed_logins}; -1 unlimited)." placeholder:"N"`
	MaxJoins                  *int     `help:"Joins per minute and user (default ${max_joins}; -1 unlimited)." placeholder:"N"`
	MaxFailedJoins            *int     `help:"Failed joins per minute and user: nonexistent, full or forbidden rooms (default ${max_failed_joins}; -1 unlimited)." placeholder:"N"`
	MaxFailedJoinsPerAddress  *int     `help:"Lookups of nonexistent rooms per minute and client address (default ${max_failed_joins_per_address}; -1 unlimited)." placeholder:"N"`
	MaxCandidates             *int     `help:"Messages with ICE candidates, per minute and session (default ${max_candidates}; -1 unlimited)." placeholder:"N"`
	MaxRoomsPerUser           *int     `help:"Open rooms created by one user (default ${max_rooms_per_user}; -1 unlimited)." placeholder:"N"`
	MaxQueuedBytes            *int     `help:"Bytes queued for all clients together; beyond it the slowest consumers are disconnected (default: a quarter of GOMEMLIMIT, ${max_queued_bytes} at most; -1 unlimited)." placeholder:"BYTES"`
	MaxSessionsPerAddress     *int     `help:"Sessions per client address, for licenses that require no user token (default ${max_sessions_per_address}; -1 unlimited)." placeholder:"N"`
	MaxRoomsPerAddress        *int     `help:"Open rooms created from one client address, for licenses that require no user token (default ${max_rooms_per_address}; -1 unlimited)." placeholder:"N"`
	MaxTakeovers              *int     `help:"Takeovers of a user id without its resume token, per minute (default ${max_takeovers}; -1 unlimited)." placeholder:"N"`
	TrustedProxy              []string `help:"Address or network of a reverse proxy whose X-Forwarded-For is trusted; repeatable (default: none)." placeholder:"CIDR" group:"network"`
}

func (f limitFlags) settings() config.LimitSettings {
	return config.LimitSettings{
		Connections:           f.MaxConnections,
		Unregistered:          f.MaxUnregisteredPerAddress,
		QueuedBytes:           f.MaxQueuedBytes,
		RoomsPerUser:          f.MaxRoomsPerUser,
		SessionsPerAddress:    f.MaxSessionsPerAddress,
		RoomsPerAddress:       f.MaxRoomsPerAddress,
		FailedLogins:          f.MaxFailedLogins,
		Joins:                 f.MaxJoins,
		FailedJoins:           f.MaxFailedJoins,
		FailedJoinsPerAddress: f.MaxFailedJoinsPerAddress,
		Candidates:            f.MaxCandidates,
		Takeovers:             f.MaxTakeovers,
	}
}

// defaults are the defaults that the help of flags names.
func defaults() kong.Vars {
	vars := kong.Vars{}
	for flag, value := range config.Defaults() {
		vars[strings.ReplaceAll(flag, "-", "_")] = value
	}
	return vars
}
