package client

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

// Dialer opens connections to one server. Its methods may be called concurrently.
type Dialer struct {
	// Static after construction.
	insecure bool // accept any certificate
	sources  int  // loopback addresses to connect from, in rotation; 0 or 1: the system's choice

	dialed atomic.Uint32
}

// source is the nth address to connect from: 127.0.0.2, 127.0.0.3 and so on. Linux answers to all
// of 127.0.0.0/8.
func source(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x7F000002+n)))
}

// maxSources stays within 127.0.0.0/16.
const maxSources = 65_000

// TCP connects, without TLS.
func (d *Dialer) TCP(ctx context.Context, to *url.URL) (net.Conn, error) {
	var from net.Dialer
	if d.sources > 1 {
		n := (d.dialed.Add(1) - 1) % uint32(d.sources)
		from.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source(n), 0))
	}
	host := to.Host
	if to.Port() == "" {
		port := map[string]string{"ws": "80", "wss": "443"}[to.Scheme]
		host = net.JoinHostPort(to.Hostname(), port)
	}
	return from.DialContext(ctx, "tcp", host)
}

// TLS adds TLS to a connection if the URL asks for it, and closes nc when it fails. The session
// tickets, if any, are those that earlier connections of the same client received.
func (d *Dialer) TLS(
	ctx context.Context, to *url.URL, nc net.Conn, tickets tls.ClientSessionCache,
) (net.Conn, error) {
	if to.Scheme != "wss" {
		return nc, nil
	}
	c := tls.Client(nc, &tls.Config{
		ServerName:         to.Hostname(),
		InsecureSkipVerify: d.insecure,
		ClientSessionCache: tickets,
	})
	if err := c.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return c, nil
}

// WebSocket connects and upgrades. The caller runs the connection's ReadLoop.
func (d *Dialer) WebSocket(
	ctx context.Context, to *url.URL, events gws.Event, tickets tls.ClientSessionCache,
) (*gws.Conn, error) {
	nc, err := d.TCP(ctx, to)
	if err != nil {
		return nil, err
	}
	if nc, err = d.TLS(ctx, to, nc, tickets); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	conn, resp, err := gws.NewClientFromConn(events, &gws.ClientOption{
		Addr:               to.String(),
		ReadBufferSize:     2048,
		ReadMaxPayloadSize: 1 << 20,
		HandshakeTimeout:   SetupTimeout,
	}, nc)
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("upgrade: %w", err) // gws has closed nc
	}
	return conn, nil
}
