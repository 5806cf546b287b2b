package signaling

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// nodes are the states of all nodes, as the directory has told them.
type nodes struct {
	mu    sync.RWMutex
	known map[string]nodeState // Guarded by mu.
}

type nodeState struct {
	engine.Node
	since time.Time
}

func (n *nodes) isDead(name string) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.known[name].State == engine.Dead
}

// diedWithin tells whether the node is dead, since less than a time.
func (n *nodes) diedWithin(name string, d time.Duration) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	node := n.known[name]
	return node.State == engine.Dead && time.Since(node.since) < d
}

// dead are the names of all nodes that are.
func (n *nodes) dead() (names []string) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for name, node := range n.known {
		if node.State == engine.Dead {
			names = append(names, name)
		}
	}
	return names
}

// others are the names of all other nodes that are up.
func (n *nodes) others(than ...string) (names []string) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for name, node := range n.known {
		if node.State != engine.Dead && !slices.Contains(than, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// node is the state of a node; the zero Node: it never joined.
func (n *nodes) node(name string) engine.Node {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.known[name].Node
}

func (n *nodes) incarnation(name string) uint64 { return n.node(name).Incarnation }

// successor is the node that has the replicas of another, and goes on with its rooms when it dies;
// "": there is none. All nodes that know the same states name the same one, and most nodes keep
// theirs when another comes or goes (rendezvous hashing).
func (n *nodes) successor(of string) (successor string) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var best uint64
	for name, node := range n.known {
		if name == of || node.State == engine.Dead {
			continue
		}
		sum := sha256.Sum256([]byte(of + "\x00" + name))
		weight := binary.BigEndian.Uint64(sum[:]) >> 1
		if node.State == engine.Up { // before those that are draining
			weight |= 1 << 63
		}
		if successor == "" || weight > best {
			successor, best = name, weight
		}
	}
	return successor
}

// note keeps the state of a node, and returns the one before.
func (n *nodes) note(now engine.Node) (before engine.Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before = n.known[now.Name].Node
	if n.known == nil {
		n.known = map[string]nodeState{}
	}
	n.known[now.Name] = nodeState{now, time.Now()}
	return before
}

// onNode is told of the states of nodes by the directory, and must not wait.
func (h *Hub) onNode(now engine.Node) {
	before := h.nodes.note(now)
	if before == now {
		return
	}
	again := before.Incarnation != 0 && before.Incarnation != now.Incarnation
	if now.Name == h.cfg.Node {
		h.chooseSuccessor(before.Incarnation != now.Incarnation)
		if again {
			h.rejoined()
		}
		return
	}
	h.chooseSuccessor(false)
	h.cfg.Log.Info("node", "node", h.cfg.Node, "name", now.Name, "state", now.State.String(),
		"incarnation", now.Incarnation)
	switch former := (nodeLife{before.Name, before.Incarnation}); {
	case now.State == engine.Dead:
		h.nodeDied(nodeLife{now.Name, now.Incarnation})
	case again && before.State != engine.Dead: // another process, which restores what it can
		h.replicas.forget(former.node, former.incarnation)
		h.releaseLater(former)
	}
}
