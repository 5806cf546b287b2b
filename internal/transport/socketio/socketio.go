// Package socketio carries messages for Socket.IO clients: Socket.IO protocol 5 over Engine.IO 4 (clients 3 and 4) and protocol
// 4 over Engine.IO 3 (client 2), by polling, by WebSocket, and by polling that changes over to WebSocket.
//
// A message is the one argument of the event `knowledgetalk`, in both directions. The answer to a message that was sent with an
// acknowledgement goes there, every other one is an event. There is one namespace, "/", and no binary data.
//
// A session is a transport.Conn, whatever brings its packets: the requests of a polling client, a WebSocket, or first the one and
// then the other. How it ends is told as for a WebSocket: a client that says so is gone (disconnect, close, or the close code
// 1000, 1001 or none), one that falls silent is lost. Towards the client an end that it may come back from is the end of the
// transport, after which Socket.IO clients reconnect by themselves; one that it must not (4001 to 4003) is a disconnect packet,
// after which they do not.
package socketio

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// Path is where clients look for the carrier.
const Path = "/socket.io/"

// Config bounds what a session may cost. The zero value of each field means its default.
type Config struct {
	// Conn bounds messages and the outbox, as for any connection.
	Conn transport.Config

	PingInterval   time.Duration // from one ping to the next, default 25 s
	PingTimeout    time.Duration // how long an answer may take, default 20 s
	UpgradeTimeout time.Duration // from a WebSocket that takes over to the client's word that it does, default 10 s
	MaxSessions    int           // default 20,000, negative: no limit; more are told to come back later
}

func (c *Config) defaults() {
	c.Conn = c.Conn.WithDefaults()
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.PingInterval, 25*time.Second)
	set(&c.PingTimeout, 20*time.Second)
	set(&c.UpgradeTimeout, 10*time.Second)
	if c.MaxSessions == 0 {
		c.MaxSessions = 20_000
	}
}

// how long an ended session is remembered, so that its client can fetch the last packets and say its own last word
const closedSessionTTL = 5 * time.Second

// Server is an http.Handler for Path.
type Server struct {
	cfg    Config
	accept func(transport.Conn) transport.Receiver
	ws     *transport.WebSocket

	mu       sync.Mutex
	sessions map[string]*session
	closed   bool
	wg       sync.WaitGroup // the sweeper, and each session until its receiver knows of the end
	stop     chan struct{}
}

// New makes a handler; accept is called for each session, before its first message.
func New(cfg Config, accept func(transport.Conn) transport.Receiver) *Server {
	cfg.defaults()
	s := &Server{cfg: cfg, accept: accept, sessions: map[string]*session{}, stop: make(chan struct{})}
	ws := cfg.Conn
	ws.Limiter = nil // a session is counted once, whatever carries it
	ws.MaxMessage += packetOverhead
	// Engine.IO has pings of its own: those of WebSocket are for what they cannot see.
	ws.PingAfter = cfg.PingInterval + 2*cfg.PingTimeout
	ws.SilenceTimeout = 2 * ws.PingAfter
	s.ws = transport.NewWebSocket(ws, nil) // each connection brings its own accept
	s.wg.Go(s.sweep)
	cfg.Conn.Backlog.Watch(s.queuedBytes)
	return s
}

// unread lists polling sessions for the backlog.
func (s *Server) queuedBytes(tell func(transport.QueuedBytes)) {
	for _, c := range s.snapshot() {
		if u := c.queuedBytes(); u.Total > 0 {
			tell(u)
		}
	}
}

// fault is one of Engine.IO's answers to requests it cannot serve.
type engineError struct {
	status  int
	code    int
	message string
}

var (
	errUnknownTransport    = engineError{http.StatusBadRequest, 0, "Transport unknown"}
	errUnknownSession      = engineError{http.StatusBadRequest, 1, "Session ID unknown"}
	errHandshakeMethod     = engineError{http.StatusBadRequest, 2, "Bad handshake method"}
	errBadRequest          = engineError{http.StatusBadRequest, 3, "Bad request"}
	errForbidden           = engineError{http.StatusForbidden, 4, "Forbidden"}
	errVersion             = engineError{http.StatusBadRequest, 5, "Unsupported protocol version"}
	errTooLarge            = engineError{http.StatusRequestEntityTooLarge, 3, "Bad request"}
	errServerFull          = engineError{http.StatusServiceUnavailable, 3, "Bad request"}
	errTooManyUnregistered = engineError{http.StatusTooManyRequests, 3, "Bad request"}
)

func (f engineError) serve(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	switch f.status {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "5")
	case http.StatusTooManyRequests:
		h.Set("Retry-After", "10")
	}
	w.WriteHeader(f.status)
	_, _ = w.Write([]byte(`{"code":` + strconv.Itoa(f.code) + `,"message":"` + f.message + `"}`))
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
		// Any page that could reach the WebSocket may reach this. Client 2, and others where a balancer sets a cookie, ask with
		// credentials, and are then shown the answer only if that is allowed. Nothing here looks at cookies, so none are borrowed.
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if r.Method == http.MethodOptions {
		h.Add("Vary", "Access-Control-Request-Headers")
		h.Set("Access-Control-Allow-Methods", "GET, POST")
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" { // "*" means none where credentials are
			h.Set("Access-Control-Allow-Headers", asked)
		}
		h.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if f, ok := s.route(w, r, origin); !ok {
		f.serve(w)
	}
}

// route returns false and a fault when it has not answered.
func (s *Server) route(w http.ResponseWriter, r *http.Request, origin string) (engineError, bool) {
	q := r.URL.Query()
	polling := q.Get("transport") == "polling"
	if !polling && q.Get("transport") != "websocket" {
		return errUnknownTransport, false
	}
	version := 0
	switch q.Get("EIO") {
	case "3":
		version = 3
	case "4":
		version = 4
	default:
		return errVersion, false
	}
	if q.Has("j") { // a script element instead of a request: for browsers that have no WebRTC
		return errBadRequest, false
	}
	if q.Has("sid") {
		c := s.session(q.Get("sid"))
		switch {
		case c == nil:
			return errUnknownSession, false
		case c.version != version:
			return errBadRequest, false
		case !polling:
			return c.serveProbe(w, r)
		case r.Method == http.MethodGet:
			return c.servePoll(w, r)
		case r.Method == http.MethodPost:
			return c.servePost(w, r)
		}
		return errBadRequest, false
	}
	if r.Method != http.MethodGet {
		return errHandshakeMethod, false
	}
	if origin == "" && r.Header.Get("Sec-Fetch-Site") == "same-origin" {
		origin = ownOrigin(r) // browsers name the origin in a same-origin GET only this way
	}
	peer := transport.PeerOf(r, origin, s.cfg.Conn.TrustedProxies)
	status, reserve := s.cfg.Conn.Limiter.Acquire(peer.Addr.Addr(), transport.Resumes(r))
	peer.Reserve = reserve
	switch status {
	case http.StatusTooManyRequests:
		return errTooManyUnregistered, false
	case http.StatusServiceUnavailable:
		return errServerFull, false
	}
	c := s.open(version, peer)
	if c == nil {
		s.cfg.Conn.Limiter.Release(peer.Addr.Addr(), false)
		return errServerFull, false
	}
	if polling {
		c.serveOpen(w)
		return engineError{}, true
	}
	if !s.ws.Upgrade(w, r, c.acceptWebSocket) {
		c.abandon()
	}
	return engineError{}, true
}

// ownOrigin is the origin of a page that polls its own server. Browsers send Sec-Fetch-Site to HTTPS and to loopback hosts only
// (W3C Fetch Metadata, section 2.1): without TLS here, a page of another host reached a proxy that ends TLS.
func ownOrigin(r *http.Request) string {
	if r.TLS == nil && loopbackHost(r.Host) {
		return "http://" + r.Host
	}
	return "https://" + r.Host
}

// loopbackHost tells whether host, with or without a port, names this machine (W3C Secure Contexts, section 3.1).
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.IsLoopback()
}

// newID has 120 random bits: who knows a session's id owns the session.
func newID() string {
	var b [15]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// open makes a session, or returns nil when there are too many or the server stops.
func (s *Server) open(version int, peer transport.Peer) *session {
	c := &session{srv: s, id: newID(), version: version, peer: peer, wake: make(chan struct{}, 1), pollLock: make(chan struct{}, 1)}
	c.since = time.Now()
	c.lastPoll = c.since
	c.connected = version == 3 // there the server connects its client to "/" unasked
	s.mu.Lock()
	if s.closed || (s.cfg.MaxSessions >= 0 && len(s.sessions) >= s.cfg.MaxSessions) {
		s.mu.Unlock()
		return nil
	}
	s.sessions[c.id] = c
	s.wg.Add(1)
	c.recvMu.Lock()
	s.mu.Unlock()
	defer c.recvMu.Unlock()
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
	delete(s.sessions, c.id)
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

// Count is the number of sessions, those that have just ended included.
func (s *Server) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// Close lets every client go (1001: they come back later by themselves) and waits until all sessions have ended or ctx is done;
// then it cuts the rest.
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

// sweep pings, finds the silent and forgets the ended: one goroutine for all, no timer each.
func (s *Server) sweep() {
	every := time.NewTicker(max(s.cfg.PingInterval/10, time.Millisecond))
	defer every.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-every.C:
			for _, c := range s.snapshot() {
				if c.tick(now) {
					s.remove(c)
				}
			}
		}
	}
}
