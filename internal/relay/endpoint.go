package relay

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/turn/v5"
)

// maxPermissions bounds the peers one allocation may have at a time. A browser asks for one per candidate of the other side.
const maxPermissions = 256

// endpoint is what stands between one control transport (a UDP socket or one TCP connection) and the library: it answers the
// library's questions and keeps, for each client with an allocation, the peers it may reach.
type endpoint struct {
	server    *Server
	transport string // udp, tcp or tls
	// changed is told the number of allocations that a client's coming or going leaves behind.
	changed func(allocations int)

	mu      sync.Mutex
	clients map[netip.AddrPort]*client // guarded by mu; bounded by the allocations
	count   int                        // guarded by mu: allocations
}

// client is the holder of an allocation.
type client struct {
	holder Holder
	began  time.Time
	// allocations is over one for a moment only, when a new one is made before the end of the old one is told.
	allocations int
	peers       map[netip.Addr]struct{}
}

// serve hands a control transport to the library, which reads from it in a goroutine until ReadFrom fails and then ends the
// allocations made over it.
func (e *endpoint) serve(conn net.PacketConn) error {
	s := e.server
	_, err := turn.NewServer(turn.ServerConfig{
		Realm:         s.cfg.Realm,
		LoggerFactory: s.logger,
		AuthHandler:   s.authenticate,
		QuotaHandler: func(session, _ string, _ net.Addr) bool {
			if s.quota.take(session) {
				return true
			}
			s.stats.refuse(overQuota)
			return false
		},
		EventHandler: turn.EventHandler{
			OnAuth: func(_, _ net.Addr, _, _, _, _ string, verdict bool) {
				if !verdict {
					s.stats.refuse(badCredentials)
				}
			},
			OnAllocationCreated: func(from, _ net.Addr, _, session, _ string, _ net.Addr, _ int) {
				// One for the allocation, one for the reader of its relay socket.
				s.quiet.Add(2)
				s.stats.live.Add(1)
				s.stats.allocated.Add(1)
				e.came(addrPort(from), session)
			},
			OnAllocationDeleted: func(from, _ net.Addr, _, _, _ string) {
				e.went(addrPort(from))
				s.stats.live.Add(-1)
				s.quiet.Done()
			},
			OnPermissionCreated: func(from, _ net.Addr, _, _, _ string, _ net.Addr, peer net.IP) {
				e.permitted(addrPort(from), peer, true)
			},
			OnPermissionDeleted: func(from, _ net.Addr, _, _, _ string, _ net.Addr, peer net.IP) {
				e.permitted(addrPort(from), peer, false)
			},
		},
		// Without REQUESTED-ADDRESS-FAMILY the relay is IPv4, whatever the client came by (RFC 8656 section 7.2): then any two
		// relayed clients can reach each other. Only a relay without IPv4 goes by the client.
		StrictAddressFamily: s.relayFor(true) != nil,
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn:            conn,
			RelayAddressGenerator: (*generator)(s),
			PermissionHandler:     e.permit,
		}},
	})
	return err
}

// authenticate gives the library the key of a user name (RFC 8489 section 9.2.2); the library then checks the integrity.
func (s *Server) authenticate(r *turn.RequestAttributes) (session string, key []byte, ok bool) {
	expiry, session, ok := parseUsername(r.Username)
	if !ok {
		s.stats.refuse(badCredentials)
		return "", nil, false
	}
	if _, held := s.holder(session); r.Method == stun.MethodAllocate && !held {
		s.stats.refuse(badCredentials)
		return "", nil, false
	}
	// Later requests need the allocation, which is found by session: a call may outlast its credentials.
	if r.Method == stun.MethodAllocate && !s.cfg.Now().Before(expiry) {
		s.stats.refuse(expired)
		return "", nil, false
	}
	return session, turn.GenerateAuthKey(r.Username, s.cfg.Realm, passwordOf(s.cfg.Secret, r.Username)), true
}

// permit is asked before each permission and channel.
func (e *endpoint) permit(from net.Addr, ip net.IP) bool {
	peer, _ := netip.AddrFromSlice(ip)
	peer = peer.Unmap()
	if !e.server.policy.allowed(peer) {
		e.server.stats.refuse(deniedPeer)
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.clients[addrPort(from)]
	if c == nil {
		return false
	}
	if _, known := c.peers[peer]; !known && len(c.peers) >= maxPermissions {
		e.server.stats.refuse(manyPermissions)
		return false
	}
	return true
}

// holder asks who holds a session in a room now.
func (s *Server) holder(session string) (Holder, bool) {
	if s.cfg.Holder == nil {
		return Holder{}, true
	}
	tenant, name, _ := strings.Cut(session, ".")
	return s.cfg.Holder(tenant, name)
}

func (e *endpoint) came(from netip.AddrPort, session string) {
	holder, _ := e.server.holder(session)
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.clients[from]
	if c == nil {
		c = &client{peers: map[netip.Addr]struct{}{}, holder: holder, began: time.Now()}
		e.clients[from] = c
	}
	c.allocations++
	e.count++
	e.changed(e.count)
}

func (e *endpoint) went(from netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c := e.clients[from]; c != nil {
		if e.server.cfg.Ended != nil {
			e.server.cfg.Ended(Record{Holder: c.holder, Transport: e.transport, Duration: time.Since(c.began), Why: "closed"})
		}
		if c.allocations--; c.allocations == 0 {
			delete(e.clients, from)
		}
	}
	e.count--
	e.changed(e.count)
}

func (e *endpoint) permitted(from netip.AddrPort, ip net.IP, yes bool) {
	peer, _ := netip.AddrFromSlice(ip)
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.clients[from]
	switch {
	case c == nil:
	case yes:
		c.peers[peer.Unmap()] = struct{}{}
	default:
		delete(c.peers, peer.Unmap())
	}
}

// addrPort reads the address types the library and we exchange.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.TCPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
