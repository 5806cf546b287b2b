package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/load"
)

type benchCmd struct {
	Signal benchSignalCmd `cmd:"" help:"Relay messages between pairs of users and measure what that costs the server."`
	Relay  benchRelayCmd  `cmd:"" help:"Send packets through a TURN server, ours or another, and measure what that costs it."`
}

type benchSignalCmd struct {
	URL            string `default:"ws://127.0.0.1:7102/signal" help:"Where the server takes WebSockets, ws:// or wss:// (default ${default})." placeholder:"WS-URL"`
	Insecure       bool   `help:"With wss: take any certificate."`
	Protocol       string `default:"ieum" enum:"ieum,ieum-socketio,peerjs,socketio" help:"What the server speaks: ieum, ieum-socketio (the same over Socket.IO), peerjs or socketio."`
	LicenseKeyFile string `help:"File with the server's license key, to make a license for the users; or IEUM_LICENSE_KEY." placeholder:"FILE"`
	DevLicense     string `help:"Take the license of a server started with --dev: http://HOST:PORT/dev/license; it allows 1,000 users." placeholder:"URL"`
	Conns          int    `default:"1000" help:"Connections, in rooms of two (default ${default})." placeholder:"N"`
	Pairs          int    `default:"64" help:"Rooms whose members pass messages, one in flight each (default ${default})." placeholder:"N"`
	Messages       int    `default:"100000" help:"Messages to measure, after a fifth as many to warm up (default ${default})." placeholder:"N"`
	Size           int    `default:"1500" help:"Bytes of a message (default ${default})." placeholder:"BYTES"`
	Sources        int    `help:"Loopback addresses that connections come from in turn, from 127.0.0.2 on; Linux, and a server at 127.0.0.1 (default: one)." placeholder:"N"`
	PID            int    `name:"pid" help:"Process id of the server, on this machine: its CPU and memory are measured." placeholder:"PID"`
}

// Run prints one line of JSON. It fails when a message was lost: the figures would flatter the server.
func (b *benchSignalCmd) Run(c *console) error {
	cfg := load.SignalConfig{
		Protocol: b.Protocol, URL: b.URL, Conns: b.Conns, Pairs: min(b.Pairs, b.Conns/2), Messages: b.Messages, Size: b.Size, PID: b.PID,
		Insecure: b.Insecure, Sources: b.Sources,
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
	report, err := load.Signal(c.ctx, cfg)
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

// license makes a license for the load, or fetches that of a development server.
func (b *benchSignalCmd) license(ctx context.Context) (cpCode, authKey string, err error) {
	if b.DevLicense != "" {
		return fetchLicense(ctx, b.DevLicense)
	}
	v, err := (&issueCmd{LicenseKeyFile: b.LicenseKeyFile}).verifier()
	if err != nil {
		return "", "", fmt.Errorf("%w: %w (or --dev-license)", errUsage, err)
	}
	const tenant = "BENCH"
	now := time.Now()
	key, err := v.Issue(license.Params{
		Name: "Load", CpCode: tenant, CompanyCode: tenant, MaxUser: b.Conns, Start: now.Add(-time.Hour), End: now.Add(24 * time.Hour),
	})
	return tenant, key, err
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
