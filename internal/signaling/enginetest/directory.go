package enginetest

import (
	"context"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// Kill ends a node as SIGKILL does: nothing of it arrives any more, and nothing reaches it. The
// others do not know yet, see Bury.
func (n *Network) Kill(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := n.nodes[name]
	at.killed = true
	at.silence()
}

// Bury has the lease of a node end: it counts as dead.
func (n *Network) Bury(name string) {
	n.announcing.Lock()
	defer n.announcing.Unlock()
	n.mu.Lock()
	at := n.nodes[name]
	dead, ok := n.table.SetState(name, at.incarnation, engine.Dead)
	for _, other := range n.nodes {
		other.abandon(func(w waiting) bool { return w.on == name })
	}
	n.mu.Unlock()
	if ok {
		n.announce(dead)
	}
}

// Rejoin has a node that counts as dead join again, though its process never ended.
func (n *Network) Rejoin(name string) {
	n.announcing.Lock()
	defer n.announcing.Unlock()
	n.mu.Lock()
	joined := n.table.Join(name)
	n.nodes[name].incarnation = joined.Incarnation
	n.mu.Unlock()
	n.announce(joined)
}

// Isolate takes away a node's quorum, or gives it back: it is told of nothing and has no claim
// decided.
func (n *Network) Isolate(name string, isolated bool) {
	n.announcing.Lock()
	defer n.announcing.Unlock()
	n.mu.Lock()
	at := n.nodes[name]
	at.noQuorum = isolated
	missed := n.table.Nodes()
	n.mu.Unlock()
	if isolated {
		return
	}
	for _, m := range missed {
		at.tell(m)
	}
}

// announce tells all nodes of one. The lock of that name is held since the change.
func (n *Network) announce(what engine.Node) {
	n.mu.Lock()
	var all []*Node
	for _, at := range n.nodes {
		if !at.noQuorum && !at.killed {
			all = append(all, at)
		}
	}
	n.mu.Unlock()
	for _, at := range all {
		at.tell(what)
	}
}

// tell is called with announcing held.
func (at *Node) tell(what engine.Node) {
	at.net.mu.Lock()
	var watchers []func(engine.Node)
	for _, f := range at.watchers {
		watchers = append(watchers, f)
	}
	at.net.mu.Unlock()
	for _, f := range watchers {
		f(what)
	}
}

// Watch implements engine.Directory.
func (at *Node) Watch(f func(engine.Node)) (stop func()) {
	n := at.net
	n.announcing.Lock()
	defer n.announcing.Unlock()
	n.mu.Lock()
	at.watched++
	id := at.watched
	at.watchers[id] = f
	known := n.table.Nodes()
	n.mu.Unlock()
	for _, k := range known {
		f(k)
	}
	return func() {
		n.announcing.Lock()
		defer n.announcing.Unlock()
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(at.watchers, id)
	}
}

// decide calls f with the table, if this node may ask.
func (at *Node) decide(ctx context.Context, f func(*engine.Table)) error {
	n := at.net
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.table.Node(at.name)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case at.noQuorum || at.killed:
		return engine.ErrNoQuorum
	case known.Incarnation != at.incarnation || known.State == engine.Dead:
		return engine.ErrStale
	}
	f(n.table)
	return nil
}

// ClaimUser implements engine.Directory.
func (at *Node) ClaimUser(
	ctx context.Context, tenant, user string, l engine.Location, limit int,
) (got engine.Location, err error) {
	if e := at.decide(ctx, func(t *engine.Table) {
		got, err = t.ClaimUser(tenant, user, l, limit)
	}); e != nil {
		return got, e
	}
	return got, err
}

// TakeUser implements engine.Directory.
func (at *Node) TakeUser(
	ctx context.Context, tenant, user string, from, l engine.Location,
) (got engine.Location, err error) {
	if e := at.decide(ctx, func(t *engine.Table) {
		got, err = t.TakeUser(tenant, user, from, l)
	}); e != nil {
		return got, e
	}
	return got, err
}

// Holder implements engine.Directory.
func (at *Node) Holder(ctx context.Context, tenant, user string) (l engine.Location, err error) {
	err = at.decide(ctx, func(t *engine.Table) { l = t.Holder(tenant, user) })
	return l, err
}

// ReleaseUser implements engine.Directory.
func (at *Node) ReleaseUser(ctx context.Context, tenant, user string, l engine.Location) error {
	return at.decide(ctx, func(t *engine.Table) { t.ReleaseUser(tenant, user, l) })
}

// ClaimRoom implements engine.Directory.
func (at *Node) ClaimRoom(
	ctx context.Context, tenant, room string, o engine.Owner,
) (got engine.Owner, err error) {
	if e := at.decide(ctx, func(t *engine.Table) {
		got, err = t.ClaimRoom(tenant, room, o)
	}); e != nil {
		return got, e
	}
	return got, err
}

// TakeRoom implements engine.Directory.
func (at *Node) TakeRoom(
	ctx context.Context, tenant, room string, from engine.Owner, node string,
) (got engine.Owner, err error) {
	if e := at.decide(ctx, func(t *engine.Table) {
		got, err = t.TakeRoom(tenant, room, from, node)
	}); e != nil {
		return got, e
	}
	return got, err
}

// RoomOwner implements engine.Directory.
func (at *Node) RoomOwner(
	ctx context.Context, tenant, room string,
) (o engine.Owner, err error) {
	err = at.decide(ctx, func(t *engine.Table) { o = t.RoomOwner(tenant, room) })
	return o, err
}

// ReleaseRoom implements engine.Directory.
func (at *Node) ReleaseRoom(ctx context.Context, tenant, room string, o engine.Owner) error {
	return at.decide(ctx, func(t *engine.Table) { t.ReleaseRoom(tenant, room, o) })
}

// ReleaseNode implements engine.Directory.
func (at *Node) ReleaseNode(ctx context.Context, node string, incarnation uint64) error {
	return at.decide(ctx, func(t *engine.Table) { t.ReleaseNode(node, incarnation) })
}

// Announce implements engine.Directory.
func (at *Node) Announce(ctx context.Context, state engine.NodeState) error {
	at.net.announcing.Lock()
	defer at.net.announcing.Unlock()
	var now engine.Node
	changed := false
	err := at.decide(ctx, func(t *engine.Table) {
		now, changed = t.SetState(at.name, at.incarnation, state)
	})
	if changed {
		at.net.announce(now)
	}
	return err
}

// Quorum implements engine.Directory.
func (at *Node) Quorum() error {
	at.net.mu.Lock()
	defer at.net.mu.Unlock()
	if at.noQuorum {
		return engine.ErrNoQuorum
	}
	return nil
}
