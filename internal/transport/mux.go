package transport

import (
	"cmp"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// MuxConfig says where connections go and what deciding may cost. The zero value of each bound means its default.
type MuxConfig struct {
	// TLS is the configuration of what begins with a handshake; nil: nothing does.
	TLS *tls.Config
	// TURN takes connections that speak TURN (RFC 8656) and returns at once. What comes by TLS has a ConnectionState method. It may
	// be nil: then all is HTTP.
	TURN func(net.Conn)

	Timeout       time.Duration // for the first bytes with the handshake, and again for the first bytes inside TLS; default 10 s
	MaxPending    int           // connections not yet decided on, default 4,096
	MaxPerAddress int           // of which from one IPv4 address or one /64, default 512; loopback, where proxies live, is exempt
	// HTTP bounds the connections that are handed to the HTTP server; nil: with its defaults.
	HTTP *HTTPConns
	// Exempt are proxies with everybody behind them, of which only the limits in all count.
	Exempt []netip.Prefix
	Log    *slog.Logger
}

func (c *MuxConfig) defaults() {
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.MaxPending = cmp.Or(c.MaxPending, 4096)
	c.MaxPerAddress = cmp.Or(c.MaxPerAddress, 512)
	if c.HTTP == nil {
		c.HTTP = NewHTTPConns(HTTPLimits{Exempt: c.Exempt})
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.TLS != nil {
		// one configuration for all connections, so that the session tickets of one are good for the next
		c.TLS = c.TLS.Clone()
		c.TLS.NextProtos = append([]string{alpnTURN, alpnSTUN}, c.TLS.NextProtos...)
	}
}

// Protocol names of ALPN (RFC 7443 and RFC 9113). The server's order decides, and so whoever names TURN gets it, whatever else it names.
const (
	alpnTURN  = "stun.turn"
	alpnSTUN  = "stun.nat-discovery"
	alpnHTTP2 = "h2"
)

// slowAfter is how long a connection may be undecided before it makes room for a newcomer when there is none left. Younger ones stay:
// when many come at once the machine is busy with handshakes, and to break those off would only bring them all again.
const slowAfter = 3 * time.Second

// Mux serves HTTP and TURN, each with and without TLS, on one TCP port. It decides once for each connection, by its first bytes:
// 0x16 is a TLS handshake, in which ALPN (RFC 7301) may name HTTP/2; a STUN header (RFC 8489, section 5) is TURN; the rest is HTTP.
// Inside TLS the first bytes decide too, whatever ALPN names but HTTP/2: TURN clients name http/1.1 to look like a page.
// TURN over a stream always begins with a STUN message, so ChannelData, which looks like letters, is not mistaken for HTTP.
//
// It is a net.Listener of the HTTP connections. A connection whose ALPN names HTTP/2 is accepted as the *tls.Conn itself: the HTTP
// server speaks it over nothing else.
type Mux struct {
	cfg            MuxConfig
	listener       net.Listener
	ready          chan net.Conn
	done           chan struct{}
	handshakeSlots chan struct{}  // one for each handshake that computes
	wg             sync.WaitGroup // the accepting goroutine, and one for each connection that is being decided on

	pending *connSet

	mu     sync.Mutex
	closed bool

	counters struct{ http, turn, failed, slow, shed atomic.Uint64 }
}

// MuxStats are counted since the start.
type MuxStats struct {
	Pending  int    // now
	HTTP     uint64 // connections handed to the HTTP server
	TURN     uint64 // and to the relay
	Failed   uint64 // gone, or no TLS client of ours, before they were decided on
	TimedOut uint64 // not decided on in time
	Shed     uint64 // broken off or not taken in because there were too many
}

// NewMux takes over a listener and accepts from it until Close.
func NewMux(l net.Listener, cfg MuxConfig) *Mux {
	cfg.defaults()
	s := &Mux{
		cfg: cfg, listener: l, ready: make(chan net.Conn), done: make(chan struct{}), handshakeSlots: make(chan struct{}, maxHandshakes()),
	}
	s.pending = newConnSet(cfg.MaxPending, cfg.MaxPerAddress, 0, cfg.Exempt, slowAfter, func(e *entry) {
		s.counters.shed.Add(1)
		_ = e.conn.Close()
	})
	s.wg.Go(s.accept)
	return s
}

// Accept implements net.Listener: it returns the next connection that speaks HTTP.
func (s *Mux) Accept() (net.Conn, error) {
	select {
	case c := <-s.ready:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (s *Mux) Addr() net.Addr { return s.listener.Addr() }

// Close implements net.Listener. Connections that are not decided on are cut; it returns when all is quiet.
func (s *Mux) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.wg.Wait()
		return net.ErrClosed
	}
	s.closed = true
	s.mu.Unlock()
	s.pending.evictAll()
	close(s.done)
	err := s.listener.Close()
	s.wg.Wait()
	return err
}

// Stats is a snapshot.
func (s *Mux) Stats() MuxStats {
	n, _ := s.pending.count()
	c := &s.counters
	return MuxStats{n, c.http.Load(), c.turn.Load(), c.failed.Load(), c.slow.Load(), c.shed.Load()}
}

func (s *Mux) accept() {
	faulty := false
	for {
		conn, err := s.listener.Accept()
		if err == nil {
			faulty = false
			s.admit(conn)
			runtime.Gosched() // who is there goes first: of a thousand that come at once none is taken before the last has been looked at
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if !faulty { // once, not for every try
			faulty = true
			s.cfg.Log.Warn("connections not accepted", "error", err)
		}
		// Out of descriptors, most likely: whoever waits in front of us is worth more than who has been served, and else we wait for
		// some to come back.
		if s.cfg.HTTP.set.evictIdle() {
			continue
		}
		pause := time.NewTimer(50 * time.Millisecond)
		select {
		case <-pause.C:
		case <-s.done:
			pause.Stop()
			return
		}
	}
}

// admit begins to decide on a connection, or closes it when there are too many.
func (s *Mux) admit(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var e *entry
	if !s.closed {
		e = s.pending.add(conn, activeList)
	}
	if e == nil {
		s.counters.shed.Add(1)
		_ = conn.Close()
		return
	}
	s.wg.Go(func() { s.detect(e) })
}

// detect reads the first bytes and hands the connection to whom it belongs.
func (s *Mux) detect(u *entry) {
	conn, kind, err := s.identify(u.conn)
	switch {
	case !s.pending.remove(u):
		_ = u.conn.Close()
	case err != nil:
		_ = u.conn.Close()
		var limit net.Error
		if errors.As(err, &limit) && limit.Timeout() {
			s.counters.slow.Add(1)
		} else {
			s.counters.failed.Add(1)
		}
		s.cfg.Log.Debug("connection not decided on", "error", err)
	case kind == protocolSTUN && s.cfg.TURN != nil:
		s.counters.turn.Add(1)
		s.cfg.TURN(conn)
	default:
		s.counters.http.Add(1)
		select {
		case s.ready <- conn:
		case <-s.done:
			_ = u.conn.Close()
		}
	}
}

func (s *Mux) identify(raw net.Conn) (net.Conn, detectedProtocol, error) {
	limit := func() { _ = raw.SetDeadline(time.Now().Add(s.cfg.Timeout)) } // fails only where reading fails next
	limit()
	head, kind, err := sniff(raw, s.cfg.TLS != nil)
	if err != nil {
		return nil, 0, err
	}
	outer := &sniffedConn{Conn: raw, prefix: head}
	if kind != protocolTLS {
		return outer, kind, raw.SetDeadline(time.Time{})
	}
	shaking := &handshakeConn{sniffedConn: *outer, slots: s.handshakeSlots}
	secure := tls.Server(shaking, s.cfg.TLS)
	err = secure.Handshake()
	shaking.finish()
	if err != nil {
		return nil, 0, err
	}
	if secure.ConnectionState().NegotiatedProtocol == alpnHTTP2 {
		return secure, protocolHTTP, raw.SetDeadline(time.Time{})
	}
	limit()
	if head, kind, err = sniff(secure, false); err != nil {
		return nil, 0, err
	}
	return &sniffedTLSConn{Conn: secure, prefix: head}, kind, raw.SetDeadline(time.Time{})
}
