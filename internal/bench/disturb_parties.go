package bench

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

	"github.com/ieum-rtc/ieum/internal/protocol"
)

const (
	dialsMost  = 128 // half-open sockets that are dialed at a time
	againAfter = time.Second

	herdEvery = 5 * time.Second
	// back-off of our SDK (sdk/src/signaling/connection.ts): at once, then by steps that double, of which half is at random
	herdStep = 250 * time.Millisecond
	herdCap  = 2 * time.Second

	nagEvery  = 50 * time.Millisecond // under what a session may send
	nagSize   = 32 << 10              // so that what a connection may hold is soon full
	slowPause = 100 * time.Millisecond
	stopFor   = 15 * time.Second // then it reads what is left, and how the connection ended
)

// halfOpen is one socket that gets no further than it wants to, again and again: half of them say nothing, a quarter stop within their
// request, a quarter have a WebSocket and do not log in.
func (d *disturbance) halfOpen(ctx context.Context, i int, ready func()) {
	for {
		select {
		case d.dialing <- struct{}{}:
		case <-ctx.Done():
			return
		}
		nc, err := d.halfDial(ctx, i%4)
		<-d.dialing
		ready()
		if err != nil {
			d.failed.Add(1)
		} else {
			d.dialed.Add(1)
			stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
			_, _ = io.Copy(io.Discard, nc) // until the server ends it
			stop()
			_ = nc.Close()
		}
		if !pause(ctx, againAfter) {
			return
		}
	}
}

func (d *disturbance) halfDial(ctx context.Context, how int) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, enterWithin)
	defer cancel()
	m := d.mix
	switch how {
	case 2:
		nc, err := m.dialer.tcp(ctx, m.url)
		if err != nil {
			return nil, err
		}
		if nc, err = m.dialer.secure(ctx, m.url, nc, nil); err == nil {
			_, _ = io.WriteString(nc, "GET "+m.url.RequestURI()+" HTTP/1.1\r\nHost: "+m.url.Host+"\r\nUpgrade: web")
		}
		return nc, err
	case 3:
		conn, err := m.dialer.websocket(ctx, m.url, new(gws.BuiltinEventHandler), nil)
		if err != nil {
			return nil, err
		}
		return conn.NetConn(), nil
	}
	return m.dialer.tcp(ctx, m.url)
}

// stranger is one of those who disturb, with a session.
type stranger struct {
	*link
	id, secret string
}

// enter logs in, and joins a room unless that is empty, which the first one makes.
func (d *disturbance) enter(ctx context.Context, id, room string, first bool, deliver func()) (*stranger, error) {
	ctx, cancel := context.WithTimeout(ctx, enterWithin)
	defer cancel()
	m := d.mix
	s := &stranger{link: &link{ended: d.ended, deliver: func(*protocol.Envelope, []byte) { deliver() }}, id: id}
	if m.url.Scheme == "wss" {
		s.tickets = tls.NewLRUClientSessionCache(1)
	}
	if err := m.open(ctx, s.link); err != nil {
		return nil, err
	}
	a, err := s.ask(ctx, request{"eventOp": "register", "cpCode": m.cfg.CpCode, "authKey": m.cfg.AuthKey, "userId": id})
	s.secret = a.Resume
	if err == nil && first {
		_, err = s.ask(ctx, request{"eventOp": "createRoom", "roomId": room})
	}
	if err == nil && room != "" {
		_, err = s.ask(ctx, request{"eventOp": "joinRoom", "roomId": room})
	}
	if err != nil {
		s.leave()
		return nil, err
	}
	return s, nil
}

// herd is one client whose connection is cut together with those of all others, and who resumes its session.
func (d *disturbance) herd(ctx context.Context, i int, ready func()) {
	nothing := func() {}
	s, err := d.enter(ctx, fmt.Sprintf("%s-herd-%d", d.mix.name, i), "", false, nothing)
	if err != nil {
		d.failedToBegin(ctx, err)
		return
	}
	ready()
	defer func() { s.leave() }() // the connection that it has then
	select {
	case <-d.begun:
	case <-ctx.Done():
		return
	}
	for cut := d.since; ctx.Err() == nil; {
		for cut = cut.Add(herdEvery); time.Until(cut) < 0; cut = cut.Add(herdEvery) { // one who was not back yet misses a cut
		}
		if !pause(ctx, time.Until(cut)) {
			return
		}
		s.cut()
		if err := d.comeBack(ctx, s, cut); err != nil {
			if ctx.Err() == nil {
				d.lost.Add(1)
			}
			return
		}
	}
}

// comeBack resumes a session as our SDK does: it tries until the session is gone.
func (d *disturbance) comeBack(ctx context.Context, s *stranger, cut time.Time) error {
	for attempt := 0; ; attempt++ {
		if attempt > 0 {
			d.tries.Add(1)
			wait := min(herdCap, herdStep<<min(attempt-1, 10))
			if !pause(ctx, wait/2+rand.N(wait/2)) {
				return ctx.Err()
			}
		}
		err := d.resume(ctx, s)
		if err == nil {
			d.back.add(int64(time.Since(cut)))
			return nil
		}
		if errors.Is(err, errRefused) || ctx.Err() != nil {
			return err
		}
	}
}

func (d *disturbance) resume(ctx context.Context, s *stranger) error {
	ctx, cancel := context.WithTimeout(ctx, d.mix.cfg.Stall)
	defer cancel()
	next := &link{ended: d.ended, deliver: s.deliver, tickets: s.tickets}
	if err := d.mix.open(ctx, next); err != nil {
		return err
	}
	if c, is := next.conn.NetConn().(*tls.Conn); is && c.ConnectionState().DidResume {
		d.tickets.Add(1)
	}
	a, err := next.ask(ctx, request{"eventOp": "register", "cpCode": d.mix.cfg.CpCode, "authKey": d.mix.cfg.AuthKey, "resume": s.secret})
	if err == nil && !a.Resumed {
		err = errors.New("the session was not resumed")
	}
	if err != nil {
		next.leave()
		return err
	}
	s.link, s.secret = next, a.Resume
	return nil
}

// repeat lets one life of a stranger follow the other, each with ids of its own.
func (d *disturbance) repeat(ctx context.Context, name string, life func(ctx context.Context, name string, ready func()) error, ready func()) {
	for n := 0; ctx.Err() == nil; n++ {
		if err := life(ctx, fmt.Sprintf("%s-%s-%d", d.mix.name, name, n), ready); err != nil && n == 0 {
			d.failedToBegin(ctx, err)
			return
		}
		pause(ctx, againAfter)
	}
}

// couple is two strangers in a room, of whom one hears what the other says.
func (d *disturbance) couple(ctx context.Context, name string, hear func()) (speaker, hearer *stranger, err error) {
	if speaker, err = d.enter(ctx, name+"-a", name, true, func() {}); err != nil {
		return nil, nil, err
	}
	if hearer, err = d.enter(ctx, name+"-b", name, false, hear); err != nil {
		speaker.leave()
		return nil, nil, err
	}
	return speaker, hearer, nil
}

// to is a message of about so many bytes.
func (s *stranger) to(other *stranger, size int) []byte {
	return fmt.Appendf(nil, `{"eventOp":"candidate","target":%q,"type":"cam","candidate":{"candidate":"%s"}}`, other.id, strings.Repeat("x", size))
}

// flood sends until the connection ends.
func (d *disturbance) flood(ctx context.Context, name string, ready func()) error {
	a, b, err := d.couple(ctx, name, func() {})
	if err != nil {
		return err
	}
	defer b.leave()
	defer a.leave()
	ready()
	select {
	case <-d.begun:
	case <-ctx.Done():
	}
	defer context.AfterFunc(ctx, a.cut)() // a write may wait for the server
	text := a.to(b, 100)
	for ctx.Err() == nil && a.conn.WriteMessage(gws.OpcodeText, text) == nil {
	}
	select {
	case <-a.gone: // its reader has heard how it ended
	case <-ctx.Done():
	}
	return nil
}

func (d *disturbance) readSlowly(ctx context.Context, name string, ready func()) error {
	return d.nag(ctx, name, func() { pause(ctx, slowPause) }, ready)
}

func (d *disturbance) readNothing(ctx context.Context, name string, ready func()) error {
	awake, cancel := context.WithTimeout(ctx, stopFor)
	defer cancel()
	return d.nag(ctx, name, func() { <-awake.Done() }, ready)
}

// nag sends large messages to one who is busy with each of them, until the connection of either has ended.
func (d *disturbance) nag(ctx context.Context, name string, busy, ready func()) error {
	a, b, err := d.couple(ctx, name, busy)
	if err != nil {
		return err
	}
	defer b.leave()
	defer a.leave()
	ready()
	defer context.AfterFunc(ctx, a.cut)()
	text := a.to(b, nagSize)
	every := time.NewTicker(nagEvery)
	defer every.Stop()
	for {
		select {
		case <-every.C:
			_ = a.conn.WriteMessage(gws.OpcodeText, text)
		case <-a.gone:
			return nil
		case <-b.gone:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
