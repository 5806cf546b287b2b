package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
)

// balancer passes requests to the nodes in rotation, and skips those that do not accept
// connections. It is not sticky: what is polled must go elsewhere.
type balancer struct {
	nodes  []*node
	next   atomic.Uint64 // of connections that stay: WebSockets
	dialer net.Dialer
}

type nodeKey struct{}

var errNobody = errors.New("no node accepts connections")

func newBalancer(nodes []*node) http.Handler {
	b := &balancer{nodes: nodes}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "nodes"})
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport: &http.Transport{DialContext: b.dial, DisableKeepAlives: true},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := 0
		if r.Header.Get("Upgrade") != "" {
			first = int(b.next.Add(1) % uint64(len(nodes)))
		}
		proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), nodeKey{}, first)))
	})
}

// dial connects to the first node from the request's place on that accepts.
func (b *balancer) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	first, _ := ctx.Value(nodeKey{}).(int)
	for i := range b.nodes {
		n := b.nodes[(first+i)%len(b.nodes)]
		if c, err := b.dialer.DialContext(ctx, network, n.host); err == nil {
			return c, nil
		}
	}
	return nil, errNobody
}
