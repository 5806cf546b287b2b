package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Config bounds what a connection may cost. The zero value of each field means its default.
type Config struct {
	MaxMessage     int           // bytes, default 64 KiB; more closes with 1009
	OutboxMessages int           // default 2048
	OutboxBytes    int           // default 1 MiB
	WriteTimeout   time.Duration // of one message, default 10 s
	PingAfter      time.Duration // of silence, default 25 s
	SilenceTimeout time.Duration // default 60 s
	TCPUserTimeout time.Duration // a client's system has not acknowledged what was sent (Linux), default 6 s
	// AnyOrigin lets pages with a null or malformed origin connect: for development.
	AnyOrigin bool
	// Gate counts connections, and refuses those that are too many; nil: there is no limit.
	Limiter *ConnLimiter
	// Backlog bounds what all clients together have not read; nil: nothing does.
	Backlog *Backlog
	// TrustedProxies are those whose X-Forwarded-For says who the client is.
	TrustedProxies []netip.Prefix
	Log            *slog.Logger
}

// WithDefaults returns c with every unset field set, for carriers that stand on this package.
func (c Config) WithDefaults() Config {
	c.defaults()
	return c
}

func (c *Config) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.MaxMessage == 0 {
		c.MaxMessage = 64 << 10
	}
	if c.OutboxMessages == 0 {
		c.OutboxMessages = 2048 // more than a room of usual size can say at once, before the writer has had its turn
	}
	if c.OutboxBytes == 0 {
		c.OutboxBytes = 1 << 20
	}
	set(&c.WriteTimeout, 10*time.Second)
	set(&c.PingAfter, 25*time.Second)
	set(&c.SilenceTimeout, 60*time.Second)
	set(&c.TCPUserTimeout, 6*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// how long a closed connection may still bring its last bytes: closing with unread data would reset the connection, and the
// client would never see the close code
const closeGrace = time.Second

// WebSocket is an http.Handler that upgrades requests (RFC 6455) and serves the connections.
type WebSocket struct {
	cfg     Config
	accept  func(Conn) Receiver
	started time.Time
	clock   atomic.Int64 // time since begin, of the sweeper's last round: asking for it at each message would cost more than it tells

	mu     sync.Mutex
	conns  map[*wsConn]struct{}
	poller *poller // made for the first socket
	closed bool
	wg     sync.WaitGroup // the connections, and the sweeper
	stop   chan struct{}
}

// NewWebSocket makes a handler; accept is called for each connection, before its first message.
func NewWebSocket(cfg Config, accept func(Conn) Receiver) *WebSocket {
	cfg.defaults()
	s := &WebSocket{cfg: cfg, accept: accept, conns: map[*wsConn]struct{}{}, stop: make(chan struct{}), started: time.Now()}
	s.wg.Go(s.sweep)
	cfg.Backlog.Watch(s.queuedBytes)
	return s
}

// unread lists connections for the backlog.
func (s *WebSocket) queuedBytes(tell func(QueuedBytes)) {
	for _, c := range s.snapshot() {
		if u := c.out.queuedBytes(); u.Total > 0 {
			tell(u)
		}
	}
}

// ServeHTTP refuses foreign pages with 403 and what is too many with 429 and 503, upgrades, and returns at once: the handler's stack and request are then freed.
func (s *WebSocket) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.Upgrade(w, r, s.accept) }

// Upgrade is ServeHTTP with an accept of its own for this one connection. It returns false when it has refused the request:
// accept is then never called.
func (s *WebSocket) Upgrade(w http.ResponseWriter, r *http.Request, accept func(Conn) Receiver) bool {
	origin, ok := CheckOrigin(r, s.cfg.AnyOrigin)
	if !ok {
		http.Error(w, "This origin may not connect.", http.StatusForbidden)
		return false
	}
	if s.stopped() {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "The server is stopping.", http.StatusServiceUnavailable)
		return false
	}
	accepted, hello, refusal := handshake(r)
	if refusal == 0 && len(hello) > s.cfg.MaxMessage {
		refusal = http.StatusBadRequest
	}
	if refusal != 0 {
		if r.ProtoMajor == 1 { // HTTP/2 has no such field (RFC 9113, section 8.2.2)
			w.Header().Set("Upgrade", "websocket")
		}
		w.Header().Set("Sec-WebSocket-Version", "13")
		http.Error(w, "This address speaks WebSocket.", refusal)
		return false
	}
	hj, ok := w.(http.Hijacker)
	if !ok {
		http.Error(w, "WebSocket needs HTTP/1.1.", http.StatusHTTPVersionNotSupported)
		return false
	}
	peer := PeerOf(r, origin, s.cfg.TrustedProxies)
	peer.EarlyMessage = hello != nil
	status, reserve := s.cfg.Limiter.Acquire(peer.Addr.Addr(), Resumes(r))
	if status != 0 {
		rejectUpgrade(w, status)
		return false
	}
	peer.Reserve = reserve
	if !s.hijack(hj, peer, accepted, hello, accept) {
		s.cfg.Limiter.Release(peer.Addr.Addr(), false)
		return false
	}
	return true
}

// hijack takes the connection from the HTTP server and answers the request. From then on the connection leaves the gate by itself.
func (s *WebSocket) hijack(hj http.Hijacker, peer Peer, accepted, hello []byte, accept func(Conn) Receiver) bool {
	nc, rw, err := hj.Hijack()
	if err != nil {
		return false
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered()) // of a client that did not wait for our answer
	_ = nc.SetDeadline(time.Now().Add(s.cfg.WriteTimeout))
	_, err = nc.Write(accepted)
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil || !s.add(newConn(s, nc, peer), hello, bytes.Clone(early), accept) {
		_ = nc.Close()
		return false
	}
	return true
}

func (s *WebSocket) stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *WebSocket) add(c *wsConn, hello, early []byte, accept func(Conn) Receiver) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	go c.start(hello, early, accept)
	return true
}

// poll has c read by the poller's workers. It returns false when that cannot be.
func (s *WebSocket) startPolling(c *wsConn) bool {
	if c.sock == nil {
		return false
	}
	s.mu.Lock()
	if s.poller == nil {
		s.poller = newPoller()
	}
	p := s.poller
	s.mu.Unlock()
	return p != nil && p.add(c.sock)
}

func (s *WebSocket) remove(c *wsConn) {
	s.mu.Lock()
	delete(s.conns, c)
	p := s.poller
	s.mu.Unlock()
	if p != nil && c.sock != nil {
		p.remove(c.sock)
	}
}

// snapshot copies the set, so that nothing is called with mu held.
func (s *WebSocket) snapshot() []*wsConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*wsConn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

// Count is the number of open connections.
func (s *WebSocket) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Close tells every client to come back later (1001) and waits until all connections have ended or ctx is done; then it cuts
// the rest.
func (s *WebSocket) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	for _, c := range s.snapshot() {
		c.Close(StatusGoingAway, "server stops: reconnect")
	}
	quiet := make(chan struct{})
	go func() {
		s.wg.Wait()
		if s.poller != nil { // there is no connection that could make one
			s.poller.close()
		}
		close(quiet)
	}()
	select {
	case <-quiet:
		return nil
	case <-ctx.Done():
		for _, c := range s.snapshot() {
			c.abort()
		}
		<-quiet
		return ctx.Err()
	}
}

// sweep pings silent connections and ends those that stay silent: one goroutine for all, no timer each.
func (s *WebSocket) sweep() {
	second := time.NewTicker(min(time.Second, s.cfg.PingAfter/5))
	defer second.Stop()
	silence := time.NewTicker(s.cfg.PingAfter / 5)
	defer silence.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-second.C:
			s.clock.Store(int64(time.Since(s.started)))
		case <-silence.C:
			now := time.Since(s.started) // a step of the wall clock is not in it
			for _, c := range s.snapshot() {
				switch silent := now - time.Duration(c.lastHeard.Load()); {
				case silent >= s.cfg.SilenceTimeout:
					c.abort()
				case silent >= s.cfg.PingAfter:
					c.out.enqueueControl(opPing, nil)
				}
			}
		}
	}
}

// wsConn is a Conn over a WebSocket.
type wsConn struct {
	srv  *WebSocket
	peer Peer
	net  net.Conn
	sock *socket // of net; nil: a goroutine reads net and waits

	receiver          Receiver // owned by the reader, as are the fields up to smallsOf
	scanner           frameScanner
	peerCode          StatusCode   // code of the client's close frame
	smallFrames       uint32       // small frames
	smallFramesSecond uint32       // the second in which they came, by the server's clock
	lastHeard         atomic.Int64 // the server's clock at the last frame
	closing           atomic.Bool  // we closed: what still comes in is not read as messages
	registered        atomic.Bool  // its user is, see Gate
	out               outbox
}

func newConn(s *WebSocket, nc net.Conn, p Peer) *wsConn {
	c := &wsConn{srv: s, net: nc, peer: p, scanner: frameScanner{limit: s.cfg.MaxMessage}}
	c.out = outbox{maxCount: s.cfg.OutboxMessages, maxBytes: s.cfg.OutboxBytes, write: c.write, onDrained: c.closeSocket, abortWrite: c.abortWrite, backlog: s.cfg.Backlog}
	c.sock, c.out.tryWrite = newSocket(c, nc)
	c.lastHeard.Store(s.clock.Load())
	setTCPUserTimeout(nc, s.cfg.TCPUserTimeout)
	return c
}

func (c *wsConn) Peer() Peer           { return c.peer }
func (c *wsConn) Send(m *Message) bool { return c.out.send(m) }

// Offer implements Conn.
func (c *wsConn) Offer(m *Message, share Share) error { return c.out.offer(m, share) }

func (c *wsConn) Close(code StatusCode, reason string) {
	c.closing.Store(true)
	c.out.close(code, reason)
}

// MarkRegistered implements registerer.
func (c *wsConn) MarkRegistered() {
	if !c.registered.Swap(true) {
		c.srv.cfg.Limiter.MarkRegistered(c.peer.Addr.Addr())
	}
}

// serve begins the reading; hello is the message that came with the request, early what the HTTP server has read, of a client that did
// not wait for the answer. A panic in a handler goes on its way.
func (c *wsConn) start(hello, early []byte, accept func(Conn) Receiver) {
	c.receiver = accept(c)
	if c.peer.EarlyMessage {
		c.onMessage(opText, hello)
	}
	if err := c.scanner.scan(early, c); err != nil {
		c.teardown(err)
	} else if !c.srv.startPolling(c) {
		c.readLoop()
	}
}

// readOn reads by this goroutine.
func (c *wsConn) readLoop() { c.teardown(c.readBlocking()) }

// ended is the connection's end, for whoever owns the reading. It waits.
func (c *wsConn) teardown(err error) {
	c.receiver.Closed(c.endFor(err))
	c.scanner.release()
	c.drain()
	_ = c.net.Close()
	c.out.wait()
	c.srv.cfg.Limiter.Release(c.peer.Addr.Addr(), c.registered.Swap(true))
	c.srv.remove(c)
	c.srv.wg.Done()
}

// cut closes the connection, and has its reader see that.
func (c *wsConn) abort() {
	_ = c.net.Close()
	if c.sock != nil {
		c.sock.handOver()
	}
}

// readStream reads and waits: while it waits for a new message, by a small buffer.
func (c *wsConn) readBlocking() error {
	small := make([]byte, 512)
	for {
		b := small
		var m *Message
		if c.scanner.inMessage() {
			m = NewMessage()
			b = m.B[:cap(m.B)]
		}
		n, err := c.net.Read(b)
		if n > 0 {
			if fault := c.scanner.scan(b[:n], c); fault != nil {
				err = fault
			}
		}
		if m != nil {
			m.Release()
		}
		if err != nil {
			return err
		}
	}
}

// end tells how the connection ended, and closes it when the client has broken the protocol.
func (c *wsConn) endFor(err error) End {
	var fault *frameError
	switch {
	case errors.Is(err, errCloseFrame):
		gone := !c.closing.Swap(true) && (c.peerCode == StatusNormalClosure || c.peerCode == StatusGoingAway || c.peerCode == StatusNoStatusRcvd)
		c.out.replyClose(c.peerCode)
		return End{Gone: gone, Code: c.peerCode, SlowConsumer: c.out.isOverflowed()}
	case errors.As(err, &fault):
		c.Close(fault.code, fault.reason)
	}
	c.closing.Store(true)
	return End{Code: StatusAbnormalClosure, SlowConsumer: c.out.isOverflowed(), MessageTooLong: fault == errTooLong, TooManyFrames: fault == errTooManyFrames}
}

// message implements sink.
func (c *wsConn) onMessage(op byte, payload []byte) {
	c.lastHeard.Store(c.srv.clock.Load())
	switch {
	case c.closing.Load():
	case op != opText:
		c.Close(StatusUnsupportedData, "text only")
	case !utf8.Valid(payload):
		c.Close(errEncoding.code, errEncoding.reason)
	default:
		c.receiver.Message(payload, c)
	}
}

// control implements sink.
func (c *wsConn) onControl(op byte, payload []byte) error {
	c.lastHeard.Store(c.srv.clock.Load())
	switch op {
	case opPing:
		c.out.enqueueControl(opPong, payload)
	case opClose:
		code, err := parseClose(payload)
		if err != nil {
			return err
		}
		c.peerCode = code
		return errCloseFrame
	}
	return nil
}

// small implements sink.
func (c *wsConn) onSmallFrame() error {
	second := uint32(c.srv.clock.Load() / int64(time.Second))
	if second != c.smallFramesSecond {
		c.smallFrames, c.smallFramesSecond = 0, second
	}
	if c.smallFrames++; c.smallFrames > maxSmallFrames {
		return errTooManyFrames
	}
	return nil
}

// write writes what the socket did not take at once.
func (c *wsConn) write(b []byte) error {
	if err := c.net.SetWriteDeadline(time.Now().Add(c.srv.cfg.WriteTimeout)); err != nil {
		return err
	}
	_, err := c.net.Write(b)
	if err == nil && !c.closing.Load() {
		// Later writes that do not wait must not find it past, and neither must what TLS writes by itself.
		err = c.net.SetWriteDeadline(time.Time{})
	}
	return err
}

// finish closes in two steps: after our close frame only our side is closed, and what the client still sends is read for a moment,
// so that it gets to see the close code instead of a reset. After a failed write too: the client's own close frame may have come.
func (c *wsConn) closeSocket(code StatusCode, reason string) {
	if code != StatusAbnormalClosure {
		c.closing.Store(true)
		_ = c.net.SetWriteDeadline(time.Now().Add(closeGrace))
		_, _ = c.net.Write(appendClose(nil, code, reason))
	}
	half, ok := c.net.(interface{ CloseWrite() error })
	if !ok {
		c.abort()
		return
	}
	_ = c.net.SetReadDeadline(time.Now().Add(closeGrace))
	_ = half.CloseWrite()
	if c.sock != nil {
		c.sock.handOver()
	}
}

func (c *wsConn) abortWrite() {
	c.closing.Store(true)
	_ = c.net.SetWriteDeadline(time.Now().Add(closeGrace))
}

// drain reads what the client sent before it learned of the end; how much and how long is bounded.
func (c *wsConn) drain() {
	_ = c.net.SetReadDeadline(time.Now().Add(closeGrace))
	_, _ = io.CopyN(io.Discard, c.net, 4<<20)
}
