package relay

import (
	"sync/atomic"
	"time"
)

// reason is why something was refused or dropped.
type reason int

const (
	badCredentials reason = iota
	expired
	staleNonce
	overQuota
	noPort
	badFamily
	badTransport
	notInRoom
	deniedPeer
	ownPort
	ownSource
	otherRoom
	badChannel
	manyPermissions
	noPermission
	noAllocation
	overBandwidth
	manyStreams
	slowStream
	malformed
	unanswered
	unsent
	panicked
	reasons // how many there are

	fine     reason = -1
	unsigned reason = -2 // a request without credentials: the first step of every client
)

// names are the keys of Stats.Refused and of Record.Dropped.
var names = [reasons]string{
	badCredentials:  "credentials", // 401: user name or password wrong; 441: another session's
	expired:         "expired",     // 401: credentials too old to allocate
	staleNonce:      "nonce",       // 438
	overQuota:       "quota",       // 486
	noPort:          "capacity",    // 508: no relay port free, or a token unknown
	badFamily:       "family",      // 440, 443
	badTransport:    "transport",   // 442
	notInRoom:       "room",        // 403 at Allocate: the session is in no room
	deniedPeer:      "peer",        // 403
	ownPort:         "own-port",    // packet to our own address at no relay port
	ownSource:       "own-source",  // packet from our own address that was not relayed
	otherRoom:       "other-room",  // packet for a relayed client of another license or room
	badChannel:      "channel",     // 400: channel number out of range or taken
	manyPermissions: "permissions", // 508: too many peers for one allocation
	noPermission:    "permission",  // packet for or from a peer that is not permitted
	noAllocation:    "allocation",  // ChannelData from a stranger
	overBandwidth:   "bandwidth",   // packet over the allocation's bandwidth
	manyStreams:     "streams",     // too many TCP connections
	slowStream:      "slow",        // no complete message in time, or a client that does not read
	malformed:       "malformed",   // neither STUN nor ChannelData
	unanswered:      "unanswered",  // too many strangers' requests from one source prefix
	unsent:          "unsent",      // the system refused to send it
	panicked:        "panic",       // a message that broke the parser
}

// Traffic counts relayed packets and their payload bytes.
type Traffic struct{ Packets, Bytes uint64 }

// Stats are counted since Start, over all transports.
type Stats struct {
	Allocations int    // live
	Allocated   uint64 // total
	// Refused has every reason as a key, also those at zero: see names.
	Refused                    map[string]uint64
	ClientToPeer, PeerToClient Traffic
	// Merged counts packets that came several in one read (UDP_GRO), Segmented those that left several in one send (UDP_SEGMENT).
	Merged, Segmented uint64
	// SegmentFaults counts sends of several that the system refused; 1 and more: they are sent one by one since the last.
	SegmentFaults uint64
}

type traffic struct{ packets, bytes atomic.Uint64 }

// add counts; negative numbers take back what was not sent after all.
func (t *traffic) add(packets, bytes int) {
	t.packets.Add(uint64(packets))
	t.bytes.Add(uint64(bytes))
}

func (t *traffic) load() Traffic {
	return Traffic{Packets: t.packets.Load(), Bytes: t.bytes.Load()}
}

func (t *Traffic) sum(more Traffic) {
	t.Packets += more.Packets
	t.Bytes += more.Bytes
}

type counters struct {
	live                      atomic.Int64
	allocated                 atomic.Uint64
	refused                   [reasons]atomic.Uint64
	merged, segmented, faulty atomic.Uint64
}

func (c *counters) refuse(r reason) { c.refused[r].Add(1) }

// Stats is a snapshot.
func (s *Server) Stats() Stats {
	refused := make(map[string]uint64, reasons)
	for r, name := range names {
		refused[name] = s.stats.refused[r].Load()
	}
	var up, down Traffic
	for _, w := range s.workers {
		up.sum(w.up.load())
		down.sum(w.down.load())
	}
	return Stats{
		Allocations:   int(s.stats.live.Load()),
		Allocated:     s.stats.allocated.Load(),
		Refused:       refused,
		ClientToPeer:  up,
		PeerToClient:  down,
		Merged:        s.stats.merged.Load(),
		Segmented:     s.stats.segmented.Load(),
		SegmentFaults: s.stats.faulty.Load(),
	}
}

// Why an allocation ended.
const (
	endRefresh = "refresh" // its client ended it
	endExpired = "expired" // it was not refreshed, or is too old
	endSession = "session" // its session is in no room any more
	endStream  = "stream"  // its client's connection ended
	endClosed  = "closed"  // the server ended
)

// Record tells of an allocation that has ended.
type Record struct {
	Holder
	Transport string // of the client: udp, tcp or tls
	Duration  time.Duration
	Up, Down  Traffic
	// Dropped counts packets by reason, as in Stats.Refused; it has no zeros.
	Dropped map[string]uint64
	// Why is refresh, expired, session, stream or closed.
	Why string
}

// ended makes the record of an allocation.
func (s *Server) ended(a *allocation, now time.Duration, why string) {
	if s.cfg.Ended == nil || a.session == s.self.session {
		return
	}
	r := Record{Holder: a.holder, Transport: "udp", Duration: now - a.made, Up: a.up.load(), Down: a.down.load(), Why: why}
	if a.client.stream != nil {
		r.Transport = a.client.stream.kind
	}
	for i, name := range names {
		if n := a.dropped[i].Load(); n > 0 {
			if r.Dropped == nil {
				r.Dropped = map[string]uint64{}
			}
			r.Dropped[name] = uint64(n)
		}
	}
	s.cfg.Ended(r)
}
