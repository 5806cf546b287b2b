package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench/turn"
)

type turnCmd struct {
	Server          string        `default:"127.0.0.1:3478" help:"The TURN server (default ${default})." placeholder:"HOST:PORT"`
	Transport       string        `default:"udp" enum:"udp,tcp,tls" help:"Between clients and server: udp, tcp or tls (default ${default})."`
	Insecure        bool          `help:"With tls, accept any certificate."`
	ClientIP        []string      `name:"client-ip" help:"Local address of the clients, used in rotation; repeatable (default: chosen by the route)." placeholder:"IP"`
	PeerIP          string        `name:"peer-ip" help:"Local address of the peer, a plain UDP socket of this process. The server must relay to it: ieum refuses private addresses without --relay-allow-peer, and its own always (default: chosen by the route to the server)." placeholder:"IP"`
	RelaySecretFile string        `help:"File with the TURN REST secret of the server; or IEUM_RELAY_SECRET. Each allocation is a session of its own." placeholder:"FILE"`
	User            string        `help:"Instead of a secret: the user name of all allocations." placeholder:"NAME"`
	PasswordFile    string        `help:"File with the user's password; or IEUM_RELAY_PASSWORD." placeholder:"FILE"`
	Shape           string        `default:"up" enum:"up,down,both,hairpin,idle" help:"up: clients to peer; down: peer to clients; both: half each; hairpin: between pairs of clients, both relayed; idle: allocations without traffic (default ${default})."`
	Allocations     int           `default:"100" help:"Allocations, each with one channel (default ${default})." placeholder:"N"`
	Burst           int           `default:"6" help:"Consecutive packets of one allocation (default ${default})." placeholder:"N"`
	Size            int           `default:"1100" help:"Bytes of a packet's payload (default ${default})." placeholder:"BYTES"`
	Rate            int           `help:"Packets per second in all (default: as fast as the window allows)." placeholder:"N"`
	Window          int           `default:"1024" help:"Without --rate: packets in flight in all (default ${default})." placeholder:"N"`
	Duration        time.Duration `default:"5s" help:"How long to measure (default ${default})." placeholder:"TIME"`
	WarmUp          time.Duration `default:"1s" help:"How long to run before measuring (default ${default})." placeholder:"TIME"`
	PID             int           `name:"pid" help:"Process ID of the server, if it runs on this machine: its CPU and memory are reported." placeholder:"PID"`
}

// Run reports loss: no server carries every load. It fails when no packet arrived at all, as then
// nothing was measured.
func (t *turnCmd) Run(c *console) error {
	cfg, err := t.config()
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	r, err := turn.Run(c.ctx, cfg)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(c.out).Encode(r); err != nil {
		return err
	}
	if cfg.Shape != turn.ShapeIdle && r.Received == 0 {
		return fmt.Errorf(
			"none of %d packets arrived: does the server relay to the peer's address? %s",
			r.Sent,
			r.FirstError,
		)
	}
	return nil
}

// config reports every error in the flags.
func (t *turnCmd) config() (turn.Config, error) {
	cfg := turn.Config{
		Server:      t.Server,
		Transport:   t.Transport,
		Insecure:    t.Insecure,
		User:        t.User,
		Shape:       t.Shape,
		Allocations: t.Allocations,
		Burst:       t.Burst,
		Size:        t.Size,
		Rate:        t.Rate,
		Window:      t.Window,
		Duration:    t.Duration,
		WarmUp:      t.WarmUp,
		PID:         t.PID,
	}
	var errs []error
	address := func(flag, text string) netip.Addr {
		a, err := netip.ParseAddr(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %q is not an IP address", flag, text))
		}
		return a
	}
	for _, text := range t.ClientIP {
		cfg.Clients = append(cfg.Clients, address("--client-ip", text))
	}
	if t.PeerIP != "" {
		cfg.Peer = address("--peer-ip", t.PeerIP)
	}
	secret := func(flag, file, variable string) string {
		text := os.Getenv(variable)
		if file != "" {
			raw, err := os.ReadFile(file)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", flag, err))
			}
			text = string(raw)
		}
		return strings.TrimSpace(text)
	}
	if t.User == "" {
		cfg.Secret = []byte(secret("--relay-secret-file", t.RelaySecretFile, "IEUM_RELAY_SECRET"))
	} else {
		cfg.Password = secret("--password-file", t.PasswordFile, "IEUM_RELAY_PASSWORD")
	}
	return cfg, errors.Join(append(errs, cfg.Validate())...)
}
