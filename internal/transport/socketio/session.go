package socketio

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ieum-rtc/ieum/internal/limit"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// session is one client, and a transport.Conn.
type session struct {
	// Static after construction.
	srv      *Server
	id       string
	version  int // of Engine.IO: 3 or 4
	peer     transport.Peer
	pollLock chan struct{} // of one slot: held by the poll whose response is being written
	wake     chan struct{} // of one slot: tells the waiting poll to look again

	registered     atomic.Bool // see transport.ConnLimiter
	controlPackets limit.GCRA

	// recvMu is held while the receiver is called: one call at a time, whatever request or
	// WebSocket it comes from. It guards receiver and ended.
	recvMu   sync.Mutex
	receiver transport.Receiver
	ended    bool // the receiver knows of the end

	// Guarded by mu. The lock of an outbox may be taken while mu is held.
	mu            sync.Mutex
	ws            transport.Conn // nil: the session polls
	upgrading     *wsReceiver    // a WebSocket that is to replace polling
	probeAnswered bool           // by it: polls return at once, so that the client can upgrade
	queue         []*transport.Message
	bytes         int  // of queue
	connected     bool // to the namespace "/"
	polling       bool // a poll waits
	posting       bool // a post is being read
	closed        bool
	closeFetched  bool      // by a poll
	since         time.Time // the last ping (version 4) or packet (version 3), or the end
	awaitingPong  bool      // version 4
	lastPoll      time.Time // end of the last poll, or begin of the session
	responding    int       // bytes of the response to a poll that is being written
	abortResponse func()    // nil: there is none, or it was called
}

// controlRate limits packets that are not messages: 30 per second, 300 at once. The receiver limits
// messages.
var controlRate = limit.NewRate(30, 300)

// takeControl counts such a packet.
func (s *session) takeControl() bool {
	return s.controlPackets.Take(time.Since(s.srv.started), controlRate, 1)
}

var (
	errProtocol       = errors.New("protocol error")
	errTooManyPackets = errors.New("too many packets")
	errTooLong        = errors.New("message too long")
	errPanicked       = errors.New("internal error")
)

// closeCode returns the code for an error of a client. A polling client sees only the end.
func closeCode(err error) transport.StatusCode {
	switch {
	case errors.Is(err, errBinary):
		return transport.StatusUnsupportedData
	case errors.Is(err, errTooManyPackets):
		return transport.StatusPolicyViolation
	case errors.Is(err, errTooLong):
		return transport.StatusMessageTooBig
	case errors.Is(err, errPanicked):
		return transport.StatusInternalError
	}
	return transport.StatusProtocolError
}

// Peer implements transport.Conn.
func (s *session) Peer() transport.Peer { return s.peer }

// Send implements transport.Conn. It sends m as an event.
func (s *session) Send(m *transport.Message) bool { return s.send(encodeEvent(m)) }

// Offer implements transport.Conn.
func (s *session) Offer(m *transport.Message, share transport.Share) error {
	e := encodeEvent(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	cfg := &s.srv.cfg.Conn
	var err error
	switch {
	case s.closed || !s.connected:
		err = transport.ErrClosed
	case s.ws != nil:
		return s.ws.Offer(e, share)
	case !s.fits(e, share.Of(cfg.OutboxMessages), share.Of(cfg.OutboxBytes)):
		err = transport.ErrFull
	default:
		s.enqueue(e)
		return nil
	}
	e.Release()
	return err
}

// fits tells whether a packet may be queued. As in the outbox of a WebSocket, one that finds the
// queue empty always may. mu is held.
func (s *session) fits(m *transport.Message, count, bytes int) bool {
	return len(s.queue) == 0 || len(s.queue) < count && s.bytes+len(m.B) <= bytes
}

// MarkRegistered implements transport.MarkRegistered.
func (s *session) MarkRegistered() {
	if s.registered.Swap(true) {
		return
	}
	s.srv.cfg.Conn.Limiter.MarkRegistered(s.peer.Addr.Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.markSocket()
}

// markSocket has the WebSocket of a registered session count as registered. mu is held.
func (s *session) markSocket() {
	if s.ws != nil && !s.closed && s.registered.Load() {
		transport.MarkRegistered(s.ws)
	}
}

// Close implements transport.Conn.
func (s *session) Close(code transport.StatusCode, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(code, reason, transport.End{Code: code})
}

// ack answers one message by its acknowledgement. A second answer is sent as an event.
type ack struct {
	s    *session
	id   []byte
	used atomic.Bool
}

// Send implements transport.Reply.
func (a *ack) Send(m *transport.Message) bool {
	if a.used.Swap(true) {
		return a.s.Send(m)
	}
	return a.s.send(encodeAck(m, a.id))
}

// AckRequested implements transport.AckRequested.
func (a *ack) AckRequested() bool { return true }

func (s *session) send(m *transport.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.connected {
		m.Release()
		return false
	}
	return s.push(m)
}

// push sends or queues a packet, and takes over one reference. mu is held.
func (s *session) push(m *transport.Message) bool {
	if s.ws != nil {
		return s.ws.Send(m)
	}
	if !s.fits(m, s.srv.cfg.Conn.OutboxMessages, s.srv.cfg.Conn.OutboxBytes) {
		m.Release()
		s.closeOverflowed()
		return false
	}
	s.enqueue(m)
	return true
}

// closeOverflowed closes the session of a slow consumer. mu is held.
func (s *session) closeOverflowed() {
	s.dropQueue()
	const code = transport.StatusTryAgainLater
	e := transport.End{Code: code, SlowConsumer: true}
	s.end(code, "outbox full: reconnect and resume", e)
}

// queuedBytes is for the backlog. What a WebSocket sends is counted there.
func (s *session) queuedBytes() transport.QueuedBytes {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := transport.QueuedBytes{
		Total:   s.bytes + s.responding,
		Writing: s.responding,
		Shed:    s.shed,
	}
	if s.closed && s.bytes == 0 && s.abortResponse == nil {
		q.Shed = nil
	}
	return q
}

// shed closes the session because all outboxes together are too full.
func (s *session) shed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.dropQueue()
	} else {
		s.closeOverflowed()
	}
	if s.abortResponse != nil {
		s.abortResponse()
		s.abortResponse = nil
	}
}

// enqueue queues a packet for the next poll. mu is held.
func (s *session) enqueue(m *transport.Message) {
	s.srv.cfg.Conn.Backlog.Hold(m)
	s.queue = append(s.queue, m)
	s.bytes += len(m.B)
	s.signal()
}

// signal wakes the waiting poll.
func (s *session) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// dropQueue empties the queue. mu is held.
func (s *session) dropQueue() {
	for _, m := range s.queue {
		m.Release()
	}
	s.queue, s.bytes = nil, 0
}

// discard is dropQueue without mu held.
func (s *session) discard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropQueue()
}

// end closes the session towards the client with code, and tells the receiver e. Only the first
// call counts. mu is held.
func (s *session) end(code transport.StatusCode, reason string, e transport.End) {
	if s.closed {
		return
	}
	if s.connected && code.Final() {
		if s.ws != nil {
			s.ws.Send(newPacket(packetDisconnect))
		} else {
			s.enqueue(newPacket(packetDisconnect))
		}
	}
	s.closed, s.since = true, time.Now()
	if s.upgrading != nil {
		s.upgrading.conn.Close(code, reason)
	}
	if s.ws != nil {
		s.ws.Close(code, reason)
	} else {
		s.signal() // the poll that finds an empty queue sends the close packet
		s.srv.addEnded(s)
	}
	s.notifyClosed(e)
}

// lost ends a session whose client cannot be reached any more, and drops what is queued. mu is
// held.
func (s *session) lost() {
	s.dropQueue()
	const code = transport.StatusAbnormalClosure
	s.end(code, "", transport.End{Code: code})
}

// gone ends a session whose client has closed it. mu is held.
func (s *session) gone() {
	s.dropQueue()
	const code = transport.StatusNormalClosure
	s.end(code, "", transport.End{Gone: true, Code: code})
}

// notifyClosed calls the receiver's Closed in a goroutine: the caller may be inside the receiver,
// or hold its locks.
func (s *session) notifyClosed(e transport.End) {
	go func() {
		defer s.srv.wg.Done()
		s.srv.cfg.Conn.Limiter.Release(s.peer.Addr.Addr(), s.registered.Swap(true))
		s.recvMu.Lock()
		defer s.recvMu.Unlock()
		s.ended = true
		s.receiver.Closed(e)
	}()
}

// fail closes the session because of what its client has sent.
func (s *session) fail(err error) {
	code := closeCode(err)
	e := transport.End{
		Code:           code,
		MessageTooLong: errors.Is(err, errTooLong),
		Panicked:       errors.Is(err, errPanicked),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(code, err.Error(), e)
}

// abandon forgets a session whose client has never learned of it.
func (s *session) abandon() {
	s.mu.Lock()
	s.lost()
	s.dropQueue()
	s.mu.Unlock()
	s.srv.remove(s)
}

// tick pings the client, or ends the session of a silent one. It returns true when the session can
// be forgotten.
func (s *session) tick(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := now.Sub(s.since)
	if s.closed {
		// A WebSocket reports its own end.
		if s.ws != nil || s.responding > 0 || age < closedSessionTTL {
			return false
		}
		s.dropQueue()
		return true
	}
	if u := s.upgrading; u != nil && now.Sub(u.since) >= s.srv.cfg.UpgradeTimeout {
		u.conn.Close(transport.StatusPolicyViolation, "upgrade not finished in time")
	}
	switch cfg := &s.srv.cfg; {
	case s.ws == nil && !s.polling && now.Sub(s.lastPoll) >= 2*cfg.PingInterval:
		s.lost() // whatever it posts: it does not fetch what is queued for it
	case s.version == 3:
		if age >= cfg.PingInterval+cfg.PingTimeout {
			s.lost()
		}
	case s.awaitingPong:
		if age >= cfg.PingTimeout {
			s.lost()
		}
	case age >= cfg.PingInterval:
		s.since, s.awaitingPong = now, true
		s.push(newPacket(packetPing))
	}
	return false
}

// openPacket is the answer to the handshake.
func (s *session) openPacket(upgrades string) *transport.Message {
	cfg := &s.srv.cfg
	m := transport.NewMessage()
	m.B = append(m.B, `0{"sid":"`+s.id+`","upgrades":[`+upgrades+`],"pingInterval":`...)
	m.B = strconv.AppendInt(m.B, cfg.PingInterval.Milliseconds(), 10)
	m.B = append(m.B, `,"pingTimeout":`...)
	m.B = strconv.AppendInt(m.B, cfg.PingTimeout.Milliseconds(), 10)
	if s.version != 3 {
		m.B = append(m.B, `,"maxPayload":`...)
		m.B = strconv.AppendInt(m.B, int64(cfg.Conn.MaxMessage), 10)
	}
	m.B = append(m.B, '}')
	return m
}

// receive handles one Engine.IO packet. After an error the caller ends the session. It is the
// boundary at which a panic is recovered.
func (s *session) receive(p []byte) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.srv.cfg.Conn.Panics.Report(v)
			err = errPanicked
		}
	}()
	return s.handlePacket(p)
}

func (s *session) handlePacket(p []byte) error {
	if len(p) == 0 {
		return errProtocol
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	if s.version == 3 {
		s.since = time.Now()
	}
	if p[0] == engineMessage {
		s.mu.Unlock()
		return s.handleMessage(p[1:])
	}
	defer s.mu.Unlock()
	if !s.takeControl() {
		return errTooManyPackets
	}
	switch {
	case p[0] == engineClose && len(p) == 1:
		s.gone()
	case p[0] == enginePing && s.version == 3 && len(p) <= len(packetProbe):
		s.push(newPacket(string(enginePong) + string(p[1:])))
	case p[0] == enginePong && s.version != 3 && len(p) == 1:
		s.awaitingPong = false
	case p[0] == engineNoop && len(p) == 1:
	case p[0] == 'b':
		return errBinary
	default:
		return errProtocol
	}
	return nil
}

// handleMessage handles one Socket.IO packet.
func (s *session) handleMessage(p []byte) error {
	k, err := parsePacket(p)
	if err != nil {
		return err
	}
	if k.typ == typeEvent {
		return s.handleEvent(k)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if !s.takeControl() {
		return errTooManyPackets
	}
	root := k.namespace == "/"
	switch {
	case k.typ == typeConnect && !root:
		s.push(s.connectError(k.namespace))
	case k.typ == typeConnect && s.version == 3: // the server has connected it already
	case k.typ == typeConnect && !s.connected:
		s.connected = true
		// The id of the socket appears in pages and logs; the id of the session is a secret.
		s.push(newPacket(packetConnected + `{"sid":"` + newID() + `"}`))
	case k.typ == typeDisconnect && !root:
	case k.typ == typeDisconnect && s.connected:
		s.gone()
	case k.typ == typeAck && root && s.connected: // no event of ours requests one
	default:
		return errProtocol
	}
	return nil
}

// connectError says that a namespace does not exist: CONNECT_ERROR in protocol 5, ERROR in 4.
func (s *session) connectError(namespace string) *transport.Message {
	const message = `"Invalid namespace"`
	head := string(engineMessage) + string(byte(typeConnectError)) + namespace + ","
	if s.version == 3 {
		return newPacket(head + message)
	}
	return newPacket(head + `{"message":` + message + `}`)
}

// handleEvent hands the message of an event to the receiver.
func (s *session) handleEvent(k packet) error {
	s.mu.Lock()
	connected := s.connected
	s.mu.Unlock()
	if k.namespace != "/" || !connected {
		return errProtocol
	}
	name, argument, err := parseEvent(k.data)
	if err != nil {
		return err
	}
	if string(name) != event {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.takeControl() {
			return errTooManyPackets
		}
		return nil // as a server that has no handler for the event
	}
	if len(argument) > s.srv.cfg.Conn.MaxMessage {
		return errTooLong
	}
	var reply transport.Reply = s
	if k.ack != nil {
		reply = &ack{s: s, id: append([]byte(nil), k.ack...)}
	}
	s.recvMu.Lock()
	defer s.recvMu.Unlock()
	if !s.ended {
		s.receiver.Message(argument, reply)
	}
	return nil
}
