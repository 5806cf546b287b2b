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

// HTTPLimits bound the connections of HTTP servers. WebSockets and polling sessions are not among
// them: ConnLimiter counts those. The zero value of a number means its default.
type HTTPLimits struct {
	Connections    int // in total, default 4096
	PerAddress     int // of one Source, default 256; of a Site four times that
	IdlePerAddress int // of one Source without a request, default 64; of a Site four times that
	// Exempt are proxies. Like those from loopback, their connections count in total only.
	Exempt []netip.Prefix
}

// HTTPConns counts the connections of HTTP servers. At a limit the longest idle one is evicted, and
// without an idle one a slow one. Requests over HTTP/2 are counted like connections.
type HTTPConns struct {
	set      *connSet        // static after construction
	requests *requestLimiter // static after construction
	shed     atomic.Uint64

	mu   sync.Mutex
	open map[net.Conn]*entry // guarded by mu
}

// HTTPStats has the connections now, and how many were evicted or not accepted since the start.
type HTTPStats struct {
	Active, Idle int
	Shed         uint64
}

// Defaults of HTTPLimits.
const (
	defaultHTTPConns      = 4096
	defaultHTTPPerAddress = 256
)

// NewHTTPConns returns an HTTPConns. Watch adds servers to it.
func NewHTTPConns(l HTTPLimits) *HTTPConns {
	h := &HTTPConns{open: map[net.Conn]*entry{}, requests: newRequestLimiter(l)}
	limits := connSetLimits{
		total:         cmp.Or(l.Connections, defaultHTTPConns),
		perSource:     cmp.Or(l.PerAddress, defaultHTTPPerAddress),
		idlePerSource: cmp.Or(l.IdlePerAddress, 64),
		exempt:        l.Exempt,
		slowAfter:     slowAfter,
	}
	h.set = newConnSet(limits, func(e *entry) {
		h.shed.Add(1)
		closeUnderlying(e.conn)
	})
	return h
}

// Stats returns the current counts.
func (h *HTTPConns) Stats() HTTPStats {
	active, idle := h.set.count()
	return HTTPStats{Active: active, Idle: idle, Shed: h.shed.Load()}
}

// Watch applies the limits to what srv accepts from now on. Call it before srv serves, and after
// srv.ConnContext and srv.Handler have been set.
func (h *HTTPConns) Watch(srv *http.Server) {
	next := srv.ConnContext
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if e := h.add(c); e != nil {
			ctx = context.WithValue(ctx, requestConnKey{}, requestConn{h, e})
		}
		if next != nil {
			ctx = next(ctx, c)
		}
		return ctx
	}
	srv.ConnState = h.onState
	srv.Handler = h.requests.limit(srv.Handler)
}

// add counts a connection, or closes it and returns nil.
func (h *HTTPConns) add(c net.Conn) *entry {
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

// onState is http.Server.ConnState. An HTTP/2 connection is active while one of its requests is.
func (h *HTTPConns) onState(c net.Conn, state http.ConnState) {
	h.mu.Lock()
	e := h.open[c]
	if state == http.StateHijacked || state == http.StateClosed {
		delete(h.open, c)
	}
	h.mu.Unlock()
	switch {
	case e == nil:
	case state == http.StateActive:
		h.set.setState(e, activeList)
	case state == http.StateIdle:
		h.set.setState(e, idleList)
	case state == http.StateHijacked, state == http.StateClosed:
		h.set.remove(e)
	}
}

type requestConnKey struct{}

// requestConn is how a request finds the entry of its connection.
type requestConn struct {
	conns *HTTPConns
	entry *entry
}

// SuspendLimit exempts the connection of a request that waits, a poll, from the limits until resume
// is called: its session is counted by a ConnLimiter.
func SuspendLimit(r *http.Request) (resume func()) {
	c, ok := r.Context().Value(requestConnKey{}).(requestConn)
	if !ok {
		return func() {}
	}
	c.conns.set.suspend(c.entry)
	if r.ProtoMajor < 2 {
		return func() { c.conns.set.resume(c.entry) }
	}
	c.conns.requests.add(c.entry.source, -1)
	return func() {
		c.conns.set.resume(c.entry)
		c.conns.requests.add(c.entry.source, 1)
	}
}

// closeUnderlying closes the socket itself. Close of a TLS connection would send an alert first,
// and wait for a client that does not read.
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
