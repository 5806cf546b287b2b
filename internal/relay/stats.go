package relay

import "sync/atomic"

// reason is why something was refused or dropped.
type reason int

const (
	badCredentials reason = iota
	expired
	overQuota
	noPort
	badFamily
	badTransport
	deniedPeer
	ownPort
	ownSource
	badChannel
	manyPermissions
	manyStreams
	slowStream
	malformed
	oversize
	panicked
	reasons // how many there are

	fine reason = -1
)

// names are the keys of Stats.Refused.
var names = [reasons]string{
	badCredentials:  "credentials", // user name or password wrong
	expired:         "expired",     // credentials too old to allocate
	overQuota:       "quota",       // 486
	noPort:          "capacity",    // 508: no relay port free
	badFamily:       "family",      // 440
	badTransport:    "transport",   // 442, or RFC 6062 methods
	deniedPeer:      "peer",        // 403
	ownPort:         "own-port",    // packet to our own address at no relay port
	ownSource:       "own-source",  // packet from our own address at no relay port
	badChannel:      "channel",     // 400: channel number out of range
	manyPermissions: "permissions", // 403: too many peers for one allocation
	manyStreams:     "streams",     // too many TCP connections
	slowStream:      "slow",        // no complete message in time
	malformed:       "malformed",   // neither STUN nor ChannelData
	oversize:        "oversize",    // larger than the library's buffers
	panicked:        "panic",       // a message that broke the parser
}

// Traffic counts relayed packets and their payload bytes.
type Traffic struct{ Packets, Bytes uint64 }

// Stats are counted since Start, over all transports.
type Stats struct {
	Allocations int    // live
	Allocated   uint64 // total
	// Refused has every reason as a key, also those at zero: credentials, expired, quota, capacity, family, transport, peer,
	// own-port, own-source, channel, permissions, streams, slow, malformed, oversize, panic.
	Refused                    map[string]uint64
	ClientToPeer, PeerToClient Traffic
}

type traffic struct{ packets, bytes atomic.Uint64 }

// count counts a packet with n bytes of payload that write sends. It is counted before, so that whoever has received it finds it
// counted, and taken back when it was not sent.
func (t *traffic) count(n int, write func() (int, error)) (int, error) {
	t.packets.Add(1)
	t.bytes.Add(uint64(n))
	wrote, err := write()
	if err != nil {
		t.packets.Add(^uint64(0))
		t.bytes.Add(-uint64(n))
	}
	return wrote, err
}

func (t *traffic) load() Traffic {
	return Traffic{Packets: t.packets.Load(), Bytes: t.bytes.Load()}
}

type counters struct {
	live      atomic.Int64
	allocated atomic.Uint64
	refused   [reasons]atomic.Uint64
	up, down  traffic
}

func (c *counters) refuse(r reason) { c.refused[r].Add(1) }

// Stats is a snapshot.
func (s *Server) Stats() Stats {
	refused := make(map[string]uint64, reasons)
	for r, name := range names {
		refused[name] = s.stats.refused[r].Load()
	}
	return Stats{
		Allocations:  int(s.stats.live.Load()),
		Allocated:    s.stats.allocated.Load(),
		Refused:      refused,
		ClientToPeer: s.stats.up.load(),
		PeerToClient: s.stats.down.load(),
	}
}
