package transport

import (
	"io"
	"log/slog"
	"net/http"
	"time"
)

// MaxHeader is about the most bytes that a request's line and headers may have together.
const MaxHeader = 16 << 10

// NewHTTPServer returns an HTTP server with the limits that all servers of this program have:
// anybody may connect to them.
func NewHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       30 * time.Second,  // longer than the pauses of a polling client
		MaxHeaderBytes:    MaxHeader - 4<<10, // net/http adds 4 KiB
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          100,
			MaxReceiveBufferPerConnection: 256 << 10,
			MaxReceiveBufferPerStream:     128 << 10,
		},
	}
}

// ServeHealth tells a load balancer that the server runs.
func ServeHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = io.WriteString(w, "ok\n")
}
