package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/ieum-rtc/ieum/internal/node"
	"github.com/ieum-rtc/ieum/internal/relay"
)

// serverFlags are shared by `serve` and `config check`.
type serverFlags struct {
	ConfigFile kong.ConfigFlag `name:"config" help:"Read flags from this YAML or JSON file." placeholder:"FILE"`

	Listen        string   `help:"Address of the one port: TCP for pages, signaling and TURN, UDP for STUN and TURN (default :7102; with --dev 127.0.0.1:7102)." placeholder:"HOST:PORT"`
	PublicHost    string   `help:"Name or address by which clients reach STUN and TURN (default: the one by which they reached the server)." placeholder:"HOST"`
	RelayExternal []string `help:"STUN or TURN URL of a relay elsewhere that has the same secret; repeatable; then none runs here." placeholder:"URL"`
	RelayListen   string   `help:"Address of a port for STUN and TURN alone, UDP and TCP, which clients are told instead." placeholder:"HOST:PORT"`
	relayFlags
	LicenseKeyFile string `help:"File with the secret that signs licenses, 32 bytes at least, a second line for rotation; or IEUM_LICENSE_KEY." placeholder:"FILE"`
	Licenses       string `help:"YAML or JSON file that lists licenses issued elsewhere, and limits beside licenses." placeholder:"FILE"`
	LicenseRevoked string `help:"File with the hashes of licenses that are good no longer, one a line (ieum license hash); a change takes effect within 5 s." placeholder:"FILE"`
	TLSCert        string `name:"tls-cert" help:"Certificate chain, PEM." placeholder:"FILE"`
	TLSKey         string `name:"tls-key" help:"Key of the certificate, PEM." placeholder:"FILE"`
	TLSSelfSigned  bool   `name:"tls-self-signed" help:"Serve HTTPS with a certificate made here; browsers will warn."`
	adminFlags
	Data         string        `help:"Folder for what outlasts a restart." placeholder:"FOLDER"`
	ResumeWindow time.Duration `help:"How long a session waits for its lost connection (default 20s)." placeholder:"TIME"`
	SessionRate  float64       `help:"Messages a second that a session may send on average (default 30)." placeholder:"N"`
	SessionBurst float64       `help:"Messages that a session may send at once (default 300)." placeholder:"N"`
	limitFlags
	LogLevel string `help:"debug, info, warn or error." default:"info" enum:"debug,info,warn,error"`
	Dev      bool   `help:"For trying: loopback only unless told otherwise, a license of its own."`
}

// adminFlags say where metrics and health are served.
type adminFlags struct {
	AdminListen  string `help:"TCP address of metrics and health, for operators, or off (default 127.0.0.1:7103, if it is free)." placeholder:"HOST:PORT"`
	AdminKeyFile string `help:"File with the key that whoever asks for metrics must show; or IEUM_ADMIN_KEY. Required unless they are served on loopback." placeholder:"FILE"`
	AdminPprof   bool   `help:"Serve profiles of the Go runtime, /debug/pprof/, beside the metrics."`
}

func (f adminFlags) settings() node.AdminSettings {
	return node.AdminSettings{Listen: f.AdminListen, Key: os.Getenv("IEUM_ADMIN_KEY"), KeyFile: f.AdminKeyFile, Profile: f.AdminPprof}
}

// relayFlags are those of every relay, in a server or alone.
type relayFlags struct {
	STUNListen            string        `name:"stun-listen" help:"UDP address of a second STUN port, or off (default: port 3478, if it is free)." placeholder:"HOST:PORT"`
	RelayIP               []string      `name:"relay-ip" help:"Address that the relay hands out; behind 1:1 NAT public/private (default: found)." placeholder:"IP[/IP]"`
	RelayPorts            string        `help:"Ports for relayed traffic (default 49152-65535)." placeholder:"FROM-TO"`
	RelayAllowPeer        []string      `help:"Private network that the relay may reach all the same; repeatable." placeholder:"CIDR"`
	RelayQuota            int           `help:"Relay allocations a session may hold (default 64)." placeholder:"N"`
	RelayQuotaLicense     int           `help:"Relay allocations all sessions of a license may hold (default: a quarter of the total)." placeholder:"N"`
	RelayQuotaAddress     int           `help:"Relay allocations that clients of one address may hold (default 1000)." placeholder:"N"`
	RelayQuotaTotal       int           `help:"Relay allocations in all (default 10000)." placeholder:"N"`
	RelayBandwidth        int           `help:"Bytes a second that an allocation may relay each way; -1 no limit." placeholder:"N"`
	RelayBandwidthSession int           `help:"Bytes a second that all allocations of a session may relay each way (default: twice --relay-bandwidth); -1 no limit." placeholder:"N"`
	RelayLinger           time.Duration `help:"How long the relay waits for more to send at once; 0 sends each packet at once." default:"300us" placeholder:"TIME"`
	RelayWorkers          int           `help:"Threads of the relay (default: one a core)." placeholder:"N"`
	RelaySecretFile       string        `help:"File with the secret of relay credentials; or IEUM_RELAY_SECRET (default of a server: derived from the license key)." placeholder:"FILE"`
}

func (f relayFlags) settings() node.RelaySettings {
	linger := f.RelayLinger
	if linger == 0 {
		linger = -1
	}
	return node.RelaySettings{
		STUNListen: f.STUNListen, IPs: f.RelayIP, Ports: f.RelayPorts, AllowPeers: f.RelayAllowPeer,
		Quota:     node.RelayQuota{Session: f.RelayQuota, License: f.RelayQuotaLicense, Address: f.RelayQuotaAddress, Total: f.RelayQuotaTotal},
		Bandwidth: f.RelayBandwidth, SessionBandwidth: f.RelayBandwidthSession, Linger: linger, Workers: workers(f.RelayWorkers),
		Secret: os.Getenv("IEUM_RELAY_SECRET"), SecretFile: f.RelaySecretFile,
	}
}

type serveCmd struct{ serverFlags }

type configCmd struct {
	Check checkCmd `cmd:"" help:"Check a configuration without starting anything."`
}

type checkCmd struct{ serverFlags }

func (f serverFlags) config(log io.Writer) node.Config {
	return node.Config{
		Listen: f.Listen, PublicHost: f.PublicHost, RelayListen: f.RelayListen, RelayExternal: f.RelayExternal, Relay: f.relayFlags.settings(), Admin: f.adminFlags.settings(),
		LicenseKey: os.Getenv("IEUM_LICENSE_KEY"), LicenseKeyFile: f.LicenseKeyFile, Licenses: f.Licenses, LicenseRevoked: f.LicenseRevoked,
		TLSCert: f.TLSCert, TLSKey: f.TLSKey, TLSSelfSigned: f.TLSSelfSigned,
		Data: f.Data, Dev: f.Dev, ResumeWindow: f.ResumeWindow, SessionRate: f.SessionRate, SessionBurst: f.SessionBurst,
		Limits: f.limitFlags.settings(), TrustedProxies: f.TrustedProxy,
		Version: version(), Log: logTo(log, f.LogLevel),
	}
}

func logTo(w io.Writer, name string) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(name)) // one of four, the parser saw to it
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// usage reports configuration faults, one a line.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w, the configuration has faults:\n  %s", errUsage, strings.ReplaceAll(err.Error(), "\n", "\n  "))
}

// Run checks the configuration and says so.
func (f *checkCmd) Run(c *console) error {
	if err := usage(f.config(c.err).Validate()); err != nil {
		return err
	}
	fmt.Fprintln(c.out, "The configuration is good.")
	return nil
}

// how long clients get to hear that the server stops; an operator's five seconds have room for the rest
const closeWithin = 3 * time.Second

// Run serves until the context ends.
func (f *serveCmd) Run(c *console) error {
	cfg := f.config(c.err)
	if err := usage(cfg.Validate()); err != nil {
		return err
	}
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
	debug.FreeOSMemory() // what the start took and serving does not need: without load the next collection is two minutes away
	failed := untilEnd(c.ctx, n.Failed(), hangup, n.Reload)
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	return errors.Join(failed, n.Close(ctx))
}

// greet says where to go, and what somebody should know before others are let in.
func (f *serveCmd) greet(w io.Writer, n *node.Node) {
	fmt.Fprintln(w, "Ieum is running. Open one of:")
	for _, u := range n.URLs() {
		fmt.Fprintln(w, "  "+u)
	}
	if len(f.RelayExternal) > 0 {
		fmt.Fprintf(w, "Relay: elsewhere, %s\n", strings.Join(f.RelayExternal, ", "))
	} else {
		greetRelay(w, n, f.Dev)
	}
	if a := n.AdminAddr(); a != nil {
		fmt.Fprintf(w, "Metrics and health: http://%s/metrics, /healthz, /readyz\n", a)
	}
	if f.Dev {
		fmt.Fprintln(w, "Note: --dev is for trying. Everyone who reaches this address may call with its license.")
	}
	if f.TLSSelfSigned {
		fmt.Fprintln(w, "Note: the certificate is self-signed. Browsers warn once; a phone needs https to give the camera.")
	}
}

// relaying is a server with a relay, or a relay alone.
type relaying interface {
	RelayPort() int
	STUNPort() int
	RelayAddresses() (addrs []relay.Address, onlyPrivate bool)
}

func greetRelay(w io.Writer, r relaying, dev bool) {
	addrs, private := r.RelayAddresses()
	var from []string
	for _, a := range addrs {
		from = append(from, a.Public.String())
	}
	stun := ""
	if p := r.STUNPort(); p != 0 {
		stun = fmt.Sprintf(", STUN on UDP port %d too", p)
	}
	fmt.Fprintf(w, "Relay: UDP and TCP port %d%s, relaying from %s\n", r.RelayPort(), stun, strings.Join(from, ", "))
	if private && !dev {
		fmt.Fprintln(w, "Note: the relay has private addresses only, which nobody outside this network reaches. Behind NAT give --relay-ip PUBLIC/PRIVATE.")
	}
}
