package pair

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lxzan/gws"
	"go.uber.org/goleak"

	"github.com/ieum-rtc/ieum/internal/bench/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(s *fakeServer, protocol string) Config {
	return Config{
		Target:   client.Target{URL: s.url, CpCode: "CODE", AuthKey: "KEY", Conns: 10},
		Protocol: protocol,
		Pairs:    3,
		Messages: 101,
	}
}

func TestEveryProtocolDeliversItsShare(t *testing.T) {
	for protocol := range dialects {
		t.Run(protocol, func(t *testing.T) {
			s := startFake(t, protocol)
			r, err := Run(t.Context(), config(s, protocol))
			if err != nil {
				t.Fatal(err)
			}
			if r.Messages != 101 || r.Errors != 0 || r.Lost != 0 || r.FirstError != "" {
				t.Errorf("report %+v", r)
			}
			if r.Protocol != protocol || r.Conns != 10 || r.Pairs != 3 || r.Size != 1500 ||
				r.P50us > r.P99us ||
				r.PerSecond <= 0 {
				t.Errorf("report %+v", r)
			}
			if r.CPUPerMillion != nil || r.KBPerConn != nil {
				t.Error("figures of no process")
			}
			if _, _, relayed, sizes := s.seen(); relayed != 101+101/5 || len(sizes) != 1 ||
				!sizes[1500] {
				t.Errorf("the server relayed %d messages of %v bytes", relayed, sizes)
			}
		})
	}
}

func TestConnectionsBySecureSocketsAndFromManyAddresses(t *testing.T) {
	s := startFakeOn(t, "ieum", httptest.NewTLSServer)
	cfg := config(s, "ieum")
	cfg.URL = "wss://" + strings.SplitN(s.url, "://", 2)[1]
	if _, err := Run(t.Context(), cfg); err == nil ||
		!strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
	cfg.Insecure = true
	want := map[string]bool{"127.0.0.1": true}
	if runtime.GOOS == "linux" {
		cfg.Sources = 3
		want = map[string]bool{"127.0.0.2": true, "127.0.0.3": true, "127.0.0.4": true}
	}
	if r, err := Run(t.Context(), cfg); err != nil || r.Messages != 101 || r.Errors+r.Lost != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !maps.Equal(s.sources, want) {
		t.Errorf("connections came from %v, want %v", s.sources, want)
	}
}

func TestIdleConnectionsAlone(t *testing.T) {
	s := startFake(t, "ieum")
	cfg := config(s, "") // ieum is the default
	cfg.Messages, cfg.Pairs = 0, 0
	r, err := Run(t.Context(), cfg)
	if err != nil || r.Messages != 0 || r.Errors+r.Lost != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if users, rooms, relayed, _ := s.seen(); users != 10 || rooms != 5 || relayed != 0 {
		t.Errorf("%d users in %d rooms, %d messages", users, rooms, relayed)
	}
}

// A message that does not arrive as it was sent is lost. The run reports why and stops measuring.
func TestFailuresAreReported(t *testing.T) {
	const nth = 25 // behind the warm-up's 20
	for name, c := range map[string]struct {
		relay  func(text string, from *gws.Conn) []string
		errors int
		first  string
	}{
		"dropped": {func(string, *gws.Conn) []string { return nil }, 0, "nothing was delivered"},
		"damaged": {func(text string, _ *gws.Conn) []string {
			return []string{strings.Replace(text, "a=mid:0", "a=mid:1", 1)}
		}, 1, "unexpected"},
		"other sender": {func(text string, _ *gws.Conn) []string {
			return []string{strings.Replace(text, `"userId":"m`, `"userId":"n`, 1)}
		}, 1, "unexpected"},
		"an old one": {func(text string, _ *gws.Conn) []string {
			return []string{renumber(text)}
		}, 1, "unexpected"},
		"refused": {refuse, 1, "unexpected"},
		"back to sender": {func(text string, from *gws.Conn) []string {
			_ = from.WriteString(text)
			return nil
		}, 1, "unexpected"},
		"closed": {func(_ string, from *gws.Conn) []string {
			_ = from.WriteClose(1008, []byte("too many messages"))
			return nil
		}, 1, "1008 too many messages"},
	} {
		t.Run(name, func(t *testing.T) {
			s := startFake(t, "ieum")
			s.relay = func(n int, text string, from *gws.Conn) []string {
				if n == nth {
					return c.relay(text, from)
				}
				return []string{text}
			}
			cfg := config(s, "ieum")
			cfg.Pairs, cfg.Messages, cfg.Stall = 1, 100, 50*time.Millisecond
			if name != "dropped" { // whose pair is told of its loss at once, not by the stall
				cfg.Stall = time.Hour
			}
			r, err := Run(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if r.Lost != 1 || r.Errors != c.errors || !strings.Contains(r.FirstError, c.first) {
				t.Errorf("lost %d, errors %d, first %q", r.Lost, r.Errors, r.FirstError)
			}
			if _, _, relayed, _ := s.seen(); relayed != nth || r.Messages != nth-1-20 {
				t.Errorf("went on to message %d, %d of them counted", relayed, r.Messages)
			}
		})
	}
}

func refuse(_ string, from *gws.Conn) []string {
	_ = from.WriteString(`{"eventOp":"sdp","code":"403","message":"No such user in this room."}`)
	return nil
}

func renumber(text string) string {
	b := []byte(text)
	putNumber(b, numberAt(b), 1)
	return string(b)
}

func TestMessageTwiceIsAnError(t *testing.T) {
	s := startFake(t, "peerjs")
	s.relay = func(n int, text string, _ *gws.Conn) []string {
		if n == 5 {
			return []string{text, text}
		}
		return []string{text}
	}
	cfg := config(s, "peerjs")
	cfg.Pairs = 1
	if r, err := Run(t.Context(), cfg); err != nil || r.Errors == 0 || r.Lost != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRefusedLoginEndsTheRun(t *testing.T) {
	for _, protocol := range []string{"ieum", "ieum-socketio"} {
		s := startFake(t, protocol)
		cfg := config(s, protocol)
		cfg.AuthKey = "another"
		if _, err := Run(t.Context(), cfg); err == nil ||
			!strings.Contains(err.Error(), "register: 401 from the test") {
			t.Errorf("%s: error %v", protocol, err)
		}
	}
}

func TestServerThatTakesNoWebSocketsEndsTheRun(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	cfg := Config{Target: client.Target{URL: "ws" + strings.TrimPrefix(s.URL, "http"), Conns: 2}}
	if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("error %v", err)
	}
}

func TestCancelEndsTheRun(t *testing.T) {
	s := startFake(t, "ieum")
	ctx, cancel := context.WithCancel(t.Context())
	s.relay = func(n int, text string, _ *gws.Conn) []string {
		if n == 50 {
			cancel()
			return nil
		}
		return []string{text}
	}
	cfg := config(s, "ieum")
	cfg.Pairs, cfg.Messages, cfg.Stall = 1, 1000, time.Hour
	if _, err := Run(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestMessagesAtAFixedRateAllArrive(t *testing.T) {
	s := startFake(t, "ieum")
	cfg := config(s, "ieum")
	cfg.setDefaults()
	r := newRun(cfg)
	defer r.close()
	if err := r.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{100, 1} { // more and fewer than there are pairs
		if err := r.play(t.Context(), n, 2000); err != nil || r.failures.any() {
			t.Fatal(err, &r.failures)
		}
		if got := len(r.latencies()); got != n {
			t.Errorf("%d messages have arrived, not %d", got, n)
		}
	}
	if _, _, relayed, _ := s.seen(); relayed != 101 {
		t.Errorf("the server relayed %d messages", relayed)
	}
}

// A pair waits for its lost message, and the other pairs wait for that pair: no message is sent
// twice or skipped.
func TestAMessageLostAtAFixedRateEndsThePlay(t *testing.T) {
	s := startFake(t, "ieum")
	s.relay = func(n int, text string, _ *gws.Conn) []string {
		if n == 25 {
			return nil
		}
		return []string{text}
	}
	cfg := config(s, "ieum")
	cfg.Stall = 50 * time.Millisecond
	cfg.setDefaults()
	r := newRun(cfg)
	defer r.close()
	if err := r.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.play(t.Context(), 100, 2000); err != nil {
		t.Fatal(err)
	}
	if _, lost, reason := r.failures.counts(); lost == 0 ||
		!strings.Contains(reason, "nothing was delivered") {
		t.Errorf("%d lost, %q", lost, reason)
	}
	if _, _, relayed, _ := s.seen(); relayed > 25+len(r.pairs) {
		t.Errorf("went on to message %d", relayed)
	}
}

func TestTheSecondUserConnectsElsewhere(t *testing.T) {
	cfg := config(startFake(t, "ieum"), "ieum")
	cfg.SecondURL = "ws://127.0.0.1:1/nobody-listens"
	_, err := Run(t.Context(), cfg)
	if err == nil || !strings.HasPrefix(err.Error(), "connect m1-") {
		t.Errorf("connected the second user: %v", err)
	}
}

func TestConfigErrorsAreReportedTogether(t *testing.T) {
	err := Config{
		Target:      client.Target{URL: "http://x", Conns: 3, Size: 10, PID: -1, Sources: 2},
		Protocol:    "sip",
		SecondURL:   "http://y",
		OtherPIDs:   []int{0},
		Pairs:       2,
		Messages:    -1,
		LatencyRate: -1,
	}.Validate()
	for _, want := range []string{
		"protocol:", "url:", "conns:", "pairs:", "messages:", "latency-rate:",
		"size:", "pid,", "sources:", "second url:", "other-pid:",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing of %s in %v", want, err)
		}
	}
	target := client.Target{URL: "ws://127.0.0.1:1/x", Conns: 2}
	if err := (Config{Target: target, Messages: 1}).Validate(); err == nil {
		t.Error("messages without a pair to pass them")
	}
}

func TestMessagesAreJSONOfTheSizeAskedFor(t *testing.T) {
	for protocol, d := range dialects {
		p := newPair(&run{cfg: Config{}, dialect: d}, "0123abcd-4999")
		sizes := []int{client.MinSize, client.MinSize + 1, 777, 1500, 1501, 8192, client.MaxSize}
		for _, size := range sizes {
			text, body, mark := d.message(p.members[1], size)
			if len(text) != size {
				t.Errorf("%s: %d bytes, want %d", protocol, len(text), size)
			}
			from := strings.IndexAny(string(text), "{[")
			if !json.Valid(text[from:]) || !json.Valid(body) {
				t.Errorf("%s: not JSON: %.300s", protocol, text)
			}
			at := numberAt(text)
			putNumber(text, at, 12_345)
			m := &member{body: body, mark: mark}
			if protocol == "peerjs" { // whose server adds the sender
				text = append([]byte(`{"src":"m1-0123abcd-4999",`), text[1:]...)
			}
			if !m.hasSent(text, 12_345) || m.hasSent(text, 12_346) ||
				m.hasSent(text[:len(text)-10], 12_345) {
				t.Errorf("%s: not recognized: %.300s", protocol, text)
			}
		}
	}
}

func TestQuantiles(t *testing.T) {
	var v []time.Duration
	for i := range 100 {
		v = append(v, time.Duration(i+1)*time.Microsecond)
	}
	if a, b, c := quantile(v, 0.5), quantile(v, 0.99), quantile(v[:1], 0.99); a != 51 || b != 100 ||
		c != 1 {
		t.Errorf("%v %v %v", a, b, c)
	}
}
