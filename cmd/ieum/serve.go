package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/node"
	"github.com/ieum-rtc/ieum/internal/relay"
)

// serverFlags are shared by `serve` and the commands of `config`.
type serverFlags struct {
	ConfigFile string `name:"config" help:"YAML or JSON file whose keys are the names of flags (default: none)." placeholder:"FILE"`

	Listen         string   `help:"Address of the one port: TCP for pages, signaling and TURN, UDP for STUN and TURN (default :7102; with --dev 127.0.0.1:7102)." placeholder:"HOST:PORT" group:"network"`
	PublicHost     string   `help:"Name or address by which clients reach STUN and TURN (default: the one by which they reached the server)." placeholder:"HOST" group:"network"`
	TLSCert        string   `name:"tls-cert" help:"Certificate chain, PEM (default: none, plain HTTP)." placeholder:"FILE" group:"tls"`
	TLSKey         string   `name:"tls-key" help:"Private key of the certificate, PEM (default: none)." placeholder:"FILE" group:"tls"`
	TLSSelfSigned  bool     `name:"tls-self-signed" help:"Serve HTTPS with a certificate made at start; browsers will warn (default off)." group:"tls"`
	RelayExternal  []string `help:"STUN or TURN URL of a relay elsewhere that has the same secret; repeatable; then none runs here (default: none)." placeholder:"URL" group:"relay"`
	RelayListen    string   `help:"Address of a port for STUN and TURN alone, UDP and TCP, which clients are told instead (default: none)." placeholder:"HOST:PORT" group:"relay"`
	relayFlags     `group:"relay"`
	LicenseKeyFile string        `help:"File with the key that signs licenses, 32 bytes at least, a second line for rotation; or IEUM_LICENSE_KEY (default: none; ieum license key makes one)." placeholder:"FILE" group:"licenses"`
	Licenses       string        `help:"YAML or JSON file that lists licenses issued elsewhere, and limits beside licenses (default: none)." placeholder:"FILE" group:"licenses"`
	LicenseRevoked string        `help:"File with the hashes of revoked licenses, one a line (ieum license hash); a change takes effect within 5 s (default: none)." placeholder:"FILE" group:"licenses"`
	Data           string        `help:"Folder for what outlasts a restart: sessions and rooms (default: none)." placeholder:"FOLDER" group:"sessions"`
	ResumeWindow   time.Duration `help:"How long a session waits for its lost connection (default 20s)." placeholder:"TIME" group:"sessions"`
	SessionRate    float64       `help:"Messages a second that a session may send on average (default 30)." placeholder:"N" group:"sessions"`
	SessionBurst   float64       `help:"Messages that a session may send at once (default 300)." placeholder:"N" group:"sessions"`
	limitFlags     `group:"limits"`
	adminFlags     `group:"admin"`
	LogLevel       string `help:"Least severe messages to log: debug, info, warn or error." default:"info" enum:"debug,info,warn,error" group:"logging"`
	Dev            bool   `help:"For trying: loopback only unless told otherwise, a license of its own (default off)." group:"network"`
}

// adminFlags say where metrics and health are served.
type adminFlags struct {
	AdminListen  string `help:"TCP address of metrics and health, or off (default 127.0.0.1:7103, if it is free)." placeholder:"HOST:PORT"`
	AdminKeyFile string `help:"File with the key that requests for metrics must carry; or IEUM_ADMIN_KEY. Required unless they are served on loopback (default: none)." placeholder:"FILE"`
	AdminPprof   bool   `help:"Serve profiles of the Go runtime, /debug/pprof/, beside the metrics (default off)."`
}

func (f adminFlags) settings() config.AdminSettings {
	return config.AdminSettings{Listen: f.AdminListen, Token: os.Getenv("IEUM_ADMIN_KEY"), TokenFile: f.AdminKeyFile, Profile: f.AdminPprof}
}

// relayFlags are those of every relay, in a server or alone.
type relayFlags struct {
	STUNListen            string        `name:"stun-listen" help:"UDP address of a second STUN port, or off (default: port 3478, if it is free)." placeholder:"HOST:PORT"`
	RelayIP               []string      `name:"relay-ip" help:"Address that the relay hands out; behind 1:1 NAT public/private; repeatable (default: found)." placeholder:"IP[/IP]"`
	RelayPorts            string        `help:"Ports for relayed traffic (default 49152-65535)." placeholder:"FROM-TO"`
	RelayAllowPeer        []string      `help:"Private network that the relay may reach all the same; repeatable (default: none)." placeholder:"CIDR"`
	RelayQuota            int           `help:"Relay allocations of one session (default 64; -1 no limit)." placeholder:"N"`
	RelayQuotaLicense     int           `help:"Relay allocations of all sessions of one license (default: a quarter of the total, all of it for a single license; -1 no limit)." placeholder:"N"`
	RelayQuotaAddress     int           `help:"Relay allocations of clients of one address (default 1000; -1 no limit)." placeholder:"N"`
	RelayQuotaTotal       int           `help:"Relay allocations in all (default 10000; -1 no limit)." placeholder:"N"`
	RelayBandwidth        int           `help:"Bytes a second that an allocation may relay each way (default 16777216, 16 MiB; -1 no limit)." placeholder:"N"`
	RelayBandwidthSession int           `help:"Bytes a second that all allocations of a session may relay each way (default: twice --relay-bandwidth; -1 no limit)." placeholder:"N"`
	RelayLinger           time.Duration `help:"How long the relay waits for more packets to send at once; 0 sends each packet at once." default:"300us" placeholder:"TIME"`
	RelayWorkers          int           `help:"Threads of the relay (default: one a core)." placeholder:"N"`
	RelaySecretFile       string        `help:"File with the secret of relay credentials; or IEUM_RELAY_SECRET (default: a server derives it from the license key)." placeholder:"FILE"`
}

func (f relayFlags) settings() config.RelaySettings {
	linger := f.RelayLinger
	if linger == 0 {
		linger = -1
	}
	return config.RelaySettings{
		STUNListen: f.STUNListen, IPs: f.RelayIP, Ports: f.RelayPorts, AllowPeers: f.RelayAllowPeer,
		Quota:     config.RelayQuota{Session: f.RelayQuota, License: f.RelayQuotaLicense, Address: f.RelayQuotaAddress, Total: f.RelayQuotaTotal},
		Bandwidth: f.RelayBandwidth, SessionBandwidth: f.RelayBandwidthSession, Coalesce: linger, Workers: workers(f.RelayWorkers),
		Secret: os.Getenv("IEUM_RELAY_SECRET"), SecretFile: f.RelaySecretFile,
	}
}

type serveCmd struct{ serverFlags }

func (f *serveCmd) check() error { return f.config(io.Discard).Validate() }

func (f *serveCmd) starts() {}

func (f serverFlags) config(log io.Writer) config.Server {
	return config.Server{
		Listen: f.Listen, PublicHost: f.PublicHost, RelayListen: f.RelayListen, RelayExternal: f.RelayExternal, Relay: f.relayFlags.settings(), Admin: f.adminFlags.settings(),
		LicenseSigningKey: os.Getenv("IEUM_LICENSE_KEY"), LicenseSigningKeyFile: f.LicenseKeyFile, Licenses: f.Licenses, RevocationList: f.LicenseRevoked,
		TLSCert: f.TLSCert, TLSKey: f.TLSKey, TLSSelfSigned: f.TLSSelfSigned,
		Data: f.Data, Dev: f.Dev, DevDir: devDir(), ResumeWindow: f.ResumeWindow, SessionRate: f.SessionRate, SessionBurst: f.SessionBurst,
		Limits: f.limitFlags.settings(), TrustedProxies: f.TrustedProxy,
		Version: version(), Log: logTo(log, f.LogLevel),
	}
}

// devDir is where --dev keeps its license without --data.
func devDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "" // no home: another license at each start
	}
	return filepath.Join(cache, "ieum")
}

func logTo(w io.Writer, name string) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(name)) // one of four, the parser saw to it
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// how long clients get to hear that the server stops; an operator's five seconds have room for the rest
const closeWithin = 3 * time.Second

// Run serves until the context ends.
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
	debug.FreeOSMemory() // what the start took and serving does not need: without load the next collection is two minutes away
	failed := untilEnd(c.ctx, n.Failed(), hangup, n.Reload)
	cfg.Log.Info("stopping", "cause", context.Cause(c.ctx))
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	err = errors.Join(failed, n.Close(ctx))
	cfg.Log.Info("stopped")
	return err
}

// warn logs what is odd about the settings.
func (c *console) warn(log *slog.Logger, found error) {
	for _, text := range append(c.settings.warnings, c.settings.texts(found)...) {
		log.Warn(text)
	}
}

// greet says where to go. It is for people, on standard output; the log says it too, and everything else.
func (f *serveCmd) greet(w io.Writer, n *node.Node) {
	fmt.Fprintln(w, "Ieum is running. Open one of:")
	for _, u := range n.URLs() {
		fmt.Fprintln(w, "  "+u)
	}
	if len(f.RelayExternal) > 0 {
		fmt.Fprintf(w, "Relay: elsewhere, %s\n", strings.Join(f.RelayExternal, ", "))
	} else {
		greetRelay(w, n)
	}
	if a := n.AdminAddr(); a != nil {
		fmt.Fprintf(w, "Metrics and health: http://%s/metrics, /healthz, /readyz\n", a)
	}
}

// started logs that the server runs, and what somebody should know before others are let in.
func (f *serveCmd) started(log *slog.Logger, n *node.Node) {
	log.Info("started", "version", version(), "listen", n.Addr(), "urls", n.URLs())
	if !f.Dev {
		warnPrivate(log, n)
	}
	if f.Dev {
		log.Info("--dev is for trying: everyone who reaches this address may call with its license")
	}
	if f.TLSSelfSigned {
		log.Info("the certificate is self-signed: browsers warn once")
	}
}

// relaying is a server with a relay, or a relay alone.
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
		stun = fmt.Sprintf(", STUN on UDP port %d too", p)
	}
	fmt.Fprintf(w, "Relay: UDP and TCP port %d%s, relaying from %s\n", r.RelayPort(), stun, strings.Join(from, ", "))
}

// warnPrivate tells that calls from outside would not be relayed.
func warnPrivate(log *slog.Logger, r relaying) {
	if addrs, private := r.RelayAddresses(); private {
		log.Warn("the relay has private addresses only, which nobody outside this network reaches: behind NAT give --relay-ip PUBLIC/PRIVATE",
			"addresses", fmt.Sprint(addrs))
	}
}
