// Package node is one running server: it builds the parts from a Config, joins them, starts them and ends them. Nothing else
// knows all of them.
package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ieum-rtc/ieum/internal/admin"
	"github.com/ieum-rtc/ieum/internal/certs"
	"github.com/ieum-rtc/ieum/internal/ice"
	"github.com/ieum-rtc/ieum/internal/relay"
	"github.com/ieum-rtc/ieum/internal/revocation"
	"github.com/ieum-rtc/ieum/internal/signaling"
	"github.com/ieum-rtc/ieum/internal/store"
	"github.com/ieum-rtc/ieum/internal/transport"
	"github.com/ieum-rtc/ieum/internal/transport/socketio"
	"github.com/ieum-rtc/ieum/web"
)

// Node is a server that runs until Close.
type Node struct {
	plan   *plan // as started; what is read again stands beside it
	log    *slog.Logger
	cert   *certs.Source // nil: no TLS
	dev    atomic.Pointer[devLicense]
	relay  *relay.Server // nil: relays elsewhere
	ice    ice.Local
	ways   doorway        // what the ports have in common
	door   *transport.Mux // the one port
	turn   *turnPort      // nil without a port for STUN and TURN alone
	data   *store.Store   // nil without a data directory
	hub    *signaling.Hub
	gate   *transport.ConnLimiter
	unread *transport.Backlog
	ws     *transport.WebSocket
	sio    *socketio.Server
	http   *http.Server
	admin  *admin.Server // nil: no metrics

	accounts *accounts
	revoked  *revocation.Watcher
	reloads  *reloads

	serving sync.WaitGroup
	failed  chan error // at most one: the HTTP server ended by itself
}

// Start checks the configuration, opens the sockets and serves. When it fails, nothing stays open.
func Start(c Config) (_ *Node, err error) {
	p, err := c.plan(true)
	if err != nil {
		return nil, err
	}
	n := &Node{
		plan: p, log: p.Log, cert: certs.NewSource(p.cert), accounts: newAccounts(p.Log), reloads: newReloads(p.Log), failed: make(chan error, 1),
	}
	n.dev.Store(p.dev)
	n.unread = transport.NewBacklog(p.Limits.backlog())
	n.ways = newDoorway(n.cert, p.files, p.proxies, p.Log)
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
	if n.relay != nil {
		p.gate.OnRegistered = n.relay.Expect
	}
	n.gate = transport.NewConnLimiter(p.gate)
	conns := transport.Config{AnyOrigin: p.Dev, Limiter: n.gate, Backlog: n.unread, TrustedProxies: p.proxies, Log: p.Log}
	n.ws = transport.NewWebSocket(conns, n.hub.Accept)
	n.sio = socketio.New(socketio.Config{Conn: conns, MaxSessions: sessions(n.gate.MaxConnections())}, n.hub.Accept)
	handler, err := n.routes()
	if err != nil {
		return nil, err
	}
	if err = n.openAdmin(); err != nil {
		return nil, err
	}
	n.http = transport.NewHTTPServer(handler, p.Log)
	n.serving.Go(func() {
		if err := n.door.Serve(n.http); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			n.failed <- err
		}
	})
	return n, nil
}

// openHub makes the signaling, which until the ports are open nobody reaches.
func (n *Node) openHub() (err error) {
	p, local := n.plan, signaling.NewLocal()
	cfg := signaling.Config{
		Node: store.NewNodeID(), Licenses: p.licenses, Directory: local, Bus: local, ICE: n.issuer(),
		ResumeKeys: p.resumeKeys(), ResumeWindow: p.ResumeWindow, Rate: p.SessionRate, Burst: p.SessionBurst,
		Limits: p.limits, Backlog: n.unread, Log: p.Log,
	}
	if p.Data != "" {
		if n.data, err = store.Open(p.Data, p.Log); err != nil {
			return blame("--data", err)
		}
		cfg.Node = n.data.NodeID()
		cfg.Keeper = n.data
	}
	if n.hub, err = signaling.New(cfg); err != nil {
		return err
	}
	n.revoked = revocation.Watch(p.LicenseRevoked, p.list, p.revoked, n.hub.EndWithLicenses, p.Log)
	return nil
}

// issuer is asked when somebody registers, which is after the ports were opened.
func (n *Node) issuer() signaling.ICEIssuer {
	if n.plan.external != nil {
		return n.plan.external
	}
	return &n.ice
}

// openPorts opens the one port, or the two, and starts the relay. Nothing is accepted for pages and signaling yet.
func (n *Node) openPorts() error {
	p := n.plan
	if p.external != nil {
		listener, err := listenTCP(p.Listen)
		if err == nil {
			n.door = transport.NewMux(listener, n.ways.config(nil))
		}
		return blame("--listen", opened(err))
	}
	p.relay.Holder, p.relay.Closed = n.holder, n.accounts.take
	stunWanted := p.Relay.STUNListen != ""
	listener, server, err := openRelay(p.relay, stunWanted, p.Log)
	if err != nil {
		if p.RelayListen == "" {
			return opened(blameListen("--listen", err))
		}
		return opened(blameListen("--relay-listen", err))
	}
	n.relay = server
	n.ice = ice.Local{
		Relay:      server,
		PublicHost: p.PublicHost,
		Listen:     p.relay.Listen,
		STUNListen: p.relay.STUN,
		Cert:       n.cert,
	}
	if p.RelayListen != "" {
		n.turn = openTURNPort(listener, n.ways.config(server.ServeConn))
		if listener, err = listenTCP(p.Listen); err != nil {
			return blame("--listen", opened(err))
		}
	}
	n.door = transport.NewMux(listener, n.ways.config(server.ServeConn))
	return nil
}

func (n *Node) openAdmin() error {
	ports := portCollector{"all": n.door}
	more := []prometheus.Collector{admin.Signaling(n.hub.Stats), admin.Limits(n.limitsHit), ports, httpCollector{n.ways.http}, prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "ieum_signaling_connections", Help: "Open connections of clients, of all carriers."},
		func() float64 { return float64(n.ws.Count() + n.sio.Count()) }), prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Name: "ieum_signaling_unread_bytes", Help: "What is sent to clients and not yet read, or waits for them."},
		func() float64 { return float64(n.unread.Stats().Bytes) }), n.cert.Collector()}
	if n.turn != nil {
		ports["relay"] = n.turn.door
	}
	if n.relay != nil {
		more = append(more, n.relay.Collector())
	}
	if n.data != nil {
		more = append(more, n.data.Collector())
	}
	r, err := newRegistry(n.plan.Version, more...)
	if err != nil {
		return err
	}
	if err := errors.Join(r.Register(n.revoked.Collector()), r.Register(n.reloads.count)); err != nil {
		return err
	}
	if n.relay != nil {
		if err := n.accounts.register(r); err != nil {
			return prefix("metrics", err)
		}
	}
	n.admin, err = startAdmin(n.plan.admin, n.plan.Admin.Listen != "", r, n.ready)
	return err
}

// limitsHit counts what was refused, by the names that docs/operating/secure.md lists.
func (n *Node) limitsHit() map[string]uint64 {
	hits, door := n.hub.LimitsHit(), n.gate.Stats()
	hits["connections"], hits["strangers"] = door.Connections, door.Unregistered
	hits["unread_total"] = n.unread.Stats().Shed
	hits["http_connections"] = n.ways.http.Stats().Shed
	return hits
}

// ready tells why calls are not served well, if so.
func (n *Node) ready(ctx context.Context) error {
	if n.relay == nil { // it is elsewhere, and says there how it is
		return nil
	}
	return n.relay.SelfTest(ctx)
}

// holder tells the relay who holds a session that is in a room.
func (n *Node) holder(tenant, session string) (relay.Holder, bool) {
	m, ok := n.hub.InRoom(session)
	if !ok || ice.TenantHash(m.Tenant) != tenant {
		return relay.Holder{}, false
	}
	return relay.Holder{License: m.Tenant, User: m.User, Room: m.Room}, true
}

func (n *Node) routes() (http.Handler, error) {
	cfg := web.Config{Version: n.plan.Version, HSTS: n.plan.cert != nil && n.Addr().Port() == 443}
	if n.plan.dev != nil {
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
	mux.HandleFunc("GET /healthz", serveHealth)
	watched := &proxyWatch{next: mux, trusted: n.plan.proxies, log: n.plan.Log}
	if !n.plan.Dev {
		return watched, nil
	}
	mux.HandleFunc("GET /dev/stats", n.serveStats)
	return n.ownNames(watched), nil
}

// serveHealth tells a balancer that the server runs, and nothing else. What it can do is told at the listener for operators.
func serveHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = io.WriteString(w, "ok\n")
}

// Failed delivers the error with which serving ended by itself, if it does.
func (n *Node) Failed() <-chan error { return n.failed }

// Close stops accepting, tells clients to come back later, and returns when all is quiet or soon after ctx is done. Clients that
// had to be cut off by then are no error: it is theirs.
func (n *Node) Close(ctx context.Context) error {
	if n.admin != nil {
		n.admin.Stops()
	}
	var faults []error
	if n.door != nil {
		_ = n.door.Close()
	}
	if n.turn != nil {
		faults = append(faults, prefix("close the relay's port", n.turn.close()))
	}
	closed := func(what string, err error) {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			n.log.Warn("clients cut off: they did not end in time", "while", what)
			return
		}
		faults = append(faults, prefix(what, err))
	}
	// both at once: a client that does not listen to one must not cost those of the other their time
	sio := make(chan error, 1)
	go func() {
		if n.sio == nil {
			sio <- nil
			return
		}
		sio <- n.sio.Close(ctx)
	}()
	if n.ws != nil {
		closed("close connections", n.ws.Close(ctx))
	}
	closed("close Socket.IO", <-sio)
	n.unread.Close()
	if n.http != nil {
		// the listener is closed already, which the HTTP server may or may not have noticed
		if err := n.http.Shutdown(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
			closed("close pages", err)
			if err := n.http.Close(); !errors.Is(err, net.ErrClosed) {
				faults = append(faults, err)
			}
		}
	}
	if n.data != nil { // before the hub: sessions and rooms are to be found again
		faults = append(faults, prefix("close data", n.data.Close()))
	}
	if n.relay != nil { // it asks the hub
		faults = append(faults, prefix("close relay", n.relay.Close()))
	}
	if n.revoked != nil {
		n.revoked.Close()
	}
	if n.hub != nil {
		n.hub.Close()
	}
	n.accounts.close()
	if n.admin != nil { // last, so that the end can be watched
		faults = append(faults, prefix("close metrics", n.admin.Close(ctx)))
	}
	n.serving.Wait()
	return errors.Join(faults...)
}

// AdminAddr is where metrics are served; nil: nowhere.
func (n *Node) AdminAddr() net.Addr {
	if n.admin == nil {
		return nil
	}
	return n.admin.Addr()
}

// Addr is where pages and signaling are served.
func (n *Node) Addr() netip.AddrPort {
	a, _ := netip.ParseAddrPort(n.door.Addr().String())
	return a
}

// RelayPort is where STUN and TURN are served, UDP and TCP; 0 where the relays are elsewhere.
func (n *Node) RelayPort() int {
	if n.relay == nil {
		return 0
	}
	return n.relay.Port()
}

// STUNPort answers Binding requests too; 0: there is none.
func (n *Node) STUNPort() int {
	if n.relay == nil {
		return 0
	}
	return n.relay.STUNPort()
}

// RelayAddresses are what the relay hands out; onlyPrivate warns that nobody outside this network can reach them.
func (n *Node) RelayAddresses() (addrs []relay.Address, onlyPrivate bool) {
	if n.relay == nil {
		return nil, false
	}
	return n.relay.Addresses(), n.relay.OnlyPrivate()
}

// URLs are the addresses to open in a browser: one when bound to one address, else one for each address of this machine.
func (n *Node) URLs() []string {
	scheme := "http://"
	if n.plan.cert != nil {
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
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			urls = append(urls, scheme+net.JoinHostPort(p.Addr().String(), port)+"/")
		}
	}
	return urls
}

// stats are the figures of /dev/stats.
type stats struct {
	Signaling   signaling.Stats `json:"signaling"`
	Relay       relay.Stats     `json:"relay"`
	Connections int             `json:"connections"`
	Goroutines  int             `json:"goroutines"`
}

func (n *Node) serveStats(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	var relayed relay.Stats
	if n.relay != nil {
		relayed = n.relay.Stats()
	}
	_ = json.NewEncoder(w).Encode(stats{n.hub.Stats(), relayed, n.ws.Count() + n.sio.Count(), runtime.NumGoroutine()})
}
