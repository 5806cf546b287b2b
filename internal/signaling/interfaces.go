package signaling

import (
	"context"
	"errors"

	"github.com/ieum-rtc/ieum/internal/protocol"
)

// What a Directory refuses.
var (
	ErrTaken       = errors.New("user id in use")
	ErrLicenseFull = errors.New("license is full")
)

// Location is the place of a user's one session. Epoch counts the sessions of a user id; it only grows while the directory lives.
type Location struct {
	Node    string
	Session string
	Epoch   uint64
}

// Directory says who holds a user id and where, and which node holds a room. All nodes share one.
type Directory interface {
	// ClaimUser gives the user id to s, if nobody holds it and the tenant has fewer than limit seats taken, and returns s with
	// its epoch: higher than that of any holder before. A seat that comes with an epoch, after a restart, keeps it. ErrTaken
	// comes with the present holder; ErrLicenseFull.
	ClaimUser(ctx context.Context, tenant, user string, s Location, limit int) (Location, error)
	// TakeUser gives the user id to s in one step, if from holds it, and returns s with its epoch as ClaimUser does. It takes no further
	// seat of the tenant's. ErrTaken says that from does not hold it, and that nothing has changed.
	TakeUser(ctx context.Context, tenant, user string, from, s Location) (Location, error)
	// Holder returns the seat of the one who holds the user id; an empty one: nobody does.
	Holder(ctx context.Context, tenant, user string) (Location, error)
	// ReleaseUser frees the id if s still holds it; a seat that lost it is ignored.
	ReleaseUser(ctx context.Context, tenant, user string, s Location) error
	// ClaimRoom makes node the room's owner if it has none, and returns the owner.
	ClaimRoom(ctx context.Context, tenant, room, node string) (owner string, err error)
	// RoomOwner returns the node that holds the room; empty: none does.
	RoomOwner(ctx context.Context, tenant, room string) (string, error)
	// ReleaseRoom ends node's ownership.
	ReleaseRoom(ctx context.Context, tenant, room, node string) error
}

// Bus carries payloads between nodes. What one node sends to another arrives in order, at most once.
type Bus interface {
	// Serve hands what is sent to node to h until stop is called. h returns the answer to a request; it must not block for long.
	Serve(node string, h func(payload []byte) (answer []byte)) (stop func())
	// Send delivers payload; it does not wait for the other node. An error means that it was not sent.
	Send(ctx context.Context, node string, payload []byte) error
	// Request delivers payload and waits for the answer.
	Request(ctx context.Context, node string, payload []byte) ([]byte, error)
}

// Keeper remembers what must outlast a restart of this node.
type Keeper interface {
	// Load returns everything that is kept.
	Load() (map[string][]byte, error)
	// Keep notes that the value of key has changed. It does not block: value is called soon, once for several changes in a
	// row, and what it returns is written; nil removes the key. A crash may lose the last moment.
	Keep(key string, value func() []byte)
}

// ICEIssuer hands out STUN and TURN servers with credentials of limited life. host is the name by which the client reached us.
type ICEIssuer interface {
	ICEServers(host, tenant, session string, relay bool) []protocol.ICEServer
}
