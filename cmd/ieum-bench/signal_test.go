package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ieum-rtc/ieum/internal/bench"
	"github.com/ieum-rtc/ieum/internal/node"
)

// target is a whole server in this process, on free ports.
func target(t *testing.T, c node.Config) (host string) {
	t.Helper()
	c.Listen, c.Relay = "127.0.0.1:0", node.RelaySettings{STUNListen: "off", IPs: []string{"127.0.0.1"}}
	c.Admin.Listen = "off"
	n, err := node.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return n.Addr().String()
}

func TestBenchSignalAgainstTheServer(t *testing.T) {
	keys := file(t, "keys", key)
	for name, c := range map[string]struct {
		server  node.Config
		license func(host string) []string
	}{
		"with the license key": {
			node.Config{LicenseKeyFile: keys, SessionRate: 1e6, SessionBurst: 1e6},
			func(string) []string { return []string{"--license-key-file", keys} },
		},
		"with a development license": {
			node.Config{Dev: true, SessionRate: 1e6, SessionBurst: 1e6},
			func(host string) []string {
				return []string{"--dev-license", fmt.Sprintf("http://%s/dev/license", host)}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			host := target(t, c.server)
			for protocol, path := range map[string]string{"ieum": "/signal", "ieum-socketio": "/socket.io/"} {
				args := []string{"signal", "--protocol", protocol, "--url", "ws://" + host + path, "--conns", "8", "--pairs", "2", "--messages", "1500"}
				code, out, errs := ieumBench(t, append(args, c.license(host)...)...)
				var r bench.SignalReport
				if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
					t.Fatalf("%s: %d, %v: %s%s", protocol, code, err, out, errs)
				}
				if r.Protocol != protocol || r.Messages != 1500 || r.Errors+r.Lost != 0 || r.Conns != 8 || r.Pairs != 2 {
					t.Errorf("report %+v", r)
				}
			}
		})
	}
}

// Members come and go, log in anew and lose connections, and all that is said arrives in order.
func TestBenchAtAFixedRate(t *testing.T) {
	keys := file(t, "keys", key)
	host := target(t, node.Config{LicenseKeyFile: keys})
	code, out, errs := ieumBench(t, "signal", "--url", "ws://"+host+"/signal", "--conns", "35", "--rate", "100", "--joins", "8", "--duration", "3s", "--license-key-file", keys)
	var r bench.MixReport
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
		t.Fatalf("%d, %v: %s%s", code, err, out, errs)
	}
	if r.Any() || r.Conns != 35 || r.Before != nil || r.KBPerConn != nil || r.CPUPerMillion != nil {
		t.Errorf("report %+v", r)
	}
	for name, want := range map[string]int64{"join": 24, "leave": 24, "register": 6, "resume": 6, "answer": 37, "candidate": 215} {
		if l := r.Operations[name]; l.Count < want || l.Count > want+1 || l.P50us <= 0 || l.P999us < l.P99us || l.P99us < l.P50us {
			t.Errorf("%s: %+v, want %d", name, l, want)
		}
	}
	if all := r.Operations["offer"].Count + r.Operations["answer"].Count + r.Operations["candidate"].Count + r.Operations["chat"].Count; r.Delivered != all {
		t.Errorf("%d delivered, of the kinds together %d", r.Delivered, all)
	}
}

// The members lose nothing while others flood, read nothing, never log in, or come back all at once with session tickets.
func TestBenchWithOthersWhoDisturb(t *testing.T) {
	keys := file(t, "keys", key)
	host := target(t, node.Config{LicenseKeyFile: keys, TLSSelfSigned: true})
	t.Setenv(runAs, "disturb") // what the test's program does when it is started as those who disturb
	code, out, errs := ieumBench(t, "signal", "--url", "wss://"+host+"/signal", "--insecure", "--conns", "12", "--rate", "50", "--joins", "4", "--duration", "6s",
		"--disturb", "--half-open", "12", "--herd", "9", "--license-key-file", keys)
	var r bench.MixReport
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
		t.Fatalf("%d, %v: %s%s", code, err, out, errs)
	}
	d := r.Disturbed
	if d == nil || d.HalfOpenDialed < 12 || d.HerdBack.Count != 9 || d.HerdTickets != 9 || d.HerdTries+d.HerdLost != 0 {
		t.Fatalf("%+v", d)
	}
	if d.Closes["1008"] == 0 {
		t.Errorf("those who flood were closed %v", d.Closes)
	}
	for _, phase := range []map[string]bench.Latency{r.Operations, d.Operations} {
		if j, o := phase["join"].Count, phase["offer"].Count; j != 24 || o < 36 || o > 38 {
			t.Errorf("%d joins, %d offers", j, o)
		}
	}
}

func TestBenchFailsWhenTheServerRefusesSessionsThatSendTooMuch(t *testing.T) {
	keys := file(t, "keys", key)
	host := target(t, node.Config{LicenseKeyFile: keys, SessionRate: 1, SessionBurst: 20})
	code, out, errs := ieumBench(t, "signal", "--url", fmt.Sprintf("ws://%s/signal", host), "--conns", "2", "--messages", "1000", "--license-key-file", keys)
	if code != exitFailed || !strings.Contains(out, `"lost":1`) || !strings.Contains(errs, "429") && !strings.Contains(errs, "1008") || !strings.Contains(errs, "--session-rate") {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

func TestBenchCommandLine(t *testing.T) {
	away := httptest.NewServer(http.NotFoundHandler())
	defer away.Close()
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"odd number":       {[]string{"--conns", "3"}, exitUsage, "conns:"},
		"rate elsewhere":   {[]string{"--rate", "5", "--protocol", "peerjs"}, exitUsage, "rate:"},
		"too many to be":   {[]string{"--rate", "5", "--disturb", "--half-open", "-1"}, exitUsage, "half-open"},
		"too long":         {[]string{"--rate", "5", "--duration", "1000h"}, exitUsage, "duration:"},
		"unknown protocol": {[]string{"--protocol", "sip"}, exitUsage, "--protocol"},
		"no license":       {nil, exitUsage, "--dev-license"},
		"no --dev server":  {[]string{"--dev-license", away.URL}, exitFailed, "is this server run with --dev?"},
		"nobody there":     {[]string{"--protocol", "peerjs", "--url", "ws" + strings.TrimPrefix(away.URL, "http")}, exitFailed, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := ieumBench(t, append([]string{"signal"}, c.args...)...)
			if code != c.code || !strings.Contains(out+errs, c.want) {
				t.Errorf("%d %s%s", code, out, errs)
			}
		})
	}
}
