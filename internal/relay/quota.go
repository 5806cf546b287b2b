package relay

import "sync"

// quota counts what each session holds. A slot is taken when the library asks whether one more is allowed and given back by the
// relay socket, or at once when no socket could be made: nothing between the two can fail (see inspect, which refuses a lifetime
// of zero for this reason).
type quota struct {
	limit int

	mu   sync.Mutex
	held map[string]int // guarded by mu; has only sessions that hold something
}

func (q *quota) take(session string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[session] >= q.limit {
		return false
	}
	q.held[session]++
	return true
}

func (q *quota) give(session string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[session]--; q.held[session] <= 0 {
		delete(q.held, session)
	}
}
