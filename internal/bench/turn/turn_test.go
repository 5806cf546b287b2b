package turn

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"

	"github.com/ieum-rtc/ieum/internal/relay"
)

var relaySecret = []byte("the secret of tests")

// failSafe ends a test that would hang; no test depends on its length.
const failSafe = 30 * time.Second

// turnServer is pion's server on loopback, on one port each for UDP, TCP and TLS.
type turnServer struct {
	*turn.Server
	addresses map[string]string // by transport
}

func startTURN(t *testing.T, events turn.EventHandler) *turnServer {
	t.Helper()
	generator := &turn.RelayAddressGeneratorStatic{
		RelayAddress: net.IPv4(127, 0, 0, 1),
		Address:      "127.0.0.1",
	}
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// a busy machine may let the server wait while packets come
	if err := packets.(*net.UDPConn).SetReadBuffer(1 << 20); err != nil {
		t.Fatal(err)
	}
	streams, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	certified := httptest.NewTLSServer(nil) // for its certificate
	certified.Close()
	secure, err := tls.Listen(
		"tcp4",
		"127.0.0.1:0",
		&tls.Config{Certificates: certified.TLS.Certificates},
	)
	if err != nil {
		t.Fatal(err)
	}
	quiet := logging.NewDefaultLoggerFactory()
	quiet.DefaultLogLevel = logging.LogLevelDisabled
	s, err := turn.NewServer(turn.ServerConfig{
		Realm: "tests", LoggerFactory: quiet, EventHandler: events,
		AuthHandler: func(r *turn.RequestAttributes) (string, []byte, bool) {
			password := "password of u"
			if r.Username != "u" {
				password = relay.RESTPassword(relaySecret, r.Username)
			}
			return r.Username, turn.GenerateAuthKey(r.Username, r.Realm, password), true
		},
		PacketConnConfigs: []turn.PacketConnConfig{
			{PacketConn: packets, RelayAddressGenerator: generator},
		},
		ListenerConfigs: []turn.ListenerConfig{
			{Listener: streams, RelayAddressGenerator: generator},
			{Listener: secure, RelayAddressGenerator: generator},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &turnServer{s, map[string]string{
		"udp": packets.LocalAddr().
			String(),
		"tcp": streams.Addr().String(), "tls": secure.Addr().String(),
	}}
}

// gone waits until the server has no allocation any more: it notices the end of a stream when it
// gets to it.
func (s *turnServer) gone(t *testing.T) {
	t.Helper()
	for limit := time.Now().Add(failSafe); s.AllocationCount() > 0; {
		if time.Now().After(limit) {
			t.Fatalf("%d allocations are left", s.AllocationCount())
		}
		<-time.NewTimer(time.Millisecond).C
	}
}

// gentle is a load that no server on loopback loses anything of.
func gentle(s *turnServer, transport string) Config {
	return Config{
		Server:      s.addresses[transport],
		Transport:   transport,
		Insecure:    true,
		Secret:      relaySecret,
		Allocations: 4,
		Burst:       3,
		Rate:        1000,
		Duration:    150 * time.Millisecond,
		WarmUp:      30 * time.Millisecond,
	}
}

func TestEveryShapeOnEveryTransportLosesNothing(t *testing.T) {
	s := startTURN(t, turn.EventHandler{})
	for _, way := range []struct {
		name, transport string
		portable        bool
	}{
		{"udp", "udp", false},
		{"plain udp", "udp", true},
		{"tcp", "tcp", false},
		{"tls", "tls", false},
	} {
		for _, shape := range []string{ShapeUp, ShapeDown, ShapeBoth, ShapeHairpin} {
			t.Run(way.name+" "+shape, func(t *testing.T) {
				cfg := gentle(s, way.transport)
				cfg.Shape, cfg.portable = shape, way.portable
				cfg.Size = 1101 // frames of a stream are padded
				r, err := Run(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				if r.Sent == 0 || r.Received != r.Sent || r.Lost+r.Reordered+r.Unexpected != 0 ||
					r.LossPercent != 0 ||
					r.FirstError != "" {
					t.Errorf("report %+v", r)
				}
				if r.P50us <= 0 || r.P99us < r.P50us || r.PerSecond <= 0 || r.Rate != 1000 ||
					r.Window != 0 ||
					r.Size != 1101 {
					t.Errorf("report %+v", r)
				}
				if r.CPUPerMillion != nil || r.RSSKB != nil || r.Cores != nil {
					t.Errorf("figures of no process: %+v", r)
				}
				s.gone(t)
			})
		}
	}
}

func TestClosedLoopKeepsItsWindowAndLosesNothing(t *testing.T) {
	s := startTURN(t, turn.EventHandler{})
	for _, shape := range []string{ShapeUp, ShapeDown, ShapeBoth, ShapeHairpin} {
		cfg := gentle(s, "udp")
		cfg.Shape, cfg.Rate, cfg.Window, cfg.Burst = shape, 0, 24, 2
		r, err := Run(t.Context(), cfg)
		if err != nil || r.Received == 0 || r.Lost+r.Unexpected != 0 || r.Window != 24 {
			t.Errorf("%s: %+v, %v", shape, r, err)
		}
	}
}

func TestIdleAllocationsAreHeldAndGivenBack(t *testing.T) {
	var made atomic.Int32
	s := startTURN(
		t,
		turn.EventHandler{
			OnChannelCreated: func(_, _ net.Addr, _, _, _ string, _, _ net.Addr, _ uint16) {
				made.Add(1)
			},
		},
	)
	cfg := gentle(s, "udp")
	cfg.Shape, cfg.Allocations, cfg.Dials = ShapeIdle, 50, 1
	r, err := Run(t.Context(), cfg)
	if err != nil || r.Allocations != 50 || r.Sent != 0 || r.Burst != 0 ||
		r.KBPerAllocation != nil {
		t.Errorf("%+v, %v", r, err)
	}
	s.gone(t)
	if n := made.Load(); n != 50 {
		t.Errorf("%d channels", n)
	}
}

func TestEachAllocationIsASessionOfItsOwn(t *testing.T) {
	names := make(chan string, 8)
	s := startTURN(
		t,
		turn.EventHandler{
			OnAllocationCreated: func(_, _ net.Addr, _, user, _ string, _ net.Addr, _ int) {
				names <- user
			},
		},
	)
	cfg := gentle(s, "udp")
	cfg.Shape, cfg.Allocations = ShapeIdle, 3
	if _, err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Secret, cfg.User, cfg.Password, cfg.Allocations = nil, "u", "password of u", 1
	if _, err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	var sessions []string
	for range 4 {
		_, session, _ := strings.Cut(<-names, ":")
		sessions = append(sessions, session)
	}
	slices.Sort(sessions)
	if !slices.Equal(sessions, []string{"", "bench.s0", "bench.s1", "bench.s2"}) {
		t.Errorf("sessions %q", sessions)
	}
}

func TestClientsTakeTheirAddressesInTurn(t *testing.T) {
	sources := make(chan string, 8)
	s := startTURN(
		t,
		turn.EventHandler{
			OnAllocationCreated: func(from, _ net.Addr, _, _, _ string, _ net.Addr, _ int) {
				sources <- addrPortOf(from).Addr().String()
			},
		},
	)
	cfg := gentle(s, "udp")
	cfg.Clients = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}
	cfg.Peer = netip.MustParseAddr("127.0.0.3")
	probe, err := net.ListenPacket("udp4", "127.0.0.2:0")
	if err != nil {
		t.Skip("this system has one loopback address")
	}
	_ = probe.Close()
	if r, err := Run(t.Context(), cfg); err != nil || r.Lost != 0 || r.Received == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	count := map[string]int{}
	for range cfg.Allocations {
		count[<-sources]++
	}
	if count["127.0.0.1"] != 2 || count["127.0.0.2"] != 2 {
		t.Errorf("allocations by source: %v", count)
	}
}

func TestRelayLoadThatCannotBeMade(t *testing.T) {
	s := startTURN(t, turn.EventHandler{})
	closed, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.LocalAddr().String()
	_ = closed.Close()
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"wrong secret": {
			func(c *Config) { c.Secret = []byte("another") },
			"Allocate: refused with 4",
		},
		"unknown certificate": {func(c *Config) {
			c.Server, c.Transport, c.Insecure = s.addresses["tls"], "tls", false
		}, "certificate"},
		"nobody there":    {func(c *Config) { c.Server = nobody }, "refused"},
		"no such process": {func(c *Config) { c.PID = math.MaxInt32 }, ""},
		"an address not ours": {func(c *Config) {
			c.Peer = netip.MustParseAddr("192.0.2.1")
		}, "peer"},
		"a client of no route": {
			func(c *Config) { c.Clients = []netip.Addr{netip.MustParseAddr("192.0.2.1")} },
			"client 0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := gentle(s, "udp")
			cfg.Dials = 1
			c.change(&cfg)
			if _, err := Run(t.Context(), cfg); err == nil ||
				!strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v", err)
			}
			s.gone(t)
		})
	}
}

func TestRelayLoadEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := startTURN(
		t,
		turn.EventHandler{
			OnChannelCreated: func(_, _ net.Addr, _, _, _ string, _, _ net.Addr, _ uint16) {
				cancel()
			},
		},
	)
	cfg := gentle(s, "udp")
	cfg.Duration = 3 * time.Minute
	if _, err := Run(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	s.gone(t)
}

func TestConfigReportsEveryError(t *testing.T) {
	good := Config{Server: "127.0.0.1:3478", Secret: relaySecret}
	if err := good.Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   []string
	}{
		"server":    {func(c *Config) { c.Server = "host" }, []string{"server:"}},
		"no host":   {func(c *Config) { c.Server = ":3478" }, []string{"server:"}},
		"transport": {func(c *Config) { c.Transport = "dtls" }, []string{"transport:"}},
		"shape":     {func(c *Config) { c.Shape = "sideways" }, []string{"shape:"}},
		"nobody":    {func(c *Config) { c.Secret = nil }, []string{"credentials:"}},
		"two kinds": {func(c *Config) { c.User, c.Password = "u", "p" }, []string{
			"credentials:",
		}},
		"no password": {func(c *Config) { c.Secret, c.User = nil, "u" }, []string{
			"password:",
		}},
		"half a call": {func(c *Config) { c.Shape, c.Allocations = ShapeHairpin, 3 }, []string{
			"allocations: must be even",
		}},
		"too many": {func(c *Config) { c.Allocations = maxAllocations + 1 }, []string{
			"allocations:",
		}},
		"burst":               {func(c *Config) { c.Burst = maxBurst + 1 }, []string{"burst:"}},
		"too small":           {func(c *Config) { c.Size = payloadHeader - 1 }, []string{"size:"}},
		"too large":           {func(c *Config) { c.Size = maxPayload + 1 }, []string{"size:"}},
		"rate":                {func(c *Config) { c.Rate = -1 }, []string{"rate:"}},
		"window below bursts": {func(c *Config) { c.Window = 11 }, []string{"window: must be 12"}},
		"permissions expire":  {func(c *Config) { c.Duration = maxRun }, []string{"duration:"}},
		"negative":            {func(c *Config) { c.PID = -1 }, []string{"pid"}},
		"several": {func(c *Config) { c.Server, c.Shape, c.Burst = "", "sideways", -1 },
			[]string{"server:", "shape:", "burst:"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			err := cfg.Validate()
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v lacks %q", err, want)
				}
			}
			if _, err := Run(t.Context(), cfg); err == nil {
				t.Error("the load is made all the same")
			}
		})
	}
}

func TestReportOfALivingProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		t.Skip("no /proc/PID/schedstat here")
	}
	s := startTURN(t, turn.EventHandler{})
	cfg := gentle(s, "udp")
	cfg.PID = os.Getpid() // server and load in one: the figures mean little, but they are there
	r, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.CPUPerMillion == nil || *r.CPUPerMillion <= 0 || r.Cores == nil || *r.Cores <= 0 ||
		r.RSSKB == nil ||
		*r.RSSKB < 1000 ||
		r.OwnPerMillion <= 0 {
		t.Errorf("report %+v", r)
	}
	cfg.Shape, cfg.Settle = ShapeIdle, time.Nanosecond
	r, err = Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.KBPerAllocation == nil || r.RSSStable == nil || *r.RSSStable || *r.RSSBeforeKB < 1000 ||
		*r.RSSIdleKB < 1000 {
		t.Errorf("report %+v", r)
	}
}
