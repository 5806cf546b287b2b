// Package signaling holds the sessions of a node: it registers users, commands rooms, sends
// presence events to members, and relays descriptions and candidates between them (relay.go).
//
// A connection (client) becomes a session with register. The session outlives its connection by the
// resume window: it is connected, disconnected or ended. Rooms decide about membership. Their
// events arrive at Deliver and are translated into messages in this package alone. They also update
// the roster of the room, so that relaying a message needs no room.
//
// The Directory knows which node holds a user or a room; the Bus reaches other nodes. Both are
// declared in package engine; a server that stands alone uses engine.Local.
package signaling

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/limit"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// Config is what a Hub needs. Node, Licenses, Directory, Bus, ICE and ResumeKeys are required.
type Config struct {
	Node       string
	Licenses   *license.Verifier // until Renew
	Directory  Directory
	Bus        Bus
	ICE        ICEIssuer
	ResumeKeys [][]byte // the first signs resume secrets, all verify them; until Renew

	Keeper       Keeper        // nil: a restart forgets all sessions and rooms
	ResumeWindow time.Duration // how long a session waits for its lost connection, default 20 s
	LoginTimeout time.Duration // from connecting to a successful register, default 10 s
	Rate         float64       // messages a second a session may send on average, default 30
	Burst        float64       // and at once, default 300
	Limits       Limits
	// That of the connections; nil: nothing bounds what waits in all.
	Backlog *transport.Backlog
	Rooms   room.Limits
	Log     *slog.Logger
}

// Validate reports all configuration errors together.
func (c Config) Validate() error {
	var errs []error
	require := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New("signaling: "+what))
		}
	}
	require(c.Node != "" && c.Licenses != nil && c.Directory != nil && c.Bus != nil && c.ICE != nil,
		"node, licenses, directory, bus and ICE servers are required")
	require(len(c.ResumeKeys) > 0, "a key for resume tokens is required")
	require(c.ResumeWindow >= 0 && c.LoginTimeout >= 0 && c.Rate >= 0 && c.Burst >= 0,
		"limits must not be negative")
	return errors.Join(errs...)
}

func (c *Config) defaults() {
	if c.ResumeWindow == 0 {
		c.ResumeWindow = DefaultResumeWindow
	}
	if c.LoginTimeout == 0 {
		c.LoginTimeout = 10 * time.Second
	}
	if c.Rate == 0 {
		c.Rate = DefaultRate
	}
	if c.Burst == 0 {
		c.Burst = DefaultBurst
	}
	c.Limits.defaults()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Hub is the signaling of one node.
type Hub struct {
	cfg   Config
	keys  atomic.Pointer[keys]
	rooms *room.Registry
	stop  func() // leaves the bus

	mu       sync.RWMutex // guards the two maps; nothing is called with it held
	sessions map[string]*session
	rosters  map[room.Key]*roster

	sources addressSessions
	refused limit.GCRA // lines in the log about refused logins

	ownership keyLocks // see createHere
	owners    owners
	beside    beside // requests of other nodes
	retries   retries
	moves     keyLocks                 // of sessions that are moving here
	handed    map[string]handedSession // Guarded by mu: sessions that moved to other nodes lately.
	nodes     nodes
	draining  atomic.Bool

	replication replication // of what this node has
	replicas    replicas    // of what others have
	unwatch     func()      // no more states of nodes

	ctx    context.Context // ends with the hub
	cancel context.CancelFunc

	limiters
	budgets
	began time.Time
	seed  maphash.Seed // of users, in what sessions have sent to others

	life    sync.RWMutex // read-held by whatever runs outside a connection's reader, see enter
	closing bool
	quit    chan struct{} // closed with the hub
	checks  sync.WaitGroup

	counters metrics
}

// keys decide who is let in. They are replaced as a whole.
type keys struct {
	licenses *license.Verifier
	resume   [][]byte
}

// Renew replaces Config.Licenses and Config.ResumeKeys. Sessions go on with what their license
// granted when they registered; their resume secrets are good as long as the key that signed them
// is among the new ones.
func (h *Hub) Renew(licenses *license.Verifier, resumeKeys [][]byte) {
	h.keys.Store(&keys{licenses, resumeKeys})
}

func (h *Hub) licenses() *license.Verifier { return h.keys.Load().licenses }

// Stats are figures of the moment.
type Stats struct {
	Sessions int    // connected and disconnected
	Rooms    int    // held by this node
	Rosters  int    // rooms with a member on this node
	Relayed  uint64 // messages passed from one member to another
	Spoofed  uint64 // messages refused because they named another sender
	Flooded  uint64 // connections closed because they sent too much

	Overflowed uint64            // connections closed because their clients read too slowly
	Resumed    uint64            // sessions that got another connection
	Handled    []Handled         // messages, those that are passed on too
	Refused    map[string]uint64 // registers by why they were refused
}

// New makes a hub and joins the bus.
func New(cfg Config) (*Hub, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.defaults()
	h := &Hub{
		cfg:      cfg,
		sessions: map[string]*session{},
		rosters:  map[room.Key]*roster{},
		quit:     make(chan struct{}),
		limiters: newLimiters(cfg.Limits),
		budgets:  newBudgets(cfg.Rate, cfg.Burst),
		began:    time.Now(),
		seed:     maphash.MakeSeed(),
	}
	h.replication.wake = make(chan struct{}, 1)
	h.sources.limit = cfg.Limits.AddressSessions
	h.keys.Store(&keys{cfg.Licenses, cfg.ResumeKeys})
	h.counters.init()
	h.rooms = room.NewRegistry(h, cfg.Rooms, room.Hooks{Changed: h.roomChanged, Gone: h.roomGone})
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.stop = cfg.Bus.Serve(fromBus{h})
	h.unwatch = cfg.Directory.Watch(h.onNode)
	if err := h.restore(); err != nil {
		h.Close()
		return nil, wrap("restore", err)
	}
	h.checks.Go(h.endWithLicenses)
	h.checks.Go(h.sendReplicas)
	return h, nil
}

// Accept takes a new connection; see transport.
func (h *Hub) Accept(conn transport.Conn) transport.Receiver {
	c := &client{hub: h, conn: conn}
	c.login = time.AfterFunc(h.cfg.LoginTimeout, func() {
		h.counters.late.Add(1)
		conn.Close(transport.StatusPolicyViolation, "no register in time")
	})
	return c
}

// Stats counts.
func (h *Hub) Stats() Stats {
	rooms := h.rooms.Count() // before mu: the registry may wait for a room, and a room for mu
	h.mu.RLock()
	defer h.mu.RUnlock()
	return Stats{
		Sessions:   len(h.sessions),
		Rooms:      rooms,
		Rosters:    len(h.rosters),
		Relayed:    h.counters.relayed.Load(),
		Spoofed:    h.counters.spoofed.Load(),
		Flooded:    h.counters.flooded.Load(),
		Overflowed: h.counters.overflowed.Load(),
		Resumed:    h.counters.resumed.Load(),
		Handled:    h.counters.handled(),
		Refused:    h.counters.logins(),
	}
}

// Membership is where a session is: which user of which license, in which room.
type Membership struct{ Tenant, User, Room string }

// InRoom tells where a session of this node is; ok is false when there is no such session, when it
// is in no room, and from the moment its license ends or is revoked. A session that waits for its
// lost connection is still where it was. It takes two locks for a moment each, neither of which is
// held while anything waits.
func (h *Hub) InRoom(session string) (m Membership, ok bool) {
	s := h.session(session)
	if s == nil {
		return h.wasInRoom(session)
	}
	key, in := s.roomKey()
	if !in || h.licenseError(s.grant, time.Now()) != nil {
		return Membership{}, false
	}
	return Membership{Tenant: s.tenant, User: s.user, Room: key.Room}, true
}

// wasInRoom is InRoom for a session that moved to another node a short time ago, or since this node
// began to drain: its calls may still use the relay of this node.
func (h *Hub) wasInRoom(session string) (m Membership, ok bool) {
	moved := h.handedOver(session)
	if moved == nil || moved.Room == nil ||
		h.licenseError(moved.Record.Grant, time.Now()) != nil {
		return Membership{}, false
	}
	return Membership{
		Tenant: moved.Record.Tenant,
		User:   moved.Record.User,
		Room:   moved.Room.Room,
	}, true
}

// Close forgets all sessions without telling anyone: their clients are told by the connections' own
// end, and come back. Connections must have been closed before.
func (h *Hub) Close() {
	h.life.Lock()
	closed := h.closing
	h.closing = true
	h.life.Unlock()
	if closed {
		return
	}
	close(h.quit)
	h.cancel()
	h.checks.Wait()
	for _, s := range h.all() {
		s.forget()
	}
	h.unwatch()
	h.retries.close()
	h.stop()
	h.beside.wait()
	h.rooms.Close()
}

// licenseCheck is how often sessions are looked through for licenses that have ended.
const licenseCheck = 30 * time.Second

// endWithLicenses ends each session within half a minute of the end of its license.
func (h *Hub) endWithLicenses() {
	every := time.NewTicker(licenseCheck)
	defer every.Stop()
	for {
		select {
		case <-h.quit:
			return
		case <-every.C:
			h.EndWithLicenses()
		}
	}
}

// EndWithLicenses ends the sessions whose license has ended or is revoked. It is for whoever has
// revoked one; the hub itself looks every half minute.
func (h *Hub) EndWithLicenses() {
	now := time.Now()
	for _, s := range h.all() {
		if h.licenseError(s.grant, now) == nil {
			continue
		}
		if !h.enter() {
			return
		}
		s.end(nil, transport.StatusLicenseEnded, "license ended")
		h.leave()
	}
}

// licenseError tells why a grant is good no longer, if so.
func (h *Hub) licenseError(g license.Grant, now time.Time) error {
	switch {
	case h.licenses().Revoked(g):
		return license.ErrRevoked
	case !now.Before(g.End):
		return license.ErrExpired
	}
	return nil
}

// enter keeps Close waiting until leave; false: too late.
func (h *Hub) enter() bool {
	h.life.RLock()
	if h.closing {
		h.life.RUnlock()
		return false
	}
	return true
}

func (h *Hub) leave() { h.life.RUnlock() }

func (h *Hub) all() []*session {
	h.mu.RLock()
	defer h.mu.RUnlock()
	all := make([]*session, 0, len(h.sessions))
	for _, s := range h.sessions {
		all = append(all, s)
	}
	return all
}

func (h *Hub) session(id string) *session {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.sessions[id]
}

// ServeLeave answers POST /leave, which a page sends as it unloads: its session ends at once.
// It always answers 204: nobody reads the answer, and a stranger learns nothing from it.
func (h *Hub) ServeLeave(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	var body protocol.Leave
	buf := make([]byte, 4096)
	n := 0
	for n < len(buf) {
		k, err := r.Body.Read(buf[n:])
		n += k
		if err != nil {
			break
		}
	}
	if protocol.Decode(buf[:n], &body) == nil && h.enter() {
		defer h.leave()
		if p, err := h.parseResumeToken(body.Resume); err == nil {
			// The page that unloads closes the connection, which ends the request's context.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 5*time.Second)
			defer cancel()
			h.leaveAnywhere(ctx, p)
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// leaveAnywhere ends the session of a resume token, wherever it is.
func (h *Hub) leaveAnywhere(ctx context.Context, p resumeToken) {
	if s := h.session(p.ID); s != nil {
		s.end(nil, transport.StatusTakenOver, "left")
		return
	}
	holder, err := h.cfg.Directory.Holder(ctx, p.Tenant, p.User)
	if err == nil && holder.Session == p.ID && holder.Node != h.cfg.Node {
		h.evict(ctx, holder, "left")
	}
}

// crockford is Crockford's base32: no I, L, O, U, so that an id can be read out.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// newID returns prefix and 12 characters with 60 random bits.
func newID(prefix string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + crockford.EncodeToString(b[:])[:12]
}

// newSessionID has 120 random bits: it must not repeat, ever.
func newSessionID() string {
	var b [15]byte
	_, _ = rand.Read(b[:])
	return crockford.EncodeToString(b[:])
}

func (h *Hub) log(s *session) *slog.Logger {
	return h.cfg.Log.With("node", h.cfg.Node, "session", s.id, "user", s.user)
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
