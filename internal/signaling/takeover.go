package signaling

import (
	"sync"
	"time"
)

// A user may be taken over three times a minute, counted by the node that is asked to.
const (
	takeoverLimit  = 3
	takeoverWindow = time.Minute
	// maxTakeovers bounds the users that are remembered; beyond it nobody is taken over.
	maxTakeovers = 100_000
)

// takeovers remembers when users were last taken over. The zero value is ready.
type takeovers struct {
	mu     sync.Mutex
	recent map[userKey][]time.Time // takeoverLimit times each at most, oldest first
	swept  time.Time
}

// allow notes a takeover and tells whether it may happen.
func (t *takeovers) allow(user userKey, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.recent == nil {
		t.recent = map[userKey][]time.Time{}
	}
	old := func(at time.Time) bool { return now.Sub(at) >= takeoverWindow }
	if old(t.swept) {
		for u, times := range t.recent {
			if old(times[len(times)-1]) {
				delete(t.recent, u)
			}
		}
		t.swept = now
	}
	times := t.recent[user]
	switch {
	case len(times) == 0 && len(t.recent) >= maxTakeovers:
		return false
	case len(times) < takeoverLimit:
		t.recent[user] = append(times, now)
		return true
	case !old(times[0]):
		return false
	}
	copy(times, times[1:])
	times[takeoverLimit-1] = now
	return true
}
