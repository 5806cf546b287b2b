package node

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"

	"github.com/ieum-rtc/ieum/internal/certs"
	"github.com/ieum-rtc/ieum/internal/relay"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// openRelay opens TCP on an address and starts a relay on the same number of UDP. Port 0 takes one that is free for both. What is
// accepted from the listener is the caller's. A second STUN port that nobody asked for may be missing.
func openRelay(c relay.Config, stunWanted bool, log *slog.Logger) (net.Listener, *relay.Server, error) {
	const tries = 16
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, nil, err
	}
	for try := 1; ; try++ {
		l, err := listenTCP(net.JoinHostPort(host, port))
		if err != nil {
			return nil, nil, err
		}
		c.Listen = net.JoinHostPort(host, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
		r, err := startRelay(c, stunWanted, log)
		if err == nil {
			return l, r, nil
		}
		_ = l.Close()
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
	log.Warn("no second STUN port: clients cannot tell how their NAT maps", "listen", c.STUN, "error", err)
	return r, nil
}

// listenTCP takes "0.0.0.0" for what it says, as the relay does: Go would listen on IPv6, too.
func listenTCP(addr string) (net.Listener, error) {
	network := "tcp"
	if host, _, err := net.SplitHostPort(addr); err == nil && host == "0.0.0.0" {
		network = "tcp4"
	}
	return net.Listen(network, addr)
}

// turnPort is a TCP port where only TURN is served. Browsers that come by are told so.
type turnPort struct {
	door    *transport.Mux
	http    *http.Server
	serving sync.WaitGroup
}

func openTURNPort(l net.Listener, cfg transport.MuxConfig) *turnPort {
	p := &turnPort{door: transport.NewMux(l, cfg)}
	p.http = transport.NewHTTPServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "This port serves STUN and TURN. There are no pages here.\n")
	}), cfg.Log)
	p.serving.Go(func() { _ = p.door.Serve(p.http) })
	return p
}

func (p *turnPort) close() error {
	err := ignoreClosed(p.door.Close())
	err = errors.Join(err, ignoreClosed(p.http.Close())) // nothing is on its way here that is worth waiting for
	p.serving.Wait()
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// doorway is what all ports of a server have in common.
type doorway struct {
	cert  *certs.Source
	files files
	http  *transport.HTTPConns
	// exempt are proxies, with everybody behind them.
	exempt []netip.Prefix
	log    *slog.Logger
}

func newDoorway(cert *certs.Source, f files, proxies []netip.Prefix, log *slog.Logger) doorway {
	limits := transport.HTTPLimits{Connections: f.http, Exempt: proxies}
	return doorway{cert: cert, files: f, http: transport.NewHTTPConns(limits), exempt: proxies, log: log}
}

func (d doorway) config(turn func(net.Conn)) transport.MuxConfig {
	c := transport.MuxConfig{TURN: turn, MaxPending: d.files.deciding, HTTP: d.http, Exempt: d.exempt, Log: d.log}
	if d.cert != nil {
		c.TLS = d.cert.TLSConfig()
	}
	return c
}
