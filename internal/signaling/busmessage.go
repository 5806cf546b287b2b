package signaling

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// A payload on the bus begins with busVersion and a kind. Nodes of neighbouring versions talk to
// each other: fields may be added to the JSON of a version, and are never given another meaning.
const busVersion = 1

const (
	kindJSON   = 'j' // a busMessage
	kindRelay  = 'r' // a relayMessage
	kindDirect = 'd' // a directMessage

	kindReplicas = 'p' // records of sessions and rooms, see replicaHeader
	kindResend   = 'q' // asks for all replicas
)

var (
	errBusVersion = errors.New("bus message of another version")
	errBusMessage = errors.New("bus message not understood")
)

// busMessage is what travels between nodes as JSON. One of the fields is set.
type busMessage struct {
	Command *commandMessage `json:"command,omitempty"` // a request: command a room
	Event   *eventMessage   `json:"event,omitempty"`   // what a room says
	Evict   *evictMessage   `json:"evict,omitempty"`   // a request: end a session
	Take    *takeMessage    `json:"take,omitempty"`    // a request: hand a session over
	Rooms   *roomsMessage   `json:"rooms,omitempty"`   // a request: tell of a dead node's rooms
	In      *inMessage      `json:"in,omitempty"`      // a request: is a session in a room
	Owner   *ownerMessage   `json:"owner,omitempty"`   // the sender owns a room
	Adopt   *adoptMessage   `json:"adopt,omitempty"`   // a request: take a room over
}

// commandMessage commands a room that the receiver owns with this term.
type commandMessage struct {
	Key  room.Key        `json:"key"`
	Term uint64          `json:"term"`
	Name string          `json:"name"` // of the command's type
	Body json.RawMessage `json:"body"`
}

// eventMessage is an event of a room that the sender owns with this term.
type eventMessage struct {
	Term  uint64          `json:"term"`
	To    []string        `json:"to"` // sessions
	Event json.RawMessage `json:"event"`
}

type evictMessage struct {
	Location Location `json:"location"`
	Reason   string   `json:"reason"`
	// Moved: another node has the session itself, and the client is to resume it.
	Moved bool `json:"moved,omitempty"`
}

// busResponse answers a request.
type busResponse struct {
	State   *room.State   `json:"state,omitempty"`
	Session *movedSession `json:"session,omitempty"`
	Error   string        `json:"error,omitempty"`

	In    whichRoom         `json:"in,omitempty"`
	Rooms []json.RawMessage `json:"rooms,omitempty"` // knownRoom
	More  string            `json:"more,omitempty"`  // the last record of Rooms; "": that is all
}

// relayMessage is a message from one member to another.
type relayMessage struct {
	Room    room.Key
	Session string
	From    string
	Message []byte
}

// directMessage is a message from a user to another one of the same license.
type directMessage struct {
	Tenant  string
	Session string
	From    string
	Message []byte
}

// commands are those that may come from another node, by the name of their type.
var commands = func() map[string]reflect.Type {
	m := map[string]reflect.Type{}
	for _, c := range []room.Command{
		room.Create{}, room.Join{}, room.Leave{}, room.Sync{}, room.Refresh{}, room.Move{},
		room.Get{},
		room.Destroy{}, room.StartShare{}, room.StopShare{}, room.Edit{}, room.EditMember{},
		room.SetPermit{}, room.Kick{}, room.Broadcast{}, room.PublishFeed{}, room.UnpublishFeed{},
		room.AnnounceGroup{}, room.EndGroup{},
	} {
		m[reflect.TypeOf(c).Name()] = reflect.TypeOf(c)
	}
	return m
}()

// roomErrors keep their identity on the way between nodes.
var roomErrors = []error{
	room.ErrNoRoom, room.ErrExists, room.ErrFull, room.ErrAlreadyIn, room.ErrNotIn,
	room.ErrTooManyRooms, room.ErrTooManyOwned, room.ErrStale, room.ErrDenied, room.ErrSharing,
	room.ErrNoMember, room.ErrCapacity, room.ErrNoGroup, room.ErrTooManyGroups,
	room.ErrTooManyFromAddress, room.ErrBanned, room.ErrUnlisted, room.ErrBusy,
	room.ErrStateTooLarge, room.ErrGroupTooLarge,
}

// nodeErrors are those of another node that the asking one acts on.
var nodeErrors = []error{errNotOwner, errNodeBusy, errClosing, errGone, ErrNoQuorum, ErrStale}

func encodeBus(p busMessage) ([]byte, error) {
	body, err := protocol.Marshal(p)
	if err != nil {
		return nil, wrap("encode bus message", err)
	}
	return append([]byte{busVersion, kindJSON}, body...), nil
}

// cutHeader returns the kind of a payload, and what follows.
func cutHeader(payload []byte) (kind byte, rest []byte, err error) {
	if len(payload) < 2 {
		return 0, nil, errBusMessage
	}
	if payload[0] != busVersion {
		return 0, nil, errBusVersion
	}
	return payload[1], payload[2:], nil
}

func decodeBus(body []byte) (p busMessage, err error) {
	if err := json.Unmarshal(body, &p); err != nil {
		return p, fmt.Errorf("%w: %w", errBusMessage, err)
	}
	return p, nil
}

// appendFields appends strings with their lengths.
func appendFields(b []byte, fields ...string) []byte {
	for _, f := range fields {
		b = binary.AppendUvarint(b, uint64(len(f)))
		b = append(b, f...)
	}
	return b
}

// cutFields reads what appendFields wrote, and returns the rest.
func cutFields(b []byte, into ...*string) (rest []byte, err error) {
	for _, f := range into {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return nil, errBusMessage
		}
		*f = string(b[k : k+int(n)])
		b = b[k+int(n):]
	}
	return b, nil
}

// appendBus appends the whole payload.
func (m relayMessage) appendBus(b []byte) []byte {
	b = append(b, busVersion, kindRelay)
	b = appendFields(b, m.Room.Tenant, m.Room.Room, m.Session, m.From)
	return append(b, m.Message...)
}

func (m *relayMessage) decode(b []byte) (err error) {
	m.Message, err = cutFields(b, &m.Room.Tenant, &m.Room.Room, &m.Session, &m.From)
	return err
}

// appendBus appends the whole payload.
func (m directMessage) appendBus(b []byte) []byte {
	b = append(b, busVersion, kindDirect)
	return append(appendFields(b, m.Tenant, m.Session, m.From), m.Message...)
}

func (m *directMessage) decode(b []byte) (err error) {
	m.Message, err = cutFields(b, &m.Tenant, &m.Session, &m.From)
	return err
}

// err returns the error that the response of another node holds.
func (a busResponse) err(node string) error {
	if a.Error == "" {
		return nil
	}
	for _, known := range [][]error{roomErrors, nodeErrors} {
		for _, e := range known {
			if e.Error() == a.Error {
				return e
			}
		}
	}
	return fmt.Errorf("node %s: %s", node, a.Error)
}

// respondWith is the payload of a response. The errors of nodes may be wrapped.
func respondWith(a busResponse, err error) []byte {
	if err != nil {
		a = busResponse{Error: err.Error()}
		for _, e := range nodeErrors {
			if errors.Is(err, e) {
				a.Error = e.Error()
			}
		}
	}
	b, err := protocol.Marshal(a)
	if err != nil { // cannot happen: strings, numbers and times
		return nil
	}
	return b
}

// unreachable tells whether a request of another node failed though it may be repeated.
func unreachable(err error) bool {
	for _, e := range []error{
		engine.ErrLost, engine.ErrNoNode, engine.ErrQueueFull, ErrNoQuorum, ErrStale,
		errNotOwner, errNodeBusy, errClosing,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return isTimeout(err)
}
