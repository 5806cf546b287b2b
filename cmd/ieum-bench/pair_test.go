package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ieum-rtc/ieum/internal/bench/pair"
	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/node"
)

// target is a whole server in this process, on free ports.
func target(t *testing.T, c config.Server) (host string) {
	t.Helper()
	c.Listen, c.Relay = "127.0.0.1:0", config.RelaySettings{
		STUNListen: "off",
		IPs:        []string{"127.0.0.1"},
	}
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

func TestPairAgainstTheServer(t *testing.T) {
	keys := file(t, "keys", key)
	for name, c := range map[string]struct {
		server  config.Server
		license func(host string) []string
	}{
		"with the license key": {
			config.Server{LicenseSigningKeyFile: keys, SessionRate: 1e6, SessionBurst: 1e6},
			func(string) []string { return []string{"--license-signing-key-file", keys} },
		},
		"with a development license": {
			config.Server{Dev: true, SessionRate: 1e6, SessionBurst: 1e6},
			func(host string) []string {
				return []string{"--dev-license", fmt.Sprintf("http://%s/dev/license", host)}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			host := target(t, c.server)
			for protocol, path := range map[string]string{
				"ieum":          "/signal",
				"ieum-socketio": "/socket.io/",
			} {
				args := []string{
					"pair",
					"--protocol",
					protocol,
					"--url",
					"ws://" + host + path,
					"--conns",
					"8",
					"--pairs",
					"2",
					"--messages",
					"1500",
				}
				code, out, errs := ieumBench(t, append(args, c.license(host)...)...)
				var r pair.Report
				if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
					t.Fatalf("%s: %d, %v: %s%s", protocol, code, err, out, errs)
				}
				if r.Protocol != protocol || r.Messages != 1500 || r.Errors+r.Lost != 0 ||
					r.Conns != 8 ||
					r.Pairs != 2 {
					t.Errorf("report %+v", r)
				}
			}
		})
	}
}

func TestPairFailsWhenTheServerLimitsSessions(t *testing.T) {
	keys := file(t, "keys", key)
	host := target(t, config.Server{LicenseSigningKeyFile: keys, SessionRate: 1, SessionBurst: 20})
	code, out, errs := ieumBench(
		t,
		"pair",
		"--url",
		fmt.Sprintf("ws://%s/signal", host),
		"--conns",
		"2",
		"--messages",
		"1000",
		"--license-signing-key-file",
		keys,
	)
	if code != exitFailed || !strings.Contains(out, `"lost":1`) ||
		!strings.Contains(errs, "429") && !strings.Contains(errs, "1008") ||
		!strings.Contains(errs, "--session-rate") {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

func TestSignalingCommandLines(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	notFound := "ws" + strings.TrimPrefix(other.URL, "http")
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"odd number":       {[]string{"pair", "--conns", "3"}, exitUsage, "conns:"},
		"unknown protocol": {[]string{"pair", "--protocol", "sip"}, exitUsage, "--protocol"},
		"no license":       {[]string{"pair"}, exitUsage, "--dev-license"},
		"no key file": {[]string{
			"pair",
			"--license-signing-key-file",
			"/nonexistent",
		}, exitUsage, "no such file"},
		"short key": {[]string{
			"pair",
			"--license-signing-key-file",
			file(t, "key", "short"),
		}, exitUsage, "at least 32"},
		"no --dev server": {[]string{
			"pair",
			"--dev-license",
			other.URL,
		}, exitFailed, "was this server started with --dev?"},
		"no signaling": {[]string{
			"pair",
			"--protocol",
			"peerjs",
			"--url",
			notFound,
		}, exitFailed, "404"},
		"mix, competitors": {[]string{
			"mix",
			"--protocol",
			"peerjs",
		}, exitUsage, "unknown flag --protocol"},
		"mix, half-open": {[]string{
			"mix",
			"--adversaries",
			"--half-open",
			"-1",
		}, exitUsage, "half-open"},
		"mix, storm": {[]string{
			"mix",
			"--adversaries",
			"--reconnect-storm",
			"-1",
		}, exitUsage, "reconnect-storm"},
		"mix, too long":     {[]string{"mix", "--duration", "1000h"}, exitUsage, "duration:"},
		"mix, too many":     {[]string{"mix", "--conns", "100001"}, exitUsage, "conns:"},
		"mix, no rate":      {[]string{"mix", "--rate", "0"}, exitUsage, "rate:"},
		"mix, no license":   {[]string{"mix"}, exitUsage, "--dev-license"},
		"adversary, no run": {[]string{"adversary"}, exitFailed, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := ieumBench(t, c.args...)
			if code != c.code || !strings.Contains(out+errs, c.want) {
				t.Errorf("%d %s%s", code, out, errs)
			}
		})
	}
}
