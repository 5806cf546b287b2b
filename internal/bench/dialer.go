package bench

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"sync/atomic"

	"github.com/lxzan/gws"
)

// dialer opens connections to one server.
type dialer struct {
	insecure bool // take any certificate
	sources  int  // addresses of loopback that connections come from in turn; at most one: what the system takes

	dialed atomic.Uint32
}

// source is the nth address that connections come from: 127.0.0.2, 127.0.0.3 and so on. Linux answers to all of 127.0.0.0/8.
func source(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x7F000002+n)))
}

// maxSources leaves those alone whose last part is 255 at the end of the range; more would be no more of a test.
const maxSources = 65_000

// tcp connects, without TLS.
func (d *dialer) tcp(ctx context.Context, to *url.URL) (net.Conn, error) {
	var from net.Dialer
	if d.sources > 1 {
		n := (d.dialed.Add(1) - 1) % uint32(d.sources)
		from.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source(n), 0))
	}
	host := to.Host
	if to.Port() == "" {
		host = net.JoinHostPort(to.Hostname(), map[string]string{"ws": "80", "wss": "443"}[to.Scheme])
	}
	return from.DialContext(ctx, "tcp", host)
}

// secure puts TLS onto a connection where the URL says so. tickets, if any, are what earlier connections of the same client left.
func (d *dialer) secure(ctx context.Context, to *url.URL, nc net.Conn, tickets tls.ClientSessionCache) (net.Conn, error) {
	if to.Scheme != "wss" {
		return nc, nil
	}
	c := tls.Client(nc, &tls.Config{ServerName: to.Hostname(), InsecureSkipVerify: d.insecure, ClientSessionCache: tickets})
	if err := c.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return c, nil
}

// websocket connects and upgrades. Whoever calls it runs the connection's ReadLoop.
func (d *dialer) websocket(ctx context.Context, to *url.URL, events gws.Event, tickets tls.ClientSessionCache) (*gws.Conn, error) {
	nc, err := d.tcp(ctx, to)
	if err != nil {
		return nil, err
	}
	if nc, err = d.secure(ctx, to, nc, tickets); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	conn, resp, err := gws.NewClientFromConn(events, &gws.ClientOption{
		Addr: to.String(), ReadBufferSize: 2048, ReadMaxPayloadSize: 1 << 20, HandshakeTimeout: enterWithin,
	}, nc)
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("upgrade: %w", err) // gws has closed nc
	}
	return conn, nil
}
