// Package relay is the STUN and TURN server (RFC 8489, RFC 8656) for calls that find no direct way.
//
// Control path: a request comes in on a UDP socket or a TCP connection (udp.go, stream.go), is looked at by inspect.go, and goes
// to the TURN library, which asks back for credentials (credentials.go), quota (quota.go), peer policy (policy.go) and a relay
// socket (socket.go). Data path: socket.go on the peers' side, udp.go and stream.go on the clients' side. Packets are counted
// where they leave.
//
// A relay is a proxy into its operator's network unless it refuses. Peers in special-purpose networks are refused when the client
// asks for a permission. A permission has no port, so that our own address, which must be allowed for two relayed clients to meet,
// is judged again at each write: only ports on which we relay at that moment are reached.
//
// The library is an implementation detail of this first stage; none of its types leaves the package.
package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	defaultRealm   = "ieum"
	defaultQuota   = 64
	defaultLife    = 10 * time.Minute
	defaultMinPort = 49152
	defaultMaxPort = 65535
	minSecret      = 16
	// closeLimit is how long Close waits for the library's goroutines after all sockets are closed.
	closeLimit = 4 * time.Second
)

// Config of a relay. Zero values mean the defaults named.
type Config struct {
	// Listen is "host:port" for UDP. Without a host, or with "::", every local IPv4 and IPv6 address of the moment is served; with
	// "0.0.0.0" every IPv4 address. Port 0 takes any. Streams come in by ServeConn.
	Listen string
	// STUN is "host:port" of a second UDP port, which answers Binding requests only; "" none.
	STUN string
	// Addresses are those relayed from, at most one of each family. None: the host of Listen, or else FindAddresses.
	Addresses []Address
	// MinPort and MaxPort bound the relay ports, both included (49152 to 65535).
	MinPort, MaxPort uint16
	// AllowPeers are exceptions to the peer policy.
	AllowPeers []netip.Prefix
	// Secret is the HMAC key of the credentials, at least 16 bytes.
	Secret []byte
	// Realm of the long-term credentials ("ieum").
	Realm string
	// Quota bounds allocations at a time.
	Quota Quota
	// Bandwidth is bytes a second each way; -1 no limit.
	Bandwidth int
	// MaxAge is an allocation's greatest age; 0 none.
	MaxAge time.Duration
	// Linger is the wait for more to send; -1 off.
	Linger time.Duration
	// Workers default to one a core.
	Workers int
	// Holder tells who holds a session that is in a room now; nil: anyone with good credentials.
	Holder func(tenantHash, session string) (Holder, bool)
	// Ended is told each allocation's end; it must not block.
	Ended func(Record)
	// CredentialLife is how long fresh credentials can be used to allocate (10 minutes).
	CredentialLife time.Duration
	// Log may be nil. No address of a user is logged above debug.
	Log *slog.Logger
	// Now is the clock of the credentials; nil is time.Now.
	Now func() time.Time
}

// Quota bounds allocations at a time: of a session, a tenant, a source address, and in all. Zero: the defaults.
type Quota struct{ Session, Tenant, Source, Total int }

// Holder is who holds a session.
type Holder struct{ License, User, Room string }

// Record is the account of an allocation.
type Record struct {
	Holder
	Transport string // udp, tcp or tls
	Duration  time.Duration
	Up, Down  Traffic
	Dropped   map[string]uint64
	Why       string
}

func (c Config) withDefaults() Config {
	if c.MinPort == 0 && c.MaxPort == 0 {
		c.MinPort, c.MaxPort = defaultMinPort, defaultMaxPort
	}
	if c.Realm == "" {
		c.Realm = defaultRealm
	}
	if c.Quota.Session == 0 {
		c.Quota.Session = defaultQuota
	}
	if c.CredentialLife == 0 {
		c.CredentialLife = defaultLife
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Validate reports all faults of the configuration together. It opens nothing.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("relay: "+format, args...)) }
	if _, _, err := parseListen(c.Listen); err != nil {
		faults = append(faults, err)
	}
	families := map[bool]int{}
	for _, a := range c.Addresses {
		if err := a.validate(); err != nil {
			faults = append(faults, err)
		}
		families[a.Public.Is4()]++
	}
	if families[true] > 1 || families[false] > 1 {
		fault("at most one address of each family can be relayed from")
	}
	if c.MinPort == 0 || c.MinPort > c.MaxPort {
		fault("relay ports %d to %d are no range", c.MinPort, c.MaxPort)
	}
	for _, p := range c.AllowPeers {
		if !p.IsValid() {
			fault("a network of the allowed peers is not valid")
		}
	}
	if len(c.Secret) < minSecret {
		fault("secret has %d bytes, at least %d are needed", len(c.Secret), minSecret)
	}
	// RFC 8489 section 14.9 limits the realm; the library writes it into every 401.
	if len(c.Realm) > 127 || strings.ContainsFunc(c.Realm, func(r rune) bool { return r < ' ' || r == '"' || r > '~' }) {
		fault("realm must be at most 127 printable ASCII characters")
	}
	if c.Quota.Session < 0 || c.Quota.Tenant < 0 || c.Quota.Source < 0 || c.Quota.Total < 0 {
		fault("a quota is negative")
	}
	if c.CredentialLife < time.Second {
		fault("credential lifetime %v is under a second", c.CredentialLife)
	}
	return errors.Join(faults...)
}

// parseListen splits "host:port"; an invalid address means every address of both families.
func parseListen(listen string) (netip.Addr, uint16, error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("relay: listen address %q must be host:port", listen)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("relay: port %q of the listen address is not a number up to 65535", text)
	}
	if host == "" || host == "::" {
		return netip.Addr{}, uint16(port), nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("relay: host %q of the listen address must be an IP address or empty", host)
	}
	return addr.Unmap(), uint16(port), nil
}

// Server is a running relay.
type Server struct {
	// Static after Start.
	cfg       Config
	port      uint16
	policy    policy
	relays    []*relayAddress
	listening []netip.Addr
	udp       []*udpConn
	stun      *net.UDPConn // nil: none

	stats    counters
	quota    quota
	reserved reservations
	logger   *libraryLogger

	// quiet counts what Close waits for: accept loop, control sockets, streams, allocations and their readers.
	quiet sync.WaitGroup
	done  chan struct{}

	streams streamSet
}

// Start opens the sockets and serves until Close.
func Start(c Config) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	host, port, err := parseListen(c.Listen)
	if err != nil {
		return nil, err
	}
	addresses := c.Addresses
	switch {
	case len(addresses) > 0:
	case host.IsValid() && !host.IsUnspecified():
		addresses = []Address{{Public: host, Private: host}}
	default:
		if addresses, err = FindAddresses(); err != nil {
			return nil, err
		}
	}
	s := &Server{
		cfg:      c,
		quota:    quota{limit: c.Quota.Session, held: map[string]int{}},
		reserved: reservations{until: map[uint16]time.Time{}},
		logger:   newLibraryLogger(c.Log),
		done:     make(chan struct{}),
	}
	s.streams.init()
	for _, a := range addresses {
		if err := a.probe(); err != nil {
			return nil, err
		}
		s.relays = append(s.relays, &relayAddress{Address: a})
	}
	if err := s.listen(host, port); err != nil {
		return nil, err
	}
	s.policy = newPolicy(c.AllowPeers, addresses, s.listening)
	for i, conn := range s.udp {
		if err := conn.serve(); err != nil {
			// The sockets before this one are served already: close them the long way.
			for _, rest := range s.udp[i:] {
				s.quiet.Done()
				_ = rest.conn.Close()
			}
			return nil, errors.Join(err, s.Close())
		}
	}
	if err := s.listenSTUN(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	c.Log.Info("relay listening", "port", s.port, "addresses", len(s.listening), "relayFrom", fmt.Sprint(addresses))
	return s, nil
}

// listen opens UDP on every address served. One UDP socket per address makes answers leave from the
// address the request came to, on all systems alike; an address that appears later is served after a restart.
func (s *Server) listen(host netip.Addr, port uint16) error {
	const tries = 16
	var err error
	for range tries {
		if err = s.listenOnce(host, port); err == nil {
			s.quiet.Add(len(s.udp)) // a reader each
			return nil
		}
		if port != 0 {
			break
		}
	}
	return err
}

func (s *Server) listenOnce(host netip.Addr, port uint16) error {
	addrs := []netip.Addr{host}
	switch {
	case !host.IsValid():
		var err error
		if addrs, err = localAddresses(); err != nil {
			return err
		}
	case host == netip.IPv4Unspecified():
		all, err := localAddresses()
		if err != nil {
			return err
		}
		addrs = nil
		for _, a := range all {
			if a.Is4() {
				addrs = append(addrs, a)
			}
		}
	}
	s.port = port
	s.udp, s.listening = nil, nil
	for _, a := range addrs {
		conn, err := openUDP(a, s.port)
		if errors.Is(err, syscall.EADDRNOTAVAIL) && len(addrs) > 1 {
			s.cfg.Log.Warn("relay does not serve an address that cannot be bound", "address", a)
			continue
		}
		if err != nil {
			for _, open := range s.udp {
				_ = open.conn.Close()
			}
			return fmt.Errorf("relay: %w", err)
		}
		s.port = conn.LocalAddr().(*net.UDPAddr).AddrPort().Port() // which the other addresses get, too
		s.udp = append(s.udp, newUDPConn(s, conn))
		s.listening = append(s.listening, a)
	}
	if len(s.udp) == 0 {
		return errors.New("relay: this machine has no address to listen on")
	}
	return nil
}

// Close ends all allocations and connections and returns when all is quiet.
func (s *Server) Close() error {
	if !s.streams.close() {
		return nil
	}
	close(s.done)
	if s.stun != nil {
		_ = s.stun.Close()
	}
	for _, conn := range s.udp {
		_ = conn.Close()
	}
	quiet := make(chan struct{})
	go func() {
		s.quiet.Wait()
		close(quiet)
	}()
	limit := time.NewTimer(closeLimit)
	defer limit.Stop()
	select {
	case <-quiet:
		return nil
	case <-limit.C:
		return fmt.Errorf("relay: still busy %v after all sockets were closed", closeLimit)
	}
}

// Port is the number of the UDP port.
func (s *Server) Port() int { return int(s.port) }

// Addresses are those relayed from.
func (s *Server) Addresses() []Address {
	list := make([]Address, len(s.relays))
	for i, r := range s.relays {
		list[i] = r.Address
	}
	return list
}

// OnlyPrivate tells that no public address is among them: clients elsewhere cannot use the relay.
func (s *Server) OnlyPrivate() bool {
	for _, r := range s.relays {
		if global(r.Public) {
			return false
		}
	}
	return true
}

// relayFor finds the relay address of a family; nil: none.
func (s *Server) relayFor(v4 bool) *relayAddress {
	for _, r := range s.relays {
		if r.Public.Is4() == v4 {
			return r
		}
	}
	return nil
}

func udpNetwork(a netip.Addr) string {
	if a.Is4() {
		return "udp4"
	}
	return "udp6"
}
