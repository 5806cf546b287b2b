package signaling

import (
	"sync"

	"github.com/ieum-rtc/ieum/internal/room"
)

// owners are the terms of the rooms that this node holds.
type owners struct {
	mu    sync.RWMutex
	terms map[room.Key]uint64 // Guarded by mu.
}

// term returns the term with which this node holds the room; ok is false if it does not.
func (o *owners) term(key room.Key) (term uint64, ok bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	term, ok = o.terms[key]
	return term, ok
}

// last is this node as the owner of a room, with the last term that it knows of.
func (o *owners) last(key room.Key, node string) Owner {
	term, _ := o.term(key)
	return Owner{Node: node, Term: term}
}

func (o *owners) hold(key room.Key, term uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.terms == nil {
		o.terms = map[room.Key]uint64{}
	}
	o.terms[key] = term
}

// release forgets a room, and returns as what this node held it.
func (o *owners) release(key room.Key, node string) Owner {
	o.mu.Lock()
	defer o.mu.Unlock()
	term := o.terms[key]
	delete(o.terms, key)
	return Owner{Node: node, Term: term}
}
