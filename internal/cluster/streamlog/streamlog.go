// Package streamlog decides the commands of a directory with a stream of NATS JetStream: each node
// applies what the stream has stored, in its order. It implements directory.Log.
//
// A node renews its lease of 800 ms with an entry in the stream, which counts once the node itself
// has read it there. Another node declares it dead 1 s after the last renewal that it has read,
// with an entry that names the number of renewals: if the stream stored one more before, the entry
// does nothing. So a node knows that its lease has ended before any other can believe it.
//
// The state is saved in an object store now and then, and what it replaces is removed from the
// stream.
package streamlog

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ieum-rtc/ieum/internal/cluster/directory"
	"github.com/ieum-rtc/ieum/internal/cluster/lease"
	"github.com/ieum-rtc/ieum/internal/cluster/mismatch"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

const (
	leaseTime  = 800 * time.Millisecond
	deadAfter  = time.Second
	renewEvery = 200 * time.Millisecond
	// graceTime is how long others are not declared dead after this node was cut off: they may have
	// been cut off too, and come back later.
	graceTime = 3 * time.Second

	// maxWait bounds how long a command waits for the stream; patience, how long after the end of
	// the lease.
	maxWait        = 2 * time.Second
	patience       = time.Second
	retryEvery     = 20 * time.Millisecond
	publishTimeout = time.Second
	resultTimeout  = 2 * time.Second
)

// Config configures a Log.
type Config struct {
	Node    string
	Process uint64
	Machine *directory.Machine
	Conn    *nats.Conn
	Prefix  string // of the subject, and the name of the stream
	Version string // of the program
	// Fingerprints of the license signing keys; nodes must have one in common.
	Fingerprints func() []string
	Log          *slog.Logger
}

// Log is one node's part.
type Log struct {
	cfg      Config
	js       jetstream.JetStream
	lease    lease.Lease
	warnings *mismatch.Warnings
	ids      atomic.Uint64 // the last entry of this node

	mu       sync.Mutex
	waiting  map[uint64]chan []byte // Guarded by mu: who waits for the result of an entry.
	renewals map[string]renewal     // Guarded by mu, by name of a node.
	seen     map[string]sighting    // Guarded by mu, by name of a node.
	asked    map[uint64]asked       // Guarded by mu: own renewals on their way.
	since    time.Duration          // Guarded by mu: since when others may count as dead.
	ready    bool                   // Guarded by mu: everything stored has been applied.

	// Owned by run.
	applied uint64    // sequence number of the last entry
	created time.Time // of the stream
	saved   uint64    // sequence number of the last snapshot
	saving  chan struct{}

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// renewal is what the stream says of a node.
type renewal struct {
	Process uint64 `json:"process"`
	Count   uint64 `json:"count"`
	About   about  `json:"about"`
}

// sighting is when this node last read a renewal, or first saw the process.
type sighting struct {
	process uint64
	at      time.Duration // of lease.Now
}

// asked is a renewal of this node.
type asked struct{ at time.Duration }

// Start begins to follow the stream. It does not wait for it.
func Start(c Config) (*Log, error) {
	js, err := jetstream.New(c.Conn)
	if err != nil {
		return nil, err
	}
	l := &Log{
		cfg:      c,
		js:       js,
		warnings: mismatch.New(c.Log),
		waiting:  map[uint64]chan []byte{},
		renewals: map[string]renewal{},
		seen:     map[string]sighting{},
		asked:    map[uint64]asked{},
		saving:   make(chan struct{}, 1),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(l.run)
	l.wg.Go(l.renew)
	return l, nil
}

// Close ends this node's part. The connection stays.
func (l *Log) Close() error {
	l.cancel()
	l.wg.Wait()
	return nil
}

// Leave does nothing: that the node announced its death is enough.
func (l *Log) Leave(context.Context) error { return nil }

// Quorum implements directory.Log.
func (l *Log) Quorum() error {
	if l.lease.Holds(lease.Now()) {
		return nil
	}
	return engine.ErrNoQuorum
}

// CutOff tells whether commands are refused at once: this node has had no lease for longer than a
// short outage takes.
func (l *Log) CutOff() bool { return l.lease.Ended(lease.Now()) > patience }

// errRefused: the entry is not stored, and will not be.
var errRefused = errors.New("not stored")

// Propose implements directory.Log.
func (l *Log) Propose(ctx context.Context, command []byte) ([]byte, error) {
	began := lease.Now()
	for {
		err := errRefused
		if l.mayPropose() {
			var answer []byte
			answer, err = l.decide(ctx, command)
			if err == nil {
				return answer, nil
			}
		}
		if !errors.Is(err, errRefused) {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, directory.ErrOutcome
		}
		now := lease.Now()
		ended := l.lease.Ended(now)
		if now-began > maxWait || ended > patience && ended < now {
			return nil, engine.ErrNoQuorum
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.ctx.Done():
			return nil, engine.ErrNoQuorum
		case <-time.After(retryEvery):
		}
	}
}

// decide stores a command and waits for its result.
func (l *Log) decide(ctx context.Context, command []byte) ([]byte, error) {
	e := entry{kind: kindCommand, process: l.cfg.Process, id: l.ids.Add(1), payload: command}
	result := make(chan []byte, 1)
	l.mu.Lock()
	l.waiting[e.id] = result
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waiting, e.id)
	}()
	if err := l.store(ctx, &e); err != nil {
		return nil, err
	}
	late := time.NewTimer(resultTimeout)
	defer late.Stop()
	select {
	case answer, decided := <-result:
		if !decided {
			return nil, errLost
		}
		return answer, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.ctx.Done():
		return nil, errLost
	case <-late.C:
		return nil, errLost
	}
}

// errLost: it is unknown what became of an entry.
var errLost = errors.New("the stream did not answer")

// store publishes an entry and waits until the stream has it. Other errors than errRefused leave it
// unknown whether it has.
func (l *Log) store(ctx context.Context, e *entry) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	_, err := l.js.Publish(ctx, l.subject(), e.append(nil),
		jetstream.WithExpectStream(l.cfg.Prefix), jetstream.WithRetryAttempts(0))
	var refused *jetstream.APIError
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrConnectionClosed) ||
		errors.As(err, &refused) {
		return errRefused
	}
	return err
}

func (l *Log) subject() string { return l.cfg.Prefix + ".log" }

// mayPropose tells whether commands of this node may be stored. It does not join nodes that it
// cannot work with.
func (l *Log) mayPropose() bool {
	_, own := l.cfg.Machine.Member(l.cfg.Node)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready && (own.Process == l.cfg.Process || l.fits())
}

// fits compares this node with those that are there, and says what to do. It is called with mu
// held.
func (l *Log) fits() bool {
	own := l.cfg.Fingerprints()
	for _, n := range l.cfg.Machine.Nodes() {
		r, known := l.renewals[n.Name]
		if !known || n.State == engine.Dead || n.Name == l.cfg.Node {
			continue
		}
		if !mismatch.ShareKey(r.About.Fingerprint, own) {
			l.warnings.Tell("key "+n.Name, "not joining: another node has another license "+
				"signing key. Give all nodes the same --license-signing-key-file",
				"other", n.Name)
			return false
		}
	}
	return true
}

// about is what this node says of itself.
func (l *Log) about() about {
	return about{
		Fingerprint: strings.Join(l.cfg.Fingerprints(), ","),
		Program:     l.cfg.Version,
		Time:        time.Now().UnixMilli(),
	}
}
