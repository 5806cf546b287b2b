package node

import (
	"encoding/json"
	"net/http"
	"runtime"
	"strings"

	"github.com/ieum-rtc/ieum/internal/relay"
	"github.com/ieum-rtc/ieum/internal/signaling"
	"github.com/ieum-rtc/ieum/internal/transport/socketio"
)

// guardedPath reports whether a path is only for pages of this machine: a page on the web could
// point a name of its own here and read the license (DNS rebinding). On loopback such a page must
// not get a signaling connection either, since --dev accepts any origin.
func (n *Node) guardedPath(path string) bool {
	signaling := path == "/signal" || strings.HasPrefix(path, socketio.Path)
	return strings.HasPrefix(path, "/dev/") || signaling && n.Addr().Addr().IsLoopback()
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
