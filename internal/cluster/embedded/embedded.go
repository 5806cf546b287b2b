// Package embedded runs a NATS server inside a node: NATS core with routes to the servers of other
// nodes. There is no JetStream, no monitoring and no listener for WebSocket, MQTT or leaf nodes.
// The listener for clients, which routes need, is on loopback at a random port with a random
// password; the node itself connects without it.
package embedded

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	startTimeout = 5 * time.Second
	// A route that does not take what is written to it within this time is closed.
	writeDeadline = 2 * time.Second
	maxPending    = 16 << 20 // bytes that wait to be written to a route
	maxPayload    = 8 << 20  // of one message
	// An idle route is found dead after two unanswered pings.
	pingInterval = 2 * time.Second
	maxPings     = 2
	// resolveEvery is how often the names of peers are resolved.
	resolveEvery = 5 * time.Second
	resolveWait  = 4 * time.Second
)

// Config configures a Server.
type Config struct {
	Name   string // unique among the servers that are connected
	Listen string // HOST:PORT for routes; port 0: any
	Peers  []string
	TLS    func() *tls.Config // of routes, both ends
	Log    *slog.Logger

	// Resolve returns the addresses of a host name; nil: net.DefaultResolver.
	Resolve func(ctx context.Context, host string) ([]string, error)
}

// Server is a running NATS server.
type Server struct {
	cfg  Config
	nats *server.Server

	mu    sync.Mutex
	opts  *server.Options     // Guarded by mu: as they were set last.
	known map[string][]string // Owned by resolve after Start: addresses by host name.

	quit chan struct{}
	wg   sync.WaitGroup
}

// Start starts the server and returns when it accepts routes.
func Start(c Config) (*Server, error) {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	if number == 0 {
		number = server.RANDOM_PORT
	}
	if c.Resolve == nil {
		c.Resolve = net.DefaultResolver.LookupHost
	}
	s := &Server{cfg: c, known: map[string][]string{}, quit: make(chan struct{})}
	s.opts = &server.Options{
		ServerName:          c.Name,
		Host:                "127.0.0.1",
		Port:                server.RANDOM_PORT,
		Username:            rand.Text(),
		Password:            rand.Text(),
		NoSigs:              true,
		NoSystemAccount:     true,
		NoFastProducerStall: true, // a slow node makes nobody wait
		MaxPayload:          maxPayload,
		MaxPending:          maxPending,
		WriteDeadline:       writeDeadline,
		MaxConn:             4,
		Cluster: server.ClusterOpts{
			Name:         "ieum",
			Host:         host,
			Port:         number,
			TLSConfig:    c.TLS(),
			TLSTimeout:   2,
			NoAdvertise:  true, // of the listener for clients
			PoolSize:     -1,   // one connection, so that there is one order
			Compression:  server.CompressionOpts{Mode: server.CompressionOff},
			PingInterval: pingInterval,
			MaxPingsOut:  maxPings,
		},
	}
	s.opts.Routes = s.routes(context.Background())
	if s.nats, err = server.NewServer(s.opts.Clone()); err != nil {
		return nil, err
	}
	logs := &logger{log: c.Log, failed: make(chan error, 1)}
	s.nats.SetLoggerV2(logs, false, false, false)
	s.wg.Go(s.nats.Start)
	if err := s.awaitRoutes(logs.failed); err != nil {
		s.Close()
		return nil, err
	}
	s.wg.Go(s.resolve)
	return s, nil
}

// awaitRoutes waits until routes are accepted.
func (s *Server) awaitRoutes(failed <-chan error) error {
	ready := make(chan bool, 1)
	s.wg.Go(func() { ready <- s.nats.ReadyForConnections(startTimeout) })
	select {
	case err := <-failed:
		return err
	case ok := <-ready:
		select {
		case err := <-failed:
			return err
		default:
		}
		if !ok || s.nats.ClusterAddr() == nil {
			return errors.New("the server for messages between nodes did not start in time")
		}
		return nil
	}
}

// Addr is the address for routes.
func (s *Server) Addr() *net.TCPAddr { return s.nats.ClusterAddr() }

// Connect returns a connection to this server.
func (s *Server) Connect(options ...nats.Option) (*nats.Conn, error) {
	s.mu.Lock()
	user, password := s.opts.Username, s.opts.Password
	s.mu.Unlock()
	return nats.Connect("", append([]nats.Option{
		nats.InProcessServer(s.nats),
		nats.UserInfo(user, password),
	}, options...)...)
}

// Routes is the number of other servers that this one is connected to.
func (s *Server) Routes() int { return s.nats.NumRoutes() }

// Reload has new connections use the present certificate and CA.
func (s *Server) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.opts.Clone()
	next.Cluster.TLSConfig = s.cfg.TLS()
	return s.set(next)
}

// set is called with mu held.
func (s *Server) set(next *server.Options) error {
	next.Port = s.nats.Addr().(*net.TCPAddr).Port
	next.Cluster.Port = s.nats.ClusterAddr().Port
	if err := s.nats.ReloadOptions(next.Clone()); err != nil {
		return err
	}
	s.opts = next
	return nil
}

// Close ends the server and waits for it.
func (s *Server) Close() {
	close(s.quit)
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
	s.wg.Wait()
}

// resolve follows the names of peers, whose addresses change.
func (s *Server) resolve() {
	tick := time.NewTicker(resolveEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), resolveWait)
		found := s.routes(ctx)
		cancel()
		s.mu.Lock()
		if !slices.EqualFunc(found, s.opts.Routes, sameURL) {
			next := s.opts.Clone()
			next.Routes = found
			if err := s.set(next); err != nil {
				s.cfg.Log.Warn("addresses of nodes not changed", "error", err)
			}
		}
		s.mu.Unlock()
	}
}

func sameURL(a, b *url.URL) bool { return a.Host == b.Host }

// routes are all addresses of all peers, in order. A name that cannot be resolved now stands for
// the addresses that it had.
func (s *Server) routes(ctx context.Context) (all []*url.URL) {
	var hosts []string
	for _, peer := range s.cfg.Peers {
		host, port, err := net.SplitHostPort(peer)
		if err != nil {
			continue // the configuration was checked
		}
		addrs := []string{host}
		if net.ParseIP(host) == nil {
			addrs = s.lookUp(ctx, host)
		}
		for _, addr := range addrs {
			hosts = append(hosts, net.JoinHostPort(addr, port))
		}
	}
	slices.Sort(hosts)
	for _, h := range slices.Compact(hosts) {
		all = append(all, &url.URL{Scheme: "nats-route", Host: h})
	}
	return all
}

func (s *Server) lookUp(ctx context.Context, host string) []string {
	addrs, err := s.cfg.Resolve(ctx, host)
	if err != nil {
		s.cfg.Log.Debug("name of nodes not resolved", "name", host, "error", err)
		return s.known[host]
	}
	s.known[host] = addrs
	return addrs
}

// logger passes on what NATS logs. A node that is refused is a warning.
type logger struct {
	log    *slog.Logger
	failed chan error // for one
}

// Noticef implements server.Logger.
func (l *logger) Noticef(format string, v ...any) {
	l.log.Debug("nats: " + fmt.Sprintf(format, v...))
}

// Warnf implements server.Logger.
func (l *logger) Warnf(format string, v ...any) { l.log.Warn("nats: " + fmt.Sprintf(format, v...)) }

// Errorf implements server.Logger. What cannot be connected to now may be later.
func (l *logger) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if strings.Contains(text, "TLS route handshake error") {
		l.log.Warn("node refused: it does not prove to belong to this cluster", "error", text)
		return
	}
	l.log.Debug("nats: " + text)
}

// Fatalf implements server.Logger: a listener did not open.
func (l *logger) Fatalf(format string, v ...any) {
	select {
	case l.failed <- fmt.Errorf(format, v...):
	default:
	}
}

// Debugf implements server.Logger.
func (l *logger) Debugf(string, ...any) {}

// Tracef implements server.Logger.
func (l *logger) Tracef(string, ...any) {}
