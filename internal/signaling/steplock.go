package signaling

import "sync"

// stepLock is a mutex that is held while other nodes are asked: the first to wait is the first to
// have it. It is waited for on a channel, so that virtual time goes on in tests. The zero value is
// unlocked.
type stepLock struct {
	mu   sync.Mutex
	held bool      // Guarded by mu.
	next *stepWait // Guarded by mu: who waits, in order.
}

type stepWait struct {
	turn chan struct{}
	next *stepWait
}

func (l *stepLock) Lock() {
	l.mu.Lock()
	if !l.held {
		l.held = true
		l.mu.Unlock()
		return
	}
	w := &stepWait{turn: make(chan struct{})}
	at := &l.next
	for *at != nil {
		at = &(*at).next
	}
	*at = w
	l.mu.Unlock()
	<-w.turn
}

func (l *stepLock) Unlock() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.next; w != nil { // it stays locked, for w
		l.next = w.next
		close(w.turn)
		return
	}
	l.held = false
}
