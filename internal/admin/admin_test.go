package admin

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, key string) (base string) {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(
		prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: "answer", Help: "Of a test."}, func() float64 { return 42 },
		),
	)
	s, err := Start(&Config{
		Listen: "127.0.0.1:0",
		Token:  []byte(key),
		Log:    slog.New(slog.DiscardHandler),
	}, Source{Metrics: r})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr().String()
}

func ask(t *testing.T, method, url, host, authorization string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Close = true; host != "" {
		r.Host = host
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestMetricsAreServedAsText(t *testing.T) {
	code, text := ask(t, "GET", serve(t, "")+"/metrics", "", "")
	if code != 200 || !strings.Contains(text, "\nanswer 42\n") {
		t.Errorf("%d %s", code, text)
	}
}

func TestWhoMayAsk(t *testing.T) {
	open, locked := serve(t, ""), serve(t, "0123456789abcdef")
	for _, c := range []struct {
		method, url, host, authorization string
		want                             int
	}{
		{"GET", open + "/healthz", "", "", 200},
		{"GET", open + "/metrics", "localhost:7103", "", 200},
		{"GET", open + "/metrics", "[::1]:7103", "", 200},
		{"GET", open + "/metrics", "rebound.example:7103", "", 403},
		{"POST", open + "/metrics", "", "", 405},
		{"GET", open + "/debug/pprof/", "", "", 404},
		{"GET", locked + "/healthz", "", "", 200},
		{"GET", locked + "/metrics", "", "", 401},
		{"GET", locked + "/metrics", "", "Bearer 0123456789abcdeX", 401},
		{"GET", locked + "/metrics", "", "Basic 0123456789abcdef", 401},
		{"GET", locked + "/metrics", "metrics.example", "Bearer 0123456789abcdef", 200},
	} {
		if got, _ := ask(t, c.method, c.url, c.host, c.authorization); got != c.want {
			t.Errorf(
				"%s %s as %q with %q: %d, want %d",
				c.method, c.url, c.host, c.authorization, got, c.want,
			)
		}
	}
}

func TestOtherMachinesNeedAKey(t *testing.T) {
	for listen, c := range map[string]struct {
		key string
		ok  bool
	}{
		"127.0.0.1:1": {"", true},
		"[::1]:1":     {"", true},
		":1":          {"", false},
		"0.0.0.0:2":   {"", false},
		"10.0.0.1:1":  {"", false},
		"x:1":         {"", false},
		":2":          {"0123456789abcdef", true},
		"127.0.0.1:2": {"short", false},
		"":            {"0123456789abcdef", false},
	} {
		if err := (Config{Listen: listen, Token: []byte(c.key)}).Validate(); (err == nil) != c.ok {
			t.Errorf("%q with %q: %v", listen, c.key, err)
		}
	}
}

func TestOnlyAnOptionalListenerIsGivenUp(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := Config{Listen: taken.Addr().String(), Log: slog.New(slog.DiscardHandler), Optional: true}
	source := Source{Metrics: prometheus.NewRegistry()}
	if s, err := Start(&c, source); s != nil || err != nil {
		t.Errorf("%v, %v", s, err)
	}
	c.Optional = false
	if _, err := Start(&c, source); err == nil {
		t.Error("started where another server is")
	}
	if s, err := Start(nil, source); s != nil || err != nil {
		t.Errorf("without a configuration: %v, %v", s, err)
	}
}

const failSafe = 30 * time.Second // far above what anything takes

// The listener has the bounds of the main port, with numbers of its own.
func TestConnectionsAreBounded(t *testing.T) {
	address := strings.TrimPrefix(serve(t, ""), "http://")
	var all []net.Conn
	for i := range 2 * connLimits.Connections {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(failSafe))
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
		if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil ||
			res.StatusCode != http.StatusOK {
			t.Fatalf("the %dth: %v", i, err)
		}
		all = append(all, c)
	}
	ended := make(chan error, len(all))
	var readers sync.WaitGroup
	for _, c := range all {
		readers.Go(func() {
			_, err := io.Copy(io.Discard, c) // the rest of the answer, and then the end
			ended <- err
		})
	}
	for i := range connLimits.Connections {
		if err := <-ended; err != nil {
			t.Fatalf("only %d were closed: %v", i, err)
		}
	}
	for _, c := range all {
		_ = c.Close()
	}
	readers.Wait()
}
