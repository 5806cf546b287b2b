package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/ieum-rtc/ieum/internal/bench"
)

type relayCmd struct {
	Server          string        `default:"127.0.0.1:3478" help:"The TURN server (default ${default})." placeholder:"HOST:PORT"`
	Transport       string        `default:"udp" enum:"udp,tcp,tls" help:"Between clients and server: udp, tcp or tls (default ${default})."`
	Insecure        bool          `help:"With tls: take any certificate."`
	ClientIP        []string      `name:"client-ip" help:"Address that clients take in turn; repeatable (default: what the route has)." placeholder:"IP"`
	PeerIP          string        `name:"peer-ip" help:"Address of the peer, a plain UDP socket of this process. The server must relay to it: ours does not to private addresses without --relay-allow-peer, and never to its own (default: what the route to the server has)." placeholder:"IP"`
	RelaySecretFile string        `help:"File with the secret that the server shares with whoever makes credentials; or IEUM_RELAY_SECRET. Each allocation is a session of its own." placeholder:"FILE"`
	User            string        `help:"Instead of a secret: the name of one user for all allocations." placeholder:"NAME"`
	PasswordFile    string        `help:"File with the user's password; or IEUM_RELAY_PASSWORD." placeholder:"FILE"`
	Shape           string        `default:"up" enum:"up,down,both,hairpin,idle" help:"up: clients to peer; down: peer to clients; both: half each; hairpin: two clients to each other, both relayed; idle: allocations alone (default ${default})."`
	Allocations     int           `default:"100" help:"Allocations, each with one channel (default ${default})." placeholder:"N"`
	Burst           int           `default:"6" help:"Packets in a row for one allocation (default ${default})." placeholder:"N"`
	Size            int           `default:"1100" help:"Bytes of a packet's payload (default ${default})." placeholder:"BYTES"`
	Rate            int           `help:"Packets a second in all (default: as fast as the window lets)." placeholder:"N"`
	Window          int           `default:"1024" help:"Without --rate: packets in flight in all (default ${default})." placeholder:"N"`
	Duration        time.Duration `default:"5s" help:"How long to measure (default ${default})." placeholder:"TIME"`
	WarmUp          time.Duration `default:"1s" help:"How long to run before that (default ${default})." placeholder:"TIME"`
	PID             int           `name:"pid" help:"Process id of the server, on this machine: its CPU and memory are measured." placeholder:"PID"`
}

// Run prints one line of JSON. Loss under a load that nobody can carry is a figure; when nothing arrives, nothing was measured.
func (b *relayCmd) Run(c *console) error {
	cfg, err := b.config()
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	report, err := bench.Relay(c.ctx, cfg)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(c.out).Encode(report); err != nil {
		return err
	}
	if cfg.Shape != bench.ShapeIdle && report.Received == 0 {
		return fmt.Errorf("of %d packets none arrived: does the server relay to the peer's address? %s", report.Sent, report.Fault)
	}
	return nil
}

// config reports every fault of the flags.
func (b *relayCmd) config() (bench.RelayConfig, error) {
	cfg := bench.RelayConfig{
		Server: b.Server, Transport: b.Transport, Insecure: b.Insecure, User: b.User, Shape: b.Shape, Allocations: b.Allocations, Burst: b.Burst,
		Size: b.Size, Rate: b.Rate, Window: b.Window, Duration: b.Duration, WarmUp: b.WarmUp, PID: b.PID,
	}
	var faults []error
	address := func(flag, text string) netip.Addr {
		a, err := netip.ParseAddr(text)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %q is not an IP address", flag, text))
		}
		return a
	}
	for _, text := range b.ClientIP {
		cfg.Clients = append(cfg.Clients, address("--client-ip", text))
	}
	if b.PeerIP != "" {
		cfg.Peer = address("--peer-ip", b.PeerIP)
	}
	secret := func(flag, file, variable string) string {
		text := os.Getenv(variable)
		if file != "" {
			raw, err := os.ReadFile(file)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", flag, err))
			}
			text = string(raw)
		}
		return strings.TrimSpace(text)
	}
	if b.User == "" {
		cfg.Secret = []byte(secret("--relay-secret-file", b.RelaySecretFile, "IEUM_RELAY_SECRET"))
	} else {
		cfg.Password = secret("--password-file", b.PasswordFile, "IEUM_RELAY_PASSWORD")
	}
	return cfg, errors.Join(append(faults, cfg.Validate())...)
}
