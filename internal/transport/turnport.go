package transport

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// ListenTCP listens on IPv4 only for "0.0.0.0", as the relay does; net.Listen would include IPv6.
func ListenTCP(addr string) (net.Listener, error) {
	network := "tcp"
	if host, _, err := net.SplitHostPort(addr); err == nil && host == "0.0.0.0" {
		network = "tcp4"
	}
	return net.Listen(network, addr)
}

// TURNPort is a TCP port of TURN only. Browsers that request a page get an explanation.
type TURNPort struct {
	mux  *Mux
	http *http.Server
	wg   sync.WaitGroup
}

// NewTURNPort serves the connections of a listener until Close, which closes it.
func NewTURNPort(l net.Listener, cfg MuxConfig) *TURNPort {
	p := &TURNPort{mux: NewMux(l, cfg)}
	p.http = NewHTTPServer(http.HandlerFunc(explainTURNPort), cfg.Log)
	p.wg.Go(func() { _ = p.mux.Serve(p.http) }) // ends with Close
	return p
}

func explainTURNPort(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusNotFound)
	_, _ = io.WriteString(w, "This port serves STUN and TURN. There are no pages here.\n")
}

// Collector exports the counters of the port; see Mux.Collector.
func (p *TURNPort) Collector(port string) prometheus.Collector { return p.mux.Collector(port) }

// Close waits for all goroutines of the port.
func (p *TURNPort) Close() error {
	err := ignoreClosed(p.mux.Close())
	err = errors.Join(err, ignoreClosed(p.http.Close())) // no request is worth waiting for
	p.wg.Wait()
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
