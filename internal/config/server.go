// Package config is the configuration of a server and of a standalone relay. It reads the files
// that settings name, checks everything before anything opens, and reports all errors at once.
package config

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

// Server configures a server. Only a license signing key (or Dev) is required.
type Server struct {
	// Listen is the main port: TCP for pages, signaling and TURN, UDP for STUN and TURN.
	// Default ":7102"; with Dev "127.0.0.1:7102".
	Listen string
	// PublicHost is the host name or address by which clients reach STUN and TURN. Default: the one
	// by which they reached this server.
	PublicHost string

	// RelayExternal are STUN and TURN URLs of relays elsewhere, which share a secret that is then
	// required. Clients are sent to them, and no relay runs in this process.
	RelayExternal []string
	// RelayListen is a separate port for STUN and TURN, UDP and TCP, that clients are given instead
	// of the main port. Default: none.
	RelayListen string
	// Relay configures the relay of this process. Its secret is derived from the license signing
	// key unless one is given.
	Relay RelaySettings

	LicenseSigningKey     string // one key a line, at most two; each at least 32 bytes
	LicenseSigningKeyFile string
	// File of licenses issued elsewhere, and additional limits; YAML or JSON.
	Licenses       string
	RevocationList string // file of hashes of revoked licenses and user tokens; polled

	TLSCert, TLSKey string // files, PEM
	TLSSelfSigned   bool

	Admin AdminSettings

	Cluster ClusterSettings

	Data string // directory for persistent state; empty: none
	Dev  bool   // development mode: loopback, and a development license that pages may fetch
	// DevDir holds the license of Dev if there is no Data, so that open pages survive a restart. If
	// it is empty or cannot be used, each start makes a new license.
	DevDir string

	// Of a session; 0 is the default of signaling.Config.
	ResumeWindow time.Duration
	SessionRate  float64 // sustained messages per second
	SessionBurst float64 // messages at once
	Limits       LimitSettings
	// TrustedProxies are addresses and networks of reverse proxies whose X-Forwarded-For is
	// believed.
	TrustedProxies []string

	Version string
	Log     *slog.Logger // default: discard
}

const (
	serverPort = "7102"
	loopback   = "127.0.0.1"
)

// ServerPlan is a valid configuration, with the contents of the files that it names. It is static.
type ServerPlan struct {
	Config      Server // with defaults
	Licenses    *license.Verifier
	Revoked     *license.Revoked // the list in force, which Licenses consults
	Revocations revocation.List  // as read from the file
	Dev         *DevLicense      // nil without Server.Dev
	Relay       relay.Config
	External    *ice.External // nil: the relay of this process
	Cert        *tls.Certificate
	Admin       *admin.Config // nil: no admin listener
	Cluster     *ClusterPlan  // nil: this node stands alone
	ConnLimits  transport.ConnLimiterConfig
	Limits      signaling.Limits
	Proxies     []netip.Prefix
	Descriptors Descriptors
}

// Validate reports all errors at once, without opening a socket or writing a file.
func (c Server) Validate() error {
	_, err := c.Plan(nil, false)
	return err
}

// Plan checks the configuration and reads the files that it names. For a reload, running is the
// plan of the running server, whose generated license and certificate stay in use. With write set,
// files that are kept in Data may be created.
func (c Server) Plan(running *ServerPlan, write bool) (*ServerPlan, error) {
	c.defaults()
	p := &ServerPlan{Config: c}
	var errs list
	errs.add(checkListen("--listen", c.Listen))
	if c.RelayListen != "" {
		errs.add(checkListen("--relay-listen", c.RelayListen))
	}
	if c.PublicHost != "" {
		errs.add(Blame("--public-host", ice.CheckHost(c.PublicHost)))
	}
	errs.add(Blame("--data", checkDir(c.Data, write)))
	errs.add(p.planLicense(running, write))
	errs.add(p.planTLS(running, write))
	errs.add(p.planRelay())
	var err error
	p.Admin, err = c.Admin.plan(c.Log)
	errs.add(err)
	p.Cluster, err = p.Config.Cluster.plan()
	errs.add(err)
	p.ConnLimits, p.Limits, err = c.Limits.plan()
	errs.add(err)
	p.Proxies, err = parseProxies(c.TrustedProxies)
	errs.add(err)
	p.Descriptors = shareDescriptors(maxDescriptors(), true)
	p.ConnLimits.Connections = atMost(
		p.ConnLimits.Connections, transport.DefaultConnections, p.Descriptors.Connections,
	)
	p.Descriptors.bound(&p.Relay)
	if c.ResumeWindow < 0 || c.ResumeWindow > time.Hour {
		errs.add(blamef("--resume-window", "must be between 0 and 1h"))
	}
	if !(c.SessionRate >= 0) { // also refuses NaN
		errs.add(blamef("--session-rate", "must not be negative"))
	}
	if !(c.SessionBurst == 0 || c.SessionBurst >= 1) {
		errs.add(blamef("--session-burst", "must be at least 1 message"))
	}
	return p, errs.err()
}

// checkDir creates the directory if write is set. Otherwise it predicts whether that would fail.
func checkDir(path string, write bool) error {
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
			return fmt.Errorf("%s is not a directory", at)
		case err == nil || at == filepath.Dir(at):
			return nil
		case !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
			return err
		}
	}
}

func (c *Server) defaults() {
	host := ""
	if c.Dev {
		host = loopback
	}
	if c.Listen == "" {
		c.Listen = host + ":" + serverPort
	}
	c.Listen, c.RelayListen = literal(c.Listen, host), literal(c.RelayListen, host)
	c.Relay.STUNListen = literal(c.Relay.STUNListen, host)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func (p *ServerPlan) planLicense(running *ServerPlan, write bool) error {
	pinned, err := pinnedLicenses(p.Config.Licenses)
	var revokedErr error
	p.Revocations, revokedErr = revocation.Read(p.Config.RevocationList)
	p.Revoked = new(license.Revoked)
	if running != nil {
		p.Revoked = running.Revoked // the list in force, which verifiers consult now
	} else {
		p.Revoked.Set(p.Revocations.Hashes)
	}
	return errors.Join(Blame("--licenses", err), Blame("--revocation-list", revokedErr),
		p.planKeys(pinned, running, write))
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
	return license.ParsePinned(text)
}

func (p *ServerPlan) planKeys(pinned []license.Pinned, running *ServerPlan, write bool) error {
	const flag, env = "--license-signing-key-file", "IEUM_LICENSE_SIGNING_KEY"
	text, from, err := secret(flag, p.Config.LicenseSigningKeyFile, env, p.Config.LicenseSigningKey)
	if err != nil {
		return err
	}
	keys := license.ParseKeys(text)
	if len(keys) == 0 && p.Config.Dev && from == "" {
		if p.Dev, err = p.devLicense(running); err != nil {
			return Blame("--data", err)
		}
		keys = [][]byte{[]byte(p.Dev.Key)}
	}
	switch {
	case len(keys) == 0 && from == "":
		return errors.New("a license signing key is required: " +
			"--license-signing-key-file or IEUM_LICENSE_SIGNING_KEY (or --dev, for development)")
	case len(keys) == 0:
		return blamef(from, "contains no key")
	}
	p.Licenses, err = license.New(license.Config{Keys: keys, Pinned: pinned, Revoked: p.Revoked})
	if err != nil {
		return Blame(from, err)
	}
	if !p.Config.Dev {
		return nil
	}
	if p.Dev == nil {
		p.Dev = &DevLicense{}
		if running != nil {
			*p.Dev = *running.Dev // open pages use it
		}
	}
	return p.keepDevLicense(write)
}

func (p *ServerPlan) planTLS(running *ServerPlan, write bool) (err error) {
	c := &p.Config
	if !c.TLSSelfSigned {
		p.Cert, err = loadCert(c.TLSCert, c.TLSKey)
		return err
	}
	if c.TLSCert != "" || c.TLSKey != "" {
		return blamef("--tls-self-signed", "excludes --tls-cert and --tls-key: remove one")
	}
	if running != nil { // without --data a new one would make browsers warn again
		p.Cert = running.Cert
		return nil
	}
	p.Cert, err = certs.SelfSigned(c.Data, write)
	return Blame("--tls-self-signed", err)
}

func (p *ServerPlan) planRelay() error {
	c := &p.Config
	var errs list
	var err error
	p.External, err = ice.ParseExternal(c.RelayExternal)
	errs.add(Blame("--relay-external", err))
	listen, flag := c.RelayListen, "--relay-listen"
	if listen == "" {
		listen, flag = c.Listen, "--listen"
	}
	var secret string
	p.Relay, secret, err = c.Relay.plan(listen, c.Dev, c.Log)
	errs.add(err)
	if p.External != nil {
		p.External.SetSecret(p.Relay.Secret)
		if c.RelayListen != "" && checkListen("", c.RelayListen) == nil {
			errs.add(blamef("--relay-listen", "excludes --relay-external: remove one"))
		}
		if len(p.Relay.Secret) == 0 && secret == "" {
			errs.add(blamef("--relay-external",
				"needs --relay-secret-file or IEUM_RELAY_SECRET, the secret of those relays"))
		}
	} else if len(p.Relay.Secret) == 0 && secret == "" && p.Licenses != nil {
		p.Relay.Secret = p.Licenses.Derive("relay secret", 32)
	}
	errs.add(validateRelay(p.Relay, errs, flag, secret))
	return errs.err()
}

// validateRelay validates a relay configuration. A setting blamed in known is not blamed twice,
// since the relay may have got nothing there. Without secret, the name of a setting, the secret is
// derived or its absence already reported. The listen address was checked before.
func validateRelay(c relay.Config, known list, listen, secret string) error {
	if secret == "" && len(c.Secret) == 0 {
		c.Secret = make([]byte, 32)
	}
	var errs list
	for _, err := range Errors(blameRelay(c.Validate(), listen, secret)) {
		if e, ok := err.(*Error); !ok || (e.Setting != listen && !known.blames(e.Setting)) {
			errs.add(err)
		}
	}
	return errs.err()
}

// ResumeKeys sign resume tokens.
func (p *ServerPlan) ResumeKeys() [][]byte { return p.Licenses.DeriveAll("resume secret", 32) }

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
	return cert, errors.Join(Blame("--tls-cert", certErr), Blame("--tls-key", keyErr))
}

// secret reads a secret from a file or takes it from an environment variable. from is the setting
// that it comes from; empty without either. Both at once is an error.
func secret(flag, file, env, value string) (text []byte, from string, err error) {
	switch {
	case file != "" && value != "":
		return nil, flag, blamef(flag, "excludes %s: remove one", env)
	case file != "":
		b, err := os.ReadFile(file)
		return b, flag, Blame(flag, err)
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

// literal completes an address to listen on: localhost becomes the IPv4 loopback address, and a
// port alone gets the host.
func literal(listen, host string) string {
	if port, ok := strings.CutPrefix(listen, "localhost:"); ok {
		return loopback + ":" + port
	}
	if listen != "" && strings.Trim(listen, "0123456789") == "" {
		return net.JoinHostPort(host, listen)
	}
	return listen
}
