package cluster

import (
	"encoding/binary"
	"strings"
	"sync"
	"testing"

	"github.com/ieum-rtc/ieum/internal/cluster/bus"
	"github.com/ieum-rtc/ieum/internal/signaling/enginetest"
)

func TestEmbeddedIsABus(t *testing.T) { suite().TestBus(t) }

// lossy loses what a test wants lost.
type lossy struct {
	bus.Conn
	mu   sync.Mutex
	next map[string]int  // Guarded by mu: frames to lose, by the name of the receiver.
	cut  map[string]bool // Guarded by mu.
}

func newLossy(c bus.Conn) bus.Conn {
	return &lossy{Conn: c, next: map[string]int{}, cut: map[string]bool{}}
}

// Publish implements bus.Conn.
func (l *lossy) Publish(subject string, packet []byte) error {
	to := strings.Split(subject, ".")[2]
	var kept []byte
	for len(packet) > 0 {
		end := 4 + int(binary.BigEndian.Uint32(packet))
		if !l.loses(to, packet[4:end]) {
			kept = append(kept, packet[:end]...)
		}
		packet = packet[end:]
	}
	if kept == nil {
		return nil
	}
	return l.Conn.Publish(subject, kept)
}

// loses decides about one frame.
func (l *lossy) loses(to string, frame []byte) bool {
	const lastNumbered = 5 // kinds of frames up to this one have a number
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.cut[to] && l.next[to] > 0 && frame[1] <= lastNumbered {
		l.next[to]--
		return true
	}
	return l.cut[to]
}

// disturbed are nodes of a suite, with what a test does to them.
func disturbed(t *testing.T, nodes []*Cluster, again func(i int) *Cluster) *enginetest.Cluster {
	t.Helper()
	c := &enginetest.Cluster{}
	for _, n := range nodes {
		c.Names = append(c.Names, n.cfg.Node)
		c.Buses = append(c.Buses, n.Bus())
		c.Directories = append(c.Directories, n.Directory())
	}
	lossyOf := func(i int) *lossy { return nodes[i].lossy.(*lossy) }
	c.Lose = func(from, to, frames int) {
		l := lossyOf(from)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.next[c.Names[to]] += frames
	}
	c.Cut = func(from, to int, cut bool) {
		l := lossyOf(from)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.cut[c.Names[to]] = cut
	}
	c.Kill = func(i int) { crash(t, nodes[i]) }
	c.Restart = func(t *testing.T, i int) {
		t.Helper()
		crash(t, nodes[i])
		nodes[i] = again(i)
		awaitJoined(t, nodes[i])
		c.Buses[i], c.Directories[i] = nodes[i].Bus(), nodes[i].Directory()
	}
	c.Settle = func(t *testing.T) {
		t.Helper()
		for _, n := range nodes {
			await(t, func() bool { return n.closed.Load() || n.Ready() == nil })
		}
	}
	return c
}
