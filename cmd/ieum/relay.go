package main

import (
	"context"
	"fmt"
	"io"

	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/node"
)

// relayCmd is a standalone relay. Its flags mean the same as those of serve.
type relayCmd struct {
	ConfigFile string `name:"config" help:"YAML or JSON file of settings; keys are flag names (default: none)." placeholder:"FILE"`

	Listen     string `help:"UDP and TCP address of STUN and TURN (default :${stun_listen})." placeholder:"HOST:PORT" group:"network"`
	TLSCert    string `name:"tls-cert" help:"TLS certificate chain for turns:, PEM (default: none)." placeholder:"FILE" group:"tls"`
	TLSKey     string `name:"tls-key" help:"TLS private key, PEM (default: none)." placeholder:"FILE" group:"tls"`
	relayFlags `group:"relay"`
	adminFlags `group:"admin"`
	LogLevel   string `help:"Minimum severity to log: debug, info, warn or error." default:"info" enum:"debug,info,warn,error" group:"logging"`
}

func (f *relayCmd) check() error { return f.config(io.Discard).Validate() }

func (f *relayCmd) starts() {}

func (f relayCmd) config(log io.Writer) config.Relay {
	return config.Relay{
		Listen:  f.Listen,
		Relay:   f.relayFlags.settings(),
		TLSCert: f.TLSCert,
		TLSKey:  f.TLSKey,
		Admin:   f.adminFlags.settings(),
		Version: version(),
		Log:     logTo(log, f.LogLevel),
	}
}

// Run relays until the context is done.
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
	_ = untilEnd(c.ctx, nil, hangup, nil, n.Reload) // without a channel of failures it returns nil
	cfg.Log.Info("stopping", "cause", context.Cause(c.ctx))
	ctx, cancel := context.WithTimeout(context.Background(), config.DefaultDrainTimeout)
	defer cancel()
	err = n.Close(ctx)
	cfg.Log.Info("stopped")
	return err
}
