package directory

import (
	"encoding/binary"
	"errors"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// op says what a command does.
type op byte

const (
	opClaimUser op = iota + 1
	opTakeUser
	opHolder
	opReleaseUser
	opClaimRoom
	opTakeRoom
	opRoomOwner
	opReleaseRoom
	opReleaseNode
	opAnnounce
	opJoin
	opDead
	opFound
	opSkip
)

// commandVersion begins every command. A node that does not know the version or the op of a command
// that is decided cannot follow: new ones may be sent only when every node knows them.
const commandVersion = 1

// command is one change, or one question that must see all changes before it. Every field is
// encoded, also those that its op does not use.
type command struct {
	op op
	// The node that asks, and its incarnation.
	node        string
	incarnation uint64

	tenant, id string // of a user or room
	from, to   engine.Location
	limit      int64

	other      string // opReleaseNode, opDead: a node
	number     uint64 // its incarnation; opFound: the cluster; opSkip: how many
	state      engine.NodeState
	process    uint64 // opJoin; opFound: how many numbers to skip
	address    string // opJoin
	versionFor string // opJoin: version of the program
}

var errCommand = errors.New("malformed command")

func (c *command) append(b []byte) []byte {
	b = append(b, commandVersion, byte(c.op))
	b = appendString(b, c.node)
	b = binary.AppendUvarint(b, c.incarnation)
	b = appendString(b, c.tenant)
	b = appendString(b, c.id)
	b = appendLocation(b, c.from)
	b = appendLocation(b, c.to)
	b = binary.AppendVarint(b, c.limit)
	b = appendString(b, c.other)
	b = binary.AppendUvarint(b, c.number)
	b = append(b, byte(c.state))
	b = binary.AppendUvarint(b, c.process)
	b = appendString(b, c.address)
	return appendString(b, c.versionFor)
}

func parseCommand(b []byte) (c command, err error) {
	if len(b) < 2 || b[0] != commandVersion {
		return c, errCommand
	}
	r := reader{b: b[1:]}
	c = command{
		op:          op(r.byte()),
		node:        r.string(),
		incarnation: r.uint(),
		tenant:      r.string(),
		id:          r.string(),
		from:        r.location(),
		to:          r.location(),
		limit:       r.int(),
		other:       r.string(),
		number:      r.uint(),
		state:       engine.NodeState(r.byte()),
		process:     r.uint(),
		address:     r.string(),
		versionFor:  r.string(),
	}
	if r.bad || len(r.b) > 0 {
		return c, errCommand
	}
	return c, nil
}

// result is what a command returns to the node that asked. For a room the location holds its owner:
// node, and the term as epoch.
type result struct {
	code     code
	location engine.Location
}

// code is the error of a result.
type code byte

const (
	codeOK code = iota
	codeTaken
	codeLicenseFull
	codeStale
	codeName    // another node has the name
	codeUnknown // the command is malformed, or of a later version
)

var (
	// ErrName is the error of Join while another node has the name.
	ErrName = errors.New("another node has this name")
	// ErrUnknown: a node does not know the command.
	ErrUnknown = errors.New("a node of another version does not know this command")
)

var codes = map[code]error{
	codeTaken:       engine.ErrTaken,
	codeLicenseFull: engine.ErrLicenseFull,
	codeStale:       engine.ErrStale,
	codeName:        ErrName,
	codeUnknown:     ErrUnknown,
}

// codeOf returns the code of an error of engine.Table.
func codeOf(err error) code {
	for c, e := range codes {
		if errors.Is(err, e) {
			return c
		}
	}
	return codeOK
}

func (r *result) append(b []byte) []byte {
	return appendLocation(append(b, byte(r.code)), r.location)
}

func parseResult(b []byte) (result, error) {
	r := reader{b: b}
	v := result{code: code(r.byte()), location: r.location()}
	if r.bad || len(r.b) > 0 || v.code > codeUnknown {
		return result{}, errCommand
	}
	return v, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendLocation(b []byte, l engine.Location) []byte {
	return binary.AppendUvarint(appendString(appendString(b, l.Node), l.Session), l.Epoch)
}

// reader reads what the functions above appended. After an error it reads zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.bad, r.b = true, nil }

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) int() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) string() string {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) location() engine.Location {
	return engine.Location{Node: r.string(), Session: r.string(), Epoch: r.uint()}
}
