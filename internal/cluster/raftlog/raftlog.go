// Package raftlog decides the commands of a directory with hashicorp/raft among the nodes. It
// implements directory.Log.
//
// The log is in memory: a process that starts again is a new server of raft and gets everything
// from the others. Each node sends beacons several times a second over NATS. The leader adds the
// nodes that it hears, and removes those that are dead.
//
// A node holds a lease of 800 ms, which it renews with the leader; the leader asks a majority
// whether it is still the leader before it agrees. It declares a node dead 1 s after the last
// renewal. So a node knows that its lease has ended before the others believe it.
package raftlog

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/nats-io/nats.go"

	"github.com/ieum-rtc/ieum/internal/cluster/directory"
	"github.com/ieum-rtc/ieum/internal/cluster/lease"
	"github.com/ieum-rtc/ieum/internal/cluster/mismatch"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

const (
	electionTimeout = 400 * time.Millisecond
	leaderTimeout   = 300 * time.Millisecond
	leaseTime       = 800 * time.Millisecond
	deadAfter       = time.Second
	renewEvery      = 200 * time.Millisecond
	renewTimeout    = 400 * time.Millisecond
	tickEvery       = 100 * time.Millisecond

	// maxWait bounds how long a command waits for a leader; patience, how long after the end of the
	// lease. A leader is elected within that, if there is a majority.
	maxWait        = 2 * time.Second
	patience       = time.Second
	retryEvery     = 10 * time.Millisecond
	enqueueTimeout = 500 * time.Millisecond
	forwardTimeout = time.Second

	// A dead node is removed from raft when it has been silent for so long.
	removeAfter = 5 * time.Second
	// recoverAfter is how long a node has no lease before it goes on with what it knows.
	recoverAfter = 2 * time.Second
	// foundAfter is how long a node alone waits for others that may have a cluster.
	foundAfter = 1500 * time.Millisecond

	maxVoters    = 5
	maxForwarded = 4096 // commands of other nodes at a time
	caughtUp     = 64   // entries that a server may lack when it becomes a voter
	skipNumbers  = 1 << 20

	transportTimeout = 2 * time.Second
	snapshotEntries  = 8192
	trailingEntries  = 2048
)

// Config configures a Log.
type Config struct {
	Node    string
	Process uint64
	Listen  string // HOST:PORT of this node for raft, reachable by others
	TLS     func() *tls.Config
	Machine *directory.Machine
	Conn    *nats.Conn
	Prefix  string // of subjects
	Expect  int    // nodes that found a cluster
	Version string // of the program
	// Fingerprints of the license signing keys; nodes must have one in common.
	Fingerprints func() []string
	Log          *slog.Logger
}

// Log is one node's part in the log.
type Log struct {
	cfg   Config
	start time.Duration // of lease.Now
	lease lease.Lease

	warnings *mismatch.Warnings

	// inUse is held for reading while raft is asked for something, and for writing while raft is
	// shut down: a raft that is shut down answers nobody who waits.
	inUse sync.RWMutex

	mu      sync.RWMutex
	raft    *raft.Raft               // Guarded by mu.
	servers *storage                 // Guarded by mu.
	seen    map[uint64]heard         // Guarded by mu, by process.
	renewed map[uint64]time.Duration // Guarded by mu, by process: lease.Now.
	leader  raft.ServerID            // Guarded by mu: the last that was another server.
	skip    bool                     // Guarded by mu: commands may be lost.
	closed  bool                     // Guarded by mu: no goroutine begins any more.

	leaving   atomic.Bool
	forwarded chan struct{} // one for each command of another node
	subs      []*nats.Subscription
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup

	leaders atomic.Uint64 // changes of leader that this node has seen
}

// storage is what a server of raft remembers.
type storage struct {
	store     *raft.InmemStore
	snapshots *raft.InmemSnapshotStore
	listen    *stream
	transport *raft.NetworkTransport
}

func serverID(node string, process uint64) raft.ServerID {
	return raft.ServerID(node + "#" + strconv.FormatUint(process, 16))
}

func nameOf(id raft.ServerID) string {
	name, _, _ := strings.Cut(string(id), "#")
	return name
}

func processOf(id raft.ServerID) uint64 {
	_, text, _ := strings.Cut(string(id), "#")
	n, _ := strconv.ParseUint(text, 16, 64)
	return n
}

// Start opens the port of raft and looks for other nodes.
func Start(c Config) (*Log, error) {
	l := &Log{
		cfg:       c,
		start:     lease.Now(),
		seen:      map[uint64]heard{},
		renewed:   map[uint64]time.Duration{},
		forwarded: make(chan struct{}, maxForwarded),
		warnings:  mismatch.New(c.Log),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	var err error
	if l.servers, err = l.newStorage(nil); err != nil {
		return nil, err
	}
	if l.raft, err = l.newRaft(l.servers); err != nil {
		return nil, errors.Join(err, l.servers.transport.Close())
	}
	for subject, handle := range map[string]nats.MsgHandler{
		c.Prefix + ".beacon":                    l.hear,
		requestSubject(c.Prefix, l.cfg.Process): l.answer,
	} {
		sub, err := c.Conn.Subscribe(subject, handle)
		if err != nil {
			return nil, errors.Join(err, l.close())
		}
		l.subs = append(l.subs, sub)
	}
	l.wg.Go(l.run)
	l.wg.Go(l.renew)
	l.wg.Go(l.lead)
	return l, nil
}

func requestSubject(prefix string, process uint64) string {
	return prefix + ".d." + strconv.FormatUint(process, 16)
}

// Close ends this node's part. See Leave.
func (l *Log) Close() error { return l.close() }

func (l *Log) close() error {
	l.cancel()
	for _, sub := range l.subs {
		_ = sub.Unsubscribe() // of a connection that may be closed
	}
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.wg.Wait()
	l.inUse.Lock()
	defer l.inUse.Unlock()
	return l.current().Shutdown().Error()
}

// newStorage opens the port; with memory of an earlier one it is kept.
func (l *Log) newStorage(of *storage) (*storage, error) {
	listener, err := net.Listen("tcp", l.cfg.Listen)
	if err != nil {
		return nil, err
	}
	s := &storage{store: raft.NewInmemStore(), snapshots: raft.NewInmemSnapshotStore()}
	if of != nil {
		s.store, s.snapshots = of.store, of.snapshots
	}
	s.listen = &stream{
		Listener: listener,
		tls:      l.cfg.TLS,
		log:      l.cfg.Log,
		addr:     address(l.cfg.Listen),
	}
	s.transport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:          s.listen,
		MaxPool:         3,
		MaxRPCsInFlight: 64,
		Timeout:         transportTimeout,
		Logger:          newLogger(l.cfg.Log),
	})
	return s, nil
}

func (l *Log) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = l.id()
	c.HeartbeatTimeout, c.ElectionTimeout = electionTimeout, electionTimeout
	c.LeaderLeaseTimeout = leaderTimeout
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.SnapshotThreshold = snapshotEntries
	c.SnapshotInterval = 10 * time.Second
	c.TrailingLogs = trailingEntries
	c.Logger = newLogger(l.cfg.Log)
	return c
}

func (l *Log) newRaft(s *storage) (*raft.Raft, error) {
	return raft.NewRaft(
		l.raftConfig(), fsm{l.cfg.Machine}, s.store, s.store, s.snapshots, s.transport,
	)
}

func (l *Log) id() raft.ServerID { return serverID(l.cfg.Node, l.cfg.Process) }

func (l *Log) current() *raft.Raft {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.raft
}

// fsm applies what raft decides to the machine.
type fsm struct{ machine *directory.Machine }

// Apply implements raft.FSM.
func (f fsm) Apply(entry *raft.Log) any { return f.machine.Apply(entry.Data) }

// Snapshot implements raft.FSM.
func (f fsm) Snapshot() (raft.FSMSnapshot, error) {
	b, err := f.machine.Snapshot()
	return snapshot(b), err
}

// Restore implements raft.FSM.
func (f fsm) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	return f.machine.Restore(b)
}

type snapshot []byte

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s snapshot) Release() {}

// Quorum implements directory.Log.
func (l *Log) Quorum() error {
	if l.lease.Holds(lease.Now()) {
		return nil
	}
	return engine.ErrNoQuorum
}

// CutOff tells whether commands are refused at once: this node has had no lease for longer than it
// takes to elect a leader.
func (l *Log) CutOff() bool { return l.lease.Ended(lease.Now()) > patience }

// outcome is what became of a command, or of another request to the leader.
type outcome byte

const (
	decided outcome = iota
	refused         // not decided, and it will not be
	unknown
)

// Propose implements directory.Log.
func (l *Log) Propose(ctx context.Context, command []byte) ([]byte, error) {
	began := lease.Now()
	for {
		answer, out := l.ask(ctx, requestPropose, command)
		switch out {
		case decided:
			return answer, nil
		case unknown:
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, directory.ErrOutcome
		case refused:
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

// Requests to the leader, by their first byte.
const (
	requestPropose byte = iota + 1 // a command
	requestRenew                   // process, 8 bytes; name
	requestLeave                   // process, 8 bytes; name
)

// ask has the leader answer a request, also if that is this node.
func (l *Log) ask(ctx context.Context, request byte, payload []byte) ([]byte, outcome) {
	_, leader := l.current().LeaderWithID()
	switch leader {
	case "":
		return nil, refused
	case l.id():
		return l.serve(request, payload)
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	m, err := l.cfg.Conn.RequestWithContext(ctx, requestSubject(l.cfg.Prefix, processOf(leader)),
		append([]byte{request}, payload...))
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, refused
	case err != nil || len(m.Data) == 0 || m.Data[0] > byte(unknown):
		return nil, unknown
	}
	return m.Data[1:], outcome(m.Data[0])
}

// answer serves the request of another node.
func (l *Log) answer(m *nats.Msg) {
	if len(m.Data) == 0 {
		return
	}
	respond := func(answer []byte, out outcome) {
		_ = m.Respond(append([]byte{byte(out)}, answer...)) // the node that asks waits no longer
	}
	select {
	case l.forwarded <- struct{}{}:
	default:
		respond(nil, refused)
		return
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return
	}
	l.wg.Go(func() {
		defer func() { <-l.forwarded }()
		respond(l.serve(m.Data[0], m.Data[1:]))
	})
}

// serve is called on the leader, or on a node that was it a moment ago.
func (l *Log) serve(request byte, payload []byte) ([]byte, outcome) {
	l.inUse.RLock()
	defer l.inUse.RUnlock()
	r := l.current()
	if r.State() != raft.Leader {
		return nil, refused
	}
	switch request {
	case requestPropose:
		return l.apply(r, payload)
	case requestRenew, requestLeave:
		if len(payload) < 8 {
			return nil, refused
		}
		process, name := binary.BigEndian.Uint64(payload), string(payload[8:])
		if request == requestLeave {
			f := r.RemoveServer(serverID(name, process), 0, enqueueTimeout)
			return nil, outcomeOf(f.Error())
		}
		return nil, l.grant(r, name, process)
	}
	return nil, refused
}

func (l *Log) apply(r *raft.Raft, command []byte) ([]byte, outcome) {
	f := r.Apply(command, enqueueTimeout)
	if err := f.Error(); err != nil {
		return nil, outcomeOf(err)
	}
	answer, ok := f.Response().([]byte)
	if !ok {
		return nil, unknown
	}
	return answer, decided
}

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return decided
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return refused
	}
	return unknown
}

// grant renews the lease of a node that is not dead.
func (l *Log) grant(r *raft.Raft, name string, process uint64) outcome {
	now := lease.Now()
	n, member := l.cfg.Machine.Member(name)
	if member.Process != process || n.State == engine.Dead {
		return refused
	}
	if r.VerifyLeader().Error() != nil {
		return refused
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renewed[process] = max(l.renewed[process], now)
	return decided
}

// renew keeps this node's lease.
func (l *Log) renew() {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	payload := append(binary.BigEndian.AppendUint64(nil, l.cfg.Process), l.cfg.Node...)
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		asked := lease.Now()
		ctx, cancel := context.WithTimeout(l.ctx, renewTimeout)
		if _, out := l.ask(ctx, requestRenew, payload); out == decided {
			l.lease.Extend(asked + leaseTime)
		}
		cancel()
	}
}

// hear takes the beacon of a node.
func (l *Log) hear(m *nats.Msg) {
	h, ok := parseBeacon(m.Data)
	if !ok || h.Process == l.cfg.Process {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.fits(&h) {
		delete(l.seen, h.Process)
		return
	}
	l.seen[h.Process] = heard{h, lease.Now()}
}

// fits tells whether a node can work with this one, and says what to do if not.
func (l *Log) fits(h *beacon) bool {
	about := []any{"other", h.Node, "address", h.Address}
	if h.Node == l.cfg.Node {
		l.warnings.Tell("name "+h.Address,
			"another node has the name of this one: give each its own --node", about...)
		return false
	}
	if !mismatch.ShareKey(h.Fingerprint, l.cfg.Fingerprints()) {
		l.warnings.Tell("key "+h.Node, "node refused: it has another license signing key. "+
			"Give all nodes the same --license-signing-key-file", about...)
		return false
	}
	l.warnings.Clock(h.Node, h.Time, about...)
	l.warnings.Version(h.Node, l.cfg.Version, h.Program, about...)
	return true
}

// others are the nodes that were heard lately.
func (l *Log) others() []heard {
	now := lease.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []heard
	for process, h := range l.seen {
		switch {
		case now-h.at < fresh:
			all = append(all, h)
		case now-h.at > time.Minute:
			delete(l.seen, process)
		}
	}
	return all
}

// self is what this node says.
func (l *Log) self(r *raft.Raft, others []heard) beacon {
	h := beacon{
		Node:        l.cfg.Node,
		Process:     l.cfg.Process,
		Address:     l.cfg.Listen,
		Program:     l.cfg.Version,
		Fingerprint: strings.Join(l.cfg.Fingerprints(), ","),
		Time:        time.Now().UnixMilli(),
		Expect:      l.cfg.Expect,
		Cluster:     l.cfg.Machine.Cluster(),
		Lease:       l.lease.Holds(lease.Now()),
		Last:        r.LastIndex(),
		Applied:     r.AppliedIndex(),
		Leaving:     l.leaving.Load(),
		Sees:        sees(l.cfg.Node, others),
	}
	for _, s := range l.configuration(r) {
		if s.Suffrage == raft.Voter {
			h.Voters++
		}
	}
	return h
}

// configuration is what raft has, on a server that is not shut down.
func (l *Log) configuration(r *raft.Raft) []raft.Server {
	f := r.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}

// run sends beacons, and decides about beginnings.
func (l *Log) run() {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		r, others := l.current(), l.others()
		self := l.self(r, others)
		if b, err := json.Marshal(self); err == nil {
			_ = l.cfg.Conn.Publish(l.cfg.Prefix+".beacon", b) // said again soon
		}
		if l.leaving.Load() {
			continue
		}
		if err := l.begin(r, &self, others); err != nil {
			l.cfg.Log.Error("agreement between nodes failed; trying again", "error", err)
		}
	}
}

// begin founds a cluster, or ends this node's part in one that cannot go on.
func (l *Log) begin(r *raft.Raft, self *beacon, others []heard) error {
	now := lease.Now()
	servers := l.configuration(r)
	if len(servers) == 0 && self.Cluster == 0 {
		if l.cfg.Expect == 1 && now-l.start < foundAfter {
			return nil
		}
		voters, ok := mayFound(self, others)
		if !ok {
			return nil
		}
		var c raft.Configuration
		for _, v := range voters {
			s := raft.Server{ID: v.id(), Address: raft.ServerAddress(v.Address)}
			c.Servers = append(c.Servers, s)
		}
		l.cfg.Log.Info("founding a cluster", "nodes", len(voters))
		return r.BootstrapCluster(c).Error()
	}
	if mustAbandon(self, others) {
		l.cfg.Log.Warn("another cluster of these nodes goes on; this node joins it")
		return l.reset(nil)
	}
	if l.lease.Ended(now) > recoverAfter && now-l.start > recoverAfter &&
		mayRecover(self, servers, others) {
		l.cfg.Log.Warn("most nodes have started again at once; going on with what this node knows")
		return l.recover()
	}
	return nil
}

// reset begins again without memory, or with what is given.
func (l *Log) reset(of *storage) error {
	l.inUse.Lock()
	defer l.inUse.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lease.End()
	if err := l.raft.Shutdown().Error(); err != nil { // closes the port too
		return err
	}
	s, err := l.newStorage(of)
	if err != nil {
		return err
	}
	if of == nil {
		if err := l.cfg.Machine.Restore(nil); err != nil {
			return err
		}
	} else {
		alone := raft.Configuration{Servers: []raft.Server{
			{ID: l.id(), Address: raft.ServerAddress(l.cfg.Listen)},
		}}
		// The machine of this node must not go back to the beginning: others watch it.
		scratch := fsm{directory.NewMachine()}
		if err := raft.RecoverCluster(l.raftConfig(), scratch, s.store, s.store, s.snapshots,
			s.transport, alone); err != nil {
			return err
		}
		l.skip = true
	}
	l.servers = s
	l.raft, err = l.newRaft(s)
	return err
}

// recover goes on as the only server.
func (l *Log) recover() error {
	l.mu.RLock()
	s := l.servers
	l.mu.RUnlock()
	return l.reset(s)
}

// lead does what falls to the leader.
func (l *Log) lead() {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	var led leadership
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
			l.inUse.RLock()
			led = l.leadOnce(led)
			l.inUse.RUnlock()
		}
	}
}

// leadership is as which server this node leads, nil if it does not, and since when on lease.Now.
type leadership struct {
	raft   *raft.Raft
	since  time.Duration
	joined map[string]joined // by the name of a node
}

// joined is when the leader has seen a new incarnation of a node; 0: there has been none.
type joined struct {
	incarnation uint64
	at          time.Duration // of lease.Now
}

func newLeadership(r *raft.Raft, nodes []engine.Node, now time.Duration) leadership {
	led := leadership{r, now, map[string]joined{}}
	for _, n := range nodes {
		led.joined[n.Name] = joined{n.Incarnation, 0}
	}
	return led
}

// joinedAt is when a node that is up has joined. It cannot have renewed its lease before.
func (led leadership) joinedAt(n engine.Node, now time.Duration) time.Duration {
	j := led.joined[n.Name]
	if j.incarnation != n.Incarnation {
		j = joined{n.Incarnation, now}
		led.joined[n.Name] = j
	}
	return j.at
}

// leadOnce does what is due. It is called with inUse held for reading.
func (l *Log) leadOnce(led leadership) leadership {
	r := l.current()
	if r.State() != raft.Leader {
		l.follow(r)
		return leadership{}
	}
	if led.raft != r {
		if r.Barrier(enqueueTimeout).Error() != nil {
			return led // not the leader any more
		}
		led = newLeadership(r, l.cfg.Machine.Nodes(), lease.Now())
		l.leaders.Add(1)
		l.cfg.Log.Info("this node leads the cluster",
			"node", l.cfg.Node, "term", r.CurrentTerm())
	}
	if l.prepare(r) == nil {
		l.bury(r, led)
		l.change(r)
	}
	return led
}

// follow notes who leads.
func (l *Log) follow(r *raft.Raft) {
	_, id := r.LeaderWithID()
	l.mu.Lock()
	defer l.mu.Unlock()
	if id != "" && id != l.leader {
		l.leader = id
		l.leaders.Add(1)
	}
}

// prepare makes the first commands of a leader.
func (l *Log) prepare(r *raft.Raft) error {
	if l.cfg.Machine.Cluster() == 0 {
		if err := r.Apply(directory.Found(rand.Uint64()|1), enqueueTimeout).Error(); err != nil {
			return err
		}
	}
	l.mu.Lock()
	skip := l.skip
	l.skip = false
	l.mu.Unlock()
	if !skip {
		return nil
	}
	err := r.Apply(directory.Skip(skipNumbers), enqueueTimeout).Error()
	if err != nil {
		l.mu.Lock()
		l.skip = true
		l.mu.Unlock()
	}
	return err
}

// bury declares nodes dead whose leases have ended for sure.
func (l *Log) bury(r *raft.Raft, led leadership) {
	for _, n := range l.cfg.Machine.Nodes() {
		if n.State == engine.Dead || n.State == 0 {
			continue
		}
		_, member := l.cfg.Machine.Member(n.Name)
		l.mu.RLock()
		last := max(l.renewed[member.Process], led.since)
		if serverID(n.Name, member.Process) == l.leader && last == led.since {
			// A majority has not heard from the former leader for so long.
			last -= electionTimeout
		}
		l.mu.RUnlock()
		now := lease.Now()
		if now-max(last, led.joinedAt(n, now)) <= deadAfter {
			continue
		}
		l.cfg.Log.Warn("node declared dead: it does not renew its lease", "other", n.Name)
		if r.Apply(directory.Dead(n.Name, n.Incarnation), enqueueTimeout).Error() != nil {
			return
		}
	}
}

// change makes at most one change of raft's servers.
func (l *Log) change(r *raft.Raft) {
	servers := l.configuration(r)
	others := l.others()
	voters := 0
	in := map[raft.ServerID]raft.Server{}
	for _, s := range servers {
		in[s.ID] = s
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	for _, o := range others {
		s, known := in[o.id()]
		var err error
		switch {
		case o.Leaving, o.Cluster != 0 && o.Cluster != l.cfg.Machine.Cluster():
			continue
		case !known:
			if old, ok := l.former(servers, o); !ok {
				continue
			} else if old != "" {
				err = r.RemoveServer(old, 0, enqueueTimeout).Error()
			} else {
				address := raft.ServerAddress(o.Address)
				err = r.AddNonvoter(o.id(), address, 0, enqueueTimeout).Error()
			}
		case s.Suffrage != raft.Voter && voters < maxVoters && o.Cluster != 0 &&
			o.Applied+caughtUp >= r.AppliedIndex():
			err = r.AddVoter(o.id(), s.Address, 0, enqueueTimeout).Error()
		default:
			continue
		}
		if err != nil {
			l.cfg.Log.Debug("servers of raft not changed", "error", err)
		}
		return
	}
	for _, s := range servers {
		if s.ID != l.id() && l.gone(s.ID) {
			_ = r.RemoveServer(s.ID, 0, enqueueTimeout).Error() // tried again
			return
		}
	}
}

// former returns the server that an earlier process of a node was. Ok is false while that process
// lives: then two nodes have one name.
func (l *Log) former(servers []raft.Server, o heard) (id raft.ServerID, ok bool) {
	for _, s := range servers {
		if nameOf(s.ID) != o.Node {
			continue
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		process := processOf(s.ID)
		now := lease.Now()
		last := max(l.renewed[process], l.seen[process].at)
		if last > 0 && now-last < deadAfter {
			return "", false
		}
		return s.ID, true
	}
	return "", true
}

// gone tells whether a server is dead for good, as far as anybody can tell.
func (l *Log) gone(id raft.ServerID) bool {
	n, member := l.cfg.Machine.Member(nameOf(id))
	l.mu.RLock()
	defer l.mu.RUnlock()
	process := processOf(id)
	silent := lease.Now() - max(l.seen[process].at, l.renewed[process], l.start)
	switch {
	case member.Process == process && n.State != engine.Dead:
		return false
	case l.seen[process].Leaving:
		return true
	}
	return silent > removeAfter
}

// Leave removes this node from raft, so that the others need not wait for it. The node must have
// announced its death before.
func (l *Log) Leave(ctx context.Context) error {
	l.leaving.Store(true)
	payload := append(binary.BigEndian.AppendUint64(nil, l.cfg.Process), l.cfg.Node...)
	for {
		r := l.current()
		alone := true
		for _, s := range l.configuration(r) {
			alone = alone && s.ID == l.id()
		}
		if alone {
			return nil
		}
		if r.State() == raft.Leader {
			l.transferLeadership()
		} else if _, out := l.ask(ctx, requestLeave, payload); out == decided {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("others have not noticed that this node leaves: %w", ctx.Err())
		case <-time.After(retryEvery):
		}
	}
}

func (l *Log) transferLeadership() {
	l.inUse.RLock()
	defer l.inUse.RUnlock()
	if err := l.current().LeadershipTransfer().Error(); err != nil {
		l.cfg.Log.Debug("leadership not transferred", "error", err)
	}
}

// Stats tell about agreement.
type Stats struct {
	Leader  bool
	Lease   bool
	Term    uint64
	Voters  int
	Last    uint64 // index of the log
	Leaders uint64 // changes of leader that this node has seen
}

// Stats returns the present state.
func (l *Log) Stats() Stats {
	r := l.current()
	s := Stats{
		Leader:  r.State() == raft.Leader,
		Lease:   l.lease.Holds(lease.Now()),
		Term:    r.CurrentTerm(),
		Last:    r.LastIndex(),
		Leaders: l.leaders.Load(),
	}
	for _, server := range l.configuration(r) {
		if server.Suffrage == raft.Voter {
			s.Voters++
		}
	}
	return s
}
