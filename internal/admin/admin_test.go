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

	"github.com/ieum-rtc/ieum/internal/signaling"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, key string) (base string) {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(Signaling(func() signaling.Stats {
		return signaling.Stats{
			Sessions: 3, Rooms: 2, Relayed: 9, Spoofed: 4, Flooded: 5, Overflowed: 6, Resumed: 7,
			Handled: []signaling.Handled{{Op: "joinRoom", Code: "444", Count: 8}}, Refused: map[string]uint64{"expired": 10},
			Joins: signaling.Joins{Count: 11, Sum: 3 * time.Second, Within: map[time.Duration]uint64{time.Millisecond: 2}},
		}
	}))
	r.MustRegister(Limits(func() map[string]uint64 { return map[string]uint64{"unregistered": 12} }))
	s, err := Start(Config{Listen: "127.0.0.1:0", Token: []byte(key), Metrics: r, Log: slog.New(slog.DiscardHandler)})
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

func TestMetricsOfSignaling(t *testing.T) {
	base := serve(t, "")
	code, text := ask(t, "GET", base+"/metrics", "", "")
	for _, line := range []string{
		"ieum_signaling_sessions 3", "ieum_signaling_rooms 2", "ieum_signaling_relayed_messages_total 9",
		`ieum_signaling_refused_total{reason="spoofed"} 4`, `ieum_signaling_refused_total{reason="flooded"} 5`,
		"ieum_signaling_slow_consumer_disconnects_total 6", "ieum_signaling_sessions_resumed_total 7", `ieum_signaling_messages_total{code="444",op="joinRoom"} 8`,
		`ieum_signaling_logins_refused_total{reason="expired"} 10`, `ieum_signaling_join_duration_seconds_bucket{le="0.001"} 2`,
		"ieum_signaling_join_duration_seconds_sum 3", "ieum_signaling_join_duration_seconds_count 11",
		`ieum_limit_rejections_total{limit="unregistered"} 12`,
	} {
		if code != 200 || !strings.Contains(text, line+"\n") {
			t.Errorf("%d, no %s in\n%s", code, line, text)
		}
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
			t.Errorf("%s %s as %q with %q: %d, want %d", c.method, c.url, c.host, c.authorization, got, c.want)
		}
	}
}

func TestOtherMachinesNeedAKey(t *testing.T) {
	for listen, c := range map[string]struct {
		key string
		ok  bool
	}{
		"127.0.0.1:1": {"", true}, "[::1]:1": {"", true}, ":1": {"", false}, "0.0.0.0:2": {"", false}, "10.0.0.1:1": {"", false}, "x:1": {"", false},
		":2": {"0123456789abcdef", true}, "127.0.0.1:2": {"short", false}, "": {"0123456789abcdef", false},
	} {
		if err := (Config{Listen: listen, Token: []byte(c.key)}).Validate(); (err == nil) != c.ok {
			t.Errorf("%q with %q: %v", listen, c.key, err)
		}
	}
}
