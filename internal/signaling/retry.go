package signaling

import (
	"context"
	"errors"
	"sync"
	"time"
)

// requestTimeout bounds what a request may ask of other nodes.
const requestTimeout = 5 * time.Second

// Pauses between attempts, which double.
const (
	firstRetry = 20 * time.Millisecond
	lastRetry  = time.Second
)

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// retries are things that must be done and could not be: other nodes have to be told of what ended
// here, and cannot be reached. The zero value is ready.
type retries struct {
	mu     sync.Mutex
	keys   map[string]bool // Guarded by mu. What is being retried; true: once more after that.
	closed bool            // Guarded by mu.
	wg     sync.WaitGroup
}

// retry calls f until it returns nil or the hub closes. With the key of something that is being
// retried, that is done once more.
func (h *Hub) retry(key string, f func(context.Context) error) {
	h.retryAfter(firstRetry, key, f)
}

// retryNow is retry that begins at once, in a goroutine of its own.
func (h *Hub) retryNow(key string, f func(context.Context) error) { h.retryAfter(0, key, f) }

func (h *Hub) retryAfter(pause time.Duration, key string, f func(context.Context) error) {
	r := &h.retries
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if _, running := r.keys[key]; running {
		r.keys[key] = true
		return
	}
	if r.keys == nil {
		r.keys = map[string]bool{}
	}
	r.keys[key] = false
	r.wg.Go(func() {
		h.repeat(pause, f)
		for r.again(key) {
			h.repeat(0, f)
		}
	})
}

// again tells whether the key was asked for once more; otherwise it is done with.
func (r *retries) again(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys[key] && !r.closed {
		r.keys[key] = false
		return true
	}
	delete(r.keys, key)
	return false
}

func (h *Hub) repeat(pause time.Duration, f func(context.Context) error) {
	for ; ; pause = min(max(2*pause, firstRetry), lastRetry) {
		select {
		case <-h.ctx.Done():
			return
		case <-time.After(pause):
		}
		ctx, cancel := context.WithTimeout(h.ctx, requestTimeout)
		err := f(ctx)
		cancel()
		if err == nil {
			return
		}
	}
}

// close lets nothing new begin and waits for the rest.
func (r *retries) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.wg.Wait()
}
