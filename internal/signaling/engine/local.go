package engine

import (
	"context"
	"sync"
)

// Local is the engine of a server that stands alone: a Directory in memory, and a Bus on which
// there is no other node.
type Local struct {
	node string

	mu       sync.Mutex
	table    *Table             // Guarded by mu.
	watchers map[int]func(Node) // Guarded by mu, which is held during their calls.
	watched  int                // Guarded by mu: counts the watchers that there have been.
}

var (
	_ Directory = (*Local)(nil)
	_ Bus       = (*Local)(nil)
)

// NewLocal makes the engine of a node.
func NewLocal(node string) *Local {
	l := &Local{node: node, table: NewTable(), watchers: map[int]func(Node){}}
	l.table.Join(node)
	return l
}

// ClaimUser implements Directory.
func (l *Local) ClaimUser(
	_ context.Context, tenant, user string, s Location, limit int,
) (Location, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.ClaimUser(tenant, user, s, limit)
}

// TakeUser implements Directory.
func (l *Local) TakeUser(
	_ context.Context, tenant, user string, from, s Location,
) (Location, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.TakeUser(tenant, user, from, s)
}

// Holder implements Directory.
func (l *Local) Holder(_ context.Context, tenant, user string) (Location, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.Holder(tenant, user), nil
}

// ReleaseUser implements Directory.
func (l *Local) ReleaseUser(_ context.Context, tenant, user string, s Location) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.table.ReleaseUser(tenant, user, s)
	return nil
}

// ClaimRoom implements Directory.
func (l *Local) ClaimRoom(_ context.Context, tenant, room string, o Owner) (Owner, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.ClaimRoom(tenant, room, o)
}

// TakeRoom implements Directory.
func (l *Local) TakeRoom(
	_ context.Context, tenant, room string, from Owner, node string,
) (Owner, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.TakeRoom(tenant, room, from, node)
}

// RoomOwner implements Directory.
func (l *Local) RoomOwner(_ context.Context, tenant, room string) (Owner, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.RoomOwner(tenant, room), nil
}

// ReleaseRoom implements Directory.
func (l *Local) ReleaseRoom(_ context.Context, tenant, room string, o Owner) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.table.ReleaseRoom(tenant, room, o)
	return nil
}

// ReleaseNode implements Directory.
func (l *Local) ReleaseNode(_ context.Context, node string, incarnation uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.table.ReleaseNode(node, incarnation)
	return nil
}

// Announce implements Directory.
func (l *Local) Announce(_ context.Context, state NodeState) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, ok := l.table.SetState(l.node, l.table.Node(l.node).Incarnation, state); ok {
		for _, f := range l.watchers {
			f(n)
		}
	}
	return nil
}

// Watch implements Directory.
func (l *Local) Watch(f func(Node)) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watched++
	id := l.watched
	l.watchers[id] = f
	f(l.table.Node(l.node))
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watchers, id)
	}
}

// Quorum implements Directory: a node alone is its own.
func (l *Local) Quorum() error { return nil }

// Serve implements Bus. There is nobody to serve.
func (l *Local) Serve(Handler) (stop func()) { return func() {} }

// Send implements Bus.
func (l *Local) Send(string, []byte) error { return ErrNoNode }

// Request implements Bus.
func (l *Local) Request(context.Context, string, []byte) ([]byte, error) { return nil, ErrNoNode }
