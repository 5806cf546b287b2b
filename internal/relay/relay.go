// Package relay is the STUN and TURN server (RFC 8489, RFC 8656) for calls without a direct path.
//
// Workers do everything (worker.go): each has its own sockets, one goroutine, and the allocations
// of the clients whose packets the kernel hands to those sockets. A driver moves a worker's
// packets: driver_linux.go in batches, with epoll, recvmmsg and UDP_SEGMENT; driver_net.go with the
// net package, on every system. Clients over TCP and TLS (stream.go) hand their messages to a
// worker.
//
// Control path: auth.go authenticates requests, request.go answers them, policy.go and quota.go
// refuse them, ports.go creates and closes allocations. The sweep in worker.go closes those that
// their client has stopped refreshing. Data path: worker.go, in both directions. Packets between
// two clients of this server stay in the process (hairpin), with the same checks and counts. The
// data path takes no lock, writes no log and allocates nothing.
//
// By default a relay would be a proxy into its operator's network. Peers in special-purpose
// networks are refused when the client asks for a permission. Permissions have no port, and one for
// the relay's own address must be granted, since two relayed clients meet there. So packets to that
// address are checked one by one: they reach only ports of live allocations.
package relay

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of Config.
const (
	DefaultMinPort   = 49152
	DefaultMaxPort   = 65535
	DefaultBandwidth = 16 << 20
	DefaultCoalesce  = 300 * time.Microsecond

	defaultRealm = "ieum"
	defaultLife  = 10 * time.Minute
)

const (
	maxCoalesce = 10 * time.Millisecond
	minSecret   = 16
	maxWorkers  = 256
	maxRealm    = 32
)

// Config of a relay. Zero values mean the defaults named.
type Config struct {
	// Listen is "host:port" for UDP. Without a host, or with "::", every local IPv4 and IPv6
	// address is served; with "0.0.0.0" every IPv4 address. Port 0 takes any that is free. Clients
	// over TCP and TLS are handed in by ServeConn.
	Listen string
	// STUN is "host:port" of a second UDP port, where only Binding requests are answered, so that
	// clients can tell how their NAT maps. Empty: there is none.
	STUN string
	// Addresses are those relayed from, at most one of each family. None: the host of Listen, or
	// else FindAddresses.
	Addresses []Address
	// MinPort and MaxPort bound the relay ports, both included (49152 to 65535).
	MinPort, MaxPort uint16
	// AllowPeers are exceptions to the peer policy.
	AllowPeers []netip.Prefix
	// Secret is the HMAC key of the credentials, at least 16 bytes; SetSecret gives another.
	Secret []byte
	// Realm of the long-term credentials ("ieum"), at most 32 characters.
	Realm string
	Quota Quota
	// Streams bounds the clients that come by TCP and TLS (8,192).
	Streams int
	// Bandwidth is what an allocation may relay each way, in bytes a second with headers (16 MiB);
	// -1 for no limit.
	Bandwidth int
	// SessionBandwidth is what all allocations of a session may relay together, each way; 0 means
	// twice Bandwidth, -1 no limit.
	SessionBandwidth int
	// CredentialLife is how long fresh credentials can be used to allocate (10 minutes).
	CredentialLife time.Duration
	// MaxAge ends allocations that are older; zero: they may live as long as they are refreshed.
	MaxAge time.Duration
	// Coalesce is how long a worker may wait for more packets before it reads a small batch at a
	// high rate (0.3 ms); -1: never.
	Coalesce time.Duration
	// Workers share the UDP clients between them (one for each core).
	Workers int
	// Holder tells who holds a session that is in a room; false: it is in none, and may neither
	// allocate nor keep an allocation. It is asked at each Allocate and then every two seconds, and
	// must not block. Relayed clients of different rooms do not reach each other. Nil: whoever has
	// good credentials may allocate, and reaches relayed clients with the same tenantHash.
	Holder func(tenantHash, session string) (Holder, bool)
	// Closed is told of the end of each allocation and must not block. It may be nil.
	Closed func(Record)
	// Log may be nil. No address of a user is logged.
	Log *slog.Logger
	// Now is the clock of the credentials; nil is time.Now.
	Now func() time.Time

	// plain takes the driver for all systems.
	plain bool
	// clock is what everything but credentials is timed by; nil: the time since Start.
	clock func() time.Duration
}

// Holder is whom an allocation is for.
type Holder struct{ License, User, Room string }

func (c Config) withDefaults() Config {
	if c.MinPort == 0 && c.MaxPort == 0 {
		c.MinPort, c.MaxPort = DefaultMinPort, DefaultMaxPort
	}
	if c.Realm == "" {
		c.Realm = defaultRealm
	}
	c.Quota = c.Quota.withDefaults()
	if c.Streams <= 0 || c.Streams > maxStreams {
		c.Streams = maxStreams
	}
	if c.Bandwidth == 0 {
		c.Bandwidth = DefaultBandwidth
	}
	if c.SessionBandwidth == 0 {
		c.SessionBandwidth = max(-1, 2*c.Bandwidth)
	}
	if c.CredentialLife == 0 {
		c.CredentialLife = defaultLife
	}
	if c.Coalesce == 0 {
		c.Coalesce = DefaultCoalesce
	}
	if c.Workers == 0 {
		c.Workers = min(runtime.NumCPU(), maxWorkers)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.clock == nil {
		begin := time.Now()
		c.clock = func() time.Duration { return time.Since(begin) }
	}
	return c
}

// Validate reports all faults of the configuration together. It opens nothing.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	add := func(field, format string, args ...any) {
		errs = append(errs, configError(field, fmt.Errorf(format, args...)))
	}
	host, port, err := parseListen(c.Listen)
	if err != nil {
		errs = append(errs, configError("Listen", err))
	}
	if c.STUN != "" {
		stunHost, stunPort, err := parseListen(c.STUN)
		if err != nil {
			errs = append(errs, configError("STUN", err))
		} else if stunPort == port && port != 0 &&
			(stunHost == host || !stunHost.IsValid() || !host.IsValid()) {
			add("STUN", "the second port must be another than the first")
		}
	}
	families := map[bool]int{}
	for _, a := range c.Addresses {
		if err := a.validate(); err != nil {
			errs = append(errs, configError("Addresses", err))
		}
		families[a.Public.Is4()]++
	}
	if families[true] > 1 || families[false] > 1 {
		add("Addresses", "at most one address of each family can be relayed from")
	}
	if c.MinPort == 0 || c.MinPort > c.MaxPort {
		add("MinPort", "%d to %d is not a range of ports", c.MinPort, c.MaxPort)
	}
	for _, p := range c.AllowPeers {
		if !p.IsValid() {
			add("AllowPeers", "a network of the allowed peers is not valid")
		}
	}
	if err := validSecret(c.Secret); err != nil {
		errs = append(errs, configError("Secret", err))
	}
	// The realm is in every 401, which must not be large: strangers can have it sent to others.
	if len(c.Realm) > maxRealm ||
		strings.ContainsFunc(c.Realm, func(r rune) bool { return r < ' ' || r == '"' || r > '~' }) {
		add("Realm", "realm must be at most %d printable ASCII characters", maxRealm)
	}
	for field, n := range map[string]int{
		"Quota.Session": c.Quota.Session,
		"Quota.Tenant":  c.Quota.Tenant,
		"Quota.Source":  c.Quota.Source,
		"Quota.Total":   c.Quota.Total,
	} {
		if n < -1 {
			add(field, "a quota must be at least 1, or -1 for no limit, not %d", n)
		}
	}
	if c.Bandwidth < -1 {
		add("Bandwidth",
			"must be at least 1 byte a second, or -1 for no limit, not %d", c.Bandwidth)
	}
	if c.SessionBandwidth < -1 {
		add("SessionBandwidth",
			"must be at least 1 byte a second, or -1 for no limit, not %d", c.SessionBandwidth)
	}
	if c.CredentialLife < time.Second {
		add("CredentialLife", "credential lifetime %v is under a second", c.CredentialLife)
	}
	if c.MaxAge < 0 {
		add("MaxAge", "the greatest age %v of an allocation is negative", c.MaxAge)
	}
	if c.Coalesce > maxCoalesce {
		add("Linger", "%v is over %v", c.Coalesce, maxCoalesce)
	}
	if c.Workers < 0 || c.Workers > maxWorkers {
		add("Workers", "%d is not between 1 and %d", c.Workers, maxWorkers)
	}
	return errors.Join(errs...)
}

// parseListen splits "host:port"; an invalid address means every address of both families.
func parseListen(listen string) (netip.Addr, uint16, error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("listen address %q must be host:port", listen)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf(
			"port %q of the listen address is not a number up to 65535",
			text,
		)
	}
	if host == "" || host == "::" {
		return netip.Addr{}, uint16(port), nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf(
			"host %q of the listen address must be an IP address or empty",
			host,
		)
	}
	return addr.Unmap(), uint16(port), nil
}

// Server is a running relay.
type Server struct {
	// Static after Start.
	cfg          Config
	port         uint16
	stunPort     uint16
	host         netip.Addr // that is listened at; invalid: all
	autoDetected bool       // nobody has said which addresses to relay from
	workers      []*worker
	nonceKey     []byte
	seed         maphash.Seed // of all hashes: nobody can foresee which values meet

	hostAddrs       atomic.Pointer[hostAddresses]
	refreshing      sync.Mutex    // one at a time looks for addresses
	refreshRequests chan struct{} // an allocation failed
	secrets         atomic.Pointer[secrets]
	stats           counters
	limiter         limiter
	quota           *quota
	reserved        reservations
	streams         streamSet
	nextWorker      atomic.Uint32
	gsoWarning      sync.Once
	self            selfTest
	nextPanicLog    atomic.Int64 // a time.Duration on the server's clock

	// wg counts what Close waits for: workers and streams.
	wg     sync.WaitGroup
	done   chan struct{}
	closed sync.Once
}

// Start opens the sockets and serves until Close.
func Start(c Config) (_ *Server, err error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	host, port, err := parseListen(c.Listen)
	if err != nil {
		return nil, configError("Listen", err)
	}
	addresses, found := c.Addresses, false
	switch {
	case len(addresses) > 0:
	case host.IsValid() && !host.IsUnspecified():
		addresses = []Address{{Public: host, Private: host}}
	default:
		if addresses, err = FindAddresses(); err != nil {
			return nil, configError("Addresses", err)
		}
		found = true
	}
	s := &Server{
		cfg:      c,
		quota:    newQuota(c.Quota),
		done:     make(chan struct{}),
		nonceKey: make([]byte, 32),
		seed:     maphash.MakeSeed(),
		host:     host, autoDetected: found, refreshRequests: make(chan struct{}, 1),
	}
	s.secrets.Store(&secrets{current: c.Secret})
	s.self.init()
	_, _ = rand.Read(s.nonceKey) // never fails
	s.limiter.seed = s.seed
	s.streams.init(c.Streams)
	var relays []*relayAddress
	for _, a := range addresses {
		if err := a.probe(); err != nil {
			return nil, configError("Addresses", err)
		}
		relays = append(relays, newRelayAddress(a, c.MinPort, c.MaxPort))
	}
	all, err := localAddresses()
	if err != nil {
		return nil, err
	}
	s.hostAddrs.Store(s.newHostAddresses(relays, all))
	for i := range c.Workers {
		s.workers = append(s.workers, newWorker(s, i))
	}
	if err := s.listen(host, port); err != nil {
		return nil, err
	}
	for _, w := range s.workers {
		s.wg.Go(func() {
			w.driver.run()
			for a := range w.owned {
				w.closeAllocation(a, closedServer)
			}
		})
	}
	s.wg.Go(s.watchAddresses)
	c.Log.Info("relay listening",
		"port", s.port, "stun", s.stunPort, "workers", len(s.workers),
		"relayFrom", fmt.Sprint(addresses))
	return s, nil
}

// openListeners opens a UDP port at each worker and returns its number; binding: for Binding
// requests
// alone.
type openListeners func(host netip.Addr, port uint16, binding bool) (uint16, error)

// listen opens the listeners, all of them at each worker.
func (s *Server) listen(host netip.Addr, port uint16) error {
	fail := func(field string, err error) error {
		for _, w := range s.workers {
			if w.driver != nil {
				w.driver.close()
			}
		}
		return configError(field, err)
	}
	open, err := s.newDrivers()
	if err != nil {
		return fail("Listen", err)
	}
	if s.port, err = open(host, port, false); err != nil {
		return fail("Listen", err)
	}
	if s.cfg.STUN != "" {
		stunHost, stunPort, err := parseListen(s.cfg.STUN)
		if err != nil {
			return fail("STUN", err)
		}
		if s.stunPort, err = open(stunHost, stunPort, true); err != nil {
			return fail("STUN", err)
		}
	}
	return nil
}

// now is the server's clock: times on it are only compared with each other.
func (s *Server) now() time.Duration { return s.cfg.clock() }

// holder asks who holds a session.
func (s *Server) holder(session string) (Holder, bool) {
	if session == s.self.session {
		return Holder{}, s.self.running.Load()
	}
	if s.cfg.Holder == nil {
		return Holder{}, true
	}
	tenant, name, _ := strings.Cut(session, ".")
	return s.cfg.Holder(tenant, name)
}

// Close ends all allocations and connections and returns when all is quiet. It may be called twice.
func (s *Server) Close() error {
	s.closed.Do(func() {
		close(s.done)
		s.streams.close()
		for _, w := range s.workers {
			w.driver.wake()
		}
		s.wg.Wait()
		s.release()
	})
	return nil
}

// release closes sockets once all is quiet: until then a stream may wake a worker that has stopped
// already, and must not write to a descriptor that something else has got.
func (s *Server) release() {
	s.reserved.mu.Lock()
	defer s.reserved.mu.Unlock()
	for len(s.reserved.list) > 0 {
		socket := s.reserved.list[0].socket
		s.reserved.remove(0)
		socket.worker.driver.closeSocket(socket)
	}
	for _, w := range s.workers {
		w.driver.close()
	}
}

// Port is the number of the UDP port.
func (s *Server) Port() int { return int(s.port) }

// STUNPort is the number of the second port, 0 when there is none.
func (s *Server) STUNPort() int { return int(s.stunPort) }

// Addresses are those relayed from.
func (s *Server) Addresses() []Address {
	relays := s.addresses().relays
	list := make([]Address, len(relays))
	for i, r := range relays {
		list[i] = r.Address
	}
	return list
}

// OnlyPrivate tells that no public address is among them: clients elsewhere cannot use the relay.
func (s *Server) OnlyPrivate() bool {
	for _, r := range s.addresses().relays {
		if isGlobal(r.Public) {
			return false
		}
	}
	return true
}
