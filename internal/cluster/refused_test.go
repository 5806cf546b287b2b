package cluster

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/ieum-rtc/ieum/internal/cluster/identity"
)

// logBuffer is a log that a test reads while nodes write.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) has(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Contains(b.text.String(), text)
}

// A node with another secret gets no connection, and the log of the node that refused it says so.
func TestANodeWithAnotherSecretIsRefusedAndLogged(t *testing.T) {
	var logged logBuffer
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
	await(t, func() bool { return logged.has("node refused: it does not prove to belong") })
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
