package transport

import (
	"bytes"
	"cmp"
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

// Config limits what a connection may cost. The zero value of each field means its default.
type Config struct {
	MaxMessage     int // bytes, default 64 KiB; a longer message closes with StatusMessageTooBig
	OutboxMessages int // default 2048
	OutboxBytes    int // default 1 MiB

	WriteTimeout   time.Duration // of one message, default 10 s
	PingAfter      time.Duration // of silence, default 25 s
	SilenceTimeout time.Duration // until the connection counts as lost, default 60 s
	TCPUserTimeout time.Duration // for unacknowledged data, on Linux, default 6 s

	// AnyOrigin lets pages with a null or malformed origin connect: for development.
	AnyOrigin bool
	// Limiter counts connections, and rejects those beyond its limits; nil: there are no limits.
	Limiter *ConnLimiter
	// Backlog limits the queued bytes of all clients together; nil: there is no limit.
	Backlog *Backlog
	// Panics counts the panics of message handlers; nil: they are logged and not counted.
	Panics *Panics
	// TrustedProxies are reverse proxies whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
	Log            *slog.Logger
}

// WithDefaults returns c with every unset field set, for transports built on this package.
func (c Config) WithDefaults() Config {
	c.defaults()
	return c
}

func (c *Config) defaults() {
	c.MaxMessage = cmp.Or(c.MaxMessage, 64<<10)
	// More than a room of usual size sends at once, before the writer has run.
	c.OutboxMessages = cmp.Or(c.OutboxMessages, 2048)
	c.OutboxBytes = cmp.Or(c.OutboxBytes, 1<<20)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 10*time.Second)
	c.PingAfter = cmp.Or(c.PingAfter, 25*time.Second)
	c.SilenceTimeout = cmp.Or(c.SilenceTimeout, 60*time.Second)
	c.TCPUserTimeout = cmp.Or(c.TCPUserTimeout, 6*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Panics == nil {
		c.Panics = NewPanics(c.Log)
	}
}

// closeGrace is how long data is still read after our close frame. Closing a socket with unread
// data resets the connection, and the client would never see the close code.
const closeGrace = time.Second

// WebSocket is an http.Handler that upgrades requests (RFC 6455) and serves the connections.
type WebSocket struct {
	// Static after construction.
	cfg     Config
	accept  func(Conn) Receiver
	started time.Time
	stop    chan struct{} // closed by Close

	// clock is the time since started, as of the sweeper's last tick. Reading the system's clock
	// for each message would cost more than the precision is worth.
	clock atomic.Int64

	// Guarded by mu.
	mu     sync.Mutex
	conns  map[*wsConn]struct{}
	poller *poller // created for the first socket
	closed bool

	wg sync.WaitGroup // the connections, and the sweeper
}

// NewWebSocket returns a handler. accept is called for each connection, before its first message.
func NewWebSocket(cfg Config, accept func(Conn) Receiver) *WebSocket {
	cfg.defaults()
	s := &WebSocket{
		cfg:     cfg,
		accept:  accept,
		conns:   map[*wsConn]struct{}{},
		stop:    make(chan struct{}),
		started: time.Now(),
	}
	s.wg.Go(s.sweep)
	cfg.Backlog.Watch(s.queuedBytes)
	cfg.Backlog.partial().Watch(s.partialBytes)
	return s
}

// queuedBytes lists connections for the backlog.
func (s *WebSocket) queuedBytes(yield func(QueuedBytes)) {
	for _, c := range s.snapshot() {
		if q := c.out.queuedBytes(); q.Total > 0 {
			yield(q)
		}
	}
}

// partialBytes lists connections whose message has arrived in part, for the backlog.
func (s *WebSocket) partialBytes(yield func(QueuedBytes)) {
	for _, c := range s.snapshot() {
		n := int(c.partial.Load())
		if n == 0 {
			continue
		}
		q := QueuedBytes{Total: n, Writing: n, Shed: c.shedPartial}
		if c.closing.Load() {
			q.Shed = nil
		}
		yield(q)
	}
}

// ServeHTTP upgrades the request, or rejects it: foreign pages with 403, too many connections with
// 429 or 503. It returns at once, which frees the stack and the request of the HTTP server.
func (s *WebSocket) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.Upgrade(w, r, s.accept) }

// Upgrade is ServeHTTP with an accept function for this one connection. It returns false when it
// has rejected the request: accept is then never called.
func (s *WebSocket) Upgrade(
	w http.ResponseWriter, r *http.Request, accept func(Conn) Receiver,
) bool {
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
	accepted, early, refusal := handshake(r)
	if refusal == 0 && len(early) > s.cfg.MaxMessage {
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
	peer.EarlyMessage = early != nil
	status, reserve := s.cfg.Limiter.Acquire(peer.Addr.Addr(), Resumes(r))
	if status != 0 {
		s.cfg.Limiter.rejectUpgrade(w, status)
		return false
	}
	peer.Reserve = reserve
	if !s.hijack(hj, peer, accepted, early, accept) {
		s.cfg.Limiter.Release(peer.Addr.Addr(), false)
		return false
	}
	return true
}

// hijack takes the connection from the HTTP server and answers the handshake. If it returns true
// the connection will call Limiter.Release.
func (s *WebSocket) hijack(
	hj http.Hijacker, peer Peer, accepted, early []byte, accept func(Conn) Receiver,
) bool {
	nc, rw, err := hj.Hijack()
	if err != nil {
		return false
	}
	// Frames of a client that did not wait for our answer.
	buffered, _ := rw.Reader.Peek(rw.Reader.Buffered())
	_ = nc.SetDeadline(time.Now().Add(s.cfg.WriteTimeout))
	_, err = nc.Write(accepted)
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil || !s.add(newConn(s, nc, peer), early, bytes.Clone(buffered), accept) {
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

// add starts c. It returns false when the server stops.
func (s *WebSocket) add(c *wsConn, early, buffered []byte, accept func(Conn) Receiver) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	go c.start(early, buffered, accept)
	return true
}

// startPolling has the poller read c. It returns false when a goroutine has to read it.
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

// Conns are the open connections.
func (s *WebSocket) Conns() (all []Conn) {
	for _, c := range s.snapshot() {
		all = append(all, c)
	}
	return all
}

// Close tells every client to reconnect (StatusGoingAway) and waits until all connections have
// ended or ctx is done. Then it aborts the rest.
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
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		if s.poller != nil { // no connection is left that could create one
			s.poller.close()
		}
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		for _, c := range s.snapshot() {
			c.abort()
		}
		<-done
		return ctx.Err()
	}
}

// sweep pings silent connections and aborts those that stay silent. It is one goroutine for all, so
// that a connection needs no timer.
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
			now := time.Since(s.started) // monotonic
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
	// Static after construction.
	srv  *WebSocket
	peer Peer
	net  net.Conn
	sock *socket // of net; nil: a goroutine reads net

	// Owned by the reader.
	receiver          Receiver
	scanner           frameScanner
	peerCode          StatusCode // of the client's close frame
	smallFrames       uint32     // in smallFramesSecond
	smallFramesSecond uint32     // of the server's clock
	panicked          bool       // the receiver, in Message

	partial    atomic.Int64 // bytes kept of a message that has arrived in part
	lastHeard  atomic.Int64 // the server's clock at the last frame
	closing    atomic.Bool  // we closed: further messages are not read
	registered atomic.Bool  // see ConnLimiter
	out        outbox
}

func newConn(s *WebSocket, nc net.Conn, p Peer) *wsConn {
	c := &wsConn{srv: s, net: nc, peer: p}
	c.scanner.limit = s.cfg.MaxMessage
	c.out.maxCount = s.cfg.OutboxMessages
	c.out.maxBytes = s.cfg.OutboxBytes
	c.out.backlog = s.cfg.Backlog
	c.out.write = c.write
	c.out.onDrained = c.closeSocket
	c.out.abortWrite = c.abortWrite
	c.sock, c.out.tryWrite = newSocket(c, nc)
	c.lastHeard.Store(s.clock.Load())
	setTCPUserTimeout(nc, s.cfg.TCPUserTimeout)
	return c
}

// Peer implements Conn.
func (c *wsConn) Peer() Peer { return c.peer }

// Send implements Conn.
func (c *wsConn) Send(m *Message) bool { return c.out.send(m) }

// Offer implements Conn.
func (c *wsConn) Offer(m *Message, share Share) error { return c.out.offer(m, share) }

// Close implements Conn.
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

// start begins to read. buffered are bytes that the HTTP server has read, of a client that did not
// wait for the answer to its handshake.
func (c *wsConn) start(early, buffered []byte, accept func(Conn) Receiver) {
	c.receiver = accept(c)
	if c.peer.EarlyMessage {
		c.onMessage(opText, early)
	}
	if err := c.scan(buffered); err != nil {
		c.teardown(err)
	} else if !c.srv.startPolling(c) {
		c.readLoop()
	}
}

// scan handles what was read.
func (c *wsConn) scan(b []byte) error {
	err := c.scanner.scan(b, c)
	c.countPartial()
	return err
}

// countPartial counts what is kept of a message that has arrived in part. It is the reader's.
func (c *wsConn) countPartial() {
	n := int64(0)
	if m := c.scanner.message; m != nil {
		n = int64(cap(m.B))
	}
	if counted := c.partial.Load(); n != counted {
		c.partial.Store(n)
		c.srv.cfg.Backlog.partial().count(int(n - counted))
	}
}

// shedPartial closes the connection because all messages that have arrived in part take too much.
func (c *wsConn) shedPartial() {
	c.Close(StatusTryAgainLater, "too many unfinished messages: reconnect and resume")
}

// readLoop reads until the end, by this goroutine.
func (c *wsConn) readLoop() { c.teardown(c.readBlocking()) }

// teardown ends the connection. The caller owns the reading. It waits for the writer and for
// closeGrace.
func (c *wsConn) teardown(err error) {
	c.receiver.Closed(c.endFor(err))
	c.scanner.release()
	c.countPartial()
	c.drain()
	_ = c.net.Close()
	c.out.wait()
	c.srv.cfg.Limiter.Release(c.peer.Addr.Addr(), c.registered.Swap(true))
	c.srv.remove(c)
	c.srv.wg.Done()
}

// abort closes the socket, and has its reader see that.
func (c *wsConn) abort() {
	_ = c.net.Close()
	if c.sock != nil {
		c.sock.handOver()
	}
}

// readBlocking reads and waits. While it waits for a new message its buffer is small.
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
			if scanErr := c.scan(b[:n]); scanErr != nil {
				err = scanErr
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

// endFor returns the End for an error of reading. It closes with the code of a frameError.
func (c *wsConn) endFor(err error) End {
	if c.panicked {
		return End{Code: StatusInternalError, Panicked: true}
	}
	if errors.Is(err, errCloseFrame) {
		gone := !c.closing.Swap(true)
		switch c.peerCode {
		case StatusNormalClosure, StatusGoingAway, StatusNoStatusRcvd:
		default:
			gone = false
		}
		c.out.replyClose(c.peerCode)
		return End{Gone: gone, Code: c.peerCode, SlowConsumer: c.out.isOverflowed()}
	}
	var frameErr *frameError
	if errors.As(err, &frameErr) {
		c.Close(frameErr.code, frameErr.reason)
	}
	c.closing.Store(true)
	return End{
		Code:           StatusAbnormalClosure,
		SlowConsumer:   c.out.isOverflowed(),
		MessageTooLong: frameErr == errTooLong,
		TooManyFrames:  frameErr == errTooManyFrames,
	}
}

// onMessage implements frameHandler.
func (c *wsConn) onMessage(op byte, payload []byte) {
	c.lastHeard.Store(c.srv.clock.Load())
	switch {
	case c.closing.Load():
	case op != opText:
		c.Close(StatusUnsupportedData, "text only")
	case !utf8.Valid(payload):
		c.Close(errEncoding.code, errEncoding.reason)
	default:
		c.handleMessage(payload)
	}
}

// handleMessage is the boundary at which a panic is recovered.
func (c *wsConn) handleMessage(payload []byte) {
	defer c.recoverMessage()
	c.receiver.Message(payload, c)
}

func (c *wsConn) recoverMessage() {
	if v := recover(); v != nil {
		c.srv.cfg.Panics.Report(v)
		c.panicked = true
		c.Close(StatusInternalError, "internal error")
	}
}

// onControl implements frameHandler.
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

// onSmallFrame implements frameHandler.
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
		// The deadline must not be past for a later tryWrite, nor for what TLS writes by itself.
		err = c.net.SetWriteDeadline(time.Time{})
	}
	return err
}

// closeSocket closes in two steps. After our close frame only our side is closed, and for a moment
// what the client still sends is read, so that it sees the close code instead of a reset. That is
// done after a failed write too: a close frame of the client may have arrived.
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

// abortWrite makes a write that waits fail soon.
func (c *wsConn) abortWrite() {
	c.closing.Store(true)
	_ = c.net.SetWriteDeadline(time.Now().Add(closeGrace))
}

// drain reads what the client sent before it learned of the end, for closeGrace at most.
func (c *wsConn) drain() {
	const most = 4 << 20 // bytes
	_ = c.net.SetReadDeadline(time.Now().Add(closeGrace))
	_, _ = io.CopyN(io.Discard, c.net, most)
}
