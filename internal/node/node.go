// Package node is one running server, or a standalone relay: it builds the parts from a
// configuration, connects, starts and closes them. Nothing else knows all of them.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ieum-rtc/ieum/internal/admin"
	"github.com/ieum-rtc/ieum/internal/allocationlog"
	"github.com/ieum-rtc/ieum/internal/certs"
	"github.com/ieum-rtc/ieum/internal/cluster"
	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/ice"
	"github.com/ieum-rtc/ieum/internal/relay"
	"github.com/ieum-rtc/ieum/internal/revocation"
	"github.com/ieum-rtc/ieum/internal/signaling"
	"github.com/ieum-rtc/ieum/internal/store"
	"github.com/ieum-rtc/ieum/internal/transport"
	"github.com/ieum-rtc/ieum/internal/transport/socketio"
	"github.com/ieum-rtc/ieum/web"
)

// Node is a server that runs until Close. Its fields are static after Start, except for dev.
type Node struct {
	plan   *config.ServerPlan // as started; what a reload replaces is beside it
	log    *slog.Logger
	cert   *certs.Source // nil: no TLS
	dev    atomic.Pointer[config.DevLicense]
	relay  *relay.Server // nil: external relays
	ice    ice.Local
	shared ports
	mux    *transport.Mux      // the main port
	turn   *transport.TURNPort // nil without --relay-listen
	store  *store.Store        // nil without --data
	hub    *signaling.Hub
	others *cluster.Cluster // nil: this node stands alone
	// fingerprints of the license signing keys, for other nodes
	fingerprints atomic.Pointer[[]string]
	conns        *transport.ConnLimiter
	queued       *transport.Backlog
	panics       *transport.Panics
	ws           *transport.WebSocket
	sio          *socketio.Server
	http         *http.Server
	admin        *admin.Server // nil: no admin listener

	allocs  *allocationlog.Log
	revoked *revocation.Watcher
	reloads *reloads
	drain   *drain

	wg     sync.WaitGroup
	failed chan error // at most one: the HTTP server failed
}

// Start checks the configuration, opens the sockets and serves. If it fails nothing stays open.
func Start(c config.Server) (_ *Node, err error) {
	p, err := c.Plan(nil, true)
	if err != nil {
		return nil, err
	}
	log := p.Config.Log
	n := &Node{
		plan:    p,
		log:     log,
		cert:    certs.NewSource(p.Cert),
		allocs:  allocationlog.New(log),
		reloads: newReloads(log),
		drain:   newDrain(),
		queued:  transport.NewBacklog(p.Config.Limits.Queued()),
		panics:  transport.NewPanics(log),
		failed:  make(chan error, 1),
	}
	n.dev.Store(p.Dev)
	n.shared = newPorts(n.cert, p.Descriptors, p.Proxies, log)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close(context.Background()))
		}
	}()
	if err = n.openHub(); err != nil {
		return nil, err
	}
	if err = n.openPorts(); err != nil {
		return nil, err
	}
	n.openTransports()
	handler, err := n.routes()
	if err != nil {
		return nil, err
	}
	if err = n.openAdmin(); err != nil {
		return nil, err
	}
	n.http = transport.NewHTTPServer(handler, log)
	n.wg.Go(func() {
		err := n.mux.Serve(n.http)
		if !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			n.failed <- err
		}
	})
	return n, nil
}

// openHub starts signaling, which no client reaches until the ports are open.
func (n *Node) openHub() (err error) {
	p := n.plan
	c := &p.Config
	cfg := signaling.Config{
		Node:         store.NewNodeID(),
		Licenses:     p.Licenses,
		ICE:          n.issuer(),
		ResumeKeys:   p.ResumeKeys(),
		ResumeWindow: c.ResumeWindow,
		Rate:         c.SessionRate,
		Burst:        c.SessionBurst,
		Limits:       p.Limits,
		Backlog:      n.queued,
		Log:          c.Log,
	}
	if c.Data != "" {
		if n.store, err = store.Open(c.Data, c.Log); err != nil {
			return config.Blame("--data", err)
		}
		cfg.Node = n.store.NodeID()
		cfg.Keeper = n.store
	}
	if err = n.openCluster(&cfg); err != nil {
		return err
	}
	if n.hub, err = signaling.New(cfg); err != nil {
		return err
	}
	n.revoked = revocation.Watch(
		c.RevocationList, p.Revocations, p.Revoked, n.hub.EndWithLicenses, c.Log,
	)
	return nil
}

// issuer is called when a client registers, which is after openPorts.
func (n *Node) issuer() signaling.ICEIssuer {
	if n.plan.External != nil {
		return n.plan.External
	}
	return &n.ice
}

// openPorts opens the main port and that of --relay-listen, and starts the relay. Nothing is
// accepted for pages and signaling yet.
func (n *Node) openPorts() error {
	p := n.plan
	c := &p.Config
	if p.External != nil {
		listener, err := transport.ListenTCP(c.Listen)
		if err == nil {
			n.mux = transport.NewMux(listener, n.shared.muxConfig(nil))
		}
		return config.ListenError("--listen", err)
	}
	cfg := p.Relay
	cfg.Holder, cfg.Closed = n.holder, n.allocs.Add
	listener, server, err := openRelay(cfg, c.Relay.STUNListen != "", c.Log)
	if err != nil {
		if c.RelayListen == "" {
			return config.ListenError("--listen", err)
		}
		return config.ListenError("--relay-listen", err)
	}
	n.relay = server
	n.ice = ice.Local{
		Relay:      server,
		PublicHost: c.PublicHost,
		Listen:     p.Relay.Listen,
		STUNListen: p.Relay.STUN,
		Cert:       n.cert,
	}
	if c.RelayListen != "" {
		n.turn = transport.NewTURNPort(listener, n.shared.muxConfig(server.ServeConn))
		if listener, err = transport.ListenTCP(c.Listen); err != nil {
			return config.ListenError("--listen", err)
		}
	}
	n.mux = transport.NewMux(listener, n.shared.muxConfig(server.ServeConn))
	return nil
}

// openTransports makes the transports, which share one connection limiter.
func (n *Node) openTransports() {
	limits := n.plan.ConnLimits
	if n.relay != nil {
		limits.OnRegistered = n.relay.Expect
	}
	if n.others != nil {
		// Nobody could register, but sessions of this node go on.
		limits.Closed = n.others.CutOff
	}
	n.conns = transport.NewConnLimiter(limits)
	cfg := transport.Config{
		AnyOrigin:      n.plan.Config.Dev,
		Limiter:        n.conns,
		Backlog:        n.queued,
		Panics:         n.panics,
		TrustedProxies: n.plan.Proxies,
		Log:            n.log,
	}
	n.ws = transport.NewWebSocket(cfg, n.hub.Accept)
	n.sio = socketio.New(socketio.Config{Conn: cfg, MaxSessions: n.maxPolling()}, n.hub.Accept)
}

// maxPolling bounds the sessions of Socket.IO: those that have just ended, which the connection
// limiter has released, still need a place. -1 is unlimited.
func (n *Node) maxPolling() int {
	connections := n.conns.MaxConnections()
	if connections < 0 {
		return -1
	}
	return connections + connections/4
}

func (n *Node) openAdmin() error {
	all := []prometheus.Collector{
		n.hub.Collector(),
		n.conns.Collector(),
		n.queued.Collector(),
		n.panics.Collector(),
		n.mux.Collector("all"),
		n.shared.http.Collector(),
		n.revoked.Collector(),
		n.cert.Collector(),
		n.reloads.count,
	}
	if n.turn != nil {
		all = append(all, n.turn.Collector("relay"))
	}
	if n.relay != nil {
		all = append(all, n.relay.Collector(), n.allocs.Collector())
	}
	if n.store != nil {
		all = append(all, n.store.Collector())
	}
	if n.others != nil {
		all = append(all, n.others, n.drain.active, n.drain.moved)
	}
	r, err := admin.NewRegistry(n.plan.Config.Version, all...)
	if err != nil {
		return err
	}
	n.admin, err = admin.Start(n.plan.Admin, admin.Source{
		Metrics: r,
		Ready:   n.ready,
		Drain:   n.drain.ask,
	})
	return config.ListenError("--admin-listen", err)
}

// ready returns why calls cannot be served well; nil: they can.
func (n *Node) ready(ctx context.Context) error {
	if n.others != nil {
		if err := n.others.Ready(); err != nil {
			return err
		}
	}
	if n.relay == nil { // external relays report for themselves
		return nil
	}
	return n.relay.SelfTest(ctx)
}

// holder tells the relay to whom a session belongs; ok only while it is in a room.
func (n *Node) holder(tenant, session string) (h relay.Holder, ok bool) {
	m, ok := n.hub.InRoom(session)
	if !ok || ice.TenantHash(m.Tenant) != tenant {
		return relay.Holder{}, false
	}
	return relay.Holder{License: m.Tenant, User: m.User, Room: m.Room}, true
}

func (n *Node) routes() (http.Handler, error) {
	cfg := web.Config{
		Version: n.plan.Config.Version,
		HSTS:    n.plan.Cert != nil && n.Addr().Port() == 443,
	}
	if n.plan.Dev != nil {
		cfg.DevLicense = func() (string, string) {
			d := n.dev.Load()
			return d.CpCode, d.AuthKey
		}
	}
	pages, err := web.Handler(cfg)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", pages)
	mux.Handle("GET /signal", n.ws)
	mux.Handle(socketio.Path, n.sio)
	mux.Handle("GET "+socketio.Path+"{script}", pages)
	mux.HandleFunc("POST /leave", n.hub.ServeLeave)
	mux.HandleFunc("GET /healthz", transport.ServeHealth)
	watched := transport.WarnUndeclaredProxies(mux, n.plan.Proxies, n.log)
	if !n.plan.Config.Dev {
		return watched, nil
	}
	mux.HandleFunc("GET /dev/stats", n.serveStats)
	return transport.CheckHost(watched, n.plan.Config.PublicHost, n.guardedPath), nil
}

// Failed delivers the error of the HTTP server, if it fails.
func (n *Node) Failed() <-chan error { return n.failed }

// Close stops accepting, tells clients to reconnect, and waits for all goroutines. Connections that
// are still open when ctx is done are closed, which is not an error.
func (n *Node) Close(ctx context.Context) error {
	if n.admin != nil {
		n.admin.SetStopping()
	}
	var errs []error
	if n.mux != nil {
		_ = n.mux.Close() // of a listener: nothing to lose
	}
	if n.turn != nil {
		errs = append(errs, wrap("close TURN port", n.turn.Close()))
	}
	errs = append(errs, n.closeClients(ctx)...)
	if n.store != nil { // before the hub: sessions and rooms must be persisted as they are
		errs = append(errs, wrap("close data", n.store.Close()))
	}
	if n.relay != nil { // before the hub, which it asks for holders
		errs = append(errs, wrap("close relay", n.relay.Close()))
	}
	if n.revoked != nil {
		n.revoked.Close()
	}
	if n.hub != nil {
		n.hub.Close()
	}
	if n.others != nil {
		errs = append(errs, wrap("leave the cluster", n.closeCluster()))
	}
	n.allocs.Close()
	if n.admin != nil { // last, so that the shutdown can be monitored
		errs = append(errs, wrap("close admin listener", n.admin.Close(ctx)))
	}
	n.wg.Wait()
	return errors.Join(errs...)
}

// closeClients closes the connections of all transports, and then those of pages.
func (n *Node) closeClients(ctx context.Context) (errs []error) {
	closed := func(what string, err error) {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			n.log.Warn("shutdown timeout exceeded; closing remaining connections", "during", what)
			return
		}
		errs = append(errs, wrap(what, err))
	}
	// concurrently: a slow client of one transport must not use up the time of the other
	sio := make(chan error, 1)
	go func() {
		if n.sio == nil {
			sio <- nil
			return
		}
		sio <- n.sio.Close(ctx)
	}()
	if n.ws != nil {
		closed("close WebSocket connections", n.ws.Close(ctx))
	}
	closed("close Socket.IO connections", <-sio)
	n.queued.Close()
	if n.http == nil {
		return errs
	}
	// the mux has closed the listener already, which the HTTP server may report
	if err := n.http.Shutdown(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
		closed("close pages", err)
		if err := n.http.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errs
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// AdminAddr is the address of the admin listener; nil: none.
func (n *Node) AdminAddr() net.Addr {
	if n.admin == nil {
		return nil
	}
	return n.admin.Addr()
}

// Addr is the address of the main port.
func (n *Node) Addr() netip.AddrPort {
	a, _ := netip.ParseAddrPort(n.mux.Addr().String()) // of a listener: always valid
	return a
}

// RelayPort is the port of STUN and TURN, UDP and TCP; 0 with external relays.
func (n *Node) RelayPort() int {
	if n.relay == nil {
		return 0
	}
	return n.relay.Port()
}

// STUNPort is the second STUN port; 0: none.
func (n *Node) STUNPort() int {
	if n.relay == nil {
		return 0
	}
	return n.relay.STUNPort()
}

// RelayAddresses are the addresses that allocations get. onlyPrivate: none is reachable from the
// Internet.
func (n *Node) RelayAddresses() (addrs []relay.Address, onlyPrivate bool) {
	if n.relay == nil {
		return nil, false
	}
	return n.relay.Addresses(), n.relay.OnlyPrivate()
}

// URLs are addresses to open in a browser: one if bound to an address, else one per address of this
// machine.
func (n *Node) URLs() []string {
	scheme := "http://"
	if n.plan.Cert != nil {
		scheme = "https://"
	}
	addr := n.Addr()
	port := strconv.Itoa(int(addr.Port()))
	if !addr.Addr().IsUnspecified() {
		return []string{scheme + net.JoinHostPort(addr.Addr().Unmap().String(), port) + "/"}
	}
	urls := []string{scheme + net.JoinHostPort("localhost", port) + "/"}
	ifs, err := net.InterfaceAddrs()
	if err != nil {
		return urls
	}
	for _, a := range ifs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() &&
			!p.Addr().IsLoopback() {
			urls = append(urls, scheme+net.JoinHostPort(p.Addr().String(), port)+"/")
		}
	}
	return urls
}
