package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/node"
	"github.com/ieum-rtc/ieum/internal/relay"
)

// serverFlags are shared by `serve` and the subcommands of `config`.
type serverFlags struct {
	ConfigFile string `name:"config" help:"YAML or JSON file of settings; keys are flag names (default: none)." placeholder:"FILE"`

	Listen                string   `help:"Main port: TCP for pages, signaling and TURN, UDP for STUN and TURN (default ${listen}; with --dev 127.0.0.1${listen})." placeholder:"HOST:PORT" group:"network"`
	PublicHost            string   `help:"Host name or address by which clients reach STUN and TURN (default: the one by which they reached the server)." placeholder:"HOST" group:"network"`
	TLSCert               string   `name:"tls-cert" help:"TLS certificate chain, PEM (default: none, plain HTTP)." placeholder:"FILE" group:"tls"`
	TLSKey                string   `name:"tls-key" help:"TLS private key, PEM (default: none)." placeholder:"FILE" group:"tls"`
	TLSSelfSigned         bool     `name:"tls-self-signed" help:"Serve HTTPS with a self-signed certificate; browsers will warn (default off)." group:"tls"`
	RelayExternal         []string `help:"STUN or TURN URL of an external relay with the same secret; repeatable; disables the built-in relay (default: none)." placeholder:"URL" group:"relay"`
	RelayListen           string   `help:"Separate port for STUN and TURN, UDP and TCP, that clients are given instead of the main port (default: none)." placeholder:"HOST:PORT" group:"relay"`
	relayFlags            `group:"relay"`
	LicenseSigningKeyFile string        `help:"File with the license signing key, at least 32 bytes; a second line during rotation; or IEUM_LICENSE_SIGNING_KEY (default: none; ieum license keygen creates one)." placeholder:"FILE" group:"licenses"`
	Licenses              string        `help:"YAML or JSON file of licenses issued elsewhere, and additional limits (default: none)." placeholder:"FILE" group:"licenses"`
	RevocationList        string        `help:"Revoked licenses and user tokens: SHA-256 hashes, one per line (ieum license hash); reloaded within 5 s of a change (default: none)." placeholder:"FILE" group:"licenses"`
	Data                  string        `help:"Directory for persistent state: sessions and rooms (default: none)." placeholder:"FOLDER" group:"sessions"`
	ResumeWindow          time.Duration `help:"How long a session survives the loss of its connection (default ${resume_window})." placeholder:"TIME" group:"sessions"`
	SessionRate           float64       `help:"Sustained message rate per session, in messages per second (default ${session_rate})." placeholder:"N" group:"sessions"`
	SessionBurst          float64       `help:"Messages that a session may send at once (default ${session_burst})." placeholder:"N" group:"sessions"`
	limitFlags            `group:"limits"`
	clusterFlags          `group:"cluster"`
	adminFlags            `group:"admin"`
	LogLevel              string `help:"Minimum severity to log: debug, info, warn or error." default:"info" enum:"debug,info,warn,error" group:"logging"`
	Dev                   bool   `help:"Development mode: binds to loopback by default and serves a development license (default off)." group:"network"`
}

// adminFlags configure the admin listener.
type adminFlags struct {
	AdminListen    string `help:"TCP address of the admin listener (metrics, health), or off (default ${admin_listen}, if it is free)." placeholder:"HOST:PORT"`
	AdminTokenFile string `help:"File with the bearer token required for /metrics; or IEUM_ADMIN_TOKEN. Mandatory unless --admin-listen is loopback (default: none)." placeholder:"FILE"`
	AdminPprof     bool   `help:"Serve Go runtime profiles at /debug/pprof/ of the admin listener (default off)."`
}

func (f adminFlags) settings() config.AdminSettings {
	return config.AdminSettings{
		Listen:    f.AdminListen,
		Token:     os.Getenv("IEUM_ADMIN_TOKEN"),
		TokenFile: f.AdminTokenFile,
		Profile:   f.AdminPprof,
	}
}

// relayFlags configure a relay, in a server or standalone.
type relayFlags struct {
	STUNListen               string        `name:"stun-listen" help:"UDP address of a second STUN port, or off (default: port ${stun_listen}, if it is free)." placeholder:"HOST:PORT"`
	RelayIP                  []string      `name:"relay-ip" help:"Relayed address, or PUBLIC/PRIVATE behind 1:1 NAT; repeatable (default: auto-detected)." placeholder:"IP[/IP]"`
	RelayPorts               string        `help:"Port range of relayed addresses (default ${relay_ports})." placeholder:"FROM-TO"`
	RelayAllowPeer           []string      `help:"Allow relaying to this otherwise blocked network; repeatable (default: none)." placeholder:"CIDR"`
	RelayQuota               int           `help:"Relay allocations per session (default ${relay_quota}; -1 unlimited)." placeholder:"N"`
	RelayQuotaPerLicense     int           `help:"Relay allocations per license (default: a quarter of the total, three quarters for a single license; -1 unlimited)." placeholder:"N"`
	RelayQuotaPerAddress     int           `help:"Relay allocations per client address (default ${relay_quota_per_address}; -1 unlimited)." placeholder:"N"`
	RelayQuotaTotal          int           `help:"Relay allocations in total (default ${relay_quota_total}; -1 unlimited)." placeholder:"N"`
	RelayBandwidth           int           `help:"Bytes per second and direction of an allocation (default ${relay_bandwidth}, 16 MiB; -1 unlimited)." placeholder:"N"`
	RelayBandwidthPerSession int           `help:"Bytes per second and direction of all allocations of a session (default: twice --relay-bandwidth; -1 unlimited)." placeholder:"N"`
	RelayCoalesce            time.Duration `help:"How long the relay waits for more packets to send in one system call; 0 disables." default:"${relay_coalesce}" placeholder:"TIME"`
	RelayWorkers             int           `help:"Relay threads (default: one per core)." placeholder:"N"`
	RelaySecretFile          string        `help:"File with the TURN REST secret, at least 16 bytes; or IEUM_RELAY_SECRET (default: derived from the license signing key, except by ieum relay)." placeholder:"FILE"`
}

func (f relayFlags) settings() config.RelaySettings {
	coalesce := f.RelayCoalesce
	if coalesce == 0 {
		coalesce = -1
	}
	return config.RelaySettings{
		STUNListen: f.STUNListen,
		IPs:        f.RelayIP,
		Ports:      f.RelayPorts,
		AllowPeers: f.RelayAllowPeer,
		Quota: config.RelayQuota{
			Session: f.RelayQuota,
			License: f.RelayQuotaPerLicense,
			Address: f.RelayQuotaPerAddress,
			Total:   f.RelayQuotaTotal,
		},
		Bandwidth:        f.RelayBandwidth,
		SessionBandwidth: f.RelayBandwidthPerSession,
		Coalesce:         coalesce,
		Workers:          workers(f.RelayWorkers),
		Secret:           os.Getenv("IEUM_RELAY_SECRET"),
		SecretFile:       f.RelaySecretFile,
	}
}

type serveCmd struct{ serverFlags }

func (f *serveCmd) check() error { return f.config(io.Discard).Validate() }

func (f *serveCmd) starts() {}

func (f serverFlags) config(log io.Writer) config.Server {
	return config.Server{
		Listen:                f.Listen,
		PublicHost:            f.PublicHost,
		RelayExternal:         f.RelayExternal,
		RelayListen:           f.RelayListen,
		Relay:                 f.relayFlags.settings(),
		LicenseSigningKey:     os.Getenv("IEUM_LICENSE_SIGNING_KEY"),
		LicenseSigningKeyFile: f.LicenseSigningKeyFile,
		Licenses:              f.Licenses,
		RevocationList:        f.RevocationList,
		TLSCert:               f.TLSCert,
		TLSKey:                f.TLSKey,
		TLSSelfSigned:         f.TLSSelfSigned,
		Admin:                 f.adminFlags.settings(),
		Cluster:               f.clusterFlags.settings(),
		Data:                  f.Data,
		Dev:                   f.Dev,
		DevDir:                devDir(),
		ResumeWindow:          f.ResumeWindow,
		SessionRate:           f.SessionRate,
		SessionBurst:          f.SessionBurst,
		Limits:                f.limitFlags.settings(),
		TrustedProxies:        f.TrustedProxy,
		Version:               version(),
		Log:                   logTo(log, f.LogLevel),
	}
}

// devDir holds the license of --dev if there is no --data; empty: none.
func devDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "" // no home directory: each start makes a new license
	}
	return filepath.Join(cache, "ieum")
}

func logTo(w io.Writer, name string) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(name)) // the parser accepts valid levels only
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// Run serves until the context is done.
func (f *serveCmd) Run(c *console) error {
	cfg := f.config(c.err)
	c.warn(cfg.Log, cfg.Warnings())
	defer keepLittleGarbage()()
	defer makeRoomFor(cfg.Relay.Workers)()
	defer outliveLog()()
	hangup, ignore := hangups()
	defer ignore()
	n, err := node.Start(cfg)
	if err != nil {
		return err
	}
	f.greet(c.out, n)
	f.started(cfg.Log, n)
	debug.FreeOSMemory() // of the start; without load the next collection is two minutes away
	failed := untilEnd(c.ctx, n.Failed(), hangup, n.Drained(), n.Reload)
	err = errors.Join(failed, stop(cfg, n, cmp.Or(context.Cause(c.ctx), errDrain)))
	cfg.Log.Info("stopped")
	return err
}

var errDrain = errors.New("asked to drain")

// stop has a node of a cluster drain, and closes it.
func stop(cfg config.Server, n *node.Node, cause error) error {
	cfg.Log.Info("stopping", "cause", cause)
	// A second signal ends the drain.
	ctx, undo := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, cfg.Cluster.Drain())
	n.Drain(ctx, cfg.Cluster.Drain())
	cancel()
	undo()
	ctx, cancel = context.WithTimeout(context.Background(), cfg.Cluster.Close())
	defer cancel()
	return n.Close(ctx)
}

// warn logs warnings about the configuration.
func (c *console) warn(log *slog.Logger, found error) {
	for _, text := range append(c.settings.warnings, c.settings.texts(found)...) {
		log.Warn(text)
	}
}

// greet prints the URLs on standard output, for people. The log has them too.
func (f *serveCmd) greet(w io.Writer, n *node.Node) {
	fmt.Fprintln(w, "Ieum is running. Open one of:")
	for _, u := range n.URLs() {
		fmt.Fprintln(w, "  "+u)
	}
	if len(f.RelayExternal) > 0 {
		fmt.Fprintf(w, "Relay: external (%s)\n", strings.Join(f.RelayExternal, ", "))
	} else {
		greetRelay(w, n)
	}
	if a := n.ClusterAddr(); a != "" {
		fmt.Fprintf(w, "Other nodes: --cluster-peer %s\n", a)
	}
	if a := n.AdminAddr(); a != nil {
		fmt.Fprintf(w, "Metrics and health: http://%s/metrics, /healthz, /readyz\n", a)
	}
}

// started logs that the server runs, and what the operator should know before others use it.
func (f *serveCmd) started(log *slog.Logger, n *node.Node) {
	log.Info("started", "version", version(), "listen", n.Addr(), "urls", n.URLs())
	if !f.Dev {
		warnPrivate(log, n)
	}
	if f.Dev {
		log.Info("development mode: " +
			"anyone who can reach this address may call with the development license")
	}
	if f.TLSSelfSigned {
		log.Info("the certificate is self-signed: browsers show a warning once")
	}
}

// relaying is a server with a relay, or a standalone relay.
type relaying interface {
	RelayPort() int
	STUNPort() int
	RelayAddresses() (addrs []relay.Address, onlyPrivate bool)
}

func greetRelay(w io.Writer, r relaying) {
	addrs, _ := r.RelayAddresses()
	var from []string
	for _, a := range addrs {
		from = append(from, a.Public.String())
	}
	stun := ""
	if p := r.STUNPort(); p != 0 {
		stun = fmt.Sprintf(", second STUN port UDP %d", p)
	}
	fmt.Fprintf(
		w, "Relay: UDP and TCP port %d%s, relayed addresses %s\n",
		r.RelayPort(), stun, strings.Join(from, ", "),
	)
}

// warnPrivate warns that clients on the Internet cannot use the relay.
func warnPrivate(log *slog.Logger, r relaying) {
	if addrs, private := r.RelayAddresses(); private {
		log.Warn("all relayed addresses are private, unreachable from the Internet: "+
			"behind NAT set --relay-ip PUBLIC/PRIVATE", "addresses", fmt.Sprint(addrs))
	}
}
