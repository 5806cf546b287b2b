package signaling

import (
	"context"
	"errors"
	"fmt"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// Errors of signaling itself.
var (
	errNotRegistered         = errors.New("not registered")
	errRegistered            = errors.New("registered already")
	errForeign               = errors.New("another user's id")
	errNoTarget              = errors.New("no such user, or no common room")
	errOrigin                = errors.New("origin not allowed")
	errTokenUser             = errors.New("user token of another user")
	errTokenRoom             = errors.New("room not in the user token")
	errTooManyFailedLogins   = errors.New("too many failed logins of the address")
	errTooManyJoins          = errors.New("too many joins of the user")
	errTooManyAddressJoins   = errors.New("too many joins of the address")
	errTooManyLookups        = errors.New("too many rooms named in vain")
	errTooManyAddressLookups = errors.New("too many rooms named in vain from the address")
	errTooManyCandidates     = errors.New("too many candidates of the session")
	errTooManyTakeovers      = errors.New("user id taken over too often")
	errMessageRate           = errors.New("too many messages of the session")
	errRoomBudget            = errors.New("too much for the room")
	errUserBudget            = errors.New("too much for one user")
	errCandidatesTooLarge    = errors.New("message with candidates too long")
	errPendingShare          = errors.New("too much of the sender waits for the target")
	errPendingFull           = errors.New("too much waits for the target")
	errServerFull            = errors.New("server full, and nothing resumed")
	errGone                  = errors.New("session is gone")
	errInRoom                = errors.New("in another room")
	errUnknownOp             = errors.New("unknown eventOp")
	errNotOffered            = errors.New("not offered")
	errNotOwner              = errors.New("room of another node, or of another term")
	errNodeBusy              = errors.New("too many requests of other nodes wait")
	errClosing               = errors.New("node is closing")
)

var (
	errTooManyAddressSessions = errors.New("too many sessions of the address")
	errTooManyAddressLogins   = fmt.Errorf("%w within a minute", errTooManyAddressSessions)
	errOvertaken              = fmt.Errorf("%w: taken over before the session began", ErrTaken)
	errStaleAttempt           = fmt.Errorf("%w: by a later attempt of the client", ErrTaken)
)

var errUntargeted = &protocol.FieldError{
	Code:   protocol.Missing,
	Field:  "target",
	Reason: "is missing",
}

// outcomes maps errors to codes and sentences. An error that is not listed is internal: it is
// logged, and the client gets 500.
var outcomes = []struct {
	err           error
	code          protocol.Code
	message, hint string
}{
	{
		license.ErrSwapped, protocol.Unauthorized,
		"The license is not valid.",
		"cpCode and authKey look swapped: init(cpCode, authKey).",
	},
	{
		license.ErrExpired, protocol.Unauthorized,
		"The license has expired.",
		"Ask the operator of this server for a new authKey.",
	},
	{
		license.ErrNotYet, protocol.Unauthorized,
		"The license is not valid yet.",
		"Check its startDate and the server's clock.",
	},
	{
		license.ErrTokenExpired, protocol.Unauthorized,
		"The user token has expired.",
		"Get a new one from your backend before init.",
	},
	{
		license.ErrUserTokenNeeded, protocol.Unauthorized,
		"This license requires a user token.",
		"Sign a user token on your backend with userTokenKey and pass it instead of authKey.",
	},
	{
		license.ErrNoLicense, protocol.Unauthorized,
		"The user token contains no license, and this server has none for its cpCode.",
		"Put the authKey into the claim license, or ask the operator to list it (--licenses).",
	},
	{
		license.ErrRefused, protocol.Unauthorized,
		"The license is not valid.",
		"Use the cpCode and authKey as issued by the operator of this server.",
	},
	{
		errNotRegistered, protocol.Unauthorized,
		"This connection is not registered.",
		"Send register first.",
	},
	{
		errRegistered, protocol.BadRequest,
		"This connection is registered already.",
		"Open another connection for another user.",
	},
	{
		errForeign, protocol.NoPermission,
		"userId is not this connection's own.",
		"Leave userId out, or send your own.",
	},
	{
		errOrigin, protocol.NoPermission,
		"The license does not allow pages of this origin.",
		"Ask the operator to add the origin of the page to the license.",
	},
	{
		errTokenUser, protocol.NoPermission,
		"The user token is for another user id.",
		"Leave the user id out, or get a token for this one.",
	},
	{
		errTokenRoom, protocol.NoPermission,
		"The user token does not grant access to this room.",
		"Get a token from your backend whose rooms contain it.",
	},
	{
		errTooManyFailedLogins, protocol.TooMany,
		"Too many failed logins from your address.",
		"Wait a minute, or connect again with the cpCode and authKey as issued.",
	},
	{
		errTooManyJoins, protocol.TooMany,
		"You have joined rooms too often.",
		"Wait a minute.",
	},
	{
		errTooManyAddressJoins, protocol.TooMany,
		"Too many joins from your address.",
		"Wait a minute, or register with a user token.",
	},
	{
		errTooManyLookups, protocol.TooMany,
		"Too many failed room lookups.",
		"Wait a minute, and check the room id.",
	},
	{
		errTooManyAddressLookups, protocol.TooMany,
		"Too many failed room lookups from your address.",
		"Wait a minute, and check the room id.",
	},
	{
		errTooManyCandidates, protocol.TooMany,
		"You have sent too many candidates.",
		"Wait a minute; batch candidates for clients that announce the feature candidates.",
	},
	{
		errTooManyTakeovers, protocol.TooMany,
		"Too many takeovers of this user id.",
		"Wait a minute; another page may take it over as well.",
	},
	{
		errMessageRate, protocol.TooMany,
		"You send too many messages.",
		"Wait a moment; the connection is closed if this continues.",
	},
	{
		errRoomBudget, protocol.TooMany,
		"You send too many messages to your room.",
		"Wait a moment and send it again.",
	},
	{
		errUserBudget, protocol.TooMany,
		"You send too many messages to this user.",
		"Wait a moment and send it again.",
	},
	{
		errCandidatesTooLarge, protocol.OverLimit,
		"The message with candidates exceeds 32 KiB.",
		"Send the candidates in several messages.",
	},
	{
		errPendingShare, protocol.TooMany,
		"This user is disconnected, and your share of the queue is full.",
		"Send it again when the user is back.",
	},
	{
		errPendingFull, protocol.Timeout,
		"This user is disconnected, and the queue is full.",
		"Send it again when the user is back.",
	},
	{
		transport.ErrFull, protocol.Timeout,
		"This user reads too slowly.",
		"Send it again in a moment.",
	},
	{
		room.ErrBusy, protocol.TooMany,
		"Too much data is sent to this room.",
		"Wait a moment and send it again, or send less at a time.",
	},
	{
		room.ErrStateTooLarge, protocol.OverLimit,
		"The members of the room have too much data.",
		"Use a shorter name, or another room.",
	},
	{
		room.ErrGroupTooLarge, protocol.Invalid,
		"list has more entries than the capacity of the room.",
		"List members of your room, each once.",
	},
	{
		errNoTarget, protocol.NoData,
		"No such user in this room.",
		"Both users must have joined the same room.",
	},
	{
		errGone, protocol.NotRegistered,
		"The session is gone.",
		"Register again.",
	},
	{
		errOvertaken, protocol.InUse,
		"Another page took over the user id at the same time.",
		"Only one page can hold a user id; register again to take it back.",
	},
	{
		errStaleAttempt, protocol.InUse,
		"A later attempt of this client has the session.",
		"Number the attempts of an instance in the order in which you make them.",
	},
	{
		ErrTaken, protocol.InUse,
		"The user id is in use.",
		"Choose another id, or take it over with forced and a proof that it is yours: " +
			"a user token, or its resume secret.",
	},
	{
		ErrLicenseFull, protocol.OverLimit,
		"The license is full.",
		"Wait until somebody leaves, or raise maxUser.",
	},
	{
		errServerFull, protocol.OverLimit,
		"The server is full.",
		"Try again later.",
	},
	{
		errInRoom, protocol.AlreadyIn,
		"You are in another room.",
		"Leave it first.",
	},
	{
		errUnknownOp, protocol.UnknownOp,
		"Unknown eventOp.",
		"docs/protocol.md lists the operations.",
	},
	{
		errNotOffered, protocol.NotOffered,
		"This server has no media server.",
		"Use publishP2P.",
	},
	{
		room.ErrNoRoom, protocol.NoRoom,
		"No such room.",
		"Check the room id; a room ends when its last member leaves.",
	},
	{
		room.ErrAlreadyIn, protocol.AlreadyIn,
		"You are in the room already.",
		"",
	},
	{
		room.ErrExists, protocol.RoomExists,
		"A room with this id exists.",
		"Join it, or choose another id.",
	},
	{
		room.ErrFull, protocol.RoomFull,
		"The room is full.",
		"Raise the capacity given to createRoom, or use another room.",
	},
	{
		room.ErrNotIn, protocol.NotRegistered,
		"You are not in this room.",
		"",
	},
	{
		room.ErrDenied, protocol.NoPermission,
		"You may not do this in this room.",
		"Ask the host.",
	},
	{
		room.ErrStale, protocol.InUse,
		"A newer session of this user is in the room.",
		"Another page took over the user id: register again.",
	},
	{
		errTooManyAddressLogins, protocol.TooMany,
		"Too many logins from your address.",
		"Wait a minute, or register with a user token; " +
			"the operator may raise --max-sessions-per-address.",
	},
	{
		errTooManyAddressSessions, protocol.OverLimit,
		"Too many sessions from your address.",
		"Close other pages, or register with a user token; " +
			"the operator may raise --max-sessions-per-address.",
	},
	{
		room.ErrTooManyFromAddress, protocol.OverLimit,
		"Too many rooms were created from your address.",
		"Wait until some have ended, or register with a user token; " +
			"the operator may raise --max-rooms-per-address.",
	},
	{
		room.ErrBanned, protocol.NoPermission,
		"The host has put you out of this room.",
		"You can join again ten minutes after that.",
	},
	{room.ErrTooManyGroups, protocol.OverLimit, "This room has too many groups.",
		"End one with endGroup."},
	{room.ErrUnlisted, protocol.NoPermission, "You are not listed for this group.",
		"Ask the user who created it."},
	{room.ErrSharing, protocol.Sharing, "Someone else is sharing.", "Wait until they stop."},
	{room.ErrNoMember, protocol.NotRegistered, "No such member in this room.", ""},
	{room.ErrCapacity, protocol.Invalid, "capacity is below the present number of members.", ""},
	{room.ErrNoGroup, protocol.NoData, "No such group.", ""},
	{room.ErrTooManyRooms, protocol.OverLimit, "Too many rooms.",
		"Wait until rooms have ended, or raise the license's maxRooms."},
	{
		ErrNoQuorum, protocol.ClusterError, "This server cannot reach the others.",
		"Try again in a second; calls and rooms that exist go on.",
	},
	{
		ErrStale, protocol.ClusterError, "This server was cut off from the others, and is " +
			"catching up.",
		"Try again in a second.",
	},
	{
		engine.ErrNoNode, protocol.ClusterError, "The server that has the room is not reachable.",
		"Try again in a second.",
	},
	{
		engine.ErrLost, protocol.ClusterError, "The request was lost between two servers.",
		"Try again; it may have been carried out.",
	},
	{
		context.DeadlineExceeded, protocol.ClusterError, "Another server did not answer in time.",
		"Try again in a second.",
	},
	{
		errNotOwner, protocol.ClusterError, "The room is moving to another server.",
		"Try again in a second.",
	},
	{
		errClosing, protocol.ClusterError, "The server that has the room is stopping.",
		"Try again in a second.",
	},
	{
		errNodeBusy, protocol.Timeout, "Too much waits for the server that has the room.",
		"Try again in a moment.",
	},
	{
		engine.ErrQueueFull, protocol.Timeout,
		"Too much waits for the server of this user or room.",
		"Send it again in a moment.",
	},
	{room.ErrTooManyOwned, protocol.OverLimit, "You have created too many rooms.",
		"Wait until some have ended, or end them with destroyRoom."},
	{protocol.ErrSyntax, protocol.BadRequest, "The message is not one JSON object.", ""},
	{protocol.ErrDepth, protocol.BadRequest, "The message is nested deeper than 32 levels.", ""},
	{protocol.ErrDuplicate, protocol.BadRequest, "The message repeats a top-level name.", ""},
	{protocol.ErrEscaped, protocol.BadRequest, "The message has a top-level name with escapes.",
		""},
	{protocol.ErrManyFields, protocol.BadRequest, "The message has more than 64 top-level names.",
		""},
}

// outcome translates; known is false for an internal error.
func outcome(err error) (a protocol.Answer, known bool) {
	var field *protocol.FieldError
	if errors.As(err, &field) {
		return protocol.Answer{
			Code:    field.Code,
			Message: field.Error(),
			Hint:    "docs/protocol.md lists the parameters.",
		}, true
	}
	var token *license.TokenError
	if errors.As(err, &token) {
		return protocol.Answer{
			Code:    protocol.Unauthorized,
			Message: "The user token is refused: " + token.Reason + ".",
			Hint:    "docs/protocol.md lists its claims and its key.",
		}, true
	}
	for _, o := range outcomes {
		if errors.Is(err, o.err) {
			return protocol.Answer{Code: o.code, Message: o.message, Hint: o.hint}, true
		}
	}
	return protocol.Answer{
		Code:    protocol.Internal,
		Message: "Something went wrong inside the server.",
	}, false
}
