package socketio

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// session is one client, and a transport.Conn.
type session struct {
	srv     *Server
	id      string
	version int // of Engine.IO: 3 or 4
	peer    transport.Peer

	// recv is held while the receiver is called: one call at a time, whichever request or socket brings it.
	recvMu     sync.Mutex
	receiver   transport.Receiver
	ended      bool        // the receiver knows of the end
	registered atomic.Bool // its user is, see transport.ConnLimiter

	pollLock chan struct{} // held by the poll that writes its answer, for the next one to wait
	wake     chan struct{} // tells the waiting poll to look again

	mu             sync.Mutex     // guards what follows; an outbox's lock is taken inside
	ws             transport.Conn // the WebSocket that carries the session; nil: polling
	upgrading      *wsReceiver    // a WebSocket that is about to take over
	probeAnswered  bool           // it was answered: polls return at once, so that the client can change over
	queue          []*transport.Message
	bytes          int  // of queue
	connected      bool // connected to "/"
	polling        bool // a poll waits
	posting        bool // a post is being read
	closed         bool
	closeFetched   bool      // closed, and the client knows
	since          time.Time // last ping (version 4), last packet (version 3), or the end
	awaitingPong   bool      // an answer is awaited (version 4)
	controlPackets bucket
	lastPoll       time.Time // a poll has ended, or the session begun

	responding    int    // bytes of the answer to a poll that is being written
	abortResponse func() // breaks that off; nil: there is none, or it was broken off
}

// bucket is a token bucket for packets that are no messages; those are counted above.
type bucket struct {
	spent float64
	last  time.Time
}

const (
	controlRate  = 30 // a second
	controlBurst = 300
)

func (b *bucket) take(now time.Time) bool {
	b.spent = max(0, b.spent-controlRate*now.Sub(b.last).Seconds())
	b.last = now
	b.spent++
	return b.spent <= controlBurst
}

var (
	errProtocol       = errors.New("protocol error")
	errTooManyPackets = errors.New("too many packets")
	errTooLong        = errors.New("message too long")
)

// closeCodes are WebSocket's (RFC 6455, section 7.4.1); a polling client sees only the end.
func closeCode(err error) transport.StatusCode {
	switch {
	case errors.Is(err, errBinary):
		return transport.StatusUnsupportedData
	case errors.Is(err, errTooManyPackets):
		return transport.StatusPolicyViolation
	case errors.Is(err, errTooLong):
		return transport.StatusMessageTooBig
	}
	return transport.StatusProtocolError
}

// Peer implements transport.Conn.
func (s *session) Peer() transport.Peer { return s.peer }

// Send implements transport.Conn: m becomes an event.
func (s *session) Send(m *transport.Message) bool { return s.send(encodeEvent(m)) }

// Offer implements transport.Conn.
func (s *session) Offer(m *transport.Message, share transport.Share) error {
	e := encodeEvent(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	switch {
	case s.closed || !s.connected:
		err = transport.ErrClosed
	case s.ws != nil:
		return s.ws.Offer(e, share)
	case !s.fits(e, share.Of(s.srv.cfg.Conn.OutboxMessages), share.Of(s.srv.cfg.Conn.OutboxBytes)):
		err = transport.ErrFull
	default:
		s.enqueue(e)
		return nil
	}
	e.Release()
	return err
}

// fits tells whether a packet may join what is unread, as in the outbox of a WebSocket: one alone always may.
func (s *session) fits(m *transport.Message, count, bytes int) bool {
	return len(s.queue) == 0 || len(s.queue) < count && s.bytes+len(m.B) <= bytes
}

// MarkRegistered implements transport.MarkRegistered.
func (s *session) MarkRegistered() {
	if !s.registered.Swap(true) {
		s.srv.cfg.Conn.Limiter.MarkRegistered(s.peer.Addr.Addr())
	}
}

// Close implements transport.Conn.
func (s *session) Close(code transport.StatusCode, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(code, reason, transport.End{Code: code})
}

// ack answers one message by its acknowledgement; a second answer would be an event.
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

// push puts a packet on its way; mu is held. It takes over one reference.
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

// overflow closes a session whose client reads too slowly; mu is held.
func (s *session) closeOverflowed() {
	s.dropQueue()
	s.end(transport.StatusTryAgainLater, "outbox full: reconnect and resume", transport.End{Code: transport.StatusTryAgainLater, SlowConsumer: true})
}

// unread and shed are for the backlog; what a WebSocket carries is counted there.
func (s *session) queuedBytes() transport.QueuedBytes {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := transport.QueuedBytes{Total: s.bytes + s.responding, Writing: s.responding, Shed: s.shed}
	if s.closed && s.bytes == 0 && s.abortResponse == nil {
		u.Shed = nil
	}
	return u
}

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

// drop empties the queue; mu is held.
func (s *session) dropQueue() {
	for _, m := range s.queue {
		m.Release()
	}
	s.queue, s.bytes = nil, 0
}

func (s *session) discard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropQueue()
}

// end closes the session towards the client with code and tells the receiver e; mu is held. Only the first end counts.
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
		s.signal() // the poll that finds nothing more to send closes
	}
	s.notifyClosed(e)
}

// lost ends a session whose client cannot be reached any more; what waited for it is of no use. mu is held.
func (s *session) lost() {
	s.dropQueue()
	s.end(transport.StatusAbnormalClosure, "", transport.End{Code: transport.StatusAbnormalClosure})
}

// gone ends a session whose client has said so; mu is held.
func (s *session) gone() {
	s.dropQueue()
	s.end(transport.StatusNormalClosure, "", transport.End{Gone: true, Code: transport.StatusNormalClosure})
}

// report tells the receiver, on a goroutine of its own: whoever ends a session may be inside the receiver, or hold its locks.
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

// fail closes the session because of what its client sent.
func (s *session) fail(err error) {
	code := closeCode(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(code, err.Error(), transport.End{Code: code, MessageTooLong: errors.Is(err, errTooLong)})
}

// abandon forgets a session whose client never learned of it.
func (s *session) abandon() {
	s.mu.Lock()
	s.lost()
	s.dropQueue()
	s.mu.Unlock()
	s.srv.remove(s)
}

// tick pings, or ends what is silent; true: the session can be forgotten.
func (s *session) tick(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := now.Sub(s.since)
	if s.closed {
		if s.ws != nil || s.responding > 0 || age < closedSessionTTL { // a WebSocket tells its own end
			return false
		}
		s.dropQueue()
		return true
	}
	if p := s.upgrading; p != nil && now.Sub(p.since) >= s.srv.cfg.UpgradeTimeout {
		p.conn.Close(transport.StatusPolicyViolation, "upgrade not finished in time")
	}
	switch cfg := &s.srv.cfg; {
	case s.ws == nil && !s.polling && now.Sub(s.lastPoll) >= 2*cfg.PingInterval:
		s.lost() // it may post what it likes: what is kept for it, it does not fetch
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

// opening is the handshake's answer.
func (s *session) openPacket(upgrades string) *transport.Message {
	m := transport.NewMessage()
	m.B = append(m.B, `0{"sid":"`+s.id+`","upgrades":[`+upgrades+`],"pingInterval":`...)
	m.B = strconv.AppendInt(m.B, s.srv.cfg.PingInterval.Milliseconds(), 10)
	m.B = append(m.B, `,"pingTimeout":`...)
	m.B = strconv.AppendInt(m.B, s.srv.cfg.PingTimeout.Milliseconds(), 10)
	if s.version != 3 {
		m.B = append(m.B, `,"maxPayload":`...)
		m.B = strconv.AppendInt(m.B, int64(s.srv.cfg.Conn.MaxMessage), 10)
	}
	m.B = append(m.B, '}')
	return m
}

// packet handles one Engine.IO packet. After an error the session is to be ended.
func (s *session) handlePacket(p []byte) error {
	if len(p) == 0 {
		return errProtocol
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil // what still comes in is not read
	}
	if s.version == 3 {
		s.since = time.Now()
	}
	if p[0] == engineMessage {
		s.mu.Unlock()
		return s.handleMessage(p[1:])
	}
	defer s.mu.Unlock()
	if !s.controlPackets.take(time.Now()) {
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

// message handles one Socket.IO packet.
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
	if !s.controlPackets.take(time.Now()) {
		return errTooManyPackets
	}
	own := k.namespace == "/"
	switch {
	case k.typ == typeConnect && !own:
		s.push(s.connectError(k.namespace))
	case k.typ == typeConnect && s.version == 3: // the server has connected it already
	case k.typ == typeConnect && !s.connected:
		s.connected = true
		// The socket's id is seen by pages and logs, the session's is a secret.
		s.push(newPacket(packetConnected + `{"sid":"` + newID() + `"}`))
	case k.typ == typeDisconnect && !own:
	case k.typ == typeDisconnect && s.connected:
		s.gone()
	case k.typ == typeAck && own && s.connected: // nothing of ours asks for one
	default:
		return errProtocol
	}
	return nil
}

// refusal tells that there is no such namespace: CONNECT_ERROR in protocol 5, ERROR in 4.
func (s *session) connectError(namespace string) *transport.Message {
	const message = `"Invalid namespace"`
	head := string(engineMessage) + string(byte(typeConnectError)) + namespace + ","
	if s.version == 3 {
		return newPacket(head + message)
	}
	return newPacket(head + `{"message":` + message + `}`)
}

// event hands a message up.
func (s *session) handleEvent(k packet) error {
	s.mu.Lock()
	joined := s.connected
	s.mu.Unlock()
	if k.namespace != "/" || !joined {
		return errProtocol
	}
	name, argument, err := parseEvent(k.data)
	if err != nil {
		return err
	}
	if string(name) != event {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.controlPackets.take(time.Now()) {
			return errTooManyPackets
		}
		return nil // as a server does that has no handler for it
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
