package node

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"time"

	"github.com/ieum-rtc/ieum/internal/admin"
	"github.com/ieum-rtc/ieum/internal/certs"
	"github.com/ieum-rtc/ieum/internal/relay"
)

// allocationAge bounds what nobody ends otherwise: alone, a relay does not hear of rooms.
const allocationAge = 12 * time.Hour

// RelayConfig says how a relay runs that stands alone, on another machine than the servers that send clients to it. A secret is
// required, the one that those servers have.
type RelayConfig struct {
	Listen string // UDP and TCP; default ":3478"
	Relay  RelaySettings

	TLSCert, TLSKey string // files, PEM: for turns:
	Admin           AdminSettings
	Version         string
	Log             *slog.Logger
}

type relayPlan struct {
	RelayConfig
	relay relay.Config
	cert  *tls.Certificate
	admin *admin.Config // nil: no metrics
	files files
}

// Validate reports every fault at once, without opening a socket.
func (c RelayConfig) Validate() error {
	_, err := c.plan()
	return err
}

func (c RelayConfig) plan() (*relayPlan, error) {
	if c.Listen == "" {
		c.Listen = ":" + stunPort
	}
	c.Listen, c.Relay.STUNListen = literal(c.Listen, ""), literal(c.Relay.STUNListen, "")
	c.Relay.defaults()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	p := &relayPlan{RelayConfig: c}
	var faults list
	faults.add(checkListen("--listen", c.Listen))
	var secret string
	var err error
	p.relay, secret, err = c.Relay.plan(c.Listen, false, c.Log)
	faults.add(err)
	p.relay.MaxAge = allocationAge
	p.files = shareFiles(openFiles(), false)
	p.relay.Quota.Total = atMost(p.relay.Quota.Total, defaultAllocations, p.files.allocations)
	p.relay.Streams = p.files.streams
	if secret == "" {
		faults.add(errors.New("a relay secret is required: --relay-secret-file or IEUM_RELAY_SECRET, the same as the servers have"))
	}
	faults.add(validateRelay(p.relay, faults, "--listen", secret))
	p.cert, err = loadCert(c.TLSCert, c.TLSKey)
	faults.add(err)
	p.admin, err = c.Admin.plan(c.Log)
	faults.add(err)
	return p, faults.err()
}

// Relay is a relay alone that runs until Close.
type Relay struct {
	plan     *relayPlan
	relay    *relay.Server
	cert     *certs.Source // nil: no TLS
	port     *turnPort
	admin    *admin.Server // nil: no metrics
	accounts *accounts
	reloads  *reloads
}

// StartRelay checks the configuration, opens the sockets and serves. When it fails, nothing stays open.
func StartRelay(c RelayConfig) (_ *Relay, err error) {
	p, err := c.plan()
	if err != nil {
		return nil, err
	}
	n := &Relay{plan: p, cert: certs.NewSource(p.cert), accounts: newAccounts(p.Log), reloads: newReloads(p.Log)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close(context.Background()))
		}
	}()
	p.relay.Closed = n.accounts.take
	listener, server, err := openRelay(p.relay, p.Relay.STUNListen != "", p.Log)
	if err != nil {
		return nil, opened(blameListen("--listen", err))
	}
	n.relay = server
	ways := newDoorway(n.cert, p.files, nil, p.Log)
	n.port = openTURNPort(listener, ways.config(server.ServeConn))
	r, err := newRegistry(p.Version, server.Collector(), portCollector{"relay": n.port.door}, httpCollector{ways.http}, n.reloads.count, n.cert.Collector())
	if err != nil {
		return nil, err
	}
	if err = prefix("metrics", n.accounts.register(r)); err != nil {
		return nil, err
	}
	if n.admin, err = startAdmin(p.admin, p.Admin.Listen != "", r, server.SelfTest); err != nil {
		return nil, err
	}
	return n, nil
}

// Close ends all allocations and returns when all is quiet; who asks for metrics is cut off when ctx is done.
func (n *Relay) Close(ctx context.Context) error {
	var faults []error
	if n.port != nil {
		faults = append(faults, n.port.close())
	}
	if n.relay != nil {
		faults = append(faults, prefix("close relay", n.relay.Close()))
	}
	n.accounts.close()
	if n.admin != nil {
		faults = append(faults, prefix("close metrics", n.admin.Close(ctx)))
	}
	return errors.Join(faults...)
}

// RelayPort is where STUN and TURN are served, UDP and TCP.
func (n *Relay) RelayPort() int { return n.relay.Port() }

// STUNPort answers Binding requests too; 0: there is none.
func (n *Relay) STUNPort() int { return n.relay.STUNPort() }

// RelayAddresses are what the relay hands out; onlyPrivate warns that nobody outside this network can reach them.
func (n *Relay) RelayAddresses() (addrs []relay.Address, onlyPrivate bool) {
	return n.relay.Addresses(), n.relay.OnlyPrivate()
}
