package signaling

import (
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// What connects this node to others; package engine states the promises.
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

// Keeper remembers what must outlast a restart of this node.
type Keeper interface {
	// Load returns everything that is kept.
	Load() (map[string][]byte, error)
	// Keep notes that the value of key has changed. It does not block: value is called soon, once
	// for several changes in a row, and what it returns is written; nil removes the key. A crash
	// may lose the last moment.
	Keep(key string, value func() []byte)
}

// ICEIssuer hands out STUN and TURN servers with credentials of limited life. host is the name by
// which the client reached us.
type ICEIssuer interface {
	ICEServers(host, tenant, session string, relay bool) []protocol.ICEServer
}
