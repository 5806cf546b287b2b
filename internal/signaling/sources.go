package signaling

import (
	"encoding/base64"
	"net/netip"
	"sync"
	"sync/atomic"
)

// sources counts the sessions of each address, of those whose license admits without a user token: a visitor with a license out of a
// page could else take all places that it has. A session counts for where it registered until it ends, wherever it resumes.
type sources struct {
	limit int           // negative: none
	hits  atomic.Uint64 // refusals

	mu     sync.Mutex
	counts map[userKey]int // tenant, and sourceName of the address
}

// add counts a session, and tells whether it is within the limit.
func (c *sources) add(k userKey) bool {
	if k.id == "" {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[userKey]int{}
	}
	c.counts[k]++
	return c.limit < 0 || c.counts[k] <= c.limit
}

func (c *sources) remove(k userKey) {
	if k.id == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts[k]--; c.counts[k] == 0 {
		delete(c.counts, k)
	}
}

// sourceName stands for an address where it is kept. Nobody learns the address from it; empty: limits by address do not count it.
func (h *Hub) sourceName(source netip.Prefix) string {
	if !source.IsValid() {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(mac(h.keys.Load().resume[0], "source "+source.String())[:9])
}

// sourceKey is whom limits by address count.
func (s *session) sourceKey() userKey { return userKey{s.tenant, s.source} }
