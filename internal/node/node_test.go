package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lxzan/gws"
	"go.uber.org/goleak"

	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	anyPorts = config.RelaySettings{STUNListen: "127.0.0.1:0"}
	noAdmin  = config.AdminSettings{Listen: "off"}
)

func start(t *testing.T, c config.Server) *Node {
	t.Helper()
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.Relay.STUNListen == "" {
		c.Relay.STUNListen = "127.0.0.1:0"
	}
	if c.Admin.Listen == "" {
		c.Admin.Listen = "off"
	}
	n, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := n.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return n
}

var insecure = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
	DisableKeepAlives: true,
	ForceAttemptHTTP2: true,
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
}}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	res, err := insecure.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// register opens a WebSocket to the node, registers with its license and what more says, and
// returns the answer. The socket is closed as by a page that goes, or left to be cut.
func register(t *testing.T, n *Node, more map[string]any, leave bool) map[string]any {
	t.Helper()
	url := n.URLs()[0]
	_, body := get(t, url+"dev/license")
	var l map[string]any
	if err := json.Unmarshal([]byte(body), &l); err != nil {
		t.Fatal(err, body)
	}
	h := &answers{got: make(chan []byte, 1), done: make(chan struct{})}
	ws, _, err := gws.NewClient(h, &gws.ClientOption{
		Addr:      "ws" + strings.TrimPrefix(url, "http") + "signal",
		TlsConfig: &tls.Config{InsecureSkipVerify: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	go ws.ReadLoop()
	l["eventOp"], l["reqId"] = "register", 1
	maps.Copy(l, more)
	b, _ := json.Marshal(l)
	if err := ws.WriteMessage(gws.OpcodeText, b); err != nil {
		t.Fatal(err)
	}
	var a map[string]any
	if err := json.Unmarshal(<-h.got, &a); err != nil {
		t.Fatal(err)
	}
	if leave {
		_ = ws.WriteClose(1000, nil)
	} else {
		_ = ws.NetConn().Close()
	}
	<-h.done
	return a
}

type answers struct {
	gws.BuiltinEventHandler
	got  chan []byte
	done chan struct{}
	code int // with which the server closed; read it after done
}

func (h *answers) OnMessage(_ *gws.Conn, m *gws.Message) {
	h.got <- append([]byte(nil), m.Bytes()...)
	_ = m.Close()
}

func (h *answers) OnClose(_ *gws.Conn, err error) {
	var closed *gws.CloseError
	if errors.As(err, &closed) {
		h.code = int(closed.Code)
	}
	close(h.done)
}

func TestTwoNodesInOneProcess(t *testing.T) {
	a, b := start(t, config.Server{Dev: true}), start(t, config.Server{Dev: true})
	for _, n := range []*Node{a, b} {
		answer := register(t, n, nil, true)
		ice, _ := json.Marshal(answer["iceServers"])
		if answer["code"] != "200" || !strings.Contains(string(ice), "turn:127.0.0.1:") ||
			!strings.Contains(string(ice), "transport=tcp") {
			t.Errorf("answer %v", answer)
		}
	}
	if a.Addr() == b.Addr() || a.STUNPort() == b.STUNPort() {
		t.Error("the nodes share a port")
	}
}

// What internal/signaling tests in virtual time, once over real sockets and a real file.
func TestSessionOutlastsARestartWithData(t *testing.T) {
	c := config.Server{
		Dev:    true,
		Data:   t.TempDir(),
		Listen: "127.0.0.1:0",
		Relay:  anyPorts,
		Admin:  noAdmin,
	}
	first, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	a := register(t, first, map[string]any{"userId": "kim"}, false)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := first.Close(ctx); err != nil {
		t.Fatal(err)
	}
	again := start(t, c)
	b := register(t, again, map[string]any{"resume": a["resume"]}, true)
	if b["code"] != "200" || b["userId"] != "kim" || b["resumed"] != true {
		t.Errorf("answer %v", b)
	}
	for { // the server hears of the close a moment after the client has sent it
		_, body := get(t, again.URLs()[0]+"dev/stats")
		var s stats
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			t.Fatal(err)
		}
		if s.Signaling.Sessions == 0 {
			break
		}
	}
	if c := register(t, again, map[string]any{"resume": a["resume"]}, true); c["code"] != "410" {
		t.Errorf("a page that went away came back: %v", c)
	}
}

func TestSelfSignedServesPagesAndSignalingOverTLS(t *testing.T) {
	dir := t.TempDir()
	n := start(t, config.Server{Dev: true, TLSSelfSigned: true, Data: dir})
	res, body := get(t, n.URLs()[0])
	if res.StatusCode != 200 || res.ProtoMajor != 2 || !strings.Contains(body, "Ieum") ||
		!strings.HasPrefix(n.URLs()[0], "https://127.0.0.1:") {
		t.Errorf("%s %d", res.Proto, res.StatusCode)
	}
	if res.TLS.Version < tls.VersionTLS12 {
		t.Error("TLS older than 1.2")
	}
	if a := register(t, n, nil, true); a["code"] != "200" {
		t.Errorf("answer %v", a)
	}
	first := res.TLS.PeerCertificates[0].SerialNumber
	if _, err := tls.Dial(
		"tcp", n.Addr().String(),
		&tls.Config{
			InsecureSkipVerify: true,
			MaxVersion:         tls.VersionTLS11,
			MinVersion:         tls.VersionTLS10,
		},
	); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := start(t, config.Server{Dev: true, TLSSelfSigned: true, Data: dir})
	if res, _ := get(t, again.URLs()[0]); res.TLS.PeerCertificates[0].SerialNumber.Cmp(first) != 0 {
		t.Error("with a data folder the certificate must be kept")
	}
}

func TestWithoutDevThereIsNoDevRoute(t *testing.T) {
	n := start(t, config.Server{LicenseSigningKey: "0123456789abcdef0123456789abcdef"})
	for _, path := range []string{"dev/license", "dev/stats"} {
		if res, body := get(t, n.URLs()[0]+path); res.StatusCode != 404 ||
			strings.Contains(body, "authKey") {
			t.Errorf("/%s: %d", path, res.StatusCode)
		}
	}
	if _, private := n.RelayAddresses(); !private {
		t.Error("a loopback relay address is not called private")
	}
}

func TestStartThatFailsLeavesNothingOpen(t *testing.T) {
	n := start(t, config.Server{Dev: true})
	if _, err := Start(
		config.Server{Dev: true, Listen: n.Addr().String(), Relay: anyPorts, Admin: noAdmin},
	); err == nil {
		t.Fatal("started on a port that is taken")
	}
	if _, err := Start(config.Server{Listen: "127.0.0.1:0"}); err == nil {
		t.Fatal("started without a license key")
	}
}

func TestValidateWritesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := (config.Server{Dev: true, TLSSelfSigned: true, Data: dir}).Validate(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("a check made the data folder")
	}
}

// Browsers connect ahead of time, and a request may be on its way for ever: neither makes a stop a
// failure.
func TestClientsThatSayNothingDoNotMakeAStopFail(t *testing.T) {
	n, err := Start(
		config.Server{Dev: true, Listen: "127.0.0.1:0", Relay: anyPorts, Admin: noAdmin},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, begin := range []string{
		"", "POST /leave HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
	} {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", n.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(begin)); err != nil {
			t.Fatal(err)
		}
	}
	get(t, n.URLs()[0]) // connections are accepted in order
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		t.Error(err)
	}
}

// Old clients are refused for what they cannot do safely, not for their age: TLS 1.2 is served with
// ciphers that authenticate what they encrypt (AEAD), and with no others.
func TestTLSWithoutAEADIsRefused(t *testing.T) {
	n := start(t, config.Server{Dev: true, TLSSelfSigned: true})
	for suite, want := range map[uint16]bool{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       true,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: true,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA:          false,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA:          false,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256:       false,
	} {
		conn, err := tls.Dial(
			"tcp", n.Addr().String(),
			&tls.Config{
				InsecureSkipVerify: true,
				MaxVersion:         tls.VersionTLS12,
				CipherSuites:       []uint16{suite},
			},
		)
		if (err == nil) != want {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}

// onePipe is a listener with one connection.
type onePipe struct {
	conn chan net.Conn
	done chan struct{}
}

func (l *onePipe) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *onePipe) Close() error   { close(l.done); return nil }
func (l *onePipe) Addr() net.Addr { return &net.TCPAddr{} }

// Who drips a request holds a connection for seconds, and not for ever.
func TestSlowRequestsAreCut(t *testing.T) {
	for name, c := range map[string]struct {
		begin string
		limit time.Duration
	}{
		"silent":      {"", 10 * time.Second},
		"in a header": {"GET /signal HTTP/1.1\r\nHost: x\r\nX-", 10 * time.Second},
		"in a body": {
			"POST /leave HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n", 15 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				l := &onePipe{make(chan net.Conn, 1), make(chan struct{})}
				l.conn <- ours
				server := transport.NewHTTPServer(
					http.HandlerFunc(
						func(w http.ResponseWriter, r *http.Request) {
							_, _ = io.Copy(
								io.Discard, r.Body,
							)
						},
					),
					slog.New(slog.DiscardHandler),
				)
				ended := make(chan error, 1)
				go func() { ended <- server.Serve(l) }()
				begin := time.Now()
				_, _ = io.WriteString(theirs, c.begin)
				var dripping sync.WaitGroup
				dripping.Go(func() {
					for {
						time.Sleep(time.Second)
						if _, err := theirs.Write([]byte("x")); err != nil {
							return
						}
					}
				})
				_, _ = io.Copy(io.Discard, theirs)
				if took := time.Since(begin); took < c.limit || took > c.limit+time.Second {
					t.Errorf("cut after %v, want %v", took, c.limit)
				}
				dripping.Wait()
				_ = server.Close()
				if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
			})
		})
	}
}

// With --dev a page of the web that has pointed its own name here reads nothing, and on loopback
// gets no connection.
func TestNamesThatAreNotOursAreRefusedWithDev(t *testing.T) {
	n := start(t, config.Server{Dev: true, PublicHost: "calls.example"})
	port := n.Addr().Port()
	host, _ := os.Hostname()
	status := func(path, name string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "GET", n.URLs()[0]+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = name
		res, err := insecure.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	for path, want := range map[string]int{
		"dev/license":                        200,
		"dev/stats":                          200,
		"signal":                             http.StatusUpgradeRequired,
		"socket.io/?EIO=4&transport=polling": 200,
	} {
		for _, name := range []string{
			"127.0.0.1", "localhost", "[::1]", host, "calls.example", "CALLS.example", "192.0.2.1",
		} {
			for _, with := range []string{name, fmt.Sprintf("%s:%d", name, port)} {
				if got := status(path, with); got != want {
					t.Errorf("%s of %s: %d, want %d", path, with, got, want)
				}
			}
		}
		for _, name := range []string{
			"evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "a.calls.example",
			"evil.example:7102",
		} {
			if got := status(path, name); got != http.StatusForbidden {
				t.Errorf("%s of %s: %d", path, name, got)
			}
		}
	}
	if got := status("guide", "evil.example"); got != 200 { // pages hold no secret
		t.Errorf("a page: %d", got)
	}
}

func TestHealthOnTheMainPort(t *testing.T) {
	for _, c := range []config.Server{
		{Dev: true},
		{LicenseSigningKey: "0123456789abcdef0123456789abcdef"},
	} {
		n := start(t, c)
		res, body := get(t, n.URLs()[0]+"healthz")
		if res.StatusCode != 200 || body != "ok\n" ||
			res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%d %q %v", res.StatusCode, body, res.Header)
		}
		for _, path := range []string{"readyz", "metrics", "debug/pprof/"} {
			if res, _ := get(t, n.URLs()[0]+path); res.StatusCode != 404 {
				t.Errorf("%s: %d", path, res.StatusCode)
			}
		}
	}
}
