package admin

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
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
	s, err := Start(
		Config{
			Listen:  "127.0.0.1:0",
			Token:   []byte(key),
			Metrics: r,
			Log:     slog.New(slog.DiscardHandler),
		},
	)
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
