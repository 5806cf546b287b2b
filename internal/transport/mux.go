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

// MuxConfig says where connections go, and limits pending ones. The zero value of a limit means its
// default.
type MuxConfig struct {
	// TLS is the configuration for connections that begin with a TLS handshake; nil: no TLS.
	TLS *tls.Config
	// TURN takes over a connection that speaks TURN (RFC 8656), and returns at once. A connection
	// over TLS has a ConnectionState method. nil: all connections are HTTP.
	TURN func(net.Conn)

	// Timeout is for the TLS handshake or the first bytes, and again for the first bytes inside
	// TLS. Default 10 s.
	Timeout time.Duration
	// MaxPending limits connections whose protocol is not detected yet, default 4096; MaxPerAddress
	// those of one IPv4 address or one /64, default 512. Loopback, where proxies run, is exempt.
	MaxPending    int
	MaxPerAddress int
	// HTTP limits the connections handed to the HTTP server; nil: the defaults of HTTPLimits.
	HTTP *HTTPConns
	// Exempt are proxies. Their connections count in total only, since all clients share them.
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
		// One configuration for all connections: session tickets of one are valid for the next.
		c.TLS = c.TLS.Clone()
		c.TLS.NextProtos = append([]string{alpnTURN, alpnSTUN}, c.TLS.NextProtos...)
	}
}

// Protocol names of ALPN (RFC 7443 and RFC 9113). The server's order decides, so a client that
// offers TURN gets it, whatever else it offers.
const (
	alpnTURN  = "stun.turn"
	alpnSTUN  = "stun.nat-discovery"
	alpnHTTP2 = "h2"
)

// slowAfter is how long a connection may be pending before a new one may evict it at the limit.
// Younger ones stay: when many connect at once the machine is busy with handshakes, and clients
// whose handshake is cut off would only reconnect.
const slowAfter = 3 * time.Second

// Mux serves HTTP and TURN, each with and without TLS, on one TCP port. It detects the protocol of
// a connection once, by its first bytes. 0x16 is a TLS handshake, in which ALPN (RFC 7301) may
// choose HTTP/2. A STUN header (RFC 8489, section 5) is TURN. Everything else is HTTP.
//
// Inside TLS the first bytes decide too, unless ALPN chose HTTP/2: TURN clients offer http/1.1 to
// pass for a browser. TURN over a stream always begins with a STUN message, so ChannelData, which
// could look like text, is not mistaken for HTTP.
//
// A Mux is the net.Listener of the HTTP connections. Where ALPN chose HTTP/2 the connection is the
// *tls.Conn itself: net/http speaks HTTP/2 over nothing else.
type Mux struct {
	// Static after construction.
	cfg            MuxConfig
	listener       net.Listener
	ready          chan net.Conn // to Accept
	done           chan struct{} // closed by Close
	handshakeSlots chan struct{}
	pending        *connSet

	wg sync.WaitGroup // of accept, and of detect for each pending connection

	mu     sync.Mutex
	closed bool // guarded by mu

	counters struct{ http, turn, failed, timedOut, shed atomic.Uint64 }
}

// MuxStats counts connections since the start, by result.
type MuxStats struct {
	Pending  int    // now
	HTTP     uint64 // handed to the HTTP server
	TURN     uint64 // handed to the relay
	Failed   uint64 // ended, or failed the TLS handshake, before the protocol was detected
	TimedOut uint64
	Shed     uint64 // evicted or not accepted at the limit
}

// NewMux takes over a listener and accepts from it until Close.
func NewMux(l net.Listener, cfg MuxConfig) *Mux {
	cfg.defaults()
	m := &Mux{
		cfg:            cfg,
		listener:       l,
		ready:          make(chan net.Conn),
		done:           make(chan struct{}),
		handshakeSlots: make(chan struct{}, maxHandshakes()),
	}
	limits := connSetLimits{
		total:     cfg.MaxPending,
		perSource: cfg.MaxPerAddress,
		exempt:    cfg.Exempt,
		slowAfter: slowAfter,
	}
	m.pending = newConnSet(limits, func(e *entry) {
		m.counters.shed.Add(1)
		_ = e.conn.Close()
	})
	m.wg.Go(m.accept)
	return m
}

// Accept implements net.Listener. It returns the next connection that speaks HTTP.
func (m *Mux) Accept() (net.Conn, error) {
	select {
	case c := <-m.ready:
		return c, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (m *Mux) Addr() net.Addr { return m.listener.Addr() }

// Close implements net.Listener. It closes pending connections, and returns when all goroutines
// have ended.
func (m *Mux) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		m.wg.Wait()
		return net.ErrClosed
	}
	m.closed = true
	m.mu.Unlock()
	m.pending.evictAll()
	close(m.done)
	err := m.listener.Close()
	m.wg.Wait()
	return err
}

// Stats returns the current counts.
func (m *Mux) Stats() MuxStats {
	n, _ := m.pending.count()
	c := &m.counters
	return MuxStats{
		Pending:  n,
		HTTP:     c.http.Load(),
		TURN:     c.turn.Load(),
		Failed:   c.failed.Load(),
		TimedOut: c.timedOut.Load(),
		Shed:     c.shed.Load(),
	}
}

func (m *Mux) accept() {
	failing := false
	for {
		conn, err := m.listener.Accept()
		if err == nil {
			failing = false
			m.admit(conn)
			// Established sessions go first. Of a thousand connections that come at once, none is
			// accepted before the previous one has been looked at.
			runtime.Gosched()
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if !failing { // once, not at every retry
			failing = true
			m.cfg.Log.Warn("accept failed, retrying", "error", err)
		}
		// Most likely descriptors have run out. A new client matters more than an idle connection
		// that was served already; without one, wait until descriptors are free.
		if m.cfg.HTTP.set.evictIdle() {
			continue
		}
		pause := time.NewTimer(50 * time.Millisecond)
		select {
		case <-pause.C:
		case <-m.done:
			pause.Stop()
			return
		}
	}
}

// admit begins to detect the protocol of a connection, or closes it at the limit.
func (m *Mux) admit(conn net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var e *entry
	if !m.closed {
		e = m.pending.add(conn, activeList)
	}
	if e == nil {
		m.counters.shed.Add(1)
		_ = conn.Close()
		return
	}
	m.wg.Go(func() { m.detect(e) })
}

// detect reads the first bytes and hands the connection to its server.
func (m *Mux) detect(e *entry) {
	conn, protocol, err := m.identify(e.conn)
	switch {
	case !m.pending.remove(e): // evicted
		_ = e.conn.Close()
	case err != nil:
		_ = e.conn.Close()
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			m.counters.timedOut.Add(1)
		} else {
			m.counters.failed.Add(1)
		}
		m.cfg.Log.Debug("protocol not detected", "error", err)
	case protocol == protocolSTUN && m.cfg.TURN != nil:
		m.counters.turn.Add(1)
		m.cfg.TURN(conn)
	default:
		m.counters.http.Add(1)
		select {
		case m.ready <- conn:
		case <-m.done:
			_ = e.conn.Close()
		}
	}
}

// identify returns the connection with TLS removed, and its protocol.
func (m *Mux) identify(raw net.Conn) (net.Conn, detectedProtocol, error) {
	// An error of SetDeadline means that the next read fails too.
	startTimeout := func() { _ = raw.SetDeadline(time.Now().Add(m.cfg.Timeout)) }
	startTimeout()
	prefix, protocol, err := sniff(raw, m.cfg.TLS != nil)
	if err != nil {
		return nil, 0, err
	}
	outer := &sniffedConn{Conn: raw, prefix: prefix}
	if protocol != protocolTLS {
		return outer, protocol, raw.SetDeadline(time.Time{})
	}
	below := &handshakeConn{sniffedConn: *outer, slots: m.handshakeSlots}
	secure := tls.Server(below, m.cfg.TLS)
	err = secure.Handshake()
	below.finish()
	if err != nil {
		return nil, 0, err
	}
	if secure.ConnectionState().NegotiatedProtocol == alpnHTTP2 {
		return secure, protocolHTTP, raw.SetDeadline(time.Time{})
	}
	startTimeout()
	if prefix, protocol, err = sniff(secure, false); err != nil {
		return nil, 0, err
	}
	return &sniffedTLSConn{Conn: secure, prefix: prefix}, protocol, raw.SetDeadline(time.Time{})
}
