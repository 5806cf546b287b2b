package main

import (
	"context"
	"fmt"
	"io"

	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/node"
)

// relayCmd is a relay alone. Its flags mean what those of serve mean.
type relayCmd struct {
	ConfigFile string `name:"config" help:"YAML or JSON file whose keys are the names of flags (default: none)." placeholder:"FILE"`

	Listen     string `help:"UDP and TCP address of STUN and TURN (default :3478)." placeholder:"HOST:PORT" group:"network"`
	TLSCert    string `name:"tls-cert" help:"Certificate chain for turns:, PEM (default: none)." placeholder:"FILE" group:"tls"`
	TLSKey     string `name:"tls-key" help:"Private key of the certificate, PEM (default: none)." placeholder:"FILE" group:"tls"`
	relayFlags `group:"relay"`
	adminFlags `group:"admin"`
	LogLevel   string `help:"Least severe messages to log: debug, info, warn or error." default:"info" enum:"debug,info,warn,error" group:"logging"`
}

func (f *relayCmd) check() error { return f.config(io.Discard).Validate() }

func (f *relayCmd) starts() {}

func (f relayCmd) config(log io.Writer) config.Relay {
	return config.Relay{
		Listen: f.Listen, Relay: f.relayFlags.settings(), TLSCert: f.TLSCert, TLSKey: f.TLSKey,
		Admin: f.adminFlags.settings(), Version: version(), Log: logTo(log, f.LogLevel),
	}
}

// Run relays until the context ends.
func (f *relayCmd) Run(c *console) error {
	cfg := f.config(c.err)
	c.warn(cfg.Log, cfg.Warnings())
	defer makeRoomFor(cfg.Relay.Workers)()
	defer outliveLog()()
	hangup, ignore := hangups()
	defer ignore()
	n, err := node.StartRelay(cfg)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.out, "The relay is running.")
	greetRelay(c.out, n)
	cfg.Log.Info("started", "version", version(), "port", n.RelayPort())
	warnPrivate(cfg.Log, n)
	_ = untilEnd(c.ctx, nil, hangup, n.Reload) // nothing else ends it
	cfg.Log.Info("stopping", "cause", context.Cause(c.ctx))
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	err = n.Close(ctx)
	cfg.Log.Info("stopped")
	return err
}
