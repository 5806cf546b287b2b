package signaling

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/limit"
	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// session is a registered user: connected (it has a client), disconnected (its connection was lost
// and a timer runs) or ended.
type session struct {
	hub      *Hub
	id       string
	location Location
	tenant   string
	user     string
	sender   []byte // user as a JSON string, as it is stamped into messages
	device   string
	features []string
	origin   origin // of where it registered, if limits by address count it
	identity string // shown to other members, see Hub.identity
	grant    license.Grant

	// op is held while the session enters, leaves or resumes: one such step at a time. Room locks
	// and mu are taken inside.
	op     stepLock
	ended  bool      // guarded by op; set once
	unsure *room.Key // guarded by op: a room that may have it as a member, see join

	// awaitsRoom is the room of a session that came from another node and whose client has not
	// resumed it. It changes with op held.
	awaitsRoom atomic.Pointer[room.Key]
	// unclaimed: it came from another node, and no client has resumed it. Guarded by op.
	unclaimed bool
	movedTo   atomic.Pointer[string] // the node that the session went to; nil: it did not

	name atomic.Value // string; changes with op held

	// client changes with mu held, and is read without it to fence off connections that lost the
	// session.
	client atomic.Pointer[client]
	seen   atomic.Uint64 // Seq of the room's last event that the client was sent
	state  atomic.Uint64 // Seq of the room's last state that it was sent
	// Of its messages, whichever connection brings them: coming back does not begin anew.
	rateMeter   limit.GCRA
	excessMeter limit.GCRA // of those that rate refuses
	resumeMeter limit.GCRA // of resumes: the room is locked while its state is encoded
	roomMeter   limit.GCRA // of what others in its room are told

	mu              sync.Mutex // guards what follows; only an outbox's lock is taken inside
	disconnectTimer *time.Timer
	disconnectSeq   int              // counts the times it was disconnected
	pending         pendingQueue     // messages of others for a disconnected client
	batch           *presenceBatch   // of joins and leaves; nil until there is one
	roster          *roster          // of the room the session is in, or nil
	onState         func(room.Event) // takes Entered or Synced while one is expected
	outgoing        *outgoing        // to others, lately; nil: nothing
	attempt         attempt          // that opened or last resumed it
}

// attempt is one register of a client instance, numbered in the order in which the instance made
// them. They need not arrive in that order: a client gives up a connection that is not answered in
// time, and its register may come after that of the next connection.
type attempt struct {
	instance string // "": the client does not say
	n        int
}

func attemptOf(q protocol.Register) attempt { return attempt{q.Instance, int(q.Attempt)} }

// follows tells whether one client instance made both, b not after a.
func (a attempt) follows(b attempt) bool {
	return a.instance != "" && a.instance == b.instance && a.n >= b.n
}

// isStale tells whether one client instance made both, b after a.
func (a attempt) isStale(b attempt) bool {
	return a.instance != "" && a.instance == b.instance && a.n < b.n
}

func (s *session) address() room.Address {
	return room.Address{
		Node:    s.location.Node,
		Session: s.id,
	}
}

// meters are the rates that do not begin anew when the session moves.
func (s *session) meters() [4]*limit.GCRA {
	return [...]*limit.GCRA{&s.rateMeter, &s.excessMeter, &s.resumeMeter, &s.roomMeter}
}

// userKey is an id of a tenant: of a user, an address or a site.
type userKey struct{ tenant, id string }

// key is whom limits by user count.
func (s *session) key() userKey { return userKey{s.tenant, s.user} }

// roomKey is the room the session is in; ok is false when it is in none.
func (s *session) roomKey() (room.Key, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.roster == nil {
		return room.Key{}, false
	}
	return s.roster.key, true
}

// isMemberOf tells whether the session is in the room, also if it came from another node and its
// client has not resumed it yet.
func (s *session) isMemberOf(key room.Key) bool {
	if is, in := s.roomKey(); in {
		return is == key
	}
	awaited := s.awaitsRoom.Load()
	return awaited != nil && *awaited == key
}

// send passes a message on to the client, and tells whether it has it. It takes over one reference.
// A connection that takes no more is closing, and its client counts as disconnected.
func (s *session) send(m *transport.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushPresenceLocked()
	return s.sendNow(m)
}

// sendNow is send with mu held.
func (s *session) sendNow(m *transport.Message) bool {
	if c := s.client.Load(); c != nil {
		return c.conn.Send(m)
	}
	m.Release()
	return false
}

// sendOrQueue is send for an event that waits while the client is disconnected.
func (s *session) sendOrQueue(m *transport.Message, from string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushPresenceLocked()
	m.Retain(1)
	if s.sendNow(m) || s.isUnreachable() {
		m.Release()
		return
	}
	s.hub.cfg.Backlog.Hold(m)
	s.pending.addEvicting(pendingMessage{m, from, fromRoom})
}

// enqueue passes on a message of another user, or tells why it is not delivered. While the client
// is disconnected it waits. It takes over one reference.
func (s *session) enqueue(m *transport.Message, from string, k senderKind) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flushPresenceLocked()
	if c := s.client.Load(); c != nil {
		m.Retain(1)
		if err := c.conn.Offer(m, pendingLimits[k].share); !errors.Is(err, transport.ErrClosed) {
			m.Release()
			return err
		}
	}
	if s.isUnreachable() {
		m.Release()
		return errNoTarget
	}
	err := errPendingFull
	if !s.hub.cfg.Backlog.Scarce() {
		err = s.pending.add(pendingMessage{m, from, k})
	}
	if err != nil {
		m.Release()
		return err
	}
	s.hub.cfg.Backlog.Hold(m)
	return nil
}

// isUnreachable tells whether nobody will come for what is kept. mu is held.
func (s *session) isUnreachable() bool { return s.client.Load() == nil && s.disconnectTimer == nil }

// detach disconnects the session when its present connection c was lost. c is nil after a restart:
// the session has no connection yet.
func (s *session) detach(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client.Load() != c {
		return
	}
	s.client.Store(nil)
	s.resetBatch()
	s.disconnectSeq++
	n := s.disconnectSeq
	s.disconnectTimer = time.AfterFunc(s.hub.cfg.ResumeWindow, func() {
		if s.hub.enter() {
			defer s.hub.leave()
			s.expire(n)
		}
	})
	s.hub.log(s).Debug("session disconnected")
}

// lastAttempt is the attempt that has the session.
func (s *session) lastAttempt() attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attempt
}

// attach makes c the session's connection and sends first, then what waited. The former connection,
// if any, is returned. It is called while the room is locked, or while the session is in none, so
// that no event comes between.
func (s *session) attach(c *client, first *transport.Message, reply transport.Reply) (old *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old = s.client.Swap(c)
	s.resetBatch() // first has it
	if s.disconnectTimer != nil {
		s.disconnectTimer.Stop()
		s.disconnectTimer = nil
	}
	c.session.Store(s)
	c.login.Stop() // attach runs in c's own handler
	c.login = nil
	transport.MarkRegistered(c.conn)
	reply.Send(first)
	for _, w := range s.pending {
		c.conn.Send(w.m)
	}
	s.pending = nil
	return old
}

// expire ends a session that was not resumed in time. If the timer races with a resume, the resume
// wins, even if the client has disconnected again since.
func (s *session) expire(seq int) {
	s.op.Lock()
	defer s.op.Unlock()
	s.mu.Lock()
	// Stays so: only a resume changes it, and that needs op.
	over := s.disconnectTimer != nil && s.disconnectSeq == seq
	s.mu.Unlock()
	if over {
		s.finish(0, "resume window over")
	}
}

// end ends the session at once. With code 0 it only does so if from is its present connection. The
// connection, if there is one, is closed with code.
func (s *session) end(from *client, code transport.StatusCode, reason string) {
	s.op.Lock()
	defer s.op.Unlock()
	if s.ended || (code == 0 && s.client.Load() != from) {
		return
	}
	s.finish(code, reason)
}

// finish ends the session: it leaves its room, frees its user id and is removed. A step that panics
// does not keep the later ones from running. op is held.
func (s *session) finish(code transport.StatusCode, reason string) {
	s.ended = true
	defer s.remove(s.client.Load(), code, reason)
	defer s.releaseUser()
	defer s.drop()
	s.leaveAtLast()
}

func (s *session) releaseUser() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	d := s.hub.cfg.Directory
	if err := d.ReleaseUser(ctx, s.tenant, s.user, s.location); err != nil {
		s.hub.log(s).Warn("user id not released", "error", err)
		s.hub.retry("release user "+s.id, func(ctx context.Context) error {
			return d.ReleaseUser(ctx, s.tenant, s.user, s.location)
		})
	}
}

// remove takes the session out of the hub, and closes its last connection unless code is 0.
func (s *session) remove(last *client, code transport.StatusCode, reason string) {
	h := s.hub
	h.sources.remove(s.tenant, s.origin)
	h.mu.Lock()
	delete(h.sessions, s.id)
	h.mu.Unlock()
	if last != nil && code != 0 {
		last.conn.Close(code, reason)
	}
	h.log(s).Info("session ended", "reason", reason)
	h.sessionChanged(s)
}

// drop releases what the session holds: connection, timer, waiting messages.
func (s *session) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client.Store(nil)
	s.resetBatch()
	if s.disconnectTimer != nil {
		s.disconnectTimer.Stop()
		s.disconnectTimer = nil
	}
	s.pending.drop()
}

// forget is drop for a hub that closes: rooms and the directory are not told.
func (s *session) forget() {
	s.op.Lock()
	defer s.op.Unlock()
	s.ended = true
	s.drop()
}

// leaveRoom takes the session out of its room, if it is in one; op is held.
func (s *session) leaveRoom() error {
	key, in := s.roomKey()
	if !in {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	err := s.leave(ctx, key)
	if unreachable(err) {
		s.hub.refreshStale(key) // it may have been carried out: the room knows
		return err
	}
	s.leftRoom(key)
	return err
}

// leaveAtLast takes a session that ends out of its room, or out of a room that may have it as a
// member. If the room cannot be reached, it is told later. op is held.
func (s *session) leaveAtLast() {
	s.leaveAwaited()
	key, in := s.roomKey()
	switch {
	case in:
		defer s.leftRoom(key)
	case s.unsure != nil:
		key = *s.unsure
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	err := s.leave(ctx, key)
	switch {
	case unreachable(err):
		s.leaveLater(key)
	case err != nil && !errors.Is(err, room.ErrNotIn) && !errors.Is(err, room.ErrNoRoom):
		s.hub.log(s).Warn("room not left", "error", err)
	}
}

// leave tells a room that the session has left.
func (s *session) leave(ctx context.Context, key room.Key) error {
	return s.hub.do(ctx, key, room.Leave{
		User:    s.user,
		Address: s.address(),
		Epoch:   s.location.Epoch,
	})
}

// leaveLater is leave for a room that cannot be reached now. The session no longer counts as in it.
func (s *session) leaveLater(key room.Key) {
	s.hub.retry("leave "+s.id+" "+key.Room, func(ctx context.Context) error {
		err := s.leave(ctx, key)
		if errors.Is(err, room.ErrNotIn) || errors.Is(err, room.ErrNoRoom) {
			return nil
		}
		return err
	})
}

// awaitState runs do while fn is ready to take the event that do brings about, and tells whether
// that arrived; op is held.
func (s *session) awaitState(fn func(room.Event), do func() error) (arrived bool, err error) {
	s.mu.Lock()
	s.onState = fn
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		arrived = s.onState == nil
		s.onState = nil
	}()
	return false, do()
}

// maxSyncs bounds how often a session asks for the state of its room when that does not arrive.
const maxSyncs = 3

// sync has the room send its state, which fn takes; op is held.
func (s *session) sync(
	ctx context.Context, key room.Key, seen uint64, fn func(room.Event),
) error {
	cmd := room.Sync{User: s.user, Address: s.address(), Seen: seen}
	for range maxSyncs {
		arrived, err := s.awaitState(fn, func() error { return s.hub.do(ctx, key, cmd) })
		if err != nil || arrived {
			return err
		}
	}
	return engine.ErrLost
}

// join enters a room, whose state fn takes; op is held. If it remains unknown whether the room has
// the session as a member, the session leaves it: at once, later, or before it joins again. After a
// panic it leaves as it ends.
func (s *session) join(
	ctx context.Context, key room.Key, join room.Join, fn func(room.Event),
) error {
	if err := s.leaveUnsure(ctx); err != nil {
		return err
	}
	s.unsure = &key
	err := s.enter(ctx, key, join, fn)
	if unreachable(err) {
		s.hub.retry("leave "+s.id, func(ctx context.Context) error {
			s.op.Lock()
			defer s.op.Unlock()
			return s.leaveUnsure(ctx)
		})
		return err
	}
	s.unsure = nil
	return err
}

// enter has the room take the session in, and waits for its state; op is held.
func (s *session) enter(
	ctx context.Context, key room.Key, join room.Join, fn func(room.Event),
) error {
	s.seen.Store(0) // numbers of another room
	do := func() error { return s.hub.do(ctx, key, join) }
	arrived, err := s.awaitState(fn, do)
	if errors.Is(err, engine.ErrLost) && !arrived {
		arrived, err = s.awaitState(fn, do)
		if errors.Is(err, room.ErrAlreadyIn) {
			err = nil // the first one was carried out
		}
	}
	if arrived {
		return nil // whatever became of the response
	}
	if err == nil {
		err = s.sync(ctx, key, math.MaxInt64, fn) // what was said before the answer is not repeated
	}
	return err
}

// leaveUnsure takes the session out of the room that may have it as a member; op is held.
func (s *session) leaveUnsure(ctx context.Context) error {
	if s.unsure == nil {
		return nil
	}
	if err := s.leave(ctx, *s.unsure); unreachable(err) {
		return err
	}
	s.unsure = nil
	return nil
}

func (s *session) iceServers(c *client) []protocol.ICEServer {
	return s.hub.cfg.ICE.ICEServers(c.conn.Peer().Host, s.tenant, s.id, s.grant.Relay)
}
