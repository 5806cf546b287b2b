package socketio

import (
	"net/http"
	"time"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// wsReceiver receives the packets of a session's WebSocket: the session's only transport, or one
// that is to replace polling. Its methods are called by the WebSocket's reader.
type wsReceiver struct {
	// Static after construction; conn is set when the WebSocket is accepted.
	s     *session
	conn  transport.Conn
	since time.Time

	active bool // the session uses the WebSocket; owned by the reader
}

// acceptWebSocket opens a session that has no other transport.
func (s *session) acceptWebSocket(conn transport.Conn) transport.Receiver {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn.Send(s.openPacket(""))
	if s.version == 3 {
		conn.Send(newPacket(packetConnected))
	}
	s.ws = conn
	if s.closed { // meanwhile, by the receiver or because the server stops
		s.dropQueue()
		conn.Close(transport.StatusGoingAway, "")
	}
	return &wsReceiver{s: s, conn: conn, active: true}
}

// serveUpgrade accepts the WebSocket that is to replace polling, one at a time.
func (s *session) serveUpgrade(w http.ResponseWriter, r *http.Request) *engineError {
	u := &wsReceiver{s: s, since: time.Now()}
	s.mu.Lock()
	if s.closed || s.ws != nil || s.upgrading != nil {
		s.mu.Unlock()
		return errBadRequest
	}
	s.mu.Unlock()
	s.srv.ws.Upgrade(w, r, func(conn transport.Conn) transport.Receiver {
		u.conn = conn
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed || s.ws != nil || s.upgrading != nil {
			conn.Close(transport.StatusProtocolError, errProtocol.Error())
		} else {
			s.upgrading = u
		}
		return u
	})
	return nil
}

// Message implements transport.Receiver.
func (u *wsReceiver) Message(msg []byte, _ transport.Reply) {
	if !u.active {
		u.handleUpgrade(string(msg))
		return
	}
	if err := u.s.receive(msg); err != nil {
		u.s.fail(err)
	}
}

// handleUpgrade handles the two packets of an upgrade: "2probe", which is answered, and "5", when
// the client has no poll any more.
func (u *wsReceiver) handleUpgrade(packet string) {
	s := u.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.upgrading != u || s.closed:
		u.conn.Close(transport.StatusProtocolError, errProtocol.Error())
	case packet == packetProbe && !s.probeAnswered:
		u.conn.Send(newPacket(packetProbed))
		s.probeAnswered = true
		s.signal()
	case packet == packetUpgrade && s.probeAnswered:
		s.upgrading, s.probeAnswered = nil, false
		s.ws, u.active = u.conn, true
		s.markSocket()
		for _, m := range s.queue {
			u.conn.Send(m)
		}
		s.queue, s.bytes = nil, 0
		s.signal()
	default:
		u.conn.Close(transport.StatusProtocolError, errProtocol.Error())
	}
}

// Closed implements transport.Receiver.
func (u *wsReceiver) Closed(e transport.End) {
	s := u.s
	s.mu.Lock()
	if !u.active {
		if s.upgrading == u {
			s.upgrading, s.probeAnswered = nil, false
		}
		s.mu.Unlock()
		return
	}
	if !s.closed {
		s.closed = true
		s.notifyClosed(e)
	}
	s.mu.Unlock()
	s.srv.remove(s)
}
