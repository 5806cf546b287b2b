package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/lxzan/gws"
)

// Config bounds what a connection may cost. The zero value of each field means its default.
type Config struct {
	MaxMessage     int           // bytes, default 64 KiB; more closes with 1009
	OutboxMessages int           // default 256
	OutboxBytes    int           // default 1 MiB
	WriteTimeout   time.Duration // of one message, default 10 s
	PingAfter      time.Duration // of silence, default 25 s
	SilenceEnds    time.Duration // default 60 s
	// AnyOrigin lets pages with a null or malformed origin connect: for development.
	AnyOrigin bool
	Log       *slog.Logger
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
		c.OutboxMessages = 256
	}
	if c.OutboxBytes == 0 {
		c.OutboxBytes = 1 << 20
	}
	set(&c.WriteTimeout, 10*time.Second)
	set(&c.PingAfter, 25*time.Second)
	set(&c.SilenceEnds, 60*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// how long a closed connection may still bring its last bytes: closing with unread data would reset the connection, and the
// client would never see the close code
const lingerAfterClose = time.Second

// WebSocket is an http.Handler that upgrades requests (RFC 6455) and serves the connections.
type WebSocket struct {
	cfg      Config
	accept   func(Conn) Receiver
	upgrader *gws.Upgrader

	mu      sync.Mutex
	conns   map[*wsConn]struct{}
	closed  bool
	running sync.WaitGroup // a reader for each connection, and the sweeper
	stop    chan struct{}
}

// NewWebSocket makes a handler; accept is called for each connection, before its first message.
func NewWebSocket(cfg Config, accept func(Conn) Receiver) *WebSocket {
	cfg.defaults()
	s := &WebSocket{cfg: cfg, accept: accept, conns: map[*wsConn]struct{}{}, stop: make(chan struct{})}
	s.upgrader = gws.NewUpgrader(&events{}, &gws.ServerOption{
		ReadMaxPayloadSize: cfg.MaxMessage,
		ReadBufferSize:     readBuffer,
		HandshakeTimeout:   10 * time.Second,
		NewSession:         func() gws.SessionStorage { return &owner{} },
		Logger:             gwsLog{cfg.Log},
	})
	s.running.Go(s.sweep)
	return s
}

// A connection is silent most of its life, and larger messages are read past the buffer. Where a pending reader has read ahead
// already, the buffer needs to hold no more than a frame's header.
const (
	readBuffer   = 512
	headerBuffer = 16
)

// ServeHTTP refuses foreign pages with 403, upgrades, and returns at once: the handler's stack and request are then freed.
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
	if !wantsUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "This address speaks WebSocket.", http.StatusUpgradeRequired)
		return false
	}
	hj, ok := w.(http.Hijacker)
	if !ok {
		http.Error(w, "WebSocket needs HTTP/1.1.", http.StatusHTTPVersionNotSupported)
		return false
	}
	nc, rw, err := hj.Hijack()
	if err != nil {
		return false
	}
	c := &wsConn{srv: s, net: &lingerConn{Conn: nc}, peer: PeerOf(r, origin)}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered()) // of a client that did not wait for our answer
	c.ws, err = s.upgrader.UpgradeFromConn(c.net, c.net.reader(early), r)
	if err != nil {
		_ = nc.Close()
		return false
	}
	c.out = outbox{maxCount: s.cfg.OutboxMessages, maxBytes: s.cfg.OutboxBytes, write: c.write, finish: c.finish, hurry: c.hurry}
	c.ws.Session().(*owner).conn = c
	c.heard.Store(time.Now().UnixNano())
	if !s.add(c, accept) {
		_ = nc.Close()
		return false
	}
	return true
}

func wantsUpgrade(r *http.Request) bool {
	return r.Method == http.MethodGet && r.Header.Get("Upgrade") != "" && r.Header.Get("Sec-WebSocket-Key") != ""
}

func (s *WebSocket) stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *WebSocket) add(c *wsConn, accept func(Conn) Receiver) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = struct{}{}
	s.running.Add(1)
	go func() { // the reader; not by s.running.Go, since every frame below a silent connection counts: see pending
		defer c.ended()
		c.handling = true
		c.receiver = accept(c)
		c.handling = false
		c.ws.ReadLoop()
	}()
	return true
}

func (s *WebSocket) remove(c *wsConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
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
		c.Close(1001, "server stops: reconnect")
	}
	quiet := make(chan struct{})
	go func() { s.running.Wait(); close(quiet) }()
	select {
	case <-quiet:
		return nil
	case <-ctx.Done():
		for _, c := range s.snapshot() {
			_ = c.net.Conn.Close()
		}
		<-quiet
		return ctx.Err()
	}
}

// sweep pings silent connections and ends those that stay silent: one goroutine for all, no timer each.
func (s *WebSocket) sweep() {
	every := time.NewTicker(s.cfg.PingAfter / 5)
	defer every.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-every.C:
			for _, c := range s.snapshot() {
				switch silent := now.Sub(time.Unix(0, c.heard.Load())); {
				case silent >= s.cfg.SilenceEnds:
					_ = c.net.Conn.Close()
				case silent >= s.cfg.PingAfter:
					c.ping()
				}
			}
		}
	}
}

// wsConn is a Conn over a WebSocket.
type wsConn struct {
	srv  *WebSocket
	peer Peer
	ws   *gws.Conn
	net  *lingerConn

	receiver Receiver // owned by the reader
	handling bool     // owned by the reader: it is inside the receiver
	heard    atomic.Int64
	closing  atomic.Bool // we closed: what still comes in is not read as messages
	pinging  atomic.Bool
	out      outbox
}

func (c *wsConn) Peer() Peer           { return c.peer }
func (c *wsConn) Send(m *Message) bool { return c.out.send(m) }

func (c *wsConn) Close(code int, reason string) {
	c.closing.Store(true)
	c.out.end(code, reason)
}

// ended follows the reader, which has returned or panicked. A frame that claims a length of 2^63 or more makes gws (v1.8.9) slice
// out of bounds, which would end the whole server: here it ends the connection. A panic in a handler of ours goes on its way.
func (c *wsConn) ended() {
	if c.handling {
		return
	}
	if r := recover(); r != nil {
		c.srv.cfg.Log.Debug("websocket frame not readable", "detail", r)
		c.Close(1009, "message too long")
		c.receiver.Closed(End{Code: 1009})
	}
	c.net.drain()
	_ = c.net.Conn.Close()
	c.out.wait()
	c.srv.remove(c)
	c.srv.running.Done()
}

func (c *wsConn) write(m *Message) error {
	if err := c.ws.SetWriteDeadline(time.Now().Add(c.srv.cfg.WriteTimeout)); err != nil {
		return err
	}
	return c.ws.WriteMessage(gws.OpcodeText, m.B)
}

func (c *wsConn) finish(code int, reason string) {
	c.closing.Store(true)
	if code == 1006 {
		_ = c.net.Conn.Close()
		return
	}
	_ = c.net.SetWriteDeadline(time.Now().Add(lingerAfterClose))
	_ = c.ws.WriteClose(uint16(code), []byte(reason))
}

func (c *wsConn) hurry() {
	c.closing.Store(true)
	_ = c.net.SetWriteDeadline(time.Now().Add(lingerAfterClose))
}

// ping must not wait behind a blocked write, and there must be only one at a time.
func (c *wsConn) ping() {
	if c.closing.Load() || !c.pinging.CompareAndSwap(false, true) {
		return
	}
	c.srv.running.Go(func() {
		defer c.pinging.Store(false)
		_ = c.net.SetWriteDeadline(time.Now().Add(c.srv.cfg.WriteTimeout))
		_ = c.ws.WritePing(nil)
	})
}

// events connects gws to the wsConn. All methods run on the reader's goroutine. They have a pointer receiver because a call through
// an interface would otherwise cost a frame of its own.
type events struct{}

func of(ws *gws.Conn) *wsConn { return ws.Session().(*owner).conn }

// owner leads from gws's connection to ours; the library's own storage is a map with a lock.
type owner struct {
	gws.SessionStorage
	conn *wsConn
}

func (*events) OnOpen(*gws.Conn)              {}
func (*events) OnPong(ws *gws.Conn, _ []byte) { of(ws).heard.Store(time.Now().UnixNano()) }

func (*events) OnPing(ws *gws.Conn, p []byte) {
	c := of(ws)
	c.heard.Store(time.Now().UnixNano())
	_ = c.net.SetWriteDeadline(time.Now().Add(c.srv.cfg.WriteTimeout))
	_ = ws.WritePong(p)
}

func (*events) OnMessage(ws *gws.Conn, m *gws.Message) {
	c := of(ws)
	c.heard.Store(time.Now().UnixNano())
	switch {
	case c.closing.Load():
	case m.Opcode != gws.OpcodeText:
		c.Close(1003, "text only")
	case !utf8.Valid(m.Bytes()):
		c.Close(1007, "not UTF-8")
	default:
		c.handling = true
		c.receiver.Message(m.Bytes(), c)
		c.handling = false
	}
	_ = m.Close() // not deferred: after a panic in our handler nothing goes on
}

func (*events) OnClose(ws *gws.Conn, err error) {
	c := of(ws)
	e := End{Code: 1006}
	var ce *gws.CloseError
	if errors.As(err, &ce) {
		e.Code = int(ce.Code)
		if e.Code == 0 {
			e.Code = 1005
		}
		e.Gone = !c.closing.Load() && (e.Code == 1000 || e.Code == 1001 || e.Code == 1005)
	}
	c.closing.Store(true)
	c.handling = true
	c.receiver.Closed(e)
	c.handling = false
}

// gwsLog keeps the library's messages: they speak of panics in our own handlers.
type gwsLog struct{ log *slog.Logger }

func (l gwsLog) Error(v ...any) { l.log.Error("websocket", "detail", v) }

// lingerConn closes in two steps: after our close frame only our side is closed, and what the client still sends is read for a
// moment, so that it gets to see the close code instead of a reset.
type lingerConn struct {
	net.Conn
	early   []byte   // read by the HTTP server before the upgrade
	pending *pending // reads for Conn, early included; nil: Conn reads itself
	once    sync.Once
}

// reader makes what gws reads from.
func (c *lingerConn) reader(early []byte) *bufio.Reader {
	if c.pending = newPending(c.Conn, early); c.pending != nil {
		return bufio.NewReaderSize(c.pending, headerBuffer)
	}
	c.early = early
	return bufio.NewReaderSize(c, readBuffer)
}

func (c *lingerConn) Read(p []byte) (int, error) {
	if c.pending != nil {
		return c.pending.Read(p)
	}
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil // and with it the HTTP server's buffer
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// Close is called by gws after a close frame was written.
func (c *lingerConn) Close() (err error) {
	c.once.Do(func() {
		half, ok := c.Conn.(interface{ CloseWrite() error })
		if !ok {
			err = c.Conn.Close()
			return
		}
		_ = c.Conn.SetReadDeadline(time.Now().Add(lingerAfterClose))
		err = half.CloseWrite()
	})
	return err
}

// drain reads what the client sent before it learned of the end; how much and how long is bounded.
func (c *lingerConn) drain() {
	_ = c.Conn.SetReadDeadline(time.Now().Add(lingerAfterClose))
	_, _ = io.CopyN(io.Discard, c, 4<<20)
}
