package node

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/relay"
)

// Config says how one server runs. Only a license key (or Dev) is required.
type Config struct {
	Listen string // TCP, pages and signaling; default ":7102", with Dev "127.0.0.1:7102"

	RelayListen     string   // UDP and TCP, STUN and TURN; default ":3478", with Dev "127.0.0.1:3478"
	RelayIPs        []string // "203.0.113.7" or "203.0.113.7/10.0.0.7" behind 1:1 NAT; default: found
	RelayPorts      string   // "49152-65535", for relayed traffic
	RelayAllowPeers []string // CIDRs that the relay may reach though they are private
	RelayQuota      int      // allocations a session, default 64
	RelaySecret     string   // default: derived from the license key
	RelaySecretFile string

	LicenseKey     string // one key a line, at most two; each at least 32 bytes
	LicenseKeyFile string
	Licenses       string // file that lists licenses issued elsewhere, and limits beside licenses; YAML or JSON

	TLSCert, TLSKey string // files, PEM
	TLSSelfSigned   bool

	Data string // folder for what must outlast a restart; empty: nothing does
	Dev  bool   // for trying: loopback, a license of its own, pages that know it

	ResumeWindow time.Duration // default 20 s
	SessionRate  float64       // messages a second a session may send on average, default 30
	SessionBurst float64       // and at once, default 300
	Version      string
	Log          *slog.Logger
}

// plan is a Config that has been checked, with everything read that has to be read.
type plan struct {
	Config
	licenses  *license.Verifier
	dev       *devLicense
	relay     relay.Config
	cert      *tls.Certificate
	ephemeral bool // the license key dies with this process
}

// Validate reports every fault at once, without opening a socket or writing a file.
func (c Config) Validate() error {
	_, err := c.plan(false)
	return err
}

// plan checks everything. With write set it may also create what is kept in Data.
func (c Config) plan(write bool) (*plan, error) {
	c.defaults()
	p := &plan{Config: c}
	var faults []error
	fault := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	fault(checkListen("--listen", c.Listen))
	fault(checkListen("--relay-listen", c.RelayListen))
	if c.Data != "" && write {
		fault(prefix("--data", os.MkdirAll(c.Data, 0o700)))
	}
	fault(p.planLicense(write))
	fault(p.planTLS(write))
	fault(p.planRelay())
	if c.ResumeWindow < 0 || c.ResumeWindow > time.Hour {
		fault(errors.New("--resume-window: must be between 0 and 1h"))
	}
	if !(c.SessionRate >= 0) || !(c.SessionBurst == 0 || c.SessionBurst >= 1) { // so that it holds for NaN, too
		fault(errors.New("--session-rate, --session-burst: must not be negative, and a burst is one message at least"))
	}
	return p, errors.Join(faults...)
}

func (c *Config) defaults() {
	host := ""
	if c.Dev {
		host = "127.0.0.1"
	}
	if c.Listen == "" {
		c.Listen = host + ":7102"
	}
	if c.RelayListen == "" {
		// whoever opens the pages to the network wants calls there too
		if h, _, err := net.SplitHostPort(c.Listen); err == nil && !isLoopback(h) {
			host = h
		}
		c.RelayListen = net.JoinHostPort(host, "3478")
	}
	if c.RelayPorts == "" {
		c.RelayPorts = "49152-65535"
	}
	if c.RelayQuota == 0 {
		c.RelayQuota = 64
	}
	if c.ResumeWindow == 0 {
		c.ResumeWindow = 20 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func (p *plan) planLicense(write bool) error {
	pinned, err := pinnedLicenses(p.Licenses)
	return errors.Join(prefix("--licenses", err), p.planKeys(pinned, write))
}

// pinnedLicenses reads the file of --licenses, if there is one.
func pinnedLicenses(path string) ([]license.Pinned, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := license.ParsePinned(text)
	if err != nil {
		return nil, err
	}
	return list, nil
}

func (p *plan) planKeys(pinned []license.Pinned, write bool) error {
	text, err := secret("--license-key-file", p.LicenseKeyFile, "IEUM_LICENSE_KEY", p.LicenseKey)
	if err != nil {
		return err
	}
	keys := license.ParseKeys(text)
	if len(keys) == 0 && p.Dev {
		p.dev, err = loadDevLicense(p.Data)
		if err != nil {
			return prefix("--data", err)
		}
		p.ephemeral = p.Data == ""
		keys = [][]byte{[]byte(p.dev.Key)}
	}
	if len(keys) == 0 {
		return errors.New("a license key is required: --license-key-file or IEUM_LICENSE_KEY (or --dev, for trying)")
	}
	if p.licenses, err = license.New(license.Config{Keys: keys, Pinned: pinned}); err != nil {
		return prefix("license key", err)
	}
	if p.Dev && p.dev == nil {
		p.dev = &devLicense{}
	}
	if p.dev != nil {
		return p.dev.issue(p.licenses, p.Data, write)
	}
	return nil
}

func (p *plan) planTLS(write bool) (err error) {
	switch {
	case p.TLSSelfSigned && (p.TLSCert != "" || p.TLSKey != ""):
		return errors.New("--tls-self-signed and --tls-cert exclude each other")
	case (p.TLSCert == "") != (p.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key go together")
	case p.TLSCert != "":
		cert, err := tls.LoadX509KeyPair(p.TLSCert, p.TLSKey)
		if err != nil {
			return prefix("--tls-cert", err)
		}
		p.cert = &cert
	case p.TLSSelfSigned:
		p.cert, err = selfSigned(p.Data, write)
		return prefix("--tls-self-signed", err)
	}
	return nil
}

func (p *plan) planRelay() error {
	var faults []error
	p.relay = relay.Config{Listen: p.RelayListen, Realm: "ieum", Quota: relay.Quota{Session: p.RelayQuota}, Log: p.Log}
	lo, hi, ok := strings.Cut(p.RelayPorts, "-")
	minPort, err1 := strconv.ParseUint(lo, 10, 16)
	maxPort, err2 := strconv.ParseUint(hi, 10, 16)
	if !ok || err1 != nil || err2 != nil {
		faults = append(faults, fmt.Errorf("--relay-ports: %q is not of the form 49152-65535", p.RelayPorts))
	}
	p.relay.MinPort, p.relay.MaxPort = uint16(minPort), uint16(maxPort)
	for _, s := range p.RelayIPs {
		a, err := relay.ParseAddress(s)
		if err != nil {
			faults = append(faults, prefix("--relay-ip", err))
			continue
		}
		p.relay.Addresses = append(p.relay.Addresses, a)
	}
	for _, s := range p.RelayAllowPeers {
		prefixed, err := netip.ParsePrefix(s)
		if err != nil {
			faults = append(faults, fmt.Errorf("--relay-allow-peer: %q is not a network like 192.0.2.0/24", s))
			continue
		}
		p.relay.AllowPeers = append(p.relay.AllowPeers, prefixed)
	}
	if p.Dev {
		p.relay.AllowPeers = append(p.relay.AllowPeers, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
		if h, _, err := net.SplitHostPort(p.RelayListen); err == nil && isLoopback(h) && len(p.relay.Addresses) == 0 {
			ip := netip.MustParseAddr("127.0.0.1")
			p.relay.Addresses = []relay.Address{{Public: ip, Private: ip}}
		}
	}
	text, err := secret("--relay-secret-file", p.RelaySecretFile, "IEUM_RELAY_SECRET", p.RelaySecret)
	if err != nil {
		faults = append(faults, err)
	}
	p.relay.Secret = bytes.TrimSpace(text)
	if len(p.relay.Secret) == 0 && p.licenses != nil {
		p.relay.Secret = p.licenses.Derive("relay secret", 32)
	}
	if len(faults) == 0 && p.licenses != nil {
		faults = append(faults, prefix("relay", p.relay.Validate()))
	}
	return errors.Join(faults...)
}

// secret reads a secret from a file or takes it from the environment; both at once is a mistake somebody should know of.
func secret(flag, file, env, value string) ([]byte, error) {
	switch {
	case file != "" && value != "":
		return nil, fmt.Errorf("%s and %s are both given: keep one", flag, env)
	case file != "":
		b, err := os.ReadFile(file)
		return b, prefix(flag, err)
	}
	return []byte(value), nil
}

func checkListen(flag, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%s: %q is not of the form host:port", flag, addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%s: %q is not a port", flag, port)
	}
	if host != "" && host != "localhost" {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("%s: %q is not an IP address", flag, host)
		}
	}
	return nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && ip.IsLoopback())
}

func prefix(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
