// Package directory decides which session holds a user id and which node holds a room. It
// implements engine.Directory as a state machine over a log of commands that all nodes agree on:
// hashicorp/raft among the nodes (package raftlog), or a stream of NATS JetStream (package
// streamlog).
package directory

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// ErrOutcome is the error of a Log when it is unknown whether the command is or will be decided.
var ErrOutcome = errors.New("it is unknown whether the command was decided")

// Log decides commands, in one order for all nodes, and applies them to the Machine of each.
type Log interface {
	// Propose has a command decided and returns its result, which Machine.Apply returned.
	// engine.ErrNoQuorum says that it is not and will not be decided, ErrOutcome and the error of
	// ctx that this is unknown.
	Propose(ctx context.Context, command []byte) ([]byte, error)
	// Quorum is nil while the node holds a lease: no other can have it declared dead.
	Quorum() error
}

// Self is what a node tells when it joins.
type Self struct {
	Node string
	Member
}

// Directory is one node's access to a Machine that all nodes have. It implements engine.Directory.
type Directory struct {
	self    Self
	machine *Machine
	log     Log
	logger  *slog.Logger

	mu     sync.Mutex
	now    engine.Node   // Guarded by mu: this node.
	left   bool          // Guarded by mu: it does not join again.
	joined chan struct{} // closed when the node has joined for the first time
	once   sync.Once
	lost   chan struct{} // for one: the node is dead and must join again

	unwatch func()
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

const (
	joinEvery   = 200 * time.Millisecond
	joinTimeout = 2 * time.Second
	retryAfter  = 10 * time.Millisecond
)

// Start has the node join. Joining takes as long as there is no quorum; see Joined.
func Start(self Self, m *Machine, log Log, logger *slog.Logger) *Directory {
	ctx, cancel := context.WithCancel(context.Background())
	d := &Directory{
		self:    self,
		machine: m,
		log:     log,
		logger:  logger,
		joined:  make(chan struct{}),
		lost:    make(chan struct{}, 1),
		cancel:  cancel,
	}
	d.lost <- struct{}{}
	d.unwatch = m.Watch(d.learn)
	d.wg.Go(func() { d.keepJoined(ctx) })
	return d
}

// Close ends joining. It does not make the node leave, see Announce.
func (d *Directory) Close() {
	d.cancel()
	d.wg.Wait()
	d.unwatch()
}

// Joined is closed when the node has joined for the first time.
func (d *Directory) Joined() <-chan struct{} { return d.joined }

// learn is called for every change of a node.
func (d *Directory) learn(n engine.Node) {
	if n.Name != d.self.Node {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, m := d.machine.Member(n.Name); m.Process != d.self.Process && n.State != engine.Dead {
		return // another process with this name
	}
	if d.now.Incarnation > n.Incarnation || d.now.Incarnation == 0 && n.State == engine.Dead {
		return // an earlier process
	}
	d.now = n
	if n.State == engine.Dead {
		select {
		case d.lost <- struct{}{}:
		default:
		}
		return
	}
	d.once.Do(func() { close(d.joined) })
}

// keepJoined joins at first, and again whenever this node counts as dead.
func (d *Directory) keepJoined(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.lost:
		}
		for d.outside() {
			d.join(ctx)
			select {
			case <-ctx.Done():
				return
			case <-time.After(joinEvery):
			}
		}
	}
}

func (d *Directory) outside() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.left && (d.now.Incarnation == 0 || d.now.State == engine.Dead)
}

func (d *Directory) join(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	d.mu.Lock()
	c := command{
		op:         opJoin,
		node:       d.self.Node,
		number:     d.now.Incarnation,
		process:    d.self.Process,
		address:    d.self.Address,
		versionFor: d.self.Version,
	}
	d.mu.Unlock()
	_, err := d.propose(ctx, &c)
	if errors.Is(err, ErrName) {
		d.logger.Warn("another node has this name, or had it until a moment ago: "+
			"give each node its own --node", "node", d.self.Node)
	}
}

// decide has a command of this node decided.
func (d *Directory) decide(ctx context.Context, c *command) (engine.Location, error) {
	d.mu.Lock()
	c.node, c.incarnation = d.self.Node, d.now.Incarnation
	d.mu.Unlock()
	if c.incarnation == 0 {
		return engine.Location{}, engine.ErrNoQuorum
	}
	return d.propose(ctx, c)
}

// propose repeats a command whose fate is unknown, if carrying it out twice does no harm.
func (d *Directory) propose(ctx context.Context, c *command) (engine.Location, error) {
	b := c.append(nil)
	for again := false; ; again = true {
		answer, err := d.log.Propose(ctx, b)
		switch {
		case errors.Is(err, ErrOutcome) && ctx.Err() == nil:
			select {
			case <-ctx.Done():
			case <-time.After(retryAfter):
			}
			continue
		case err != nil:
			return engine.Location{}, err
		}
		r, err := parseResult(answer)
		if err != nil {
			return engine.Location{}, err
		}
		if again && r.code == codeTaken && c.done(r.location) {
			return r.location, nil
		}
		return r.location, codes[r.code]
	}
}

// done tells whether the holder is what this command, decided the first time, made it. No other one
// can have: the session or room is in the hands of this node, which asks once.
func (c *command) done(holder engine.Location) bool {
	switch c.op {
	case opTakeUser:
		return holder.Node == c.to.Node && holder.Session == c.to.Session &&
			holder.Epoch > c.from.Epoch
	case opTakeRoom:
		return holder.Node == c.to.Node && holder.Epoch > c.from.Epoch
	}
	return false
}

// ClaimUser implements engine.Directory.
func (d *Directory) ClaimUser(
	ctx context.Context, tenant, user string, l engine.Location, limit int,
) (engine.Location, error) {
	return d.decide(ctx, &command{
		op:     opClaimUser,
		tenant: tenant,
		id:     user,
		to:     l,
		limit:  int64(limit),
	})
}

// TakeUser implements engine.Directory.
func (d *Directory) TakeUser(
	ctx context.Context, tenant, user string, from, l engine.Location,
) (engine.Location, error) {
	return d.decide(ctx, &command{op: opTakeUser, tenant: tenant, id: user, from: from, to: l})
}

// Holder implements engine.Directory.
func (d *Directory) Holder(ctx context.Context, tenant, user string) (engine.Location, error) {
	return d.decide(ctx, &command{op: opHolder, tenant: tenant, id: user})
}

// ReleaseUser implements engine.Directory.
func (d *Directory) ReleaseUser(
	ctx context.Context, tenant, user string, l engine.Location,
) error {
	_, err := d.decide(ctx, &command{op: opReleaseUser, tenant: tenant, id: user, to: l})
	return err
}

// ClaimRoom implements engine.Directory.
func (d *Directory) ClaimRoom(
	ctx context.Context, tenant, room string, o engine.Owner,
) (engine.Owner, error) {
	l, err := d.decide(ctx, &command{op: opClaimRoom, tenant: tenant, id: room, to: locationOf(o)})
	return ownerOf(l), err
}

// TakeRoom implements engine.Directory.
func (d *Directory) TakeRoom(
	ctx context.Context, tenant, room string, from engine.Owner, node string,
) (engine.Owner, error) {
	l, err := d.decide(ctx, &command{
		op:     opTakeRoom,
		tenant: tenant,
		id:     room,
		from:   locationOf(from),
		to:     engine.Location{Node: node},
	})
	return ownerOf(l), err
}

// RoomOwner implements engine.Directory.
func (d *Directory) RoomOwner(ctx context.Context, tenant, room string) (engine.Owner, error) {
	l, err := d.decide(ctx, &command{op: opRoomOwner, tenant: tenant, id: room})
	return ownerOf(l), err
}

// ReleaseRoom implements engine.Directory.
func (d *Directory) ReleaseRoom(ctx context.Context, tenant, room string, o engine.Owner) error {
	l := locationOf(o)
	_, err := d.decide(ctx, &command{op: opReleaseRoom, tenant: tenant, id: room, to: l})
	return err
}

// ReleaseNode implements engine.Directory.
func (d *Directory) ReleaseNode(ctx context.Context, node string, incarnation uint64) error {
	_, err := d.decide(ctx, &command{op: opReleaseNode, other: node, number: incarnation})
	return err
}

// Announce implements engine.Directory. After Dead the node does not join again.
func (d *Directory) Announce(ctx context.Context, state engine.NodeState) error {
	if state == engine.Dead {
		d.mu.Lock()
		d.left = true
		d.mu.Unlock()
	}
	_, err := d.decide(ctx, &command{op: opAnnounce, state: state})
	return err
}

// Watch implements engine.Directory.
func (d *Directory) Watch(f func(engine.Node)) (stop func()) { return d.machine.Watch(f) }

// Quorum implements engine.Directory.
func (d *Directory) Quorum() error {
	d.mu.Lock()
	outside := d.now.Incarnation == 0 || d.now.State == engine.Dead
	d.mu.Unlock()
	if outside {
		return engine.ErrNoQuorum
	}
	return d.log.Quorum()
}

func locationOf(o engine.Owner) engine.Location {
	return engine.Location{Node: o.Node, Epoch: o.Term}
}

// Dead is the command that declares a node dead, which only a Log decides to do.
func Dead(node string, incarnation uint64) []byte {
	c := command{op: opDead, other: node, number: incarnation}
	return c.append(nil)
}

// Found is the first command of a cluster, with a number that differs for each.
func Found(cluster uint64) []byte {
	c := command{op: opFound, number: cluster}
	return c.append(nil)
}

// FoundAfter is Found for a cluster that may follow another one which nobody remembers: n is more
// than the numbers that were given there.
func FoundAfter(cluster, n uint64) []byte {
	c := command{op: opFound, number: cluster, process: n}
	return c.append(nil)
}

// Skip is the command after a loss of commands: n is more than what they can have given.
func Skip(n uint64) []byte {
	c := command{op: opSkip, number: n}
	return c.append(nil)
}
