// Package node is one running server: it builds the parts from a Config, joins them, starts them and ends them. Nothing else
// knows all of them.
package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/protocol"
	"github.com/ieum-rtc/ieum/internal/relay"
	"github.com/ieum-rtc/ieum/internal/signaling"
	"github.com/ieum-rtc/ieum/internal/transport"
	"github.com/ieum-rtc/ieum/internal/transport/socketio"
	"github.com/ieum-rtc/ieum/web"
)

// Node is a server that runs until Close.
type Node struct {
	plan   *plan
	log    *slog.Logger
	listen net.Listener
	relay  *relay.Server
	data   *data // nil without a data folder
	hub    *signaling.Hub
	ws     *transport.WebSocket
	sio    *socketio.Server
	http   *http.Server

	serving sync.WaitGroup
	failed  chan error // at most one: the HTTP server ended by itself
}

// Start checks the configuration, opens the sockets and serves. When it fails, nothing stays open.
func Start(c Config) (_ *Node, err error) {
	p, err := c.plan(true)
	if err != nil {
		return nil, err
	}
	n := &Node{plan: p, log: p.Log, failed: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close(context.Background()))
		}
	}()
	if n.listen, err = net.Listen("tcp", p.Listen); err != nil {
		return nil, prefix("--listen", err)
	}
	if n.relay, err = relay.Start(p.relay); err != nil {
		return nil, prefix("relay", err)
	}
	local := signaling.NewLocal()
	cfg := signaling.Config{
		Node: newNodeID(), Licenses: p.licenses, Directory: local, Bus: local, ICE: iceIssuer{n.relay, p.RelayListen},
		ResumeKeys: p.licenses.DeriveAll("resume secret", 32), ResumeWindow: p.ResumeWindow, Rate: p.SessionRate, Burst: p.SessionBurst, Log: p.Log,
	}
	if p.Data != "" {
		if n.data, err = openData(p.Data, p.Log); err != nil {
			return nil, prefix("--data", err)
		}
		if cfg.Node, err = n.data.nodeID(); err != nil {
			return nil, prefix("--data", err)
		}
		cfg.Keeper = n.data
	}
	if n.hub, err = signaling.New(cfg); err != nil {
		return nil, err
	}
	conns := transport.Config{AnyOrigin: p.Dev, Log: p.Log}
	n.ws = transport.NewWebSocket(conns, n.hub.Accept)
	n.sio = socketio.New(socketio.Config{Conn: conns}, n.hub.Accept)
	handler, err := n.routes()
	if err != nil {
		return nil, err
	}
	n.http = &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 60 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(p.Log.Handler(), slog.LevelDebug),
	}
	n.serving.Go(func() {
		var err error
		if p.cert != nil {
			n.http.TLSConfig = tlsConfig(p.cert)
			err = n.http.ServeTLS(n.listen, "", "")
		} else {
			err = n.http.Serve(n.listen)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			n.failed <- err
		}
	})
	return n, nil
}

func (n *Node) routes() (http.Handler, error) {
	cfg := web.Config{Version: n.plan.Version, HSTS: n.plan.cert != nil && n.Addr().Port() == 443}
	if d := n.plan.dev; d != nil {
		cfg.DevLicense = func() (string, string) { return d.CpCode, d.AuthKey }
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
	if n.plan.Dev {
		mux.HandleFunc("GET /dev/stats", n.serveStats)
	}
	return mux, nil
}

// Failed delivers the error with which serving ended by itself, if it does.
func (n *Node) Failed() <-chan error { return n.failed }

// Close stops accepting, tells clients to come back later, and returns when all is quiet or soon after ctx is done. Clients that
// had to be cut off by then are no error: it is theirs.
func (n *Node) Close(ctx context.Context) error {
	var faults []error
	if n.listen != nil {
		_ = n.listen.Close()
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
		faults = append(faults, prefix("close data", n.data.close()))
	}
	if n.hub != nil {
		n.hub.Close()
	}
	if n.relay != nil {
		faults = append(faults, prefix("close relay", n.relay.Close()))
	}
	n.serving.Wait()
	return errors.Join(faults...)
}

// Addr is where pages and signaling are served.
func (n *Node) Addr() netip.AddrPort {
	a, _ := netip.ParseAddrPort(n.listen.Addr().String())
	return a
}

// RelayPort is where STUN and TURN are served, UDP and TCP.
func (n *Node) RelayPort() int { return n.relay.Port() }

// RelayAddresses are what the relay hands out; onlyPrivate warns that nobody outside this network can reach them.
func (n *Node) RelayAddresses() (addrs []relay.Address, onlyPrivate bool) {
	return n.relay.Addresses(), n.relay.OnlyPrivate()
}

// Ephemeral tells that the license key, and with it every license and session, dies with this process.
func (n *Node) Ephemeral() bool { return n.plan.ephemeral }

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
	_ = json.NewEncoder(w).Encode(stats{n.hub.Stats(), n.relay.Stats(), n.ws.Count() + n.sio.Count(), runtime.NumGoroutine()})
}

// iceIssuer turns the relay's address and credentials into what a browser wants.
type iceIssuer struct {
	relay  *relay.Server
	listen string
}

// ICEServers implements signaling.ICEIssuer. The relay is reached by the name by which the client reached us, unless it was
// bound to an address of its own.
func (i iceIssuer) ICEServers(host, tenant, session string, allowed bool) []protocol.ICEServer {
	at := net.JoinHostPort(i.host(host), strconv.Itoa(i.relay.Port()))
	servers := []protocol.ICEServer{{URLs: []string{"stun:" + at}}}
	if allowed {
		user, password := i.relay.Credentials(tenantHash(tenant), session)
		servers = append(servers, protocol.ICEServer{
			URLs: []string{"turn:" + at + "?transport=udp", "turn:" + at + "?transport=tcp"}, Username: user, Credential: password,
		})
	}
	return servers
}

func (i iceIssuer) host(reached string) string {
	bound, _, _ := net.SplitHostPort(i.listen)
	if ip, err := netip.ParseAddr(bound); err == nil && !ip.IsUnspecified() {
		for _, a := range i.relay.Addresses() {
			if a.Private == ip {
				return a.Public.String()
			}
		}
		return bound
	}
	if h, _, err := net.SplitHostPort(reached); err == nil {
		return h
	}
	return strings.Trim(reached, "[]")
}

// tenantHash stands for the tenant in relay user names, which travel in clear.
func tenantHash(tenant string) string {
	sum := sha256.Sum256([]byte(tenant))
	return hex.EncodeToString(sum[:8])
}
