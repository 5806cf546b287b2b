package node

import (
	"context"
	"errors"

	"github.com/ieum-rtc/ieum/internal/admin"
	"github.com/ieum-rtc/ieum/internal/allocationlog"
	"github.com/ieum-rtc/ieum/internal/certs"
	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/relay"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// Relay is a standalone relay that runs until Close. Its fields are static after StartRelay.
type Relay struct {
	plan    *config.RelayPlan
	relay   *relay.Server
	cert    *certs.Source // nil: no TLS
	port    *transport.TURNPort
	admin   *admin.Server // nil: no admin listener
	allocs  *allocationlog.Log
	reloads *reloads
}

// StartRelay checks the configuration, opens the sockets and serves. If it fails nothing stays
// open.
func StartRelay(c config.Relay) (_ *Relay, err error) {
	p, err := c.Plan()
	if err != nil {
		return nil, err
	}
	log := p.Config.Log
	n := &Relay{
		plan:    p,
		cert:    certs.NewSource(p.Cert),
		allocs:  allocationlog.New(log),
		reloads: newReloads(log),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close(context.Background()))
		}
	}()
	cfg := p.Relay
	cfg.Closed = n.allocs.Add
	listener, server, err := openRelay(cfg, p.Config.Relay.STUNListen != "", log)
	if err != nil {
		return nil, config.ListenError("--listen", err)
	}
	n.relay = server
	shared := newPorts(n.cert, p.Descriptors, nil, log)
	n.port = transport.NewTURNPort(listener, shared.muxConfig(server.ServeConn))
	r, err := admin.NewRegistry(p.Config.Version,
		server.Collector(),
		n.allocs.Collector(),
		n.port.Collector("relay"),
		shared.http.Collector(),
		n.cert.Collector(),
		n.reloads.count,
	)
	if err != nil {
		return nil, err
	}
	n.admin, err = admin.Start(p.Admin, admin.Source{Metrics: r, Ready: server.SelfTest})
	return n, config.ListenError("--admin-listen", err)
}

// Close closes all allocations and waits for all goroutines. Requests at the admin listener are cut
// off when ctx is done.
func (n *Relay) Close(ctx context.Context) error {
	var errs []error
	if n.port != nil {
		errs = append(errs, wrap("close TURN port", n.port.Close()))
	}
	if n.relay != nil {
		errs = append(errs, wrap("close relay", n.relay.Close()))
	}
	n.allocs.Close()
	if n.admin != nil {
		errs = append(errs, wrap("close admin listener", n.admin.Close(ctx)))
	}
	return errors.Join(errs...)
}

// RelayPort is the port of STUN and TURN, UDP and TCP.
func (n *Relay) RelayPort() int { return n.relay.Port() }

// STUNPort is the second STUN port; 0: none.
func (n *Relay) STUNPort() int { return n.relay.STUNPort() }

// RelayAddresses are the addresses that allocations get. onlyPrivate: none is reachable from the
// Internet.
func (n *Relay) RelayAddresses() (addrs []relay.Address, onlyPrivate bool) {
	return n.relay.Addresses(), n.relay.OnlyPrivate()
}
