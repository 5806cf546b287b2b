package signaling

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/limit"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// register opens or resumes a session.
func (r *request) register() error {
	var q protocol.Register
	if err := protocol.Decode(r.msg, &q); err != nil {
		return err
	}
	if err := q.Validate(); err != nil {
		return err
	}
	h := r.c.hub
	p := h.resumeTokenOf(q)
	if p != nil {
		r.c.lastToken = p
	}
	grant, err := r.authenticate(q, p)
	if err != nil {
		return err
	}
	if !isAllowedOrigin(grant.Origins, r.c.conn.Peer().Origin) {
		return errOrigin
	}
	if u := grant.User; u != nil {
		if q.UserID != "" && q.UserID != u.ID {
			return errTokenUser
		}
		q.UserID = u.ID
		if p != nil && p.User != u.ID { // the secret of another user's session
			p = nil
		}
		if q.Name == "" {
			q.Name = u.Name
		}
	}
	anew := q.Resume == "" || bool(q.Forced)
	switch {
	case r.c.conn.Peer().Reserve && (anew || p == nil):
		return errServerFull // its place is for those who resume
	case anew:
		return r.open(q, grant, p)
	case p == nil:
		return errGone
	}
	return r.resume(p, q)
}

// authenticate tells what the license or user token grants. Failures of an address are limited, but
// one that has reached the limit is not closed to others: a genuine license is let in. A connection
// that has failed itself is not checked again until the minute is over, so that each further guess
// costs a connection.
func (r *request) authenticate(q protocol.Register, p *resumeToken) (license.Grant, error) {
	h, source := r.c.hub, r.c.source()
	limited := !h.hasSession(p)
	if limited && r.c.failedLogin && h.failedLogins.exceeded(q.CpCode, source) {
		return license.Grant{}, errTooManyFailedLogins // not logged: it could fill the log
	}
	grant, err := r.admit(q, p)
	if err == nil {
		return grant, nil
	}
	if limited && isGuess(err) {
		r.c.failedLogin = true
		if h.failedLogins.exceeded(q.CpCode, source) {
			return grant, errTooManyFailedLogins
		}
		h.failedLogins.add(q.CpCode, source)
	}
	if h.refused.Take(h.now(), loginLog, 1) {
		h.cfg.Log.Info("login refused", "node", h.cfg.Node, "reason", err)
	}
	return grant, err
}

// isAllowedOrigin tells whether a license admits pages of an origin; nil allowed: all of them.
func isAllowedOrigin(allowed []string, origin string) bool {
	return allowed == nil || origin == "" || slices.Contains(allowed, origin) ||
		slices.Contains(allowed, "*")
}

// loginLog bounds the lines about refused logins, whoever is refused: one a second, 60 at once. The
// metric counts them all.
var loginLog = limit.NewRate(1, 60)

// hasSession tells whether the token is that of a session that has not ended: its client is known.
func (h *Hub) hasSession(p *resumeToken) bool {
	if p == nil {
		return false
	}
	s := h.session(p.ID)
	return s != nil
}

// resumeTokenOf reads the resume secret; nil when there is none, or none that is good for this
// tenant and user.
func (h *Hub) resumeTokenOf(q protocol.Register) *resumeToken {
	if q.Resume == "" {
		return nil
	}
	p, err := h.parseResumeToken(q.Resume)
	if err != nil || p.Tenant != q.CpCode || (q.UserID != "" && q.UserID != p.User) {
		return nil
	}
	return &p
}

// admit tells what the license or user token grants. A session outlasts its user token: the token
// lets a user in, and the page that comes back with the session's own secret is in already. Its
// grant, and the end of its license, are those it had.
func (r *request) admit(q protocol.Register, p *resumeToken) (license.Grant, error) {
	h := r.c.hub
	grant, err := h.licenses().Check(q.CpCode, q.AuthKey)
	if p == nil || bool(q.Forced) || !errors.Is(err, license.ErrTokenExpired) {
		return grant, err
	}
	s := h.session(p.ID)
	if s == nil {
		ctx, cancel := r.ctx()
		defer cancel()
		s, _ = h.fetch(ctx, p)
	}
	if s == nil || s.grant.User == nil {
		return grant, err
	}
	if err := h.licenseError(s.grant, time.Now()); err != nil {
		return grant, err
	}
	return s.grant, nil
}

// open makes a new session. Nothing of it is left if that fails, or panics.
func (r *request) open(q protocol.Register, grant license.Grant, p *resumeToken) error {
	h := r.c.hub
	s := &session{
		hub:      h,
		id:       newSessionID(),
		tenant:   q.CpCode,
		user:     q.UserID,
		device:   q.Device,
		grant:    grant,
		features: features(q.Features),
		attempt:  attemptOf(q),
	}
	if grant.User == nil {
		if h.addressLogins.exceeded(s.tenant, r.c.source()) {
			return errTooManyAddressLogins
		}
		s.origin = h.originOf(r.c.source())
	}
	within := h.sources.add(s.tenant, s.origin)
	began := false
	defer func() {
		switch {
		case began:
		case s.location != Location{}:
			s.end(nil, transport.StatusInternalError, "not begun")
		default:
			h.sources.remove(s.tenant, s.origin)
		}
	}()
	ctx, cancel := r.ctx()
	defer cancel()
	if err := h.claimUser(ctx, s, bool(q.Forced), p, within); err != nil {
		return err
	}
	s.identity = h.identity(s, r.c.lastToken)
	s.sender = protocol.AppendString(nil, s.user)
	if q.Name == "" {
		q.Name = s.user
	}
	s.name.Store(q.Name)
	if err := r.begin(s); err != nil {
		return err
	}
	began = true
	if s.origin != (origin{}) {
		h.addressLogins.add(s.tenant, r.c.source())
	}
	return nil
}

// begin makes a session that has claimed its user id known to others, and attaches its client. op
// is held, so that nothing ends the session in between: its client would never be told.
func (r *request) begin(s *session) error {
	h := r.c.hub
	s.op.Lock()
	defer s.op.Unlock()
	h.mu.Lock()
	h.sessions[s.id] = s
	h.mu.Unlock()
	// Who revokes a license ends the sessions that are known by then. This one has become known
	// after its license was found good.
	if h.licenses().Revoked(s.grant) {
		return license.ErrRevoked
	}
	// Whoever takes the id over before the session is known finds none to end.
	ctx, cancel := r.ctx()
	defer cancel()
	holder, err := h.cfg.Directory.Holder(ctx, s.tenant, s.user)
	switch {
	case err != nil:
		return wrap("find user", err)
	case holder != s.location:
		return errOvertaken
	}
	h.sessionChanged(s)
	h.log(s).Info("session opened", "cpCode", s.tenant)
	m, err := r.registered(s, false, nil)
	if err != nil {
		return err
	}
	s.attach(r.c, m, r.reply)
	r.c.unconfirmed = r.c.conn.Peer().EarlyMessage && !r.c.hasMessage
	return nil
}

// maxClaims bounds how often one register tries to get a user id: each further attempt means that
// another one has succeeded.
const maxClaims = 16

// claimUser claims the session's user id, or generates one. A newcomer may take the id over from
// its holder with the holder's resume token, with a user token, or where the license is
// legacyForced. A resume token works once. With the other proofs two pages could take over from
// each other for ever, so those takeovers are limited.
//
// A session beyond the limit of its address (not within) may still take over from another.
//
// The id changes hands in one step, and only then its former session ends: of several pages exactly
// one has the id at the end.
func (h *Hub) claimUser(
	ctx context.Context, s *session, forced bool, p *resumeToken, within bool,
) error {
	d := h.cfg.Directory
	generated := s.user == ""
	limit := min(s.grant.MaxUser, math.MaxInt32)
	wish := Location{Node: h.cfg.Node, Session: s.id}
	counted := false
	for range maxClaims {
		if generated {
			s.user = newID("U")
		}
		holder, err := d.Holder(ctx, s.tenant, s.user)
		switch {
		case err != nil:
			return err
		case holder.Session == "" && !within:
			h.sources.rejected.Add(1)
			return errTooManyAddressSessions
		case holder.Session != "":
			err = ErrTaken
		default:
			s.location = wish // until the outcome is known; open releases it
			holder, err = d.ClaimUser(ctx, s.tenant, s.user, wish, limit)
		}
		if err == nil {
			s.location = holder
			return nil
		}
		if isRefusal(err) {
			s.location = Location{}
		}
		if !errors.Is(err, ErrTaken) {
			return err
		}
		if generated {
			continue
		}
		mine := p != nil && p.User == s.user && p.ID == holder.Session
		if former := h.session(holder.Session); former != nil && former.location == holder {
			last := former.lastAttempt()
			if s.attempt.isStale(last) {
				return errStaleAttempt
			}
			// An attempt that the client has given up: nobody else knows its instance.
			if s.attempt.follows(last) {
				mine, forced = true, true
			}
		}
		if !forced || (!mine && s.grant.User == nil && !s.grant.LegacyForced) {
			return ErrTaken
		}
		if !mine && !counted && !h.takeovers.Take(s.key()) {
			return errTooManyTakeovers
		}
		counted = counted || !mine
		s.location = wish
		taken, err := d.TakeUser(ctx, s.tenant, s.user, holder, wish)
		if err == nil {
			s.location = taken
			h.evict(ctx, holder, "taken over")
			return nil
		}
		if !isRefusal(err) {
			h.undoTake(s.tenant, s.user, holder, wish)
			return err
		}
		s.location = Location{}
		if !errors.Is(err, ErrTaken) { // ErrTaken: the holder has changed, so try again
			return err
		}
	}
	return ErrTaken
}

// isRefusal tells whether the directory has refused a claim. After other errors it is unknown
// whether the claim was granted.
func isRefusal(err error) bool {
	return errors.Is(err, ErrTaken) || errors.Is(err, ErrLicenseFull) ||
		errors.Is(err, ErrStale) || errors.Is(err, ErrNoQuorum)
}

// undoTake frees a user id that may have passed from one location to another. If it has, the
// session that held it must end.
func (h *Hub) undoTake(tenant, user string, from, to Location) {
	d := h.cfg.Directory
	h.retryNow("undo takeover by "+to.Session, func(ctx context.Context) error {
		if err := d.ReleaseUser(ctx, tenant, user, to); err != nil {
			return err
		}
		holder, err := d.Holder(ctx, tenant, user)
		if err == nil && holder != from {
			h.evict(ctx, from, "taken over")
		}
		return err
	})
}

// resume gives a session that is waiting, or whose old connection has not noticed its death yet, a
// new connection. q.Seq is the last event of the room that the client knows of; a client that does
// not say is taken to know what it was sent.
func (r *request) resume(p *resumeToken, q protocol.Register) error {
	s := r.c.hub.session(p.ID)
	if s == nil {
		ctx, cancel := r.ctx()
		defer cancel()
		var err error
		if s, err = r.c.hub.fetch(ctx, p); err != nil {
			return err
		}
	}
	panicked := true
	defer func() {
		if panicked { // its state is unknown
			s.end(nil, transport.StatusInternalError, "panic")
		}
	}()
	err := r.reattach(s, q)
	panicked = false
	return err
}

func (r *request) reattach(s *session, q protocol.Register) error {
	s.op.Lock()
	defer s.op.Unlock()
	if s.ended {
		return errGone
	}
	if attemptOf(q).isStale(s.lastAttempt()) {
		return errStaleAttempt
	}
	h := r.c.hub
	if !s.resumeMeter.Take(h.now(), h.flood, 1) {
		h.counters.refusedFlood.Add(1)
		return errMessageRate
	}
	var old *client
	var failed error
	take := func(state *protocol.RoomState) {
		m, err := r.registered(s, true, state)
		if err != nil {
			failed = err
			return
		}
		s.resumeMeter.Add(h.now(), h.flood, units(0, len(m.B), floodBytes))
		old = s.attach(r.c, m, r.reply)
		s.mu.Lock()
		s.attempt = attemptOf(q)
		s.mu.Unlock()
	}
	ctx, cancel := r.ctx()
	defer cancel()
	if err := s.moveInRoom(ctx); err != nil {
		return err
	}
	err := room.ErrNotIn
	key, in := s.roomKey()
	if awaited := s.awaitsRoom.Load(); awaited != nil {
		key, in = *awaited, true
	}
	if in {
		seen := s.seen.Load()
		if q.Seq != nil {
			seen = uint64(*q.Seq)
		}
		s.seen.Store(seen)
		err = s.sync(ctx, key, seen, func(e room.Event) { take(roomState(e.State)) })
	}
	// In no room, or it ended meanwhile.
	if errors.Is(err, room.ErrNotIn) || errors.Is(err, room.ErrNoRoom) {
		take(nil)
		err = nil
	}
	if err == nil {
		s.awaitsRoom.Store(nil)
		s.unclaimed = false
	}
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	if old != nil && old != r.c {
		old.conn.Close(transport.StatusSessionResumed, "resumed elsewhere")
	}
	s.hub.counters.resumed.Add(1)
	s.hub.log(s).Debug("session resumed")
	return nil
}

// registered encodes the answer to register.
func (r *request) registered(
	s *session, resumed bool, state *protocol.RoomState,
) (*transport.Message, error) {
	m := transport.NewMessage()
	var err error
	m.B, err = protocol.AppendAnswer(m.B, "register", r.env.ReqID, protocol.Answer{
		Code: protocol.OK,
		Body: protocol.RegisterAnswer{
			UserID: s.user, ICEServers: s.iceServers(r.c), Resume: s.hub.newResumeToken(s),
			ResumeWindow: int(s.hub.cfg.ResumeWindow.Seconds()), Resumed: resumed, Room: state,
		},
	})
	if err != nil {
		m.Release()
		return nil, err
	}
	return m, nil
}

func features(f []protocol.Feature) []string {
	out := make([]string, len(f))
	for i, x := range f {
		out[i] = string(x)
	}
	return out
}
