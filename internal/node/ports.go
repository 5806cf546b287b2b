package node

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

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

// newHTTP makes an HTTP server with the limits that all of ours have.
func newHTTP(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 60 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// turnPort is a TCP port where only TURN is served. Browsers that come by are told so.
type turnPort struct {
	door    *transport.Switch
	http    *http.Server
	serving sync.WaitGroup
}

func openTURNPort(l net.Listener, cert *certificate, turn func(net.Conn), log *slog.Logger) *turnPort {
	p := &turnPort{door: transport.NewSwitch(l, switchConfig(cert, turn, log))}
	p.http = newHTTP(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "This port serves STUN and TURN. There are no pages here.\n")
	}), log)
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

func switchConfig(cert *certificate, turn func(net.Conn), log *slog.Logger) transport.SwitchConfig {
	c := transport.SwitchConfig{TURN: turn, Log: log}
	if cert != nil {
		c.TLS = tlsConfig(cert)
	}
	return c
}
