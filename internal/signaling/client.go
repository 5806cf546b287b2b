package signaling

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ieum-rtc/ieum/internal/limit"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// client is one connection: what is read from it is decided here. All fields but login belong to
// the connection's reader.
type client struct {
	hub  *Hub
	conn transport.Conn
	// Closes the connection unless register succeeds, which frees it.
	login      *time.Timer
	rateMeter  limit.GCRA              // of what comes before register; then the session's counts
	session    atomic.Pointer[session] // set once, by register
	hasMessage bool                    // there was a message before this one
	// A register brought a license or user token that is not genuine.
	failedLogin bool
	// The last genuine secret that a register brought, whether or not it was let in.
	lastToken *resumeToken
	// It opened its session with the request for the connection, and nothing has come since.
	unconfirmed bool
}

// request is one message on its way through a handler. It is pooled: nothing may keep it longer.
type request struct {
	c        *client
	s        *session // nil before register
	msg      []byte
	env      protocol.Envelope
	reply    transport.Reply
	overRate bool // one too many: it is refused
}

var requests = sync.Pool{New: func() any { return new(request) }}

// Message implements transport.Receiver.
func (c *client) Message(msg []byte, reply transport.Reply) {
	if !c.hub.enter() {
		return
	}
	defer c.hub.leave() // also after a panic, from which the transport recovers
	s := c.session.Load()
	rate := &c.rateMeter
	if s != nil {
		rate = &s.rateMeter
		c.unconfirmed = false
	}
	now, cost := c.hub.now(), units(1, len(msg), floodBytes)
	flood := !rate.Take(now, c.hub.flood, cost)
	if flood && (s == nil || !s.excessMeter.Take(now, c.hub.excess, cost)) {
		c.hub.counters.flooded.Add(1)
		c.conn.Close(transport.StatusPolicyViolation, "too many messages")
		return
	}
	r := requests.Get().(*request)
	r.c, r.s, r.msg, r.reply, r.overRate = c, s, msg, reply, flood
	r.handle()
	c.hasMessage = true
	r.c, r.s, r.msg, r.reply = nil, nil, nil, nil
	requests.Put(r)
}

func (r *request) handle() {
	err := r.env.Scan(r.msg)
	switch {
	case err != nil:
		r.env = protocol.Envelope{} // what was found before the error must not be used
		r.fail(err)
	case r.overRate:
		r.c.hub.counters.refusedFlood.Add(1)
		r.fail(errMessageRate)
	case r.isRelayed():
		r.relay()
	case r.s == nil:
		r.unregistered()
	case r.s.client.Load() != r.c:
		// the session has moved to another connection, or ended; this one is being closed
	case !r.own() && string(r.env.Op) != "register":
		r.c.hub.counters.spoofed.Add(1)
		r.fail(errForeign)
	default:
		r.dispatch()
	}
}

// own tells whether the message names no other sender than this connection's user.
func (r *request) own() bool { return r.env.UserID == nil || string(r.env.UserID) == r.s.user }

func (r *request) unregistered() {
	switch string(r.env.Op) {
	case "register":
		err := r.register()
		if err == nil { // the answer went out with the session
			r.c.hub.counters.answer(r.env.Op, protocol.OK)
			return
		}
		r.c.hub.counters.login(err)
		r.fail(err)
		if errors.Is(err, errOrigin) { // another register of this page would be refused, too
			r.c.conn.Close(transport.StatusPolicyViolation, "origin not allowed")
		}
	case "keepAlive":
		r.ok(nil)
	default:
		r.fail(errNotRegistered)
	}
}

func (r *request) dispatch() {
	handle, ok := handlers[string(r.env.Op)]
	if !ok {
		r.fail(errUnknownOp)
		return
	}
	if err := r.checkRoomBudget(); err != nil {
		r.fail(err)
		return
	}
	if err := handle(r); err != nil { // handlers answer success themselves
		r.fail(err)
	}
}

// handlers are the operations of a registered client. Messages for another member do not come here
// (isRelayed): publish and unpublish are for the room, the others lack their target.
var handlers = map[string]func(*request) error{
	"keepAlive": (*request).keepAlive,
	"iceServers": func(r *request) error {
		r.ok(protocol.ICEAnswer{
			ICEServers: r.s.iceServers(r.c),
		})
		return nil
	},
	"register":        func(*request) error { return errRegistered },
	"sdpRoom":         func(*request) error { return errNotOffered },
	"sdp":             func(*request) error { return errUntargeted },
	"candidate":       func(*request) error { return errUntargeted },
	"subscribe":       func(*request) error { return errUntargeted },
	"createRoom":      (*request).createRoom,
	"createVideoRoom": (*request).createVideoRoom,
	"joinRoom":        (*request).joinRoom,
	"leaveRoom":       (*request).leaveRoom,
	"memberList":      (*request).memberList,
	"destroyRoom":     (*request).destroyRoom,
	"editRoomInfo":    (*request).editRoomInfo,
	"kickOut":         (*request).kickOut,
	"permit":          (*request).permit,
	"editUserInfo":    (*request).editUserInfo,
	"changeName":      (*request).editUserInfo,
	"chat":            (*request).chat,
	"inform":          (*request).inform,
	"talking":         (*request).talking,
	"screen":          (*request).screen,
	"shareStop":       (*request).shareStop,
	"publish":         (*request).publish,
	"unpublish":       (*request).unpublish,
	"createGroup":     (*request).createGroup,
	"endGroup":        (*request).endGroup,
}

// keepAlive is what an idle client sends: what it needs no longer is given up.
func (r *request) keepAlive() error {
	r.s.releaseOutgoing(r.c.hub.now())
	r.ok(nil)
	return nil
}

func (r *request) fail(err error) {
	a, known := outcome(err)
	if !known {
		r.logError("request failed", err)
	}
	r.answer(a)
}

func (r *request) logError(msg string, err error) {
	cfg := &r.c.hub.cfg
	cfg.Log.Error(msg, "node", cfg.Node, "op", string(r.env.Op), "error", err)
}

func (r *request) ok(body any) { r.answer(protocol.Answer{Code: protocol.OK, Body: body}) }

func (r *request) answer(a protocol.Answer) {
	r.c.hub.counters.answer(r.env.Op, a.Code)
	if r.s != nil {
		r.s.flushPresence() // an answer may know of them
	}
	m := transport.NewMessage()
	var err error
	if m.B, err = protocol.AppendAnswer(m.B, string(r.env.Op), r.env.ReqID, a); err != nil {
		m.Release()
		r.logError("answer not encoded", err)
		return
	}
	r.charge(len(m.B))
	if to, ok := r.reply.(interface {
		Offer(*transport.Message, transport.Share) error
	}); ok && r.overRate {
		// A client that floods, and does not read, is closed for the first.
		_ = to.Offer(m, pendingLimits[fromMember].share)
		return
	}
	r.reply.Send(m)
}

// Closed implements transport.Receiver.
func (c *client) Closed(e transport.End) {
	if c.login != nil {
		c.login.Stop()
	}
	if e.SlowConsumer {
		c.hub.counters.overflowed.Add(1)
	}
	if e.MessageTooLong {
		c.hub.counters.long.Add(1)
	}
	if e.TooManyFrames {
		c.hub.counters.small.Add(1)
	}
	s := c.session.Load()
	if s == nil || !c.hub.enter() {
		return
	}
	defer c.hub.leave()
	if e.Gone || c.unconfirmed || e.Panicked {
		// A page that was closed, or has given up, while it waited for the connection: it never had
		// the secret to come back with, and its next attempt wants the id. After a panic the
		// session's state is unknown.
		reason := "gone"
		if e.Panicked {
			reason = "panic"
		}
		s.end(c, 0, reason)
	} else {
		s.detach(c)
	}
}

// ctx bounds what a request may ask of other nodes.
func (r *request) ctx() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 5*time.Second)
}
