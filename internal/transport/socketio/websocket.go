package socketio

import (
	"net/http"
	"time"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// leg is a WebSocket of a session: from the start, or to take over from polling. Its methods run on the socket's reader.
type wsReceiver struct {
	s      *session
	conn   transport.Conn
	since  time.Time
	active bool // it carries the session; owned by the reader
}

// acceptWebSocket opens a session over a WebSocket alone.
func (s *session) acceptWebSocket(conn transport.Conn) transport.Receiver {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn.Send(s.openPacket(""))
	if s.version == 3 {
		conn.Send(newPacket(packetConnected))
	}
	s.ws = conn
	if s.closed { // meanwhile, by the receiver or the server's end
		s.dropQueue()
		conn.Close(transport.StatusGoingAway, "")
	}
	return &wsReceiver{s: s, conn: conn, active: true}
}

// serveProbe takes the WebSocket that wants to take over a polling session: one at a time.
func (s *session) serveProbe(w http.ResponseWriter, r *http.Request) (engineError, bool) {
	l := &wsReceiver{s: s, since: time.Now()}
	s.mu.Lock()
	if s.closed || s.ws != nil || s.upgrading != nil {
		s.mu.Unlock()
		return errBadRequest, false
	}
	s.mu.Unlock()
	s.srv.ws.Upgrade(w, r, func(conn transport.Conn) transport.Receiver {
		l.conn = conn
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed || s.ws != nil || s.upgrading != nil {
			conn.Close(transport.StatusProtocolError, errProtocol.Error())
		} else {
			s.upgrading = l
		}
		return l
	})
	return engineError{}, true
}

// Message implements transport.Receiver.
func (l *wsReceiver) Message(msg []byte, _ transport.Reply) {
	if !l.active {
		l.handleUpgrade(string(msg))
		return
	}
	if err := l.s.handlePacket(msg); err != nil {
		l.s.fail(err)
	}
}

// change goes the two steps of taking over: "2probe", answered, and "5" when the client has no poll any more.
func (l *wsReceiver) handleUpgrade(word string) {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.upgrading != l || s.closed:
		l.conn.Close(transport.StatusProtocolError, errProtocol.Error())
	case word == packetProbe && !s.probeAnswered:
		l.conn.Send(newPacket(packetProbed))
		s.probeAnswered = true
		s.signal()
	case word == packetUpgrade && s.probeAnswered:
		s.upgrading, s.probeAnswered = nil, false
		s.ws, l.active = l.conn, true
		for _, m := range s.queue {
			l.conn.Send(m)
		}
		s.queue, s.bytes = nil, 0
		s.signal()
	default:
		l.conn.Close(transport.StatusProtocolError, errProtocol.Error())
	}
}

// Closed implements transport.Receiver.
func (l *wsReceiver) Closed(e transport.End) {
	s := l.s
	s.mu.Lock()
	if !l.active {
		if s.upgrading == l {
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
