package cluster

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
	"github.com/ieum-rtc/ieum/internal/signaling/enginetest"
)

// natsServer is a NATS server with JetStream, which tests stop and start again.
type natsServer struct {
	testing.TB
	dir  string
	port int
	nats *server.Server
}

func startNATS(t testing.TB) *natsServer {
	t.Helper()
	s := &natsServer{TB: t, dir: t.TempDir(), port: server.RANDOM_PORT}
	s.start()
	s.port = s.nats.Addr().(*net.TCPAddr).Port
	t.Cleanup(s.stop)
	return s
}

func (s *natsServer) start() {
	s.Helper()
	n, err := server.NewServer(&server.Options{
		Host:      "127.0.0.1",
		Port:      s.port,
		JetStream: true,
		StoreDir:  s.dir,
		NoSigs:    true,
		NoLog:     true,
	})
	if err != nil {
		s.Fatal(err)
	}
	s.nats = n
	n.Start()
	if !n.ReadyForConnections(10 * time.Second) {
		s.Fatal("NATS has not started")
	}
}

func (s *natsServer) stop() {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}

func (s *natsServer) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.port) }

// openAt starts a node that meets others at a NATS server.
func openAt(t testing.TB, s *natsServer, name, key string) *Cluster {
	t.Helper()
	c, err := Open(Config{
		Node:         name,
		NATS:         []string{s.url()},
		Version:      "test",
		Fingerprints: func() []string { return []string{key} },
		Log:          testLog(t, name),
		wrap:         newLossy,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { crash(t, c) })
	return c
}

// startExternal starts nodes and waits until they are up.
func startExternal(t testing.TB, s *natsServer, nodes int) []*Cluster {
	t.Helper()
	var all []*Cluster
	for i := range nodes {
		all = append(all, openAt(t, s, fmt.Sprint("n", i), "key"))
	}
	for _, c := range all {
		awaitJoined(t, c)
		await(t, func() bool { return c.Ready() == nil })
	}
	return all
}

func externalSuite() enginetest.Suite {
	return enginetest.Suite{Start: func(t *testing.T, nodes int) *enginetest.Cluster {
		t.Helper()
		s := startNATS(t)
		return disturbed(t, startExternal(t, s, nodes), func(i int) *Cluster {
			return openAt(t, s, fmt.Sprint("n", i), "key")
		})
	}}
}

func TestExternalIsABus(t *testing.T) { externalSuite().TestBus(t) }

func TestExternalIsADirectory(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		externalSuite().TestDirectory(t, nodes)
	}
}

func claims(t *testing.T, c *Cluster, user string, epoch uint64) engine.Location {
	t.Helper()
	l := engine.Location{Node: c.cfg.Node, Session: "s-" + user, Epoch: epoch}
	got, err := c.Directory().ClaimUser(within(t, 15*time.Second), "t", user, l, 1<<30)
	if err != nil {
		t.Fatalf("%s claims %s: %v", c.cfg.Node, user, err)
	}
	return got
}

func holds(t *testing.T, c *Cluster, user string, want engine.Location) {
	t.Helper()
	got, err := c.Directory().Holder(within(t, 15*time.Second), "t", user)
	if err != nil || got != want {
		t.Fatalf("%s: %+v holds %s, %v; want %+v", c.cfg.Node, got, user, err, want)
	}
}

// states notes every state of a node that a Watch tells.
func states(t *testing.T, c *Cluster) (all func() []engine.Node) {
	t.Helper()
	var mu sync.Mutex
	var seen []engine.Node
	t.Cleanup(c.Directory().Watch(func(n engine.Node) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, n)
	}))
	return func() []engine.Node {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

// While NATS is away nothing is decided. When it is there again all nodes are, with what they held,
// and none counted as dead meanwhile.
func TestNATSStartsAgain(t *testing.T) {
	s := startNATS(t)
	nodes := startExternal(t, s, 3)
	held := claims(t, nodes[0], "u", 0)
	seen := states(t, nodes[1])
	s.stop()
	for _, c := range nodes {
		await(t, c.CutOff)
		_, err := c.Directory().ClaimUser(within(t, 15*time.Second), "t", "v",
			engine.Location{Node: c.cfg.Node, Session: "s"}, 10)
		if !errors.Is(err, engine.ErrNoQuorum) {
			t.Errorf("%s has a claim decided: %v", c.cfg.Node, err)
		}
	}
	s.start()
	for _, c := range nodes {
		await(t, func() bool { return c.Ready() == nil })
		holds(t, c, "u", held)
	}
	if n := claims(t, nodes[2], "v", 0); n.Epoch <= held.Epoch {
		t.Errorf("epoch %d after %d", n.Epoch, held.Epoch)
	}
	for _, n := range seen() {
		if n.State != engine.Up {
			t.Errorf("%s counted as %s", n.Name, n.State)
		}
	}
}

// A server that comes back without its files knows nothing. The nodes begin again, and claim what
// they hold with the epochs that it has; numbers do not go back.
func TestTheStreamIsLost(t *testing.T) {
	s := startNATS(t)
	nodes := startExternal(t, s, 2)
	var held engine.Location
	for i := range 50 {
		held = claims(t, nodes[0], fmt.Sprint("u", i), 0)
	}
	s.stop()
	s.dir = t.TempDir()
	s.start()
	for _, c := range nodes {
		await(t, func() bool {
			return c.machine.Counts().Users == 0 && len(c.machine.Nodes()) == 2 && c.Ready() == nil
		})
	}
	holds(t, nodes[1], "u49", engine.Location{})
	if other := claims(t, nodes[1], "v", 0); other.Epoch <= held.Epoch {
		t.Errorf("epoch %d after %d", other.Epoch, held.Epoch)
	}
	if again := claims(t, nodes[0], "u49", held.Epoch); again != held {
		t.Errorf("%+v, want %+v", again, held)
	}
}

// A node that comes late gets the state, of which the stream has only the end.
func TestTheStreamIsCutBehindASnapshot(t *testing.T) {
	s := startNATS(t)
	nodes := startExternal(t, s, 1)
	first := claims(t, nodes[0], "first", 0)
	js, err := jetstream.New(nodes[0].conn)
	if err != nil {
		t.Fatal(err)
	}
	begins := func() uint64 {
		stream, err := js.Stream(within(t, 15*time.Second), prefix)
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().State.FirstSeq
	}
	var writers sync.WaitGroup
	for w := range 64 {
		writers.Go(func() {
			for i := range 160 {
				user := fmt.Sprint("u", w, "-", i)
				l := engine.Location{Node: nodes[0].cfg.Node, Session: user}
				_, err := nodes[0].Directory().ClaimUser(t.Context(), "t", user, l, 1<<30)
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	await(t, func() bool { return begins() > 1 })
	late := openAt(t, s, "n9", "key")
	awaitJoined(t, late)
	holds(t, late, "first", first)
	if n := late.machine.Counts(); n != nodes[0].machine.Counts() {
		t.Errorf("%+v, the other node has %+v", n, nodes[0].machine.Counts())
	}
}

func TestForeignNodesDoNotJoinOverNATS(t *testing.T) {
	s := startNATS(t)
	nodes := startExternal(t, s, 1)
	foreign := openAt(t, s, "n8", "another key")
	own := openAt(t, s, "n7", "key")
	awaitJoined(t, own)
	// Both have had as much time.
	select {
	case <-foreign.Joined():
		t.Error("a node with another license signing key has joined")
	case <-time.After(time.Second):
	}
	if n := nodes[0].machine.Nodes(); len(n) != 2 {
		t.Errorf("nodes %v", n)
	}
}
