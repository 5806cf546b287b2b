package socketio

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/ieum-rtc/ieum/internal/transport"
)

// postTimeout is for the body of a post.
const postTimeout = 10 * time.Second

// version3PostFactor: clients of Engine.IO 3 do not learn how long a post may be, and put all
// waiting packets into one.
const version3PostFactor = 4

func (s *session) maxBody() int64 {
	n := int64(s.srv.cfg.Conn.MaxMessage + packetOverhead)
	if s.version == 3 {
		n *= version3PostFactor
	}
	return n
}

// serveOpen answers the handshake of a polling client.
func (s *session) serveOpen(w http.ResponseWriter) {
	packets := []*transport.Message{s.openPacket(`"websocket"`)}
	if s.version == 3 {
		packets = append(packets, newPacket(packetConnected))
	}
	if err := s.respond(w, packets); err != nil {
		s.abandon()
	}
}

// servePoll waits until there is something to send. A second poll at a time ends the session: its
// client has lost track of it.
func (s *session) servePoll(w http.ResponseWriter, r *http.Request) *engineError {
	s.mu.Lock()
	switch {
	case s.closeFetched:
		s.mu.Unlock()
		return errUnknownSession
	case s.ws != nil:
		s.mu.Unlock()
		return errBadRequest
	case s.polling:
		s.lost()
		s.mu.Unlock()
		return errBadRequest
	}
	s.polling = true
	s.mu.Unlock()
	defer transport.SuspendLimit(r)()

	packets, ok := s.awaitPackets(r)
	if !ok {
		return nil // the client has closed the request
	}
	defer func() { <-s.pollLock }()
	if err := s.respond(w, packets); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lost()
	}
	return nil
}

// awaitPackets returns what is to be sent, with pollLock held. It returns false when the client has
// closed the request.
func (s *session) awaitPackets(r *http.Request) ([]*transport.Message, bool) {
	select {
	case s.pollLock <- struct{}{}:
	case <-r.Context().Done():
		s.pollAborted()
		return nil, false
	}
	s.mu.Lock()
	for len(s.queue) == 0 && !s.probeAnswered && !s.closed && s.ws == nil {
		s.mu.Unlock()
		select {
		case <-s.wake:
		case <-r.Context().Done():
			<-s.pollLock
			s.pollAborted()
			return nil, false
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	packets := s.queue
	s.queue, s.bytes, s.responding = nil, 0, s.bytes // the backlog sees these bytes all the time
	// Before the response is written: its client may poll again before the write has returned.
	s.polling, s.lastPoll = false, time.Now()
	switch {
	case len(packets) > 0:
	case s.closed:
		// In a response of its own: clients handle the end of the transport before other packets.
		packets = append(packets, newPacket(packetClose))
		s.closeFetched = true
	default:
		packets = append(packets, newPacket(packetNoop))
	}
	return packets, true
}

// pollAborted ends the session of a client that closed its poll, unless it has a WebSocket by now
// and no longer needs the poll.
func (s *session) pollAborted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.polling = false
	if s.ws == nil {
		s.lost()
	}
}

// respond writes packets as one payload and releases them. The backlog may abort the write.
func (s *session) respond(w http.ResponseWriter, packets []*transport.Message) error {
	body := transport.NewMessage()
	body.B = appendPayload(body.B, s.version, packets)
	defer s.limitWrite(w)()
	s.setResponding(len(body.B), func() {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now())
	})
	defer s.setResponding(0, nil)
	defer body.Release()
	// First the packets: otherwise the bytes would count twice, and others would be closed for it.
	for _, p := range packets {
		p.Release()
	}
	s.srv.cfg.Conn.Backlog.Hold(body)
	return write(w, body.B)
}

// limitWrite limits the time for writing a response until undo is called.
func (s *session) limitWrite(w http.ResponseWriter) (undo func()) {
	c := http.NewResponseController(w)
	// An error means that w is no connection.
	_ = c.SetWriteDeadline(time.Now().Add(s.srv.cfg.Conn.WriteTimeout))
	return func() { _ = c.SetWriteDeadline(time.Time{}) }
}

// setResponding notes how many bytes are being written, and how to abort that.
func (s *session) setResponding(bytes int, abort func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.responding, s.abortResponse = bytes, abort
}

func write(w http.ResponseWriter, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if _, err := w.Write(body); err != nil {
		return err
	}
	err := http.NewResponseController(w).Flush()
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

// servePost reads packets. A second post at a time ends the session, since the order would be lost.
// After the end of the session posts are accepted and not read: the client says goodbye, or has not
// heard of the end yet.
func (s *session) servePost(w http.ResponseWriter, r *http.Request) *engineError {
	s.mu.Lock()
	switch {
	case s.ws != nil:
		s.mu.Unlock()
		return errBadRequest
	case s.posting:
		s.lost()
		s.mu.Unlock()
		return errBadRequest
	}
	s.posting = true
	s.mu.Unlock()

	err := s.readPost(w, r)
	s.mu.Lock()
	s.posting = false // before the response, as with polls
	s.mu.Unlock()
	if err != nil {
		return err
	}
	defer s.limitWrite(w)()
	_ = write(w, []byte("ok")) // the packets have been read: if this is lost, a poll will show it
	return nil
}

// readPost handles the packets of a post. After an error the session has ended.
func (s *session) readPost(w http.ResponseWriter, r *http.Request) *engineError {
	switch t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t {
	case "text/plain", "":
	default: // binary payloads of version 3, forms of JSONP
		s.fail(errBinary)
		return errBadRequest
	}
	// The HTTP server sets its own deadline for the next request.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(postTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.maxBody()))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		s.fail(errTooLong)
		return errTooLarge
	case err != nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lost()
		return errBadRequest
	case !utf8.Valid(body):
		s.fail(errProtocol)
		return errBadRequest
	}
	for first := true; first || len(body) > 0; first = false {
		var p []byte
		if p, body, err = nextPacket(body, s.version); err == nil {
			err = s.receive(p)
		}
		if err != nil {
			s.fail(err)
			switch {
			case errors.Is(err, errTooLong):
				return errTooLarge
			case errors.Is(err, errPanicked):
				return errInternal
			}
			return errBadRequest
		}
	}
	return nil
}
