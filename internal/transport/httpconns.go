package transport

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
)

// HTTPLimits bound the connections of HTTP servers: those that are neither WebSockets nor poll a session, which Gate counts. The zero
// value of a number means its default.
type HTTPLimits struct {
	Connections    int // in all, default 4,096
	PerAddress     int // of one Source, default 256; of a site with many sources four times that
	IdlePerAddress int // of one Source without a request, default 64; of a site four times that
	// Exempt are proxies with everybody behind them, of which only the limit in all counts, as of loopback.
	Exempt []netip.Prefix
}

// HTTPConns are the connections of HTTP servers. One too many costs the longest idle its place, and when none is idle a slow one.
type HTTPConns struct {
	set  *connSet
	shed atomic.Uint64

	mu   sync.Mutex
	open map[net.Conn]*entry
}

// HTTPStats are the connections now, and how many had to go or were not taken in since the start.
type HTTPStats struct {
	Active, Idle int
	Shed         uint64
}

// NewHTTPConns counts connections of the servers that it is to watch.
func NewHTTPConns(l HTTPLimits) *HTTPConns {
	h := &HTTPConns{open: map[net.Conn]*entry{}}
	h.set = newConnSet(cmp.Or(l.Connections, 4096), cmp.Or(l.PerAddress, 256), cmp.Or(l.IdlePerAddress, 64), l.Exempt, slowAfter, func(e *entry) {
		h.shed.Add(1)
		closeUnderlying(e.conn)
	})
	return h
}

// Stats is a snapshot.
func (h *HTTPConns) Stats() HTTPStats {
	busy, spare := h.set.count()
	return HTTPStats{Active: busy, Idle: spare, Shed: h.shed.Load()}
}

// Watch bounds what srv accepts from now on. It is to be called before srv serves, and after its ConnContext has been set.
func (h *HTTPConns) Watch(srv *http.Server) {
	next := srv.ConnContext
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if e := h.enter(c); e != nil {
			ctx = context.WithValue(ctx, requestConnKey{}, requestConn{h.set, e})
		}
		if next != nil {
			ctx = next(ctx, c)
		}
		return ctx
	}
	srv.ConnState = h.onState
}

// enter counts a connection, or closes it.
func (h *HTTPConns) enter(c net.Conn) *entry {
	e := h.set.add(c, idleList)
	if e == nil {
		h.shed.Add(1)
		closeUnderlying(c)
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open[c] = e
	return e
}

// state follows a connection. Over HTTP/2 it is active while one of its requests is.
func (h *HTTPConns) onState(c net.Conn, to http.ConnState) {
	h.mu.Lock()
	e := h.open[c]
	if to == http.StateHijacked || to == http.StateClosed {
		delete(h.open, c)
	}
	h.mu.Unlock()
	switch {
	case e == nil:
	case to == http.StateActive:
		h.set.setState(e, activeList)
	case to == http.StateIdle:
		h.set.setState(e, idleList)
	case to == http.StateHijacked, to == http.StateClosed:
		h.set.remove(e)
	}
}

type requestConnKey struct{}

// counted is how a request finds its connection.
type requestConn struct {
	set   *connSet
	entry *entry
}

// SuspendLimit takes the connection of a request that waits for something out of the limits until over is called: its session is counted by
// a Gate, and waiting is what it is there for.
func SuspendLimit(r *http.Request) (over func()) {
	c, ok := r.Context().Value(requestConnKey{}).(requestConn)
	if !ok {
		return func() {}
	}
	c.set.suspend(c.entry)
	return func() { c.set.resume(c.entry) }
}

// closeBelow closes the socket itself: TLS would say goodbye first, and wait for a client that does not read.
func closeUnderlying(c net.Conn) {
	for {
		over, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			_ = c.Close()
			return
		}
		c = over.NetConn()
	}
}
