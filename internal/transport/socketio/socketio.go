// Package socketio is the transport for Socket.IO clients: Socket.IO protocol 5 over Engine.IO 4
// (clients 3 and 4) and protocol 4 over Engine.IO 3 (client 2), by polling, by WebSocket, and by
// polling that is upgraded to WebSocket.
//
// A message is the one argument of the event `knowledgetalk`, in both directions. The answer to a
// message that was sent with an acknowledgement is that acknowledgement; every other answer is an
// event. There is one namespace, "/", and no binary data.
//
// A session is a transport.Conn, whether its packets come by the requests of a polling client, by a
// WebSocket, or first by the former and then by the latter. Its end is reported as for a WebSocket.
// A client that closes (disconnect, close, or the close code 1000, 1001 or none) is gone; one that
// falls silent is lost. When the server closes a session and the client may come back, the client
// sees the end of the transport, after which Socket.IO clients reconnect by themselves. After a
// final close code it gets a disconnect packet, after which they do not.
package socketio

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/netaddr"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// Path is the path of the handshake.
const Path = "/socket.io/"

// Config limits what a session may cost. The zero value of each field means its default.
type Config struct {
	// Conn limits messages and the outbox, as for any connection.
	Conn transport.Config

	PingInterval   time.Duration // default 25 s
	PingTimeout    time.Duration // for the pong, default 20 s
	UpgradeTimeout time.Duration // from the new WebSocket to the packet that upgrades, default 10 s
	MaxSessions    int           // default 20,000, negative: no limit
}

func (c *Config) defaults() {
	c.Conn = c.Conn.WithDefaults()
	c.PingInterval = cmp.Or(c.PingInterval, 25*time.Second)
	c.PingTimeout = cmp.Or(c.PingTimeout, 20*time.Second)
	c.UpgradeTimeout = cmp.Or(c.UpgradeTimeout, 10*time.Second)
	c.MaxSessions = cmp.Or(c.MaxSessions, 20_000)
}

// closedSessionTTL is how long a closed session is kept, so that its client can fetch the last
// packets and post its own last one.
const closedSessionTTL = 5 * time.Second

// Server is an http.Handler for Path.
type Server struct {
	// Static after construction.
	cfg     Config
	accept  func(transport.Conn) transport.Receiver
	ws      *transport.WebSocket
	started time.Time
	stop    chan struct{} // closed by Close

	// Guarded by mu.
	mu       sync.Mutex
	sessions map[string]*session
	ended    map[*session]struct{} // of sessions: closed, without a WebSocket
	closed   bool

	wg sync.WaitGroup // the sweeper, and each session until its receiver knows of the end
}

// New returns a handler. accept is called for each session, before its first message.
func New(cfg Config, accept func(transport.Conn) transport.Receiver) *Server {
	cfg.defaults()
	s := &Server{
		cfg:      cfg,
		accept:   accept,
		sessions: map[string]*session{},
		ended:    map[*session]struct{}{},
		started:  time.Now(),
		stop:     make(chan struct{}),
	}
	ws := cfg.Conn
	// A session counts once, whatever its transport. Its WebSockets count apart: one may fail to
	// replace polling, or outlast the session.
	ws.Limiter = cfg.Conn.Limiter.Separate()
	ws.MaxMessage += packetOverhead
	// Engine.IO has its own pings. Those of WebSocket are for connections that these do not reach.
	ws.PingAfter = cfg.PingInterval + 2*cfg.PingTimeout
	ws.SilenceTimeout = 2 * ws.PingAfter
	s.ws = transport.NewWebSocket(ws, nil) // accept is an argument of Upgrade
	s.wg.Go(s.sweep)
	cfg.Conn.Backlog.Watch(s.queuedBytes)
	return s
}

// queuedBytes lists polling sessions for the backlog.
func (s *Server) queuedBytes(yield func(transport.QueuedBytes)) {
	for _, c := range s.snapshot() {
		if u := c.queuedBytes(); u.Total > 0 {
			yield(u)
		}
	}
}

// engineError is one of Engine.IO's answers to requests that cannot be served.
type engineError struct {
	status  int // of HTTP
	code    int // of Engine.IO
	message string
}

var (
	errUnknownTransport    = &engineError{http.StatusBadRequest, 0, "Transport unknown"}
	errUnknownSession      = &engineError{http.StatusBadRequest, 1, "Session ID unknown"}
	errHandshakeMethod     = &engineError{http.StatusBadRequest, 2, "Bad handshake method"}
	errBadRequest          = &engineError{http.StatusBadRequest, 3, "Bad request"}
	errForbidden           = &engineError{http.StatusForbidden, 4, "Forbidden"}
	errVersion             = &engineError{http.StatusBadRequest, 5, "Unsupported protocol version"}
	errTooLarge            = &engineError{http.StatusRequestEntityTooLarge, 3, "Bad request"}
	errInternal            = &engineError{http.StatusInternalServerError, 3, "Bad request"}
	errServerFull          = &engineError{http.StatusServiceUnavailable, 3, "Bad request"}
	errTooManyUnregistered = &engineError{http.StatusTooManyRequests, 3, "Bad request"}
)

func (e *engineError) serve(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	switch e.status {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "5")
	case http.StatusTooManyRequests:
		h.Set("Retry-After", "10")
	}
	w.WriteHeader(e.status)
	body := `{"code":` + strconv.Itoa(e.code) + `,"message":"` + e.message + `"}`
	_, _ = w.Write([]byte(body))
}

// ServeHTTP opens sessions and serves their polls, posts and WebSockets.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	origin, ok := transport.CheckOrigin(r, s.cfg.Conn.AnyOrigin)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Origin")
	switch {
	case !ok:
		errForbidden.serve(w)
		return
	case r.URL.Path != Path:
		http.NotFound(w, r)
		return
	}
	if origin != "" {
		// A page that can reach the WebSocket may reach this. Client 2, and others where a load
		// balancer sets a cookie, send credentials, and see the response only if that is allowed.
		// There is no cookie of ours that another site could make use of.
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if r.Method == http.MethodOptions {
		servePreflight(w, r)
		return
	}
	if err := s.route(w, r, origin); err != nil {
		err.serve(w)
	}
}

// servePreflight answers a CORS preflight request.
func servePreflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Add("Vary", "Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", "GET, POST")
	// "*" has no meaning in requests with credentials.
	if requested := r.Header.Get("Access-Control-Request-Headers"); requested != "" {
		h.Set("Access-Control-Allow-Headers", requested)
	}
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}

// route serves the request, or returns the error to answer it with.
func (s *Server) route(w http.ResponseWriter, r *http.Request, origin string) *engineError {
	q := r.URL.Query()
	polling := q.Get("transport") == "polling"
	if !polling && q.Get("transport") != "websocket" {
		return errUnknownTransport
	}
	version := 0
	switch q.Get("EIO") {
	case "3":
		version = 3
	case "4":
		version = 4
	default:
		return errVersion
	}
	if q.Has("j") { // JSONP: for browsers without WebRTC
		return errBadRequest
	}
	if q.Has("sid") {
		c := s.session(q.Get("sid"))
		switch {
		case c == nil:
			return errUnknownSession
		case c.version != version:
			return errBadRequest
		case !polling:
			return c.serveUpgrade(w, r)
		case r.Method == http.MethodGet:
			return c.servePoll(w, r)
		case r.Method == http.MethodPost:
			return c.servePost(w, r)
		}
		return errBadRequest
	}
	if r.Method != http.MethodGet {
		return errHandshakeMethod
	}
	return s.serveHandshake(w, r, origin, version, polling)
}

// serveHandshake opens a session.
func (s *Server) serveHandshake(
	w http.ResponseWriter, r *http.Request, origin string, version int, polling bool,
) *engineError {
	if origin == "" && r.Header.Get("Sec-Fetch-Site") == "same-origin" {
		origin = ownOrigin(r) // browsers send no Origin in a GET of the same origin
	}
	peer := transport.PeerOf(r, origin, s.cfg.Conn.TrustedProxies)
	status, reserve := s.cfg.Conn.Limiter.Acquire(peer.Addr.Addr(), transport.Resumes(r))
	peer.Reserve = reserve
	switch status {
	case http.StatusTooManyRequests:
		return errTooManyUnregistered
	case http.StatusServiceUnavailable:
		return errServerFull
	}
	c := s.open(version, peer)
	if c == nil {
		s.cfg.Conn.Limiter.Release(peer.Addr.Addr(), false)
		return errServerFull
	}
	if polling {
		c.serveOpen(w)
		return nil
	}
	if !s.ws.Upgrade(w, r, c.acceptWebSocket) {
		c.abandon()
	}
	return nil
}

// ownOrigin returns the origin of a page that polls its own server. Browsers send Sec-Fetch-Site
// only to HTTPS and to loopback hosts (W3C Fetch Metadata, section 2.1). So a request without TLS
// for another host has come through a proxy that terminates TLS.
func ownOrigin(r *http.Request) string {
	if r.TLS == nil && loopbackHost(r.Host) {
		return "http://" + r.Host
	}
	return "https://" + r.Host
}

// loopbackHost tells whether host, with or without a port, names this machine (W3C Secure Contexts,
// section 3.1).
func loopbackHost(host string) bool { return netaddr.IsLoopback(netaddr.Host(host)) }

// newID returns 120 random bits. The id of a session is a secret: it gives control of the session.
func newID() string {
	var b [15]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// open opens a session. At the limit it takes the place of an ended one: those are counted by no
// limit of connections. It returns nil when none has ended or the server stops.
func (s *Server) open(version int, peer transport.Peer) *session {
	now := time.Now()
	c := &session{
		srv:       s,
		id:        newID(),
		version:   version,
		peer:      peer,
		pollLock:  make(chan struct{}, 1),
		wake:      make(chan struct{}, 1),
		connected: version == 3, // there the server connects its client to "/" unasked
		since:     now,
		lastPoll:  now,
	}
	s.mu.Lock()
	var forgotten *session
	if s.cfg.MaxSessions >= 0 && len(s.sessions) >= s.cfg.MaxSessions {
		forgotten = s.forgetEnded()
	}
	if s.closed || s.cfg.MaxSessions >= 0 && len(s.sessions) >= s.cfg.MaxSessions {
		s.mu.Unlock()
		return nil
	}
	s.sessions[c.id] = c
	s.wg.Add(1)
	c.recvMu.Lock()
	s.mu.Unlock()
	defer c.recvMu.Unlock()
	if forgotten != nil {
		forgotten.shed()
	}
	c.receiver = s.accept(c)
	return c
}

func (s *Server) session(id string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[id]
}

func (s *Server) remove(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(c)
}

// removeLocked is remove with mu held.
func (s *Server) removeLocked(c *session) {
	delete(s.sessions, c.id)
	delete(s.ended, c)
}

// addEnded notes that a session without a WebSocket has ended. The session's mu is held.
func (s *Server) addEnded(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[c.id] == c {
		s.ended[c] = struct{}{}
	}
}

// forgetEnded removes an ended session, and returns it; nil: there is none. mu is held.
func (s *Server) forgetEnded() *session {
	for c := range s.ended {
		s.removeLocked(c)
		return c
	}
	return nil
}

// snapshot copies the set, so that nothing is called with mu held.
func (s *Server) snapshot() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*session, 0, len(s.sessions))
	for _, c := range s.sessions {
		all = append(all, c)
	}
	return all
}

// Count is the number of sessions, including closed ones that are still kept.
func (s *Server) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// Conns are the open sessions.
func (s *Server) Conns() (all []transport.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.sessions {
		if _, ended := s.ended[c]; !ended {
			all = append(all, c)
		}
	}
	return all
}

// Close tells every client to reconnect (StatusGoingAway) and waits until all sessions have ended
// or ctx is done. Then it aborts the rest.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	for _, c := range s.snapshot() {
		c.Close(transport.StatusGoingAway, "server stops: reconnect")
	}
	err := s.ws.Close(ctx)
	s.wg.Wait()
	for _, c := range s.snapshot() { // polling clients that did not fetch their last packets
		c.discard()
		s.remove(c)
	}
	return err
}

// sweep calls tick for all sessions. It is one goroutine for all, so that a session needs no timer.
func (s *Server) sweep() {
	ticker := time.NewTicker(max(s.cfg.PingInterval/10, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-ticker.C:
			for _, c := range s.snapshot() {
				if c.tick(now) {
					s.remove(c)
				}
			}
		}
	}
}
