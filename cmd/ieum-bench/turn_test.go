package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/ieum-rtc/ieum/internal/bench/turn"
	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/node"
)

// relayTarget is a relay alone, on a free port of loopback, and the file with its secret. It does
// not relay to its own address, so peers need another one.
func relayTarget(t *testing.T) (address, secretFile string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has 127.0.0.2 without being told")
	}
	secretFile = file(t, "secret", "0123456789abcdef0123456789abcdef\n")
	c := config.Relay{Listen: "127.0.0.1:0", Relay: config.RelaySettings{
		STUNListen: "off", IPs: []string{
			"127.0.0.1",
		}, AllowPeers: []string{"127.0.0.0/8"}, SecretFile: secretFile, Workers: 1,
	}}
	c.Admin.Listen = "off"
	r, err := node.StartRelay(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return fmt.Sprintf("127.0.0.1:%d", r.RelayPort()), secretFile
}

func TestTurnAgainstTheRelay(t *testing.T) {
	address, secretFile := relayTarget(t)
	for _, shape := range []string{"up", "down", "both", "hairpin", "idle"} {
		for _, transport := range []string{"udp", "tcp"} {
			t.Run(shape+" "+transport, func(t *testing.T) {
				code, out, errs := ieumBench(
					t,
					"turn",
					"--server",
					address,
					"--transport",
					transport,
					"--shape",
					shape,
					"--peer-ip",
					"127.0.0.2",
					"--relay-secret-file",
					secretFile,
					"--allocations",
					"4",
					"--rate",
					"1000",
					"--duration",
					"100ms",
					"--warm-up",
					"20ms",
				)
				var r turn.Report
				if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
					t.Fatalf("%d, %v: %s%s", code, err, out, errs)
				}
				if r.Shape != shape || r.Transport != transport || r.Allocations != 4 ||
					r.Lost+r.Unexpected != 0 ||
					(r.Sent > 0) != (shape != "idle") {
					t.Errorf("report %+v", r)
				}
			})
		}
	}
}

func TestTurnFailsWhenNothingArrives(t *testing.T) {
	address, secretFile := relayTarget(t)
	// the relay's own address, at a port that is none of its relay ports
	code, out, errs := ieumBench(
		t,
		"turn",
		"--server",
		address,
		"--relay-secret-file",
		secretFile,
		"--allocations",
		"1",
		"--rate",
		"1000",
		"--duration",
		"20ms",
		"--warm-up",
		"1ms",
	)
	if code != exitFailed || !strings.Contains(out, `"lossPercent":100`) ||
		!strings.Contains(errs, "does the server relay to the peer's address?") {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

func TestTurnCommandLine(t *testing.T) {
	secretFile, password := file(t, "secret", "a secret\n"), file(t, "password", "a password\n")
	for name, c := range map[string]struct {
		env  string
		args []string
		code int
		want []string
	}{
		"no credentials": {args: nil, code: exitUsage, want: []string{"credentials:"}},
		"several errors": {args: []string{
			"--relay-secret-file",
			secretFile,
			"--client-ip",
			"host",
			"--peer-ip",
			"::g",
			"--burst",
			"99",
		}, code: exitUsage, want: []string{"--client-ip", "--peer-ip", "burst:"}},
		"no such file": {args: []string{
			"--relay-secret-file",
			secretFile + "x",
		}, code: exitUsage, want: []string{"--relay-secret-file", "no such file"}},
		"user, no password": {args: []string{
			"--user",
			"u",
		}, code: exitUsage, want: []string{"password:"}},
		"unknown shape": {args: []string{
			"--shape",
			"sideways",
		}, code: exitUsage, want: []string{"--shape"}},
		"no secrets in argv": {
			args: []string{"--password", "p"},
			code: exitUsage,
			want: []string{"unknown flag"},
		},
		"nobody there": {args: []string{
			"--user",
			"u",
			"--password-file",
			password,
			"--server",
			"127.0.0.1:1",
			"--transport",
			"tcp",
		}, code: exitFailed, want: []string{"client ", "refused"}},
		"secret by env": {env: "a secret", args: []string{
			"--server",
			"127.0.0.1:1",
			"--transport",
			"tcp",
		}, code: exitFailed, want: []string{"refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("IEUM_RELAY_SECRET", c.env)
			code, out, errs := ieumBench(t, append([]string{"turn"}, c.args...)...)
			for _, want := range c.want {
				if code != c.code || !strings.Contains(out+errs, want) {
					t.Errorf("%d %s%s, want %q", code, out, errs, want)
				}
			}
		})
	}
}
