package main

import "github.com/ieum-rtc/ieum/internal/config"

// limitFlags bound what clients may cost. They are pointers: 0 would let nobody in, and is a fault.
type limitFlags struct {
	MaxConnections        *int     `help:"Connections of clients at a time; resumed sessions may use an eighth more (default 50000; -1 no limit)." placeholder:"N"`
	MaxStrangers          *int     `help:"Connections of one address whose users have not registered yet (default 50; -1 no limit)." placeholder:"N"`
	MaxFailedLogins       *int     `help:"Logins with an invalid license or user token, per minute and address; then all its logins are refused (default 10; -1 no limit)." placeholder:"N"`
	MaxJoins              *int     `help:"Joins per minute and user (default 20; -1 no limit)." placeholder:"N"`
	MaxFailedJoins        *int     `help:"Failed joins per minute and user: nonexistent, full or forbidden rooms (default 20; -1 no limit)." placeholder:"N"`
	MaxFailedJoinsAddress *int     `help:"Requests for nonexistent rooms, per minute and address (default 200; -1 no limit)." placeholder:"N"`
	MaxCandidates         *int     `help:"Messages with ICE candidates, per minute and session (default 1000; -1 no limit)." placeholder:"N"`
	MaxUserRooms          *int     `help:"Rooms at a time that one user may have made (default 100; -1 no limit)." placeholder:"N"`
	MaxUnread             *int     `help:"Bytes that wait for all clients together; beyond it those with the most are closed (default: a quarter of GOMEMLIMIT, 268435456 at most; -1 no limit)." placeholder:"BYTES"`
	MaxAddressSessions    *int     `help:"Sessions at a time of one address, for licenses that admit without a user token (default 200; -1 no limit)." placeholder:"N"`
	MaxAddressRooms       *int     `help:"Rooms at a time made from one address, for licenses that admit without a user token (default 200; -1 no limit)." placeholder:"N"`
	MaxTakeovers          *int     `help:"Takeovers of a user id without the secret of its session, per minute (default 3; -1 no limit)." placeholder:"N"`
	TrustedProxy          []string `help:"Address or network of a proxy whose X-Forwarded-For names the client; repeatable (default: none)." placeholder:"CIDR" group:"network"`
}

func (f limitFlags) settings() config.LimitSettings {
	return config.LimitSettings{
		Connections: f.MaxConnections, Unregistered: f.MaxStrangers, RoomsPerUser: f.MaxUserRooms,
		SessionsPerAddress: f.MaxAddressSessions, RoomsPerAddress: f.MaxAddressRooms, QueuedBytes: f.MaxUnread,
		FailedLogins: f.MaxFailedLogins, Joins: f.MaxJoins, FailedJoins: f.MaxFailedJoins, FailedJoinsPerAddress: f.MaxFailedJoinsAddress,
		Candidates: f.MaxCandidates, Takeovers: f.MaxTakeovers,
	}
}
