package main

import (
	"context"
	"fmt"
	"io"

	"github.com/alecthomas/kong"

	"github.com/ieum-rtc/ieum/internal/node"
)

// relayCmd is a relay alone. Its flags mean what those of serve mean.
type relayCmd struct {
	ConfigFile kong.ConfigFlag `name:"config" help:"Read flags from this YAML or JSON file." placeholder:"FILE"`

	Listen string `help:"UDP and TCP address of STUN and TURN (default :3478)." placeholder:"HOST:PORT"`
	relayFlags
	TLSCert string `name:"tls-cert" help:"Certificate chain for turns:, PEM." placeholder:"FILE"`
	TLSKey  string `name:"tls-key" help:"Key of the certificate, PEM." placeholder:"FILE"`
	adminFlags
	LogLevel string `help:"debug, info, warn or error." default:"info" enum:"debug,info,warn,error"`
}

func (f relayCmd) config(log io.Writer) node.RelayConfig {
	return node.RelayConfig{
		Listen: f.Listen, Relay: f.relayFlags.settings(), TLSCert: f.TLSCert, TLSKey: f.TLSKey,
		Admin: f.adminFlags.settings(), Version: version(), Log: logTo(log, f.LogLevel),
	}
}

// Run relays until the context ends.
func (f *relayCmd) Run(c *console) error {
	cfg := f.config(c.err)
	if err := usage(cfg.Validate()); err != nil {
		return err
	}
	defer makeRoomFor(cfg.Relay.Workers)()
	defer outliveLog()()
	hangup, ignore := hangups()
	defer ignore()
	n, err := node.StartRelay(cfg)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.out, "The relay is running.")
	greetRelay(c.out, n, false)
	_ = untilEnd(c.ctx, nil, hangup, n.Reload) // nothing else ends it
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	return n.Close(ctx)
}
