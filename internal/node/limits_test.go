package node

import (
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/lxzan/gws"

	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/logtest"
)

// knock asks for a connection as a client behind a proxy of this machine, and returns the status.
// One that was let in stays.
func knock(t *testing.T, n *Node, path, from string) int {
	t.Helper()
	url := strings.TrimPrefix(n.URLs()[0], "http") + path
	if strings.HasPrefix(path, "socket.io") {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http"+url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-For", from)
		res, err := insecure.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	h := &answers{got: make(chan []byte, 1), done: make(chan struct{})}
	ws, res, err := gws.NewClient(
		h,
		&gws.ClientOption{Addr: "ws" + url, RequestHeader: http.Header{"X-Forwarded-For": {from}}},
	)
	if err != nil {
		if res == nil {
			t.Fatal(err)
		}
		return res.StatusCode
	}
	go ws.ReadLoop()
	t.Cleanup(func() {
		_ = ws.NetConn().Close()
		<-h.done
	})
	return res.StatusCode
}

func TestTransportsShareTheLimitOfUnregisteredConnections(t *testing.T) {
	n := start(t, config.Server{
		Dev:            true,
		Admin:          config.AdminSettings{Listen: "127.0.0.1:0"},
		TrustedProxies: []string{"127.0.0.0/8"},
		Limits:         config.LimitSettings{Unregistered: new(2), Connections: new(3)},
	})
	const polling = "socket.io/?EIO=4&transport=polling"
	for i, k := range []struct {
		path, from string
		want       int
	}{
		{"signal", "203.0.113.1", 101},
		{polling, "203.0.113.1", 200},
		{"signal", "203.0.113.1", 429},
		{polling, "203.0.113.1", 429},
		{"signal", "203.0.113.2", 101},
		{"signal", "203.0.113.3", 503},
		{polling, "203.0.113.3", 503},
		{"signal?resume", "203.0.113.3", 101},
		{polling + "&resume", "203.0.113.3", 503}, // an eighth of three and one is full too
	} {
		if got := knock(t, n, k.path, k.from); got != k.want {
			t.Errorf("%d: %s from %s: %d, want %d", i, k.path, k.from, got, k.want)
		}
	}
	_, text := get(t, "http://"+n.AdminAddr().String()+"/metrics")
	for _, line := range []string{
		`ieum_limit_rejections_total{limit="unregistered"} 2`,
		`ieum_limit_rejections_total{limit="connections"} 3`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %s in the metrics", line)
		}
	}
}

func TestWithoutATrustedProxyNobodySaysWhereItComesFrom(t *testing.T) {
	n := start(t, config.Server{Dev: true, Limits: config.LimitSettings{Unregistered: new(1)}})
	for range 3 { // all on loopback, which has no limit of its own
		if got := knock(t, n, "signal", "203.0.113.1"); got != 101 {
			t.Errorf("%d, want 101", got)
		}
	}
}

// Who reads a metric or a refusal must find it in the table.
func TestLimitsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/operating/secure.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "\n## Limits\n")
	table, _, _ = strings.Cut(table, "\n## ")
	if !found {
		t.Fatal("docs/operating/secure.md has no section about limits")
	}
	n := start(t, config.Server{Dev: true, Admin: config.AdminSettings{Listen: "127.0.0.1:0"}})
	_, metrics := get(t, "http://"+n.AdminAddr().String()+"/metrics")
	names := regexp.MustCompile(
		`(?m)^ieum_limit_rejections_total\{limit="(.*)"\} 0$`,
	).FindAllStringSubmatch(metrics, -1)
	if len(names) < 25 {
		t.Fatalf("%d limits in\n%s", len(names), metrics)
	}
	for _, name := range names {
		if !strings.Contains(table, "| `"+name[1]+"` |") {
			t.Errorf("%s is not in the table of limits", name[1])
		}
	}
}

// Behind a proxy of this machine that is trusted, each client has its own address, and its own
// limit.
func TestFailedLoginsCountByTheAddressThatTheProxySays(t *testing.T) {
	n := start(
		t,
		config.Server{
			Dev:            true,
			TrustedProxies: []string{"127.0.0.1"},
			Limits:         config.LimitSettings{FailedLogins: new(2)},
		},
	)
	login := func(from string) string {
		t.Helper()
		h := &answers{got: make(chan []byte, 1), done: make(chan struct{})}
		ws, _, err := gws.NewClient(h, &gws.ClientOption{
			Addr:          "ws" + strings.TrimPrefix(n.URLs()[0], "http") + "signal",
			RequestHeader: http.Header{"X-Forwarded-For": {from}},
		})
		if err != nil {
			t.Fatal(err)
		}
		go ws.ReadLoop()
		if err := ws.WriteString(
			`{"eventOp":"register","reqId":1,"cpCode":"A","authKey":"B"}`,
		); err != nil {
			t.Fatal(err)
		}
		var a struct{ Code string }
		if err := json.Unmarshal(<-h.got, &a); err != nil {
			t.Fatal(err)
		}
		_ = ws.NetConn().Close()
		<-h.done
		return a.Code
	}
	for i, c := range []struct{ from, want string }{
		{"203.0.113.1", "401"},
		{"203.0.113.1", "401"},
		{"203.0.113.1", "429"},
		{"192.0.2.9, 203.0.113.1", "429"},
		{"203.0.113.2", "401"},
	} {
		if got := login(c.from); got != c.want {
			t.Errorf("%d: from %s: %s, want %s", i, c.from, got, c.want)
		}
	}
}

// Who gets in because it says that it resumes, and then registers anew, is refused.
func TestAPlaceInTheReserveIsNoLogin(t *testing.T) {
	n := start(t, config.Server{Dev: true, Limits: config.LimitSettings{Connections: new(1)}})
	c := call(t, n, nil)
	_, body := get(t, n.URLs()[0]+"dev/license")
	login := map[string]any{"eventOp": "register", "reqId": "r"}
	if err := json.Unmarshal([]byte(body), &login); err != nil {
		t.Fatal(err)
	}
	h := &answers{got: make(chan []byte, 1), done: make(chan struct{})}
	ws, _, err := gws.NewClient(
		h,
		&gws.ClientOption{Addr: "ws" + strings.TrimPrefix(n.URLs()[0], "http") + "signal?resume"},
	)
	if err != nil {
		t.Fatal(err)
	}
	go ws.ReadLoop()
	for _, more := range []map[string]any{{}, {"resume": "x"}, {"forced": true}} {
		maps.Copy(login, more)
		b, _ := json.Marshal(login)
		if err := ws.WriteMessage(gws.OpcodeText, b); err != nil {
			t.Fatal(err)
		}
		var a struct{ Code string }
		if err := json.Unmarshal(<-h.got, &a); err != nil || a.Code != "445" {
			t.Errorf("%v: %s, %v", more, a.Code, err)
		}
	}
	_ = ws.NetConn().Close()
	<-h.done
	c.join() // who is in is not affected
}

func TestServerWarnsAboutUndeclaredProxies(t *testing.T) {
	var log logtest.Buffer
	n := start(t, config.Server{Dev: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	r := httptest.NewRequest(http.MethodGet, "/healthz", nil)
	r.Header.Set("X-Forwarded-For", "203.0.113.1")
	routes, err := n.routes()
	if err != nil {
		t.Fatal(err)
	}
	routes.ServeHTTP(httptest.NewRecorder(), r) // the client of httptest is 192.0.2.1
	if !strings.Contains(log.String(), "network=192.0.2.0/24") {
		t.Errorf("no warning in the log of a server:\n%s", log.String())
	}
}
