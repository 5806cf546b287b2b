package signaling

import (
	"context"
	"errors"
	"math"

	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// A node that was cut off, or stopped for a while, counts as dead. Others have taken what it held,
// or freed it. When it joins again it claims what it holds. What it has lost it ends: clients of
// sessions that are elsewhere by now are told to come again, and nobody sees a leave.

// rejoined is called when this node has joined again.
func (h *Hub) rejoined() {
	if h.draining.Load() { // it counts as up again
		h.retryNow("announce", func(ctx context.Context) error {
			return h.cfg.Directory.Announce(ctx, engine.Draining)
		})
	}
	h.owners.doubt()
	h.replicas.forget("", 0) // others chose another successor meanwhile
	for _, node := range h.nodes.others(h.cfg.Node) {
		h.askForReplicas(node)
	}
	h.retryNow("rejoin", func(ctx context.Context) error {
		err := each(h.all(), func(s *session) error { return h.reclaimSession(ctx, s) })
		return errors.Join(err, each(h.owners.keys(), func(key room.Key) error {
			return h.reclaimRoom(ctx, key)
		}))
	})
}

// reclaimSession claims the user id of a session, or ends it.
func (h *Hub) reclaimSession(ctx context.Context, s *session) error {
	d := h.cfg.Directory
	holder, err := d.ClaimUser(ctx, s.tenant, s.user, s.location, math.MaxInt32)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrTaken) && holder.Session == s.id && holder.Node != h.cfg.Node:
		h.loseSession(s.location)
		return nil
	case errors.Is(err, ErrTaken):
		h.endSession(s.location, transport.StatusTakenOver, "taken over")
		return nil
	case errors.Is(err, ErrStale) && h.cfg.Directory.Quorum() == nil:
		h.endSession(s.location, transport.StatusGoingAway, "lost while this node was cut off")
		return nil
	}
	return err
}

// loseSession ends what is left here of a session that another node has.
func (h *Hub) loseSession(l Location) {
	s := h.session(l.Session)
	if s == nil || s.location != l {
		return
	}
	s.op.Lock()
	defer s.op.Unlock()
	if s.ended {
		return
	}
	s.goElsewhere(transport.StatusGoingAway, "another node has the session")
}

// reclaimRoom claims a room, or forgets it.
func (h *Hub) reclaimRoom(ctx context.Context, key room.Key) error {
	unlock, err := h.ownership.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	own := h.own(key)
	if own.Term == 0 {
		return nil
	}
	d := h.cfg.Directory
	now, err := d.ClaimRoom(ctx, key.Tenant, key.Room, own)
	if err != nil {
		return err
	}
	if now == own {
		h.owners.hold(key, now.Term)
		return nil
	}
	if now.Node == h.cfg.Node { // it was free: its members elsewhere have been told that it ended
		if err := d.ReleaseRoom(ctx, key.Tenant, key.Room, now); err != nil {
			return err
		}
	}
	h.loseRoom(key, now)
	return nil
}

// loseRoomTo has this node forget a room that it holds no more.
func (h *Hub) loseRoomTo(key room.Key, now Owner) {
	h.retryNow("lose "+recordOf(key), func(ctx context.Context) error {
		unlock, err := h.ownership.lock(ctx, key)
		if err != nil {
			return err
		}
		defer unlock()
		if term := h.owners.last(key); term != 0 && term < now.Term {
			h.loseRoom(key, now)
		}
		return nil
	})
}

// loseRoom forgets a room that another node owns, or nobody. Its members here learn of the present
// state from the owner. The room's lock of ownership is held.
func (h *Hub) loseRoom(key room.Key, now Owner) {
	snap, ok := h.rooms.Drop(key)
	h.owners.release(key)
	h.roomChanged(key)
	ro := h.rosterOf(key)
	if !ok || ro == nil {
		return
	}
	ro.mu.Lock()
	ro.owner, ro.copy, ro.stale = now, &snap.State, true
	ro.mu.Unlock()
	h.refresh(key)
}
