package signaling

import (
	"errors"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/protocol"
)

// metrics are counted where every message passes: each has a place of its own, found without
// allocating, whatever a client sends.
type metrics struct {
	relayed, spoofed, flooded atomic.Uint64
	resumed, overflowed, late atomic.Uint64
	manyHere                  atomic.Uint64     // refused
	candidates, manyRooms     atomic.Uint64     // refused
	long, small               atomic.Uint64     // messages, frames
	refusedFlood              atomic.Uint64     // messages beyond the rate
	toRoom, toOne             atomic.Uint64     // messages beyond a budget
	unread, waiting           atomic.Uint64     // messages not delivered
	answered                  [][]atomic.Uint64 // by place in opNames and codeNames
	refused                   []atomic.Uint64   // by place in loginReasons
	joins                     prometheus.Histogram
}

var codeNames = []protocol.Code{
	protocol.OK, protocol.BadRequest, protocol.Unauthorized, protocol.NoData, protocol.UnknownOp,
	protocol.NotOffered, protocol.InUse, protocol.NotRegistered, protocol.NoPermission,
	protocol.Missing, protocol.Invalid, protocol.TooMany, protocol.Sharing, protocol.NoRoom,
	protocol.AlreadyIn, protocol.RoomExists, protocol.RoomFull, protocol.OverLimit,
	protocol.Internal, protocol.Timeout,
}

// what has no place of its own counts here
const other = "other"

var (
	opNames   []string // filled by init: the handlers refer to what counts
	opIndex   map[string]int
	codeIndex = indexByName(codeNames)
)

func init() {
	opNames = slices.Sorted(maps.Keys(handlers))
	opIndex = indexByName(opNames)
}

func indexByName[T comparable](names []T) map[T]int {
	m := make(map[T]int, len(names))
	for i, n := range names {
		m[n] = i
	}
	return m
}

type loginReason struct {
	name string
	err  error
}

// loginReasons say why a register was refused; the last is for all else.
var loginReasons = []loginReason{
	{"swapped", license.ErrSwapped},
	{"expired", license.ErrExpired},
	{"not_yet", license.ErrNotYet},
	{"token_expired", license.ErrTokenExpired},
	{"token_needed", license.ErrUserTokenNeeded},
	{"no_license", license.ErrNoLicense},
	{"revoked", license.ErrRevoked},
	{"license", license.ErrRefused},
	{"origin", errOrigin},
	{"token_user", errTokenUser},
	{"failed_logins", errTooManyFailedLogins},
	{"takeovers", errTooManyTakeovers},
	{"gone", errGone},
	{"in_use", ErrTaken},
	{"full", ErrLicenseFull},
	{"address", errTooManyAddressSessions},
	{"server_full", errServerFull},
	{other, nil},
}

func (f *metrics) init() {
	f.answered = make([][]atomic.Uint64, len(opNames)+1)
	for i := range f.answered {
		f.answered[i] = make([]atomic.Uint64, len(codeNames)+1)
	}
	f.refused = make([]atomic.Uint64, len(loginReasons))
	f.joins = newJoinTimes()
}

// answer counts a message by what became of it.
func (f *metrics) answer(op []byte, code protocol.Code) {
	o, ok := opIndex[string(op)]
	if !ok {
		o = len(opNames)
	}
	c, ok := codeIndex[code]
	if !ok {
		c = len(codeNames)
	}
	f.answered[o][c].Add(1)
}

// login counts a register that was refused.
func (f *metrics) login(err error) {
	i := slices.IndexFunc(loginReasons, func(r loginReason) bool {
		return r.err == nil || errors.Is(err, r.err)
	})
	f.refused[i].Add(1)
}

// Handled counts the messages with an eventOp by the code of their answer, given or not.
type Handled struct {
	Op, Code string
	Count    uint64
}

func (f *metrics) handled() []Handled {
	var all []Handled
	for o := range f.answered {
		op := other
		if o < len(opNames) {
			op = opNames[o]
		}
		for c := range f.answered[o] {
			code := other
			if c < len(codeNames) {
				code = string(codeNames[c])
			}
			if n := f.answered[o][c].Load(); n > 0 {
				all = append(all, Handled{op, code, n})
			}
		}
	}
	return all
}

func (f *metrics) logins() map[string]uint64 {
	m := make(map[string]uint64, len(loginReasons))
	for i, r := range loginReasons {
		m[r.name] = f.refused[i].Load()
	}
	return m
}
