package signaling

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// A node that drains gives its rooms to its successor while both live, so that no command waits for
// a death to be noticed. Its sessions move as their clients resume them elsewhere; those that
// nobody resumes are adopted when the node has left.

// Drain makes known that this node takes no new sessions and rooms, and hands over the rooms that
// it has. It returns how many went.
func (h *Hub) Drain(ctx context.Context) (rooms int, err error) {
	h.draining.Store(true)
	soon, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := h.cfg.Directory.Announce(soon, engine.Draining); err != nil {
		return 0, wrap("announce", err)
	}
	return h.HandOverRooms(ctx)
}

// ErrLastNode tells that no other node could take anything over.
var ErrLastNode = errors.New("no other node is up")

// HandOverRooms gives the rooms that this node owns to its successor, and returns how many went.
func (h *Hub) HandOverRooms(ctx context.Context) (rooms int, err error) {
	if !h.enter() {
		return 0, errClosing
	}
	defer h.leave()
	to := h.nodes.successor(h.cfg.Node)
	if h.nodes.node(to).State != engine.Up {
		return 0, ErrLastNode
	}
	var parents, groups []room.Key
	for _, key := range h.owners.keys() {
		if snap, ok := h.rooms.Snapshot(key); ok && snap.Parent != "" {
			groups = append(groups, key)
		} else if ok {
			parents = append(parents, key)
		}
	}
	// A room that ends with its last group must not see its groups go.
	for _, keys := range [][]room.Key{parents, groups} {
		err = errors.Join(err, each(keys, func(key room.Key) error {
			return h.handOverRoom(ctx, key, to)
		}))
		for _, key := range keys {
			if h.owners.last(key) == 0 {
				rooms++
			}
		}
	}
	return rooms, err
}

// deliveryPoll is how often AwaitDelivered looks for requests that are being carried out.
const deliveryPoll = 10 * time.Millisecond

// AwaitDelivered returns when other nodes have the sessions that this one has given them. A node
// that ends before that takes the session with it: nobody has its replica any more.
//
// Whatever was sent before a response has been handled when the response is there. A response that
// was lost is asked for again, so there are two rounds.
func (h *Hub) AwaitDelivered(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for range 2 {
		for h.beside.busy() && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(deliveryPoll):
			}
		}
		_ = each(h.nodes.others(h.cfg.Node), func(node string) error {
			_, err := h.exchange(ctx, node, busMessage{In: &inMessage{}})
			return err // lost, or there is no such node: nothing more can be done
		})
	}
}

// handOverRoom gives a room to another node, or goes on with it if that fails. Commands wait.
func (h *Hub) handOverRoom(ctx context.Context, key room.Key, to string) error {
	unlock, err := h.ownership.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	h.owners.give(key)
	snap, ok := h.rooms.Drop(key)
	if !ok {
		h.owners.keep(key)
		return nil // it has ended; roomGone waits for the lock
	}
	h.noteDropped(key, snap.State)
	_, failed := h.exchange(ctx, to, busMessage{Adopt: &adoptMessage{h.cfg.Node, snap}})
	now, err := h.ownerAfter(ctx, key)
	switch {
	case err != nil: // whoever has the replica goes on
		return errors.Join(failed, err)
	case now.Node == h.cfg.Node:
		return errors.Join(failed, h.beginRoom(ctx, snap, now, now))
	}
	h.owners.release(key)
	h.roomChanged(key)
	h.ownerChanged(key, now)
	return nil
}

// ownerAfter is who has a room that was given away: this node again if the other one has not got
// it.
func (h *Hub) ownerAfter(ctx context.Context, key room.Key) (now Owner, err error) {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		now, err = h.cfg.Directory.ClaimRoom(ctx, key.Tenant, key.Room, h.own(key))
		if err == nil || ctx.Err() != nil {
			return now, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// noteDropped keeps the last state of a room of this node for the members here, as if the room
// were elsewhere: they are told what is different with its next owner.
func (h *Hub) noteDropped(key room.Key, st room.State) {
	ro := h.rosterOf(key)
	if ro == nil {
		return
	}
	st.Members = slices.Clone(st.Members) // it changes with events
	ro.mu.Lock()
	defer ro.mu.Unlock()
	ro.owner, ro.copy = h.own(key), &st
}

// adoptMessage gives a room to the receiver.
type adoptMessage struct {
	Of   string        `json:"of"`
	Room room.Snapshot `json:"room"`
}

// adoptFromBus takes a room of a node that drains.
func (h *Hub) adoptFromBus(a *adoptMessage) error {
	if h.draining.Load() {
		return errClosing // it could only give the room on
	}
	ctx, cancel := context.WithTimeout(h.ctx, requestTimeout)
	defer cancel()
	return h.adoptRoom(ctx, a.Room, a.Of)
}

// awaitHandOver waits until a room is with its next owner that this node is giving away.
func (h *Hub) awaitHandOver(ctx context.Context, key room.Key) {
	if !h.owners.given(key) {
		return
	}
	if unlock, err := h.ownership.lock(ctx, key); err == nil {
		unlock()
	}
}
