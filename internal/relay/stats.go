package relay

import (
	"sync/atomic"
	"time"
)

// reasonCode is why something was refused or dropped.
type reasonCode int

const (
	reasonBadCredentials reasonCode = iota
	reasonExpired
	reasonStaleNonce
	reasonOverQuota
	reasonNoPort
	reasonBadFamily
	reasonBadTransport
	reasonNotInRoom
	reasonDeniedPeer
	reasonOwnPort
	reasonOwnSource
	reasonOtherRoom
	reasonBadChannel
	reasonTooManyPermissions
	reasonNoPermission
	reasonNoAllocation
	reasonOverBandwidth
	reasonTooManyStreams
	reasonSlowStream
	reasonMalformed
	reasonUnanswered
	reasonUnsent
	reasonPanic
	reasonCount // how many there are

	reasonNone     reasonCode = -1
	reasonUnsigned reasonCode = -2 // a request without credentials: the first step of every client
)

// reasonNames are the keys of Stats.Rejected and of Record.Dropped.
var reasonNames = [reasonCount]string{
	// 401: user name or password wrong; 441: another session's.
	reasonBadCredentials: "credentials",
	reasonExpired:        "expired",    // 401: credentials too old to allocate
	reasonStaleNonce:     "nonce",      // 438
	reasonOverQuota:      "quota",      // 486
	reasonNoPort:         "capacity",   // 508: no relay port free, or a token unknown
	reasonBadFamily:      "family",     // 440, 443
	reasonBadTransport:   "transport",  // 442
	reasonNotInRoom:      "room",       // 403 at Allocate: the session is in no room
	reasonDeniedPeer:     "peer",       // 403
	reasonOwnPort:        "own-port",   // packet to our own address at no relay port
	reasonOwnSource:      "own-source", // packet from our own address that was not relayed
	// Packet for a relayed client of another license or room.
	reasonOtherRoom:          "other-room",
	reasonBadChannel:         "channel",     // 400: channel number out of range or taken
	reasonTooManyPermissions: "permissions", // 508: too many peers for one allocation
	reasonNoPermission:       "permission",  // packet for or from a peer that is not permitted
	reasonNoAllocation:       "allocation",  // ChannelData from a stranger
	reasonOverBandwidth:      "bandwidth",   // packet over the allocation's bandwidth
	reasonTooManyStreams:     "streams",     // too many TCP connections
	// No complete message in time, or a client that does not read.
	reasonSlowStream: "slow",
	reasonMalformed:  "malformed",  // neither STUN nor ChannelData
	reasonUnanswered: "unanswered", // too many strangers' requests from one source prefix
	reasonUnsent:     "unsent",     // the system refused to send it
	reasonPanic:      "panic",      // a message that broke the parser
}

// Traffic counts relayed packets and their payload bytes.
type Traffic struct{ Packets, Bytes uint64 }

// Stats are counted since Start, over all transports.
type Stats struct {
	Allocations int    // live
	Created     uint64 // total
	// Rejected has every reason as a key, also those at zero: see names.
	Rejected                   map[string]uint64
	ClientToPeer, PeerToClient Traffic
	// GROPackets counts packets that came several in one read (UDP_GRO), Segmented those that left
	// several in one send (UDP_SEGMENT).
	GROPackets, GSOPackets uint64
	// GSOErrors counts sends of several that the system refused; 1 and more: they are sent one by
	// one since the last.
	GSOErrors uint64
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
	live                              atomic.Int64
	created                           atomic.Uint64
	rejected                          [reasonCount]atomic.Uint64
	groPackets, gsoPackets, gsoErrors atomic.Uint64
}

func (c *counters) reject(r reasonCode) { c.rejected[r].Add(1) }

// Stats is a snapshot.
func (s *Server) Stats() Stats {
	rejected := make(map[string]uint64, reasonCount)
	for r, name := range reasonNames {
		rejected[name] = s.stats.rejected[r].Load()
	}
	var up, down Traffic
	for _, w := range s.workers {
		up.sum(w.up.load())
		down.sum(w.down.load())
	}
	return Stats{
		Allocations:  int(s.stats.live.Load()),
		Created:      s.stats.created.Load(),
		Rejected:     rejected,
		ClientToPeer: up,
		PeerToClient: down,
		GROPackets:   s.stats.groPackets.Load(),
		GSOPackets:   s.stats.gsoPackets.Load(),
		GSOErrors:    s.stats.gsoErrors.Load(),
	}
}

// Why an allocation was closed: the reason label of the metric and of Record.
const (
	closedByRefresh = "refresh" // its client sent a Refresh with lifetime 0
	closedExpired   = "expired" // its client stopped refreshing it, or it reached the maximum age
	closedSession   = "session" // its session left its room
	closedStream    = "stream"  // its client's connection ended
	closedByPanic   = "panic"   // serving one of its packets panicked
	closedServer    = "closed"  // the server was closed
)

// Record tells of an allocation that has ended.
type Record struct {
	Holder
	Transport string // of the client: udp, tcp or tls
	Duration  time.Duration
	Up, Down  Traffic
	// Dropped counts packets by reason, as in Stats.Rejected; it has no zeros.
	Dropped map[string]uint64
	// Reason is refresh, expired, session, stream, panic or closed.
	Reason string
}

// report makes the record of an allocation.
func (s *Server) report(a *allocation, now time.Duration, reason string) {
	if s.cfg.Closed == nil || a.session == s.self.session {
		return
	}
	r := Record{
		Holder:    a.holder,
		Transport: "udp",
		Duration:  now - a.created,
		Up:        a.up.load(),
		Down:      a.down.load(),
		Reason:    reason,
	}
	if a.client.stream != nil {
		r.Transport = a.client.stream.kind
	}
	for i, name := range reasonNames {
		if n := a.dropped[i].Load(); n > 0 {
			if r.Dropped == nil {
				r.Dropped = map[string]uint64{}
			}
			r.Dropped[name] = uint64(n)
		}
	}
	s.cfg.Closed(r)
}
