package main

import (
	"encoding/json"
	"testing"

	"github.com/ieum-rtc/ieum/internal/bench/mix"
	"github.com/ieum-rtc/ieum/internal/bench/report"
	"github.com/ieum-rtc/ieum/internal/config"
)

// Users join, leave, log in again and lose connections, and all messages arrive in order.
func TestMixAgainstTheServer(t *testing.T) {
	keys := file(t, "keys", key)
	host := target(t, config.Server{LicenseSigningKeyFile: keys})
	code, out, errs := ieumBench(
		t,
		"mix",
		"--url",
		"ws://"+host+"/signal",
		"--conns",
		"35",
		"--rate",
		"100",
		"--joins",
		"8",
		"--duration",
		"3s",
		"--license-signing-key-file",
		keys,
	)
	var r mix.Report
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
		t.Fatalf("%d, %v: %s%s", code, err, out, errs)
	}
	if r.Any() || r.Conns != 35 || r.Before != nil || r.KBPerConn != nil || r.CPUPerMillion != nil {
		t.Errorf("report %+v", r)
	}
	for name, want := range map[string]int64{
		"join":      24,
		"leave":     24,
		"register":  6,
		"resume":    6,
		"answer":    37,
		"candidate": 215,
	} {
		if l := r.Operations[name]; l.Count < want || l.Count > want+1 || l.P50us <= 0 ||
			l.P999us < l.P99us ||
			l.P99us < l.P50us {
			t.Errorf("%s: %+v, want %d", name, l, want)
		}
	}
	var all int64
	for _, name := range []string{"offer", "answer", "candidate", "chat"} {
		all += r.Operations[name].Count
	}
	if r.Delivered != all {
		t.Errorf("%d delivered, of the kinds together %d", r.Delivered, all)
	}
}

// Users lose nothing while adversaries flood, stop reading, never log in, or reconnect
// simultaneously with session tickets.
func TestMixBesideAdversaries(t *testing.T) {
	keys := file(t, "keys", key)
	host := target(t, config.Server{LicenseSigningKeyFile: keys, TLSSelfSigned: true})
	t.Setenv(runAs, "adversary") // the program of the test, started as the adversaries' process
	code, out, errs := ieumBench(
		t,
		"mix",
		"--url",
		"wss://"+host+"/signal",
		"--insecure",
		"--conns",
		"12",
		"--rate",
		"50",
		"--joins",
		"4",
		"--duration",
		"6s",
		"--adversaries",
		"--half-open",
		"12",
		"--reconnect-storm",
		"9",
		"--license-signing-key-file",
		keys,
	)
	var r mix.Report
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
		t.Fatalf("%d, %v: %s%s", code, err, out, errs)
	}
	d := r.Adversaries
	if d == nil || d.HalfOpenDialed < 12 || d.StormRetries+d.StormLost != 0 {
		t.Fatalf("%+v", d)
	}
	// a busy machine takes longer than the load is to last, and sees more storms
	if n := d.StormResume.Count; n == 0 || n%9 != 0 || d.StormTickets != int64(n) {
		t.Errorf("%+v", d)
	}
	if d.Closes["1008"] == 0 {
		t.Errorf("the senders that flood were closed %v", d.Closes)
	}
	for _, phase := range []map[string]report.Latency{r.Operations, d.Operations} {
		if j, o := phase["join"].Count, phase["offer"].Count; j != 24 || o < 36 || o > 38 {
			t.Errorf("%d joins, %d offers", j, o)
		}
	}
}
