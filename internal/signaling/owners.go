package signaling

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/room"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// owners are the terms of the rooms that this node holds.
type owners struct {
	mu      sync.RWMutex
	terms   map[room.Key]uint64 // Guarded by mu.
	doubted map[room.Key]bool   // Guarded by mu: those that another node may have by now.
	gave    map[room.Key]bool   // Guarded by mu: those that are or were handed over, see drain.go.
}

// term returns the term with which this node holds the room; ok is false if it does not, or may
// not any more.
func (o *owners) term(key room.Key) (term uint64, ok bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	term, ok = o.terms[key]
	return term, ok && !o.doubted[key] && !o.gave[key]
}

// give says that the room is being handed over.
func (o *owners) give(key room.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gave == nil {
		o.gave = map[room.Key]bool{}
	}
	o.gave[key] = true
}

// keep takes give back.
func (o *owners) keep(key room.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.gave, key)
}

// given tells whether this node handed the room over, or is about to.
func (o *owners) given(key room.Key) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.gave[key]
}

// last returns the last term with which this node held the room; 0: it did not.
func (o *owners) last(key room.Key) uint64 {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.terms[key]
}

// doubt has the directory asked about every room before it is commanded again.
func (o *owners) doubt() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.doubted = map[room.Key]bool{}
	for key := range o.terms {
		o.doubted[key] = true
	}
}

func (o *owners) hold(key room.Key, term uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.terms == nil {
		o.terms = map[room.Key]uint64{}
	}
	o.terms[key] = term
	delete(o.doubted, key)
	delete(o.gave, key)
}

// keys are the rooms that this node holds.
func (o *owners) keys() []room.Key {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return slices.Collect(maps.Keys(o.terms))
}

// release forgets a room, and returns the term.
func (o *owners) release(key room.Key) (term uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	term = o.terms[key]
	delete(o.terms, key)
	delete(o.doubted, key)
	return term
}

// own is this node as the owner of a room, with the last term that it knows of.
func (h *Hub) own(key room.Key) Owner {
	return Owner{Node: h.cfg.Node, Term: h.owners.last(key)}
}

// create makes this node the room's owner, unless another is.
func (h *Hub) create(ctx context.Context, key room.Key, cmd room.Create) error {
	owner, err := h.cfg.Directory.ClaimRoom(ctx, key.Tenant, key.Room, h.own(key))
	if err != nil {
		return wrap("claim room", err)
	}
	_, err = h.command(ctx, owner, key, cmd)
	return err
}

// createHere creates a room on this node. Owning and having the room must not come apart, though a
// room of the same name may be ending at this moment: hence the lock that roomGone takes too, and
// the second claim.
func (h *Hub) createHere(ctx context.Context, key room.Key, cmd room.Create) error {
	unlock, err := h.ownership.lock(ctx, key)
	if err != nil {
		return wrap("create room", err)
	}
	defer unlock()
	owner, err := h.cfg.Directory.ClaimRoom(ctx, key.Tenant, key.Room, h.own(key))
	if err != nil {
		return wrap("claim room", err)
	}
	if owner.Node != h.cfg.Node {
		return room.ErrExists
	}
	h.owners.hold(key, owner.Term)
	_, err = h.rooms.Do(ctx, key, cmd)
	if err != nil {
		h.released(key, h.giveUp(ctx, key))
	}
	return err
}

// roomGone gives up the ownership of a room that ended, unless it was created again meanwhile.
func (h *Hub) roomGone(key room.Key) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	unlock, err := h.ownership.lock(ctx, key)
	if err == nil {
		err = h.giveUp(ctx, key)
		unlock()
	}
	h.released(key, err)
}

// released tries again to give up a room where that failed.
func (h *Hub) released(key room.Key, err error) {
	if err == nil {
		return
	}
	h.retry("release room "+key.Tenant+"\x00"+key.Room, func(ctx context.Context) error {
		unlock, err := h.ownership.lock(ctx, key)
		if err != nil {
			return err
		}
		defer unlock()
		return h.giveUp(ctx, key)
	})
}

// giveUp ends the ownership of a room unless this node has it. The room's lock of ownership is
// held.
func (h *Hub) giveUp(ctx context.Context, key room.Key) error {
	if h.rooms.Has(key) {
		return nil
	}
	h.roomChanged(key)
	if h.owners.last(key) == 0 {
		return nil
	}
	if err := h.cfg.Directory.ReleaseRoom(ctx, key.Tenant, key.Room, h.own(key)); err != nil {
		h.cfg.Log.Warn("room not released", "node", h.cfg.Node, "error", err)
		return err
	}
	h.owners.release(key)
	return nil
}

// maxOwners bounds how often a command looks for the owner of its room again.
const maxOwners = 3

// do commands a room wherever it is.
func (h *Hub) do(ctx context.Context, key room.Key, cmd room.Command) error {
	_, err := h.ask(ctx, key, cmd)
	return err
}

func (h *Hub) get(ctx context.Context, key room.Key) (*room.State, error) {
	return h.ask(ctx, key, room.Get{})
}

// ask commands a room wherever it is, and asks for its owner again when that has changed. What can
// be repeated is repeated when a request is lost.
func (h *Hub) ask(ctx context.Context, key room.Key, cmd room.Command) (*room.State, error) {
	owner, err := h.ownerOf(ctx, key)
	if err != nil {
		return nil, err
	}
	var state *room.State
	for tries := 0; tries < maxOwners; tries++ {
		state, err = h.command(ctx, owner, key, cmd)
		switch {
		case errors.Is(err, room.ErrNotIn) && tries > 0 && isLeave(cmd):
			return nil, nil // the first one was carried out
		case errors.Is(err, engine.ErrLost) && repeatable(cmd):
			continue
		case !errors.Is(err, errNotOwner) && !errors.Is(err, engine.ErrNoNode):
			return state, err
		}
		next, again := h.lookUpOwner(ctx, key)
		switch {
		case again != nil:
			return nil, again
		case next == owner && !h.nodes.isDead(owner.Node):
			if !errors.Is(err, errNotOwner) {
				return nil, err
			}
			select { // it does not know yet
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(ownerPause):
			}
		case next == owner:
			if next, again = h.awaitOwner(ctx, key, owner); again != nil {
				return nil, again
			}
			tries = 0
		}
		owner = next
		h.refreshStale(key) // the new owner knows the members better
	}
	return state, err
}

func isLeave(cmd room.Command) bool { _, ok := cmd.(room.Leave); return ok }

// repeatable tells whether a command does the same when it is carried out twice.
func repeatable(cmd room.Command) bool {
	switch cmd.(type) {
	case room.Leave, room.Sync, room.Refresh, room.Move, room.Get:
		return true
	}
	return false
}

// ownerOf finds the owner of a room; room.ErrNoRoom: there is none. For rooms that this node holds,
// or has members in, it knows.
func (h *Hub) ownerOf(ctx context.Context, key room.Key) (Owner, error) {
	if term, ok := h.owners.term(key); ok {
		return Owner{Node: h.cfg.Node, Term: term}, nil
	}
	if owner := h.rosterOf(key).ownedBy(); owner.Node != "" && owner.Node != h.cfg.Node {
		return owner, nil
	}
	return h.lookUpOwner(ctx, key)
}

// lookUpOwner asks the directory.
func (h *Hub) lookUpOwner(ctx context.Context, key room.Key) (Owner, error) {
	owner, err := h.cfg.Directory.RoomOwner(ctx, key.Tenant, key.Room)
	if err == nil && owner.Node == "" {
		err = room.ErrNoRoom
	}
	return owner, wrap("find room", err)
}

// keyLocks are locks of rooms, which are waited for no longer than a context lasts. The zero value
// is ready.
type keyLocks struct {
	mu   sync.Mutex
	held map[room.Key]*keyLock // Guarded by mu. Those that are held or waited for.
}

type keyLock struct {
	users int           // Guarded by the mu of keyLocks.
	free  chan struct{} // holds a token while nobody has the lock
}

func (k *keyLocks) lock(ctx context.Context, key room.Key) (unlock func(), err error) {
	k.mu.Lock()
	l := k.held[key]
	if l == nil {
		l = &keyLock{free: make(chan struct{}, 1)}
		l.free <- struct{}{}
		if k.held == nil {
			k.held = map[room.Key]*keyLock{}
		}
		k.held[key] = l
	}
	l.users++
	k.mu.Unlock()
	select {
	case <-l.free:
		return func() {
			l.free <- struct{}{}
			k.leave(key, l)
		}, nil
	case <-ctx.Done():
		k.leave(key, l)
		return nil, ctx.Err()
	}
}

func (k *keyLocks) leave(key room.Key, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.held, key)
	}
}
