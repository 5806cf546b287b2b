package node

import (
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	"github.com/ieum-rtc/ieum/internal/certs"
	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/relay"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// openRelay opens a TCP listener and starts a relay on the same UDP port. Port 0 takes one that is
// free for both. The caller accepts from the listener. A second STUN port is optional unless
// stunWanted is set.
func openRelay(
	c relay.Config, stunWanted bool, log *slog.Logger,
) (net.Listener, *relay.Server, error) {
	const tries = 16
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, nil, err
	}
	for try := 1; ; try++ {
		l, err := transport.ListenTCP(net.JoinHostPort(host, port))
		if err != nil {
			return nil, nil, err
		}
		c.Listen = net.JoinHostPort(host, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
		r, err := startRelay(c, stunWanted, log)
		if err == nil {
			return l, r, nil
		}
		_ = l.Close() // nothing was accepted
		if port != "0" || try == tries {
			return nil, nil, err
		}
	}
}

func startRelay(c relay.Config, stunWanted bool, log *slog.Logger) (*relay.Server, error) {
	r, err := relay.Start(c)
	if err == nil || stunWanted || c.STUN == "" {
		return r, err
	}
	without := c
	without.STUN = ""
	r, err2 := relay.Start(without)
	if err2 != nil {
		return nil, err2
	}
	log.Warn("secondary STUN port unavailable; clients cannot detect NAT mapping behaviour",
		"listen", c.STUN, "error", err)
	return r, nil
}

// ports is what all TCP ports of a server share. It is static.
type ports struct {
	cert        *certs.Source
	descriptors config.Descriptors
	http        *transport.HTTPConns
	exempt      []netip.Prefix // proxies: limits per address do not apply
	log         *slog.Logger
}

func newPorts(
	cert *certs.Source, d config.Descriptors, proxies []netip.Prefix, log *slog.Logger,
) ports {
	return ports{
		cert:        cert,
		descriptors: d,
		http: transport.NewHTTPConns(
			transport.HTTPLimits{Connections: d.HTTP, Exempt: proxies},
		),
		exempt: proxies,
		log:    log,
	}
}

// muxConfig configures the mux of a port; serveTURN takes its TURN connections, nil: none.
func (p ports) muxConfig(serveTURN func(net.Conn)) transport.MuxConfig {
	c := transport.MuxConfig{
		TURN:       serveTURN,
		MaxPending: p.descriptors.Pending,
		HTTP:       p.http,
		Exempt:     p.exempt,
		Log:        p.log,
	}
	if p.cert != nil {
		c.TLS = p.cert.TLSConfig()
	}
	return c
}
