package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/adversary"
	"github.com/ieum-rtc/ieum/internal/bench/mix"
)

type mixCmd struct {
	targetFlags
	Rate           float64       `default:"200" help:"Messages per second (default ${default})." placeholder:"N"`
	Joins          float64       `help:"Users per second that leave their room and join it again; every fourth logs in again, and for every fourth a connection is lost and its session resumed (default: a twentieth of the rate)." placeholder:"N"`
	Duration       time.Duration `default:"1m" help:"How long to measure (default ${default})." placeholder:"TIME"`
	Admin          string        `help:"Admin listener of a server started with --admin-pprof, http://HOST:PORT: what the server holds after a garbage collection is reported too." placeholder:"URL"`
	Adversaries    bool          `help:"Run the load twice, the second time with adversaries: sockets that never log in, a reconnect storm, senders that flood, readers that are slow or stop."`
	HalfOpen       int           `default:"10000" help:"With --adversaries: sockets that never log in (default ${default})." placeholder:"N"`
	ReconnectStorm int           `default:"1000" help:"With --adversaries: clients that lose their connections simultaneously, every five seconds, and resume (default ${default})." placeholder:"N"`
}

// Run fails when the server lost, reordered or refused something.
func (m *mixCmd) Run(c *console) error {
	defer addThread()()
	cfg := mix.Config{
		Target:   m.target(),
		Rate:     m.Rate,
		Joins:    m.Joins,
		Duration: m.Duration,
		Admin:    m.Admin,
	}
	if m.Adversaries {
		cfg.Adversaries = &adversary.Config{HalfOpen: m.HalfOpen, Storm: m.ReconnectStorm}
		cfg.AdversaryProcess = adversaryProcess
	}
	err := cfg.Validate()
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	users := m.Conns
	if m.Adversaries {
		users += cfg.Adversaries.Sockets()
	}
	if cfg.CpCode, cfg.AuthKey, err = m.license(c.ctx, users); err != nil {
		return err
	}
	r, err := mix.Run(c.ctx, cfg)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(c.out).Encode(r); err != nil {
		return err
	}
	return r.Failures.Err()
}

// adversaryProcess is this program again.
func adversaryProcess(ctx context.Context) *exec.Cmd {
	program, err := os.Executable()
	if err != nil {
		program = os.Args[0]
	}
	c := exec.CommandContext(ctx, program, "adversary")
	c.Stderr = os.Stderr
	return c
}

type adversaryCmd struct{}

// Run reads a configuration and prints a report: see adversary.Serve.
func (adversaryCmd) Run(c *console) error { return adversary.Serve(c.ctx, c.in, c.out) }
