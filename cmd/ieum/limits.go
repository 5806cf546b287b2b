package main

import "github.com/ieum-rtc/ieum/internal/node"

// limitFlags bound what clients may cost. They are pointers: 0 would let nobody in, and is a fault.
type limitFlags struct {
	MaxConnections        *int     `help:"Connections of clients at a time; those that resume find room for an eighth more (default 50000; -1 no limit)." placeholder:"N"`
	MaxStrangers          *int     `help:"Connections of one address whose users have not registered yet (default 50; -1 no limit)." placeholder:"N"`
	MaxFailedLogins       *int     `help:"Logins a minute of one address with a license or user token that is none; then all from there are refused (default 10; -1 no limit)." placeholder:"N"`
	MaxJoins              *int     `help:"Rooms a minute that a user may join (default 20; -1 no limit)." placeholder:"N"`
	MaxFailedJoins        *int     `help:"Rooms a minute that a user may name in vain; then it can name no other (default 20; -1 no limit)." placeholder:"N"`
	MaxFailedJoinsAddress *int     `help:"Rooms a minute that there are none of and that users of one address may name (default 200; -1 no limit)." placeholder:"N"`
	MaxCandidates         *int     `help:"Messages with candidates that a session may send a minute (default 1000; -1 no limit)." placeholder:"N"`
	MaxUserRooms          *int     `help:"Rooms at a time that one user may have made (default 100; -1 no limit)." placeholder:"N"`
	MaxUnread             *int     `help:"Bytes that wait for all clients together; beyond it those with the most are closed (default a quarter of GOMEMLIMIT, 268435456 at most; -1 no limit)." placeholder:"BYTES"`
	MaxTakeovers          *int     `help:"Times a minute that a user id may be taken over without its session's own secret (default 3; -1 no limit)." placeholder:"N"`
	TrustedProxy          []string `help:"Address or network of a proxy whose X-Forwarded-For says who the client is; repeatable." placeholder:"CIDR"`
}

func (f limitFlags) settings() node.LimitSettings {
	return node.LimitSettings{
		Connections: f.MaxConnections, Strangers: f.MaxStrangers, UserRooms: f.MaxUserRooms, Unread: f.MaxUnread,
		FailedLogins: f.MaxFailedLogins, Joins: f.MaxJoins, FailedJoins: f.MaxFailedJoins, FailedJoinsOfAddress: f.MaxFailedJoinsAddress,
		Candidates: f.MaxCandidates, Takeovers: f.MaxTakeovers,
	}
}
