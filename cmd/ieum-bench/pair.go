package main

import (
	"encoding/json"
	"fmt"

	"github.com/ieum-rtc/ieum/internal/bench/pair"
)

type pairCmd struct {
	targetFlags
	Protocol    string  `default:"ieum" enum:"ieum,ieum-socketio,peerjs,socketio" help:"What the server speaks: ieum, ieum-socketio (the same over Socket.IO), peerjs or socketio (default ${default})."`
	Pairs       int     `default:"64" help:"Rooms that pass messages, one in flight each (default ${default})." placeholder:"N"`
	Messages    int     `default:"100000" help:"Messages to measure, after a fifth as many to warm up (default ${default})." placeholder:"N"`
	SecondURL   string  `help:"Where the second user of each room connects, for example another node of a cluster (default: where the first does)." placeholder:"WS-URL"`
	OtherPID    []int   `name:"other-pid" help:"With --pid, process ID of another node, whose CPU and memory count too; repeatable." placeholder:"PID"`
	LatencyRate float64 `help:"Then measure latency for ten seconds at this many messages per second." placeholder:"N"`
}

// Run fails when a message was lost: the figures would flatter the server.
func (p *pairCmd) Run(c *console) error {
	if p.LatencyRate != 0 {
		defer addThread()()
	}
	cfg := pair.Config{
		Target:      p.target(),
		Protocol:    p.Protocol,
		SecondURL:   p.SecondURL,
		OtherPIDs:   p.OtherPID,
		Pairs:       min(p.Pairs, p.Conns/2),
		Messages:    p.Messages,
		LatencyRate: p.LatencyRate,
	}
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if cfg.NeedsLicense() {
		var err error
		if cfg.CpCode, cfg.AuthKey, err = p.license(c.ctx, p.Conns); err != nil {
			return err
		}
	}
	r, err := pair.Run(c.ctx, cfg)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(c.out).Encode(r); err != nil {
		return err
	}
	if r.Errors+r.Lost == 0 {
		return nil
	}
	hint := ""
	if cfg.NeedsLicense() {
		hint = " (a session may send 30 messages per second: start the server with " +
			"--session-rate and --session-burst of a million)"
	}
	return fmt.Errorf("%d errors, %d messages lost: %s%s", r.Errors, r.Lost, r.FirstError, hint)
}
