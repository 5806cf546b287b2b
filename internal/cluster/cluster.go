// Package cluster connects this node to others: a Bus over NATS core and a Directory that the nodes
// agree on. It has two engines. Embedded, each node runs a NATS server and a server of raft.
// External, the nodes meet at NATS servers with JetStream, which decides.
package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ieum-rtc/ieum/internal/cluster/bus"
	"github.com/ieum-rtc/ieum/internal/cluster/directory"
	"github.com/ieum-rtc/ieum/internal/cluster/embedded"
	"github.com/ieum-rtc/ieum/internal/cluster/identity"
	"github.com/ieum-rtc/ieum/internal/cluster/raftlog"
	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

const (
	// prefix begins all subjects. A second cluster at the same NATS servers needs an account of its
	// own.
	prefix = "ieum"
	// portTries is how often a random port is drawn whose successor is free too.
	portTries = 20
)

// Config configures a Cluster: Listen and what belongs to it, or NATS.
type Config struct {
	Node string

	Listen   string // HOST:PORT; port 0: any whose successor is free
	Peers    []string
	Expect   int
	Identity *identity.Material

	NATS    []string    // URLs
	NATSTLS *tls.Config // nil: the system's CAs, where a URL asks for TLS

	Version      string
	Fingerprints func() []string // of the license signing keys
	Log          *slog.Logger

	wrap func(bus.Conn) bus.Conn // tests lose messages; nil: as it is
}

// log is what decides.
type log interface {
	directory.Log
	CutOff() bool
	Close() error
	Leave(ctx context.Context) error
}

// Cluster is this node's part in a cluster. Its fields are static after Open.
type Cluster struct {
	cfg       Config
	identity  *identity.Identity // nil: external
	server    *embedded.Server   // nil: external
	conn      *nats.Conn
	machine   *directory.Machine
	log       log
	bus       *bus.Bus
	directory *directory.Directory
	unwatch   func()
	stats     *stats
	lossy     bus.Conn // what wrap returned
	closed    atomic.Bool
}

// Open connects. It does not wait for other nodes, see Joined.
func Open(c Config) (*Cluster, error) {
	n := &Cluster{cfg: c, machine: directory.NewMachine(), stats: newStats()}
	self := directory.Self{Node: c.Node, Member: directory.Member{
		Process: rand.Uint64() | 1,
		Version: c.Version,
	}}
	var err error
	if len(c.NATS) > 0 {
		err = n.openExternal(&self)
	} else {
		err = n.openEmbedded(&self)
	}
	if err == nil {
		var conn bus.Conn = n.conn
		if c.wrap != nil {
			conn = c.wrap(conn)
			n.lossy = conn
		}
		n.bus, err = bus.New(conn, prefix, c.Node)
	}
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	n.directory = directory.Start(self, n.machine, n.log, c.Log)
	n.unwatch = n.machine.Watch(n.learn)
	return n, nil
}

func (n *Cluster) openEmbedded(self *directory.Self) error {
	n.identity = identity.New(n.cfg.Identity)
	host, port, err := net.SplitHostPort(n.cfg.Listen)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := n.tryEmbedded(self, host)
		taken := errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, errLastPort)
		if err == nil || port != "0" || !taken || try == portTries {
			return err
		}
		if err := n.end(); err != nil {
			return err
		}
		n.conn, n.server = nil, nil
	}
}

var errLastPort = errors.New("the next port is needed too: choose one below 65535")

// tryEmbedded starts the servers of this node, on two ports in a row.
func (n *Cluster) tryEmbedded(self *directory.Self, host string) (err error) {
	name := n.cfg.Node + "-" + strconv.FormatUint(self.Process, 16)
	n.server, err = embedded.Start(embedded.Config{
		Name:   name,
		Listen: n.cfg.Listen,
		Peers:  n.cfg.Peers,
		TLS:    n.identity.Config,
		Log:    n.cfg.Log,
	})
	if err != nil {
		return err
	}
	n.conn, err = n.server.Connect(
		nats.Name(name),
		nats.NoEcho(),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond),
		nats.ReconnectBufSize(-1), // what cannot be sent now is lost
		nats.ErrorHandler(n.natsError),
	)
	if err != nil {
		return err
	}
	next := n.server.Addr().Port + 1
	if next > 65535 {
		return errLastPort
	}
	self.Address = net.JoinHostPort(host, strconv.Itoa(next))
	l, err := raftlog.Start(raftlog.Config{
		Node:         n.cfg.Node,
		Process:      self.Process,
		Listen:       self.Address,
		TLS:          n.identity.Config,
		Machine:      n.machine,
		Conn:         n.conn,
		Prefix:       prefix,
		Expect:       n.cfg.Expect,
		Version:      n.cfg.Version,
		Fingerprints: n.cfg.Fingerprints,
		Log:          n.cfg.Log,
	})
	if err == nil {
		n.log = l
	}
	return err
}

// natsError is called for errors that belong to no call.
func (n *Cluster) natsError(_ *nats.Conn, _ *nats.Subscription, err error) {
	n.cfg.Log.Debug("messages between nodes", "error", err)
}

// learn is called with every change of a node.
func (n *Cluster) learn(c engine.Node) {
	n.bus.Learn(c)
	n.stats.learn(c)
	n.cfg.Log.Info("node is "+c.State.String(), "node", c.Name, "incarnation", c.Incarnation)
}

// Bus carries messages between this node and others.
func (n *Cluster) Bus() engine.Bus { return n.bus }

// Directory is what the nodes agree on.
func (n *Cluster) Directory() engine.Directory { return n.directory }

// Joined is closed when this node belongs to the cluster for the first time.
func (n *Cluster) Joined() <-chan struct{} { return n.directory.Joined() }

// Addr is the address for other nodes; empty: external.
func (n *Cluster) Addr() string {
	if n.server == nil {
		return ""
	}
	return n.server.Addr().String()
}

// CutOff tells whether nobody can register here, and not only while another leader is elected.
func (n *Cluster) CutOff() bool {
	select {
	case <-n.Joined():
		return n.log.CutOff()
	default:
		return true
	}
}

// Ready returns why nobody can register here; nil: they can.
func (n *Cluster) Ready() error {
	if n.directory.Quorum() == nil {
		return nil
	}
	var known []string
	for _, c := range n.machine.Nodes() {
		known = append(known, fmt.Sprintf("%s %s", c.Name, c.State))
	}
	if len(known) == 0 {
		if n.server != nil {
			return fmt.Errorf("no quorum: %d nodes are to found the cluster, and this one is "+
				"connected to %d", n.cfg.Expect, n.server.Routes())
		}
		return errors.New("no quorum: NATS JetStream does not answer")
	}
	return fmt.Errorf("no quorum: last known %s", strings.Join(known, ", "))
}

// Reload has new connections between nodes use other certificates.
func (n *Cluster) Reload(m *identity.Material) error {
	if n.identity == nil || m == nil {
		return nil
	}
	n.identity.Set(m)
	return n.server.Reload()
}

// Close has this node leave, so that the others need not wait, and ends everything. When ctx is
// done it leaves without a word.
func (n *Cluster) Close(ctx context.Context) error {
	if err := n.leave(ctx); err != nil {
		n.cfg.Log.Warn("left the cluster without the consent of the others", "error", err)
	}
	return n.close()
}

func (n *Cluster) leave(ctx context.Context) error {
	if n.directory.Quorum() != nil {
		return engine.ErrNoQuorum
	}
	err := n.directory.Announce(ctx, engine.Dead)
	if err != nil && !errors.Is(err, engine.ErrStale) { // it left already
		return err
	}
	return n.log.Leave(ctx)
}

// close ends what there is, once.
func (n *Cluster) close() error {
	if n.closed.Swap(true) {
		return nil
	}
	return n.end()
}

func (n *Cluster) end() error {
	var errs []error
	if n.directory != nil {
		n.directory.Close()
	}
	if n.unwatch != nil {
		n.unwatch()
	}
	if n.bus != nil {
		n.bus.Close()
	}
	if n.log != nil {
		errs = append(errs, n.log.Close())
	}
	if n.conn != nil {
		n.conn.Close()
	}
	if n.server != nil {
		n.server.Close()
	}
	return errors.Join(errs...)
}
