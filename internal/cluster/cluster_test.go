package cluster

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/cluster/identity"
	"github.com/ieum-rtc/ieum/internal/signaling/enginetest"
)

var secret = []byte(strings.Repeat("a secret ", 5))

func testLog(t testing.TB, node string) *slog.Logger {
	t.Helper()
	if os.Getenv("IEUM_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).
		With("at", node)
}

// open starts a node.
func open(t testing.TB, name string, expect int, peers ...string) *Cluster {
	t.Helper()
	return openWith(t, name, expect, "key", peers...)
}

// openWith starts a node with a license signing key.
func openWith(t testing.TB, name string, expect int, key string, peers ...string) *Cluster {
	t.Helper()
	m, err := identity.FromSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(Config{
		Node:         name,
		Listen:       "127.0.0.1:0",
		Peers:        peers,
		Expect:       expect,
		Identity:     m,
		Version:      "test",
		Fingerprints: func() []string { return []string{key} },
		Log:          testLog(t, name),
		wrap:         newLossy,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// start starts nodes that know each other by the first one, and waits until they are up.
func start(t testing.TB, nodes int) []*Cluster {
	t.Helper()
	var all []*Cluster
	var peers []string
	for i := range nodes {
		c := open(t, fmt.Sprint("n", i), nodes, peers...)
		if i == 0 {
			peers = []string{c.Addr()}
		}
		t.Cleanup(func() { crash(t, c) })
		all = append(all, c)
	}
	for _, c := range all {
		awaitJoined(t, c)
	}
	for _, c := range all {
		await(t, func() bool { return c.Ready() == nil })
	}
	return all
}

// crash ends a node as if its process were killed: the others are not told.
func crash(t testing.TB, c *Cluster) {
	t.Helper()
	if err := c.close(); err != nil {
		t.Error(err)
	}
}

func awaitJoined(t testing.TB, c *Cluster) {
	t.Helper()
	select {
	case <-c.Joined():
	case <-time.After(20 * time.Second):
		t.Fatalf("%s has not joined: %v", c.cfg.Node, c.Ready())
	}
}

func await(t testing.TB, f func() bool) {
	t.Helper()
	for range 2000 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it does not come true")
}

func suite() enginetest.Suite {
	return enginetest.Suite{Start: func(t *testing.T, nodes int) *enginetest.Cluster {
		t.Helper()
		all := start(t, nodes)
		return disturbed(t, all, func(i int) *Cluster {
			other := all[(i+1)%len(all)]
			c := open(t, all[i].cfg.Node, nodes, other.Addr())
			t.Cleanup(func() { crash(t, c) })
			return c
		})
	}}
}

func TestEmbeddedIsADirectory(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		suite().TestDirectory(t, nodes)
	}
}
