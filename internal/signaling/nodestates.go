package signaling

import (
	"slices"
	"sync"

	"github.com/ieum-rtc/ieum/internal/signaling/engine"
)

// nodes are the states of all nodes, as the directory has told them.
type nodes struct {
	mu    sync.RWMutex
	known map[string]engine.Node // Guarded by mu.
}

func (n *nodes) isDead(name string) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.known[name].State == engine.Dead
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

// note keeps the state of a node, and returns the one before.
func (n *nodes) note(now engine.Node) (before engine.Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before = n.known[now.Name]
	if n.known == nil {
		n.known = map[string]engine.Node{}
	}
	n.known[now.Name] = now
	return before
}

// onNode is told of the states of nodes by the directory, and must not wait.
func (h *Hub) onNode(now engine.Node) {
	before := h.nodes.note(now)
	if before != now && now.Name != h.cfg.Node {
		h.cfg.Log.Info("node", "node", h.cfg.Node, "name", now.Name, "state", now.State.String(),
			"incarnation", now.Incarnation)
	}
}
