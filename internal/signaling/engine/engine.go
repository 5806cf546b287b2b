// Package engine declares what connects the nodes of a deployment: a Bus, which carries messages
// between them, and a Directory, which decides who holds what.
//
// The hub of package signaling uses these interfaces and does not know what implements them, or how
// many nodes there are. Package enginetest holds the tests that every implementation passes.
//
// The owner in memory is the truth: the sessions and rooms of a node are what its hub says they
// are. The Directory says only which node that is, with a number that grows at every change (an
// epoch for a user id, a term for a room). A node that has seen a number refuses lower ones, so
// that a node which was cut off or stopped cannot speak for what it has lost meanwhile.
package engine

import (
	"context"
	"errors"
)

// What a Directory refuses. Errors may be wrapped. Any other error, and the end of the context,
// leaves it unknown whether the change was made; ClaimUser and ClaimRoom may be repeated then.
var (
	ErrTaken       = errors.New("user id in use")
	ErrLicenseFull = errors.New("license is full")
	// ErrStale: the epoch or term is lower than one that has been given since, or this node counts
	// as dead and what it held may be with another.
	ErrStale = errors.New("superseded by a later term")
	// ErrNoQuorum: this node does not reach the nodes that must agree. It may be tried again.
	ErrNoQuorum = errors.New("no quorum of nodes")
)

// What a Bus refuses.
var (
	// ErrNoNode: the bus has never heard of the node, or the node is dead.
	ErrNoNode = errors.New("no such node")
	// ErrQueueFull: too much waits to be sent to the node. The message is lost, and the node is
	// told of a gap.
	ErrQueueFull = errors.New("queue to the node is full")
	// ErrLost: the request or its response is lost. It is unknown whether it was carried out.
	ErrLost = errors.New("request or response lost")
)

// Location is the place of a user's one session.
type Location struct {
	Node    string
	Session string
	// Epoch counts the holders of user ids. The next holder of an id has a higher one, also when
	// nobody held the id in between.
	Epoch uint64
}

// Owner is the node that holds a room. The zero Owner: no node does.
type Owner struct {
	Node string
	// Term grows with every owner of the room, also when the room ends and is created again.
	Term uint64
}

// NodeState is what the nodes agree on about one of them.
type NodeState int

const (
	Up       NodeState = iota + 1
	Draining           // it takes no new sessions and rooms, and hands over those it has
	Dead               // its lease has ended, or it left; the Directory refuses its claims
)

// known tells whether s is one of the states above. A later version may have more.
func (s NodeState) known() bool { return s >= Up && s <= Dead }

func (s NodeState) String() string {
	switch s {
	case Up:
		return "up"
	case Draining:
		return "draining"
	case Dead:
		return "dead"
	}
	return "unknown"
}

// Node is a node as the Directory knows it.
type Node struct {
	Name string
	// Incarnation grows whenever the node joins: when its process starts, and when it comes back
	// after it counted as dead.
	Incarnation uint64
	State       NodeState
}

// Directory says which session holds a user id, and which node holds a room. All nodes share it.
//
// Its answers are linearizable: a call sees every change that was answered before it began, on
// whichever node. An implementation that cannot reach a quorum returns ErrNoQuorum, as soon as it
// knows and at the latest when the context ends; it never answers from what it remembers.
//
// Calls may wait for other nodes. All methods may be called concurrently.
type Directory interface {
	// ClaimUser gives the user id to l if nobody holds it and the tenant has fewer than limit user
	// ids taken. It returns l with its epoch.
	//
	// With epoch 0 the epoch is new: higher than any before. With another epoch l keeps it; that
	// is how a session comes back after a restart of its node. ErrStale: an epoch as high or
	// higher has been released or replaced since.
	//
	// A location that holds the id already holds it on: the call succeeds, whatever the limit. With
	// epoch 0 the same node and session count as the same location, so that a claim whose answer
	// was lost can be repeated.
	//
	// ErrTaken comes with the present holder. ErrLicenseFull.
	ClaimUser(ctx context.Context, tenant, user string, l Location, limit int) (Location, error)

	// TakeUser gives the user id to l in one step if from holds it, and returns l with a new
	// epoch; the epoch that l comes with is ignored. The tenant's user ids stay as many as they
	// are. From may be on a dead node, and may be the same session on another node.
	//
	// ErrTaken, with the present holder if there is one: from does not hold the id, and nothing
	// has changed.
	TakeUser(ctx context.Context, tenant, user string, from, l Location) (Location, error)

	// Holder returns the location that holds the user id; the zero Location: nobody does.
	Holder(ctx context.Context, tenant, user string) (Location, error)

	// ReleaseUser frees the id if l still holds it; otherwise nothing changes, and there is no
	// error. With epoch 0 the same node and session count as l.
	ReleaseUser(ctx context.Context, tenant, user string, l Location) error

	// ClaimRoom makes o.Node the owner of the room if there is none, with a term higher than any
	// before and higher than o.Term, which is the last term of the room that the node knows of. It
	// returns the owner, which may be another node: that is no error, also if that node is dead.
	//
	// If o.Node is the owner already, it stays the owner with the term that it has.
	ClaimRoom(ctx context.Context, tenant, room string, o Owner) (Owner, error)

	// TakeRoom makes node the owner of the room in one step if from is, with a new term as for
	// ClaimRoom. From may be dead. ErrTaken, with the present owner: from is not the owner, and
	// nothing has changed.
	TakeRoom(ctx context.Context, tenant, room string, from Owner, node string) (Owner, error)

	// RoomOwner returns the owner of the room; the zero Owner: there is none.
	RoomOwner(ctx context.Context, tenant, room string) (Owner, error)

	// ReleaseRoom ends the ownership of o, node and term, if it lasts; otherwise nothing changes,
	// and there is no error.
	ReleaseRoom(ctx context.Context, tenant, room string, o Owner) error

	// ReleaseNode frees every user id and room that the node holds since this incarnation or an
	// earlier one, unless it is up or draining with that incarnation: ErrTaken. What the node
	// claimed again with a later incarnation stays. Any node may call it, several times.
	ReleaseNode(ctx context.Context, node string, incarnation uint64) error

	// Announce makes the state of this node known: Draining and back to Up, or Dead when it leaves
	// for good, so that nobody has to wait for its lease to end.
	Announce(ctx context.Context, state NodeState) error

	// Watch calls f with each node that is known, this one too, and then with every change, in the
	// order in which they were decided. Calls do not overlap, and none begins after stop returns;
	// stop must not be called by f. F must not block.
	//
	// A node is dead when its lease has ended: the Directory has not heard from it for a time that
	// it measures with a clock which goes on while the machine is suspended (CLOCK_BOOTTIME on
	// Linux), never with the wall clock. Until it joins again, with a higher incarnation, its
	// calls are refused with ErrStale. What it held stays held until it is taken or released.
	//
	// A node that was cut off learns of its own death as soon as it reaches a quorum again: f is
	// called with itself as Dead, then as Up with a higher incarnation. What it holds and was not
	// taken it claims again, with the epochs and terms that it has.
	Watch(f func(Node)) (stop func())

	// Quorum is nil while this node can have claims decided, and ErrNoQuorum otherwise. It does
	// not wait: it says what this node has last seen, and never longer than its lease lasts.
	Quorum() error
}

// Bus carries messages from this node to others and back. Payloads mean nothing to it.
//
// What one node sends to another is one stream: messages, requests and responses arrive in the
// order in which Send, Request and respond were called. The streams of two pairs of nodes are
// independent, also the two directions of one pair.
//
// Everything arrives at most once. If something is lost the receiver is told with Lost, at the
// place in the stream where it is missing. The bus waits for nothing that is missing, and sends
// nothing again. It notices a loss at the latest 50 ms after the sender and the receiver reach each
// other, also if nothing more is sent. A sender that starts again begins a new stream: receivers
// that had an earlier one of the node are told with Lost, and nothing of the earlier one arrives
// after that.
//
// Queues are bounded. A full one is a loss like any other: nobody waits for a slow node.
//
// Implementations put a version into their frames, and the sender's incarnation. A frame of an
// unknown version is a loss.
//
// All methods may be called concurrently.
type Bus interface {
	// Serve hands to h what other nodes send to this one, until stop is called; it is called once.
	// No call of h begins after stop returns, and requests of this node that wait end with ErrLost.
	Serve(h Handler) (stop func())

	// Send sends payload to a node. It does not wait, and does not keep payload. ErrNoNode,
	// ErrQueueFull.
	Send(node string, payload []byte) error

	// Request sends payload and waits for the response. When it returns, everything that the node
	// sent before its response has been handled (Handler.Message has returned).
	//
	// ErrNoNode, ErrQueueFull; ErrLost as soon as the bus knows that the request or the response
	// is lost, or that the node is dead; the error of ctx when it ends.
	Request(ctx context.Context, node string, payload []byte) ([]byte, error)
}

// Handler takes what other nodes send. The methods are called with one stream at a time per sending
// node, in its order; calls for several nodes may overlap. They only enqueue: what waits for a lock
// that is held during a call of a Bus or a Directory runs elsewhere. Payloads are valid during the
// call only.
type Handler interface {
	// Message takes a message that from sent with Send.
	Message(from string, payload []byte)

	// Request takes a request of from. Respond sends the response; it is called at most once, later
	// or at once, by any goroutine, and does not wait or keep the response.
	Request(from string, payload []byte, respond func(response []byte))

	// Lost tells that something is missing in the stream from the node: everything before it has
	// been handed over, and what follows comes after it.
	Lost(from string)
}
