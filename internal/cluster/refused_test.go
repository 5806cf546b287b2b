package cluster

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/ieum-rtc/ieum/internal/cluster/identity"
	"github.com/ieum-rtc/ieum/internal/logtest"
)

// A node with another secret gets no connection, and the log of the node that refused it says so.
func TestANodeWithAnotherSecretIsRefusedAndLogged(t *testing.T) {
	var logged logtest.Buffer
	node := func(name, secret string, expect int, log *slog.Logger, peers ...string) *Cluster {
		m, err := identity.FromSecret([]byte(strings.Repeat(secret, identity.MinSecret)))
		if err != nil {
			t.Fatal(err)
		}
		c, err := Open(Config{
			Node:         name,
			Listen:       "127.0.0.1:0",
			Peers:        peers,
			Expect:       expect,
			Identity:     m,
			Fingerprints: func() []string { return []string{"key"} },
			Log:          log,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { crash(t, c) })
		return c
	}
	a := node("a", "x", 1, slog.New(slog.NewTextHandler(&logged, nil)))
	foreign := node("b", "y", 2, slog.New(slog.DiscardHandler), a.Addr())
	await(t, func() bool {
		return strings.Contains(logged.String(), "node refused: it does not prove to belong")
	})
	if a.server.Routes() != 0 || foreign.server.Routes() != 0 {
		t.Error("it has a connection")
	}
	// With the right secret, which is read again while the node runs, it belongs to the cluster.
	m, err := identity.FromSecret([]byte(strings.Repeat("x", identity.MinSecret)))
	if err != nil {
		t.Fatal(err)
	}
	if err := foreign.Reload(m); err != nil {
		t.Fatal(err)
	}
	awaitJoined(t, foreign)
}
