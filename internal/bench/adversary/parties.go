package adversary

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/bench/client"
	"github.com/ieum-rtc/ieum/internal/protocol"
)

const (
	maxDials    = 128 // half-open sockets that are dialed concurrently
	returnAfter = time.Second

	stormInterval = 5 * time.Second
	// The back-off of our SDK (sdk/src/signaling/connection.ts): the first attempt is immediate,
	// then the steps double, and half of each is random.
	backoffStep = 250 * time.Millisecond
	maxBackoff  = 2 * time.Second

	// What slow readers are sent: below the rate limit of a session, but large, so that it soon
	// fills what the server may buffer for a connection.
	slowMessageEvery = 50 * time.Millisecond
	slowMessageSize  = 32 << 10
	slowReadPause    = 100 * time.Millisecond
	stopReadingFor   = 15 * time.Second // then it reads the rest, and how the connection ended
)

// halfOpen is one socket that never logs in, again and again: half of them send nothing, a quarter
// stop within their request, a quarter open a WebSocket and do not log in.
func (a *adversaries) halfOpen(ctx context.Context, i int, ready func()) {
	for {
		select {
		case a.dialing <- struct{}{}:
		case <-ctx.Done():
			return
		}
		nc, err := a.dialHalfOpen(ctx, i%4)
		<-a.dialing
		ready()
		if err != nil {
			a.failed.Add(1)
		} else {
			a.dialed.Add(1)
			stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
			_, _ = io.Copy(io.Discard, nc) // until the server ends it
			stop()
			_ = nc.Close()
		}
		if !pause(ctx, returnAfter) {
			return
		}
	}
}

func (a *adversaries) dialHalfOpen(ctx context.Context, kind int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, client.SetupTimeout)
	defer cancel()
	switch kind {
	case 2:
		nc, err := a.dialer.TCP(ctx, a.url)
		if err != nil {
			return nil, err
		}
		if nc, err = a.dialer.TLS(ctx, a.url, nc, nil); err == nil {
			const unfinished = "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: web"
			_, _ = fmt.Fprintf(nc, unfinished, a.url.RequestURI(), a.url.Host)
		}
		return nc, err
	case 3:
		conn, err := a.dialer.WebSocket(ctx, a.url, new(gws.BuiltinEventHandler), nil)
		if err != nil {
			return nil, err
		}
		return conn.NetConn(), nil
	}
	return a.dialer.TCP(ctx, a.url)
}

// session is an adversary that has logged in.
type session struct {
	*client.Link
	id     string
	resume string // resume token
}

// login logs in and, unless room is empty, joins it; create says that the room must be created.
func (a *adversaries) login(
	ctx context.Context, id, room string, create bool, deliver func(),
) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, client.SetupTimeout)
	defer cancel()
	s := &session{id: id, Link: &client.Link{
		Deliver: func(*protocol.Envelope, []byte) { deliver() },
		Ended:   a.ended,
	}}
	if a.url.Scheme == "wss" {
		s.Tickets = tls.NewLRUClientSessionCache(1)
	}
	if err := s.Open(ctx, a.dialer, a.url, &a.readers); err != nil {
		return nil, err
	}
	reply, err := s.Ask(ctx, a.register("userId", id))
	s.resume = reply.Resume
	if err == nil && create {
		_, err = s.Ask(ctx, client.Request{"eventOp": "createRoom", "roomId": room})
	}
	if err == nil && room != "" {
		_, err = s.Ask(ctx, client.Request{"eventOp": "joinRoom", "roomId": room})
	}
	if err != nil {
		s.Leave()
		return nil, err
	}
	return s, nil
}

// register is a login by user id, or by resume token.
func (a *adversaries) register(by, value string) client.Request {
	return client.Request{
		"eventOp": "register",
		"cpCode":  a.cfg.CpCode,
		"authKey": a.cfg.AuthKey,
		by:        value,
	}
}

// reconnectStorm is one client whose connection is cut at the same time as those of all others, and
// that resumes its session.
func (a *adversaries) reconnectStorm(ctx context.Context, i int, ready func()) {
	s, err := a.login(ctx, fmt.Sprintf("%s-storm-%d", a.id, i), "", false, func() {})
	if err != nil {
		a.failedToStart(ctx, err)
		return
	}
	ready()
	defer func() { s.Leave() }() // the connection that it has then
	select {
	case <-a.started:
	case <-ctx.Done():
		return
	}
	for cut := a.start; ctx.Err() == nil; {
		cut = cut.Add(stormInterval)
		for time.Until(cut) < 0 { // a client that is not back yet misses a cut
			cut = cut.Add(stormInterval)
		}
		if !pause(ctx, time.Until(cut)) {
			return
		}
		s.Cut()
		if err := a.reconnect(ctx, s, cut); err != nil {
			a.lost.Add(1)
			return
		}
	}
}

// reconnect resumes a session as our SDK does: it tries until the session is gone. It goes on when
// the measured load has ended: otherwise a slow server would lose nobody.
func (a *adversaries) reconnect(ctx context.Context, s *session, cut time.Time) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.Stall)
	defer cancel()
	for attempt := 0; ; attempt++ {
		if attempt > 0 {
			a.retries.Add(1)
			wait := min(maxBackoff, backoffStep<<min(attempt-1, 10))
			if !pause(ctx, wait/2+rand.N(wait/2)) {
				return ctx.Err()
			}
		}
		err := a.resume(ctx, s)
		if err == nil {
			a.resumed.Add(int64(time.Since(cut)))
			return nil
		}
		if errors.Is(err, client.ErrRefused) || ctx.Err() != nil {
			return err
		}
	}
}

func (a *adversaries) resume(ctx context.Context, s *session) error {
	next := &client.Link{Deliver: s.Deliver, Ended: a.ended, Tickets: s.Tickets}
	if err := next.Open(ctx, a.dialer, a.url, &a.readers); err != nil {
		return err
	}
	if next.UsedTicket() {
		a.tickets.Add(1)
	}
	reply, err := next.Ask(ctx, a.register("resume", s.resume))
	if err == nil && !reply.Resumed {
		err = errors.New("the session was not resumed")
	}
	if err != nil {
		next.Leave()
		return err
	}
	s.Link, s.resume = next, reply.Resume
	return nil
}

// part is what an adversary does until the end of its connection. It calls ready when it has logged
// in.
type part func(ctx context.Context, name string, ready func()) error

// repeat plays a part again and again, each time with new ids.
func (a *adversaries) repeat(ctx context.Context, name string, play part, ready func()) {
	for n := 0; ctx.Err() == nil; n++ {
		err := play(ctx, fmt.Sprintf("%s-%s-%d", a.id, name, n), ready)
		if err != nil && n == 0 {
			a.failedToStart(ctx, err)
			return
		}
		pause(ctx, returnAfter)
	}
}

// loginPair logs in two adversaries in a room. The receiver's reader calls deliver per message.
func (a *adversaries) loginPair(
	ctx context.Context, name string, deliver func(),
) (sender, receiver *session, err error) {
	if sender, err = a.login(ctx, name+"-a", name, true, func() {}); err != nil {
		return nil, nil, err
	}
	if receiver, err = a.login(ctx, name+"-b", name, false, deliver); err != nil {
		sender.Leave()
		return nil, nil, err
	}
	return sender, receiver, nil
}

// candidate is a message to a session of about so many bytes.
func candidate(to *session, size int) []byte {
	const format = `{"eventOp":"candidate","target":%q,"type":"cam","candidate":{"candidate":"%s"}}`
	return fmt.Appendf(nil, format, to.id, strings.Repeat("x", size))
}

// flood sends until the connection ends.
func (a *adversaries) flood(ctx context.Context, name string, ready func()) error {
	sender, receiver, err := a.loginPair(ctx, name, func() {})
	if err != nil {
		return err
	}
	defer receiver.Leave()
	defer sender.Leave()
	ready()
	select {
	case <-a.started:
	case <-ctx.Done():
	}
	defer context.AfterFunc(ctx, sender.Cut)() // a write may wait for the server
	text := candidate(receiver, 100)
	for ctx.Err() == nil && sender.Write(text) == nil {
	}
	select {
	case <-sender.Gone(): // its reader has seen how the connection ended
	case <-ctx.Done():
	}
	return nil
}

func (a *adversaries) readSlowly(ctx context.Context, name string, ready func()) error {
	return a.slowReader(ctx, name, func() { pause(ctx, slowReadPause) }, ready)
}

func (a *adversaries) stopReading(ctx context.Context, name string, ready func()) error {
	stopped, cancel := context.WithTimeout(ctx, stopReadingFor)
	defer cancel()
	return a.slowReader(ctx, name, func() { <-stopped.Done() }, ready)
}

// slowReader sends large messages to a receiver that calls block for each of them, until the
// connection of either has ended.
func (a *adversaries) slowReader(ctx context.Context, name string, block, ready func()) error {
	sender, receiver, err := a.loginPair(ctx, name, block)
	if err != nil {
		return err
	}
	defer receiver.Leave()
	defer sender.Leave()
	ready()
	defer context.AfterFunc(ctx, sender.Cut)()
	text := candidate(receiver, slowMessageSize)
	every := time.NewTicker(slowMessageEvery)
	defer every.Stop()
	for {
		select {
		case <-every.C:
			_ = sender.Write(text)
		case <-sender.Gone():
			return nil
		case <-receiver.Gone():
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
