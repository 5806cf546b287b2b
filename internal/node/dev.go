package node

import (
	"encoding/json"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/ieum-rtc/ieum/internal/admin"
	"github.com/ieum-rtc/ieum/internal/netaddr"
	"github.com/ieum-rtc/ieum/internal/relay"
	"github.com/ieum-rtc/ieum/internal/signaling"
	"github.com/ieum-rtc/ieum/internal/transport/socketio"
)

// checkHost refuses requests for the routes of --dev unless their Host names this machine:
// otherwise a page on the web could point a name of its own here, and read the license (DNS
// rebinding). On loopback such a page must not get a signaling connection either, since --dev
// accepts any origin.
func (n *Node) checkHost(next http.Handler) http.Handler {
	var names []string
	if name, err := os.Hostname(); err == nil {
		names = append(names, name, name+".local")
	}
	if host := n.plan.Config.PublicHost; host != "" {
		names = append(names, host)
	}
	loopback := n.Addr().Addr().IsLoopback()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := r.URL.Path
		signaling := p == "/signal" || strings.HasPrefix(p, socketio.Path)
		host := netaddr.Host(r.Host)
		own := func(name string) bool { return strings.EqualFold(name, host) }
		if (strings.HasPrefix(p, "/dev/") || loopback && signaling) &&
			!admin.ByAddress(r.Host) && !slices.ContainsFunc(names, own) {
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, "Forbidden host: with --dev, use an IP address or the host name of this "+
				"machine. --public-host allows another name.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// stats is the response of /dev/stats.
type stats struct {
	Signaling   signaling.Stats `json:"signaling"`
	Relay       relay.Stats     `json:"relay"`
	Connections int             `json:"connections"`
	Goroutines  int             `json:"goroutines"`
}

func (n *Node) serveStats(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	s := stats{
		Signaling:   n.hub.Stats(),
		Connections: n.conns.Open(),
		Goroutines:  runtime.NumGoroutine(),
	}
	if n.relay != nil {
		s.Relay = n.relay.Stats()
	}
	_ = json.NewEncoder(w).Encode(s) // the client is gone
}
