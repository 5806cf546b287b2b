package node

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ieum-rtc/ieum/internal/admin"
	"github.com/ieum-rtc/ieum/internal/certs"
	"github.com/ieum-rtc/ieum/internal/ice"
	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/relay"
	"github.com/ieum-rtc/ieum/internal/revocation"
	"github.com/ieum-rtc/ieum/internal/signaling"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// Config says how one server runs. Only a license key (or Dev) is required.
type Config struct {
	// Listen is the one port: TCP for pages, signaling and TURN, UDP for STUN and TURN; default ":7102", with Dev "127.0.0.1:7102".
	Listen string
	// PublicHost is the name or address by which clients reach STUN and TURN; default: the one by which they reached us.
	PublicHost string

	// RelayExternal are STUN and TURN URLs of relays elsewhere that have the same secret, which then is required. Clients are sent to
	// them, and no relay runs here.
	RelayExternal []string
	// RelayListen is a port for STUN and TURN alone, UDP and TCP, which clients are then told instead; default: none.
	RelayListen string
	// Relay says how the relay works; its secret is derived from the license key unless one is given.
	Relay RelaySettings

	LicenseKey     string // one key a line, at most two; each at least 32 bytes
	LicenseKeyFile string
	Licenses       string // file that lists licenses issued elsewhere, and limits beside licenses; YAML or JSON
	LicenseRevoked string // file that lists hashes of licenses that are good no longer; it is looked at all the time

	TLSCert, TLSKey string // files, PEM
	TLSSelfSigned   bool

	Admin AdminSettings

	Data string // folder for what must outlast a restart; empty: nothing does
	Dev  bool   // for trying: loopback, a license of its own, pages that know it
	// DevFolder is where the license of Dev is kept when there is no Data, so that a restart changes nothing for pages that are open;
	// empty, or where that fails: it is another after a restart.
	DevFolder string

	ResumeWindow time.Duration // default 20 s
	SessionRate  float64       // messages a second a session may send on average, default 30
	SessionBurst float64       // and at once, default 300
	Limits       LimitSettings
	// TrustedProxies are addresses and networks of proxies whose X-Forwarded-For says who the client is.
	TrustedProxies []string

	Version string
	Log     *slog.Logger

	running *plan // of the server that reads its configuration again; nil at a start
}

// plan is a Config that has been checked, with everything read that has to be read.
type plan struct {
	Config
	licenses *license.Verifier
	revoked  *license.Revoked // what licenses asks
	list     revocation.List  // what was read for it
	dev      *devLicense
	relay    relay.Config
	external *ice.External // nil: a relay of our own
	cert     *tls.Certificate
	admin    *admin.Config // nil: no metrics
	gate     transport.ConnLimiterConfig
	limits   signaling.Limits
	proxies  []netip.Prefix
	files    files // what the process may have open, by what for
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
	var faults list
	faults.add(checkListen("--listen", c.Listen))
	if c.RelayListen != "" {
		faults.add(checkListen("--relay-listen", c.RelayListen))
	}
	if c.PublicHost != "" {
		faults.add(blame("--public-host", ice.CheckHost(c.PublicHost)))
	}
	faults.add(blame("--data", checkFolder(c.Data, write)))
	faults.add(p.planLicense(write))
	faults.add(p.planTLS(write))
	faults.add(p.planRelay())
	var err error
	p.admin, err = p.Admin.plan(p.Log)
	faults.add(err)
	p.gate, p.limits, err = p.Limits.plan()
	faults.add(err)
	p.proxies, err = parseProxies(p.TrustedProxies)
	faults.add(err)
	p.files = shareFiles(openFiles(), true)
	p.gate.Connections = atMost(p.gate.Connections, defaultConnections, p.files.connections)
	p.relay.Quota.Total = atMost(p.relay.Quota.Total, defaultAllocations, p.files.allocations)
	p.relay.Streams = p.files.streams
	if c.ResumeWindow < 0 || c.ResumeWindow > time.Hour {
		faults.add(blamef("--resume-window", "must be between 0 and 1h"))
	}
	if !(c.SessionRate >= 0) { // so that it holds for NaN, too
		faults.add(blamef("--session-rate", "must not be negative"))
	}
	if !(c.SessionBurst == 0 || c.SessionBurst >= 1) {
		faults.add(blamef("--session-burst", "must be at least 1: a burst is one message at least"))
	}
	return p, faults.err()
}

// checkFolder makes the folder where write is set, and otherwise says why that would fail as far as it can be seen.
func checkFolder(path string, write bool) error {
	if path == "" {
		return nil
	}
	if write {
		return os.MkdirAll(path, 0o700)
	}
	for at := filepath.Clean(path); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case err == nil && !info.IsDir():
			return fmt.Errorf("%s is not a folder", at)
		case err == nil || at == filepath.Dir(at):
			return nil
		case !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
			return err
		}
	}
}

func (c *Config) defaults() {
	host := ""
	if c.Dev {
		host = "127.0.0.1"
	}
	if c.Listen == "" {
		c.Listen = host + ":7102"
	}
	c.Listen, c.RelayListen = literal(c.Listen, host), literal(c.RelayListen, host)
	c.Relay.STUNListen = literal(c.Relay.STUNListen, host)
	c.Relay.defaults()
	if c.ResumeWindow == 0 {
		c.ResumeWindow = 20 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func (p *plan) planLicense(write bool) error {
	pinned, err := pinnedLicenses(p.Licenses)
	var revokedErr error
	p.list, revokedErr = revocation.Read(p.LicenseRevoked)
	p.revoked = new(license.Revoked)
	if p.running != nil {
		p.revoked = p.running.revoked // which is asked at this moment
	} else {
		p.revoked.Set(p.list.Hashes)
	}
	return errors.Join(blame("--licenses", err), blame("--license-revoked", revokedErr), p.planKeys(pinned, write))
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
	const flag, env = "--license-key-file", "IEUM_LICENSE_KEY"
	text, from, err := secret(flag, p.LicenseKeyFile, env, p.LicenseKey)
	if err != nil {
		return err
	}
	keys := license.ParseKeys(text)
	if len(keys) == 0 && p.Dev && from == "" {
		if p.running != nil {
			kept := *p.running.dev
			p.dev = &kept
		} else if p.dev, err = p.loadDev(); err != nil {
			return blame("--data", err)
		}
		keys = [][]byte{[]byte(p.dev.Key)}
	}
	switch {
	case len(keys) == 0 && from == "":
		return errors.New("a license key is required: --license-key-file or IEUM_LICENSE_KEY (or --dev, for trying)")
	case len(keys) == 0:
		return blamef(from, "there is no key in it")
	}
	if p.licenses, err = license.New(license.Config{Keys: keys, Pinned: pinned, Revoked: p.revoked}); err != nil {
		return blame(from, err)
	}
	if p.Dev && p.dev == nil {
		p.dev = &devLicense{}
		if p.running != nil {
			*p.dev = *p.running.dev // pages that are open have it
		}
	}
	if p.dev != nil {
		return p.keepDevLicense(write)
	}
	return nil
}

func (p *plan) planTLS(write bool) (err error) {
	if p.TLSSelfSigned {
		if p.TLSCert != "" || p.TLSKey != "" {
			return blamef("--tls-self-signed", "excludes --tls-cert and --tls-key: keep one")
		}
		if p.running != nil { // without a data folder there would be another, and browsers would warn again
			p.cert = p.running.cert
			return nil
		}
		p.cert, err = certs.SelfSigned(p.Data, write)
		return blame("--tls-self-signed", err)
	}
	p.cert, err = loadCert(p.TLSCert, p.TLSKey)
	return err
}

func (p *plan) planRelay() error {
	var faults list
	var err error
	p.external, err = ice.ParseExternal(p.RelayExternal)
	faults.add(blame("--relay-external", err))
	listen, flag := p.RelayListen, "--relay-listen"
	if listen == "" {
		listen, flag = p.Listen, "--listen"
	}
	var secret string
	p.relay, secret, err = p.Relay.plan(listen, p.Dev, p.Log)
	faults.add(err)
	if p.external != nil {
		p.external.SetSecret(p.relay.Secret)
		if p.RelayListen != "" && checkListen("", p.RelayListen) == nil {
			faults.add(blamef("--relay-listen", "excludes --relay-external: keep one"))
		}
		if len(p.relay.Secret) == 0 && secret == "" {
			faults.add(blamef("--relay-external", "needs --relay-secret-file or IEUM_RELAY_SECRET, the secret of those relays"))
		}
	} else if len(p.relay.Secret) == 0 && secret == "" && p.licenses != nil {
		p.relay.Secret = p.licenses.Derive("relay secret", 32)
	}
	faults.add(validateRelay(p.relay, faults, flag, secret))
	return faults.err()
}

// validateRelay has the relay judge what it got. What is at fault already is not blamed twice: it may have got nothing there. Without
// a name for the secret there is none to judge, or it is derived. The listeners were judged before.
func validateRelay(c relay.Config, known list, listen, secret string) error {
	if secret == "" && len(c.Secret) == 0 {
		c.Secret = make([]byte, 32) // its absence is told by whoever needs it
	}
	var faults list
	for _, err := range Faults(blameRelay(c.Validate(), listen, secret)) {
		if f, ok := err.(*Fault); !ok || (f.Setting != listen && !known.has(f.Setting)) {
			faults.add(err)
		}
	}
	return faults.err()
}

// resumeKeys sign the secrets with which pages come back.
func (p *plan) resumeKeys() [][]byte { return p.licenses.DeriveAll("resume secret", 32) }

// secret reads a secret from a file or takes it from the environment, and says which of them; both at once is a mistake somebody
// should know of. Without either, from is empty.
func secret(flag, file, env, value string) (text []byte, from string, err error) {
	switch {
	case file != "" && value != "":
		return nil, flag, blamef(flag, "is given, and %s too: keep one", env)
	case file != "":
		b, err := os.ReadFile(file)
		return b, flag, blame(flag, err)
	case value != "":
		return []byte(value), env, nil
	}
	return nil, "", nil
}

func checkListen(flag, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return blamef(flag, "%q is not of the form HOST:PORT, :PORT or PORT", addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return blamef(flag, "%q is not a port: a number from 0 to 65535", port)
	}
	if host != "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return blamef(flag, "%q is not an IP address of this machine", host)
		}
	}
	return nil
}

// literal completes an address to listen on: "localhost" becomes the address that a socket of one family is bound to, and a port that
// stands alone gets a host.
func literal(listen, host string) string {
	if port, ok := strings.CutPrefix(listen, "localhost:"); ok {
		return "127.0.0.1:" + port
	}
	if listen != "" && strings.Trim(listen, "0123456789") == "" {
		return net.JoinHostPort(host, listen)
	}
	return listen
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

// loadCert reads the certificate of --tls-cert and --tls-key; nil without them.
func loadCert(certFile, keyFile string) (*tls.Certificate, error) {
	switch {
	case certFile == "" && keyFile == "":
		return nil, nil
	case keyFile == "":
		return nil, blamef("--tls-cert", "needs --tls-key too")
	case certFile == "":
		return nil, blamef("--tls-key", "needs --tls-cert too")
	}
	cert, certErr, keyErr := certs.Load(certFile, keyFile)
	return cert, errors.Join(blame("--tls-cert", certErr), blame("--tls-key", keyErr))
}
