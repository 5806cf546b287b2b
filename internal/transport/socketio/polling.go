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

// how long the body of a post may take
const postTimeout = 10 * time.Second

// Clients of version 3 are not told how much one post may bring, and put everything that waits into one.
const postsOfVersion3 = 4

func (s *session) maxBody() int64 {
	n := int64(s.srv.cfg.Conn.MaxMessage + packetOverhead)
	if s.version == 3 {
		n *= postsOfVersion3
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

// servePoll waits until there is something to send. One poll at a time: a second one ends the session, as the client has lost
// track of it.
func (s *session) servePoll(w http.ResponseWriter, r *http.Request) (engineError, bool) {
	s.mu.Lock()
	switch {
	case s.closeFetched:
		s.mu.Unlock()
		return errUnknownSession, false
	case s.ws != nil:
		s.mu.Unlock()
		return errBadRequest, false
	case s.polling:
		s.lost()
		s.mu.Unlock()
		return errBadRequest, false
	}
	s.polling = true
	s.mu.Unlock()
	defer transport.SuspendLimit(r)()

	packets, ok := s.awaitPackets(r)
	if !ok {
		return engineError{}, true // there is nobody to answer
	}
	defer func() { <-s.pollLock }()
	if err := s.respond(w, packets); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lost()
	}
	return engineError{}, true
}

// await returns what is to be sent, with the turn to send it; false: the client has gone away.
func (s *session) awaitPackets(r *http.Request) ([]*transport.Message, bool) {
	aborted := func() ([]*transport.Message, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.polling = false
		if s.ws == nil { // else it has changed over, and needs this poll no more
			s.lost()
		}
		return nil, false
	}
	select {
	case s.pollLock <- struct{}{}:
	case <-r.Context().Done():
		return aborted()
	}
	s.mu.Lock()
	for len(s.queue) == 0 && !s.probeAnswered && !s.closed && s.ws == nil {
		s.mu.Unlock()
		select {
		case <-s.wake:
		case <-r.Context().Done():
			<-s.pollLock
			return aborted()
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	packets := s.queue
	s.queue, s.bytes, s.responding = nil, 0, s.bytes // the backlog sees these bytes all the time
	// Before the answer is written: its client may ask again before the writing has returned.
	s.polling, s.lastPoll = false, time.Now()
	switch {
	case len(packets) > 0:
	case s.closed:
		// Alone: clients see the end of the transport before the packets that come with it.
		packets = append(packets, newPacket(packetClose))
		s.closeFetched = true
	default:
		packets = append(packets, newPacket(packetNoop))
	}
	return packets, true
}

// respond writes packets as one payload and releases them. The backlog may break that off.
func (s *session) respond(w http.ResponseWriter, packets []*transport.Message) error {
	body := transport.NewMessage()
	body.B = appendPayload(body.B, s.version, packets)
	defer s.limitWrite(w)()
	s.setResponding(len(body.B), func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Now()) })
	defer s.setResponding(0, nil)
	defer body.Release()
	// First the packets: a payload and its copy would count twice, and others would be closed for that.
	for _, p := range packets {
		p.Release()
	}
	s.srv.cfg.Conn.Backlog.Hold(body)
	return write(w, body.B)
}

// limit bounds the time that the writing of an answer takes, until undo is called.
func (s *session) limitWrite(w http.ResponseWriter) (undo func()) {
	c := http.NewResponseController(w)
	_ = c.SetWriteDeadline(time.Now().Add(s.srv.cfg.Conn.WriteTimeout)) // an error here: not a socket
	return func() { _ = c.SetWriteDeadline(time.Time{}) }
}

// answers notes how much is being written, and how to break that off.
func (s *session) setResponding(bytes int, cut func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.responding, s.abortResponse = bytes, cut
}

func write(w http.ResponseWriter, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if _, err := w.Write(body); err != nil {
		return err
	}
	if err := http.NewResponseController(w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// servePost reads packets. One post at a time: a second one ends the session, since their order would be lost. A session that has
// ended takes posts and does not read them: its client says goodbye, or has not heard of the end yet.
func (s *session) servePost(w http.ResponseWriter, r *http.Request) (engineError, bool) {
	s.mu.Lock()
	switch {
	case s.ws != nil:
		s.mu.Unlock()
		return errBadRequest, false
	case s.posting:
		s.lost()
		s.mu.Unlock()
		return errBadRequest, false
	}
	s.posting = true
	s.mu.Unlock()

	f, ok := s.readPost(w, r)
	s.mu.Lock()
	s.posting = false // before the answer, as with polls
	s.mu.Unlock()
	if ok {
		defer s.limitWrite(w)()
		_ = write(w, []byte("ok")) // the packets have been read: if this is lost, a poll will tell
	}
	return f, ok
}

// read handles the packets of a post; after a fault the session has ended.
func (s *session) readPost(w http.ResponseWriter, r *http.Request) (engineError, bool) {
	switch t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t {
	case "text/plain", "":
	default: // binary payloads of version 3, forms of script elements
		s.fail(errBinary)
		return errBadRequest, false
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(postTimeout)) // the server sets its own for the next request
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.maxBody()))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		s.fail(errTooLong)
		return errTooLarge, false
	case err != nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lost()
		return errBadRequest, false
	case !utf8.Valid(body):
		s.fail(errProtocol)
		return errBadRequest, false
	}
	for first := true; first || len(body) > 0; first = false {
		var p []byte
		if p, body, err = nextPacket(body, s.version); err == nil {
			err = s.handlePacket(p)
		}
		if err != nil {
			s.fail(err)
			if errors.Is(err, errTooLong) {
				return errTooLarge, false
			}
			return errBadRequest, false
		}
	}
	return engineError{}, true
}
