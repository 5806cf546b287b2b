package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench"
	"github.com/ieum-rtc/ieum/internal/license"
)

type signalCmd struct {
	URL            string        `default:"ws://127.0.0.1:7102/signal" help:"Where the server takes WebSockets, ws:// or wss:// (default ${default})." placeholder:"WS-URL"`
	Insecure       bool          `help:"With wss: take any certificate."`
	Protocol       string        `default:"ieum" enum:"ieum,ieum-socketio,peerjs,socketio" help:"What the server speaks: ieum, ieum-socketio (the same over Socket.IO), peerjs or socketio."`
	LicenseKeyFile string        `help:"File with the server's license key, to make a license for the users; or IEUM_LICENSE_KEY." placeholder:"FILE"`
	DevLicense     string        `help:"Take the license of a server started with --dev: http://HOST:PORT/dev/license; it allows 1,000 users." placeholder:"URL"`
	Conns          int           `default:"1000" help:"Connections, in rooms of two (default ${default})." placeholder:"N"`
	Pairs          int           `default:"64" help:"Rooms whose members pass messages, one in flight each (default ${default})." placeholder:"N"`
	Messages       int           `default:"100000" help:"Messages to measure, after a fifth as many to warm up (default ${default})." placeholder:"N"`
	Pace           float64       `help:"After these, so many a second for ten seconds, whatever the server does, to see how long one takes." placeholder:"N"`
	Size           int           `default:"1500" help:"Bytes of a message (default ${default})." placeholder:"BYTES"`
	Rate           float64       `help:"Messages a second at a fixed rate, whatever the server does, in rooms of two to eight whose members come and go, call each other, chat and reconnect; instead of --pairs and --messages." placeholder:"N"`
	Joins          float64       `help:"With --rate: members that leave their room and join it again, a second; every fourth logs in anew, and for four of them one connection is lost and its session resumed (default: a twentieth of the rate)." placeholder:"N"`
	Duration       time.Duration `default:"1m" help:"With --rate: how long (default ${default})." placeholder:"TIME"`
	Admin          string        `help:"With --rate: where a server started with --admin-pprof serves metrics, http://HOST:PORT: what it holds after a garbage collection is measured too." placeholder:"URL"`
	Disturb        bool          `help:"With --rate: do it all twice, the second time beside others who disturb: sockets that never log in, clients that all lose their connection at once, senders that flood, readers that are slow or stop."`
	HalfOpen       int           `default:"10000" help:"With --disturb: sockets that never log in (default ${default})." placeholder:"N"`
	Herd           int           `default:"1000" help:"With --disturb: clients that lose their connections at once, every five seconds, and resume (default ${default})." placeholder:"N"`
	Sources        int           `help:"Loopback addresses that connections come from in turn, from 127.0.0.2 on; Linux, and a server at 127.0.0.1 (default: one)." placeholder:"N"`
	PID            int           `name:"pid" help:"Process id of the server, on this machine: its CPU and memory are measured." placeholder:"PID"`
}

// Run prints one line of JSON. It fails when a message was lost: the figures would flatter the server.
func (b *signalCmd) Run(c *console) error {
	if b.Rate != 0 || b.Pace != 0 {
		defer addThread()()
	}
	if b.Rate != 0 {
		return b.mix(c)
	}
	cfg := bench.SignalConfig{
		Target: b.target(), Protocol: b.Protocol, Pairs: min(b.Pairs, b.Conns/2), Messages: b.Messages, Pace: b.Pace,
	}
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if cfg.NeedsLicense() {
		var err error
		if cfg.CpCode, cfg.AuthKey, err = b.license(c.ctx); err != nil {
			return err
		}
	}
	report, err := bench.Signal(c.ctx, cfg)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(c.out).Encode(report); err != nil {
		return err
	}
	if report.Errors+report.Lost > 0 {
		hint := ""
		if cfg.NeedsLicense() {
			hint = " (a session may send 30 messages a second: start the server with --session-rate and --session-burst of a million)"
		}
		return fmt.Errorf("%d errors, %d messages lost: %s%s", report.Errors, report.Lost, report.Fault, hint)
	}
	return nil
}

func (b *signalCmd) target() bench.Target {
	return bench.Target{URL: b.URL, Insecure: b.Insecure, Conns: b.Conns, Size: b.Size, PID: b.PID, Sources: b.Sources}
}

// mix prints one line of JSON, and fails when something was wrong.
func (b *signalCmd) mix(c *console) error {
	cfg := bench.MixConfig{
		Target: b.target(), Rate: b.Rate, Joins: b.Joins, Duration: b.Duration, Admin: b.Admin,
	}
	if b.Disturb {
		cfg.Disturb, cfg.HalfOpen, cfg.Herd, cfg.Disturber = true, b.HalfOpen, b.Herd, disturber
	}
	err := cfg.Validate()
	if b.Protocol != "ieum" {
		err = errors.Join(err, fmt.Errorf("rate: only with --protocol ieum"))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if cfg.CpCode, cfg.AuthKey, err = b.license(c.ctx); err != nil {
		return err
	}
	report, err := bench.Mix(c.ctx, cfg)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(c.out).Encode(report); err != nil {
		return err
	}
	if f := report.Faults; f.Any() {
		return fmt.Errorf("%d lost, %d out of order, %d twice, %d connections closed, %d requests refused, %d other errors: %s",
			f.Lost, f.OutOfOrder, f.Duplicates, f.Closed, f.Refused, f.Errors, f.Fault)
	}
	return nil
}

// disturber is this program again.
func disturber(ctx context.Context) *exec.Cmd {
	program, err := os.Executable()
	if err != nil {
		program = os.Args[0]
	}
	c := exec.CommandContext(ctx, program, "disturb")
	c.Stderr = os.Stderr
	return c
}

type disturbCmd struct{}

// Run reads and writes what bench.Disturb says.
func (disturbCmd) Run(c *console) error { return bench.Disturb(c.ctx, c.in, c.out) }

// license makes a license for the load, or fetches that of a development server.
func (b *signalCmd) license(ctx context.Context) (cpCode, authKey string, err error) {
	if b.DevLicense != "" {
		return fetchLicense(ctx, b.DevLicense)
	}
	v, err := verifier(b.LicenseKeyFile)
	if err != nil {
		return "", "", fmt.Errorf("%w: %w (or --dev-license)", errUsage, err)
	}
	const tenant = "BENCH"
	now := time.Now()
	// twice as many as there are, with those who disturb: who logs in anew may be there before the server has noticed that the old session ended
	key, err := v.Issue(license.Params{
		Name: "Load", CpCode: tenant, CompanyCode: tenant, MaxUser: 2*(b.Conns+b.Herd) + 1000, Start: now.Add(-time.Hour), End: now.Add(24 * time.Hour),
	})
	return tenant, key, err
}

// verifier signs with the key in a file or, without one, in IEUM_LICENSE_KEY.
func verifier(file string) (*license.Verifier, error) {
	text := []byte(os.Getenv("IEUM_LICENSE_KEY"))
	if file != "" {
		var err error
		if text, err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("--license-key-file: %w", err)
		}
	}
	keys := license.ParseKeys(text)
	if len(keys) == 0 {
		return nil, errors.New("a license key is required: --license-key-file or IEUM_LICENSE_KEY")
	}
	return license.New(license.Config{Keys: keys})
}

func fetchLicense(ctx context.Context, url string) (cpCode, authKey string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", "", fmt.Errorf("%w: --dev-license: %w", errUsage, err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", "", fmt.Errorf("--dev-license: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return "", "", fmt.Errorf("--dev-license: %s: is this server run with --dev?", resp.Status)
	}
	var d struct{ CpCode, AuthKey string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&d); err != nil {
		return "", "", fmt.Errorf("--dev-license: %w", err)
	}
	return d.CpCode, d.AuthKey, nil
}
