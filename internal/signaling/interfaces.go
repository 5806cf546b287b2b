package signaling

import (
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// The interfaces to other nodes. Package engine documents what an implementation guarantees.
type (
	Bus       = engine.Bus
	Directory = engine.Directory
	Location  = engine.Location
	Owner     = engine.Owner
)

// What a Directory refuses.
var (
	ErrTaken       = engine.ErrTaken
	ErrLicenseFull = engine.ErrLicenseFull
	ErrStale       = engine.ErrStale
	ErrNoQuorum    = engine.ErrNoQuorum
)

// Keeper persists what must survive a restart of this node; package store implements it.
type Keeper interface {
	// Load returns everything that is kept.
	Load() (map[string][]byte, error)
	// Keep notes that the value of key has changed. It does not block: value is called soon, once
	// for several changes in a row, and what it returns is written; nil removes the key. A crash
	// may lose the last moment.
	Keep(key string, value func() []byte)
}

// ICEIssuer issues STUN and TURN servers with credentials that expire; package ice implements it.
// host is the name by which the client reached this server.
type ICEIssuer interface {
	ICEServers(host, tenant, session string, relay bool) []protocol.ICEServer
}
