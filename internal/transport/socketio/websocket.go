package socketio

import (
	"net/http"
	"time"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// leg is a WebSocket of a session: from the start, or to take over from polling. Its methods run on the socket's reader.
type leg struct {
	s     *session
	conn  transport.Conn
	since time.Time
	taken bool // it carries the session; owned by the reader
}

// acceptWebSocket opens a session over a WebSocket alone.
func (s *session) acceptWebSocket(conn transport.Conn) transport.Receiver {
	s.mu.Lock()
	defer s.mu.Unlock()
	conn.Send(s.opening(""))
	if s.version == 3 {
		conn.Send(text(packetConnected))
	}
	s.carrier = conn
	if s.closed { // meanwhile, by the receiver or the server's end
		s.drop()
		conn.Close(transport.StatusGoingAway, "")
	}
	return &leg{s: s, conn: conn, taken: true}
}

// serveProbe takes the WebSocket that wants to take over a polling session: one at a time.
func (s *session) serveProbe(w http.ResponseWriter, r *http.Request) (fault, bool) {
	l := &leg{s: s, since: time.Now()}
	s.mu.Lock()
	if s.closed || s.carrier != nil || s.probe != nil {
		s.mu.Unlock()
		return faultRequest, false
	}
	s.mu.Unlock()
	s.srv.ws.Upgrade(w, r, func(conn transport.Conn) transport.Receiver {
		l.conn = conn
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed || s.carrier != nil || s.probe != nil {
			conn.Close(transport.StatusProtocolError, errProtocol.Error())
		} else {
			s.probe = l
		}
		return l
	})
	return fault{}, true
}

// Message implements transport.Receiver.
func (l *leg) Message(msg []byte, _ transport.Reply) {
	if !l.taken {
		l.change(string(msg))
		return
	}
	if err := l.s.packet(msg); err != nil {
		l.s.fail(err)
	}
}

// change goes the two steps of taking over: "2probe", answered, and "5" when the client has no poll any more.
func (l *leg) change(word string) {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.probe != l || s.closed:
		l.conn.Close(transport.StatusProtocolError, errProtocol.Error())
	case word == packetProbe && !s.probed:
		l.conn.Send(text(packetProbed))
		s.probed = true
		s.signal()
	case word == packetUpgrade && s.probed:
		s.probe, s.probed = nil, false
		s.carrier, l.taken = l.conn, true
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
func (l *leg) Closed(e transport.End) {
	s := l.s
	s.mu.Lock()
	if !l.taken {
		if s.probe == l {
			s.probe, s.probed = nil, false
		}
		s.mu.Unlock()
		return
	}
	if !s.closed {
		s.closed = true
		s.report(e)
	}
	s.mu.Unlock()
	s.srv.remove(s)
}
