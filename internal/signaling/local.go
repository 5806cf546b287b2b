package signaling

import (
	"context"
	"fmt"
	"sync"
)

// Local is a Directory and a Bus for nodes in one process: the engine of a server that stands alone.
type Local struct {
	mu    sync.Mutex
	users map[userKey]Location
	epoch uint64             // one count for all users is enough for "only grows"
	seats map[string]int     // by tenant
	rooms map[userKey]string // (tenant, room) to node
	nodes map[string]func([]byte) []byte
}

type userKey struct{ tenant, id string }

// NewLocal makes an empty one.
func NewLocal() *Local {
	return &Local{users: map[userKey]Location{}, seats: map[string]int{}, rooms: map[userKey]string{}, nodes: map[string]func([]byte) []byte{}}
}

// ClaimUser implements Directory.
func (l *Local) ClaimUser(_ context.Context, tenant, user string, s Location, limit int) (Location, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if holder, ok := l.users[userKey{tenant, user}]; ok {
		return holder, ErrTaken
	}
	if l.seats[tenant] >= limit {
		return Location{}, ErrLicenseFull
	}
	l.seats[tenant]++
	return l.sit(tenant, user, s), nil
}

// sit is called with mu held.
func (l *Local) sit(tenant, user string, s Location) Location {
	if s.Epoch == 0 {
		s.Epoch = l.epoch + 1
	}
	l.epoch = max(l.epoch, s.Epoch)
	l.users[userKey{tenant, user}] = s
	return s
}

// TakeUser implements Directory.
func (l *Local) TakeUser(_ context.Context, tenant, user string, from, s Location) (Location, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if holder, ok := l.users[userKey{tenant, user}]; !ok || holder != from {
		return Location{}, ErrTaken
	}
	return l.sit(tenant, user, s), nil
}

// Holder implements Directory.
func (l *Local) Holder(_ context.Context, tenant, user string) (Location, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.users[userKey{tenant, user}], nil
}

// ReleaseUser implements Directory.
func (l *Local) ReleaseUser(_ context.Context, tenant, user string, s Location) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users[userKey{tenant, user}] != s {
		return nil
	}
	delete(l.users, userKey{tenant, user})
	if l.seats[tenant]--; l.seats[tenant] == 0 {
		delete(l.seats, tenant)
	}
	return nil
}

// ClaimRoom implements Directory.
func (l *Local) ClaimRoom(_ context.Context, tenant, room, node string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := userKey{tenant, room}
	if owner, ok := l.rooms[k]; ok {
		return owner, nil
	}
	l.rooms[k] = node
	return node, nil
}

// RoomOwner implements Directory.
func (l *Local) RoomOwner(_ context.Context, tenant, room string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rooms[userKey{tenant, room}], nil
}

// ReleaseRoom implements Directory.
func (l *Local) ReleaseRoom(_ context.Context, tenant, room, node string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := (userKey{tenant, room}); l.rooms[k] == node {
		delete(l.rooms, k)
	}
	return nil
}

// Serve implements Bus.
func (l *Local) Serve(node string, h func([]byte) []byte) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes[node] = h
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.nodes, node)
	}
}

// Send implements Bus. The other node's handler runs before it returns.
func (l *Local) Send(ctx context.Context, node string, payload []byte) error {
	_, err := l.Request(ctx, node, payload)
	return err
}

// Request implements Bus.
func (l *Local) Request(_ context.Context, node string, payload []byte) ([]byte, error) {
	l.mu.Lock()
	h := l.nodes[node]
	l.mu.Unlock()
	if h == nil {
		return nil, fmt.Errorf("bus: no node %q", node)
	}
	return h(payload), nil
}
