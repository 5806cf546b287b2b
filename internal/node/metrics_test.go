package node

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/logtest"
)

// A relayed call leaves a line and figures that can be asked for.
func TestMetricsOfARunningServer(t *testing.T) {
	log := &logtest.Buffer{}
	n := start(t, config.Server{Dev: true, Version: "v1", Admin: config.AdminSettings{
		Listen: "127.0.0.1:0",
	}, RelayListen: "127.0.0.1:0",
		Log: slog.New(slog.NewTextHandler(log, nil))})
	c := call(t, n, map[string]any{"userId": "kim"})
	c.join()
	if err := c.allocate(c.urls()[len(c.urls())-1], nil); err != nil {
		t.Fatal(err)
	}
	metrics := "http://" + n.AdminAddr().String() + "/metrics"
	for _, want := range []string{
		`ieum_build_info{goversion="go`, `version="v1"} 1`, "ieum_signaling_sessions 1",
		"ieum_signaling_rooms 1", "ieum_signaling_connections 1",
		`ieum_port_connections_total{port="relay",result="turn"} 1`,
		`ieum_port_connections_total{port="all",result="shed"} 0`,
		"ieum_relay_allocations 0", `ieum_relay_allocations_closed_total{reason=`, "go_goroutines ",
	} {
		has(t, metrics, want)
	}
	if res, body := get(
		t, "http://"+n.AdminAddr().String()+"/healthz",
	); res.StatusCode != http.StatusOK || body != "ok\n" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	if res, body := get(
		t, "http://"+n.AdminAddr().String()+"/readyz",
	); res.StatusCode != http.StatusOK || body != "ok\n" {
		t.Errorf("%d %q, with a relay that works", res.StatusCode, body)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := log.String()
	if n := strings.Count(text, `msg="relay allocation ended"`); n != 1 {
		t.Errorf("%d records, want that of the call and none of a test", n)
	}
	if !strings.Contains(text, `msg="relay allocation ended"`) ||
		!strings.Contains(text, "license=DEV-LOCAL-01 user=kim room=K") {
		t.Errorf("no record in\n%s", text)
	}
	for _, line := range strings.Split(text, "\n") {
		if strings.Contains(line, "allocation ended") && strings.Contains(line, "127.0.0.1") {
			t.Errorf("an address is logged: %s", line)
		}
	}
}

// has asks until the metrics have a text: an allocation's end is known to the client first.
func has(t *testing.T, metrics, want string) {
	t.Helper()
	for end := time.Now().Add(failSafe); ; {
		_, body := get(t, metrics)
		if strings.Contains(body, want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no %s in\n%s", want, body)
		}
	}
}

func TestMetricsOfARelayAlone(t *testing.T) {
	r := startRelayAlone(t, config.Relay{Admin: config.AdminSettings{Listen: "127.0.0.1:0"}})
	_, body := get(t, "http://"+r.admin.Addr().String()+"/metrics")
	for _, want := range []string{
		"ieum_relay_allocations 0", `ieum_port_pending_connections{port="relay"} 0`,
		"ieum_build_info",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	if strings.Contains(body, "ieum_signaling") {
		t.Error("a relay has no sessions")
	}
}

func TestMetricsNeedAKeyBeyondLoopback(t *testing.T) {
	for listen, want := range map[string]string{
		":7103":       "--admin-listen",
		"x":           "--admin-listen",
		"off":         "",
		"":            "",
		"localhost:0": "",
	} {
		err := config.Server{Dev: true, Admin: config.AdminSettings{Listen: listen}}.Validate()
		if want == "" && err != nil || want != "" &&
			(err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", listen, err)
		}
	}
	c := config.Server{
		Dev:   true,
		Admin: config.AdminSettings{Listen: ":0", Token: "0123456789abcdef"},
	}
	n := start(t, c)
	_, port, _ := strings.Cut(n.AdminAddr().String(), "]:")
	if res, _ := get(
		t, "http://127.0.0.1:"+port+"/metrics",
	); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("without the key: %d", res.StatusCode)
	}
}
