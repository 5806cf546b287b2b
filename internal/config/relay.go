package config

import (
	"bytes"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/ieum-rtc/ieum/internal/admin"
	"github.com/ieum-rtc/ieum/internal/netaddr"
	"github.com/ieum-rtc/ieum/internal/relay"
)

const stunPort = "3478" // RFC 8489, section 8.1

// maxAllocationAge bounds the allocations of a standalone relay, which is not told when a session
// leaves its room.
const maxAllocationAge = 12 * time.Hour

// RelaySettings configure a relay, in a server or standalone. Zero values are the defaults named.
type RelaySettings struct {
	// STUNListen is the UDP address of a second STUN port, by which clients detect how their NAT
	// maps; "off": none. Default: port 3478 of the relay's own host, if it is free.
	STUNListen string
	// IPs are relayed addresses: "203.0.113.7", or "203.0.113.7/10.0.0.7" behind 1:1 NAT. Default:
	// detected.
	IPs        []string
	Ports      string   // for relayed traffic, "FROM-TO"; empty: the relay's default
	AllowPeers []string // CIDRs that the relay may reach although they are private
	Quota      RelayQuota
	// Bandwidth and SessionBandwidth are bytes per second and direction, of one allocation and of
	// all allocations of a session; 0 the relay's default, -1 unlimited.
	Bandwidth, SessionBandwidth int
	// Coalesce is how long the relay waits for more packets to send together; 0 the relay's
	// default, -1 off.
	Coalesce   time.Duration
	Workers    int    // default: one per core
	Secret     string // TURN REST secret
	SecretFile string
}

// RelayQuota bounds concurrent allocations; 0 is the relay's default.
type RelayQuota struct {
	Session, License, Address, Total int
}

// plan makes the configuration of a relay, except for a derived secret. It reports all errors
// except those that relay.Config.Validate finds. secretFrom is the setting that the secret comes
// from; empty: none.
func (r RelaySettings) plan(
	listen string, dev bool, log *slog.Logger,
) (c relay.Config, secretFrom string, _ error) {
	c = relay.Config{
		Listen:           listen,
		Realm:            "ieum",
		Bandwidth:        r.Bandwidth,
		SessionBandwidth: r.SessionBandwidth,
		Coalesce:         r.Coalesce,
		Workers:          r.Workers,
		Log:              log,
		Quota: relay.Quota{
			Session: r.Quota.Session,
			Tenant:  r.Quota.License,
			Source:  r.Quota.Address,
			Total:   r.Quota.Total,
		},
	}
	var errs list
	var err error
	c.STUN, err = r.secondSTUN(listen)
	errs.add(err)
	c.MinPort, c.MaxPort, err = portRange(r.Ports)
	errs.add(err)
	for _, s := range r.IPs {
		a, err := relay.ParseAddress(s)
		if err != nil {
			errs.add(Blame("--relay-ip", err))
			continue
		}
		c.Addresses = append(c.Addresses, a)
	}
	for _, s := range r.AllowPeers {
		network, err := netip.ParsePrefix(s)
		if err != nil {
			errs.add(blamef("--relay-allow-peer", "%q is not a network like 192.0.2.0/24", s))
			continue
		}
		c.AllowPeers = append(c.AllowPeers, network)
	}
	if dev {
		allowLoopback(&c)
	}
	text, secretFrom, err := secret(
		"--relay-secret-file", r.SecretFile, "IEUM_RELAY_SECRET", r.Secret,
	)
	errs.add(err)
	c.Secret = bytes.TrimSpace(text)
	return c, secretFrom, errs.err()
}

// allowLoopback lets the relay reach this machine, and relay from it if it listens on loopback.
func allowLoopback(c *relay.Config) {
	c.AllowPeers = append(
		c.AllowPeers, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"),
	)
	if h, _, err := net.SplitHostPort(c.Listen); err == nil && netaddr.IsLoopback(h) &&
		len(c.Addresses) == 0 {
		ip := netip.MustParseAddr(loopback)
		c.Addresses = []relay.Address{{Public: ip, Private: ip}}
	}
}

// secondSTUN is the address of the second STUN port; empty: none.
func (r RelaySettings) secondSTUN(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	switch {
	case r.STUNListen == "off":
		return "", nil
	case r.STUNListen != "":
		if err := checkListen("--stun-listen", r.STUNListen); err != nil {
			return "", err
		}
		if r.STUNListen == listen && port != "0" {
			return "", blamef(
				"--stun-listen",
				"%s is the relay's own port, which serves STUN already: choose another, or off",
				listen,
			)
		}
		return r.STUNListen, nil
	case err != nil || port == stunPort: // an error of listen has been reported
		return "", nil
	}
	return net.JoinHostPort(host, stunPort), nil
}

func portRange(s string) (low, high uint16, err error) {
	if s == "" {
		return relay.DefaultMinPort, relay.DefaultMaxPort, nil
	}
	lo, hi, ok := strings.Cut(s, "-")
	a, err1 := strconv.ParseUint(lo, 10, 16)
	b, err2 := strconv.ParseUint(hi, 10, 16)
	if !ok || err1 != nil || err2 != nil {
		return 0, 0, blamef(
			"--relay-ports", "%q is not of the form %d-%d",
			s, relay.DefaultMinPort, relay.DefaultMaxPort,
		)
	}
	return uint16(a), uint16(b), nil
}

// bound bounds the allocations and streams of a relay by the descriptors that it may use.
func (d Descriptors) bound(c *relay.Config) {
	c.Quota.Total = atMost(c.Quota.Total, relay.DefaultTotalQuota, d.Allocations)
	c.Streams = d.Streams
}

// Relay configures a standalone relay, which usually runs on another machine than the servers that
// send clients to it. The secret is required, and the same as that of those servers.
type Relay struct {
	Listen string // UDP and TCP; default ":3478"
	Relay  RelaySettings

	TLSCert, TLSKey string // files, PEM, for turns:
	Admin           AdminSettings
	Version         string
	Log             *slog.Logger // default: discard
}

// RelayPlan is a valid configuration, with the contents of the files that it names. It is static.
type RelayPlan struct {
	Config      Relay // with defaults
	Relay       relay.Config
	Cert        *tls.Certificate
	Admin       *admin.Config // nil: no admin listener
	Descriptors Descriptors
}

// Validate reports all errors at once, without opening a socket.
func (c Relay) Validate() error {
	_, err := c.Plan()
	return err
}

// Plan checks the configuration and reads the files that it names.
func (c Relay) Plan() (*RelayPlan, error) {
	if c.Listen == "" {
		c.Listen = ":" + stunPort
	}
	c.Listen, c.Relay.STUNListen = literal(c.Listen, ""), literal(c.Relay.STUNListen, "")
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	p := &RelayPlan{Config: c}
	var errs list
	errs.add(checkListen("--listen", c.Listen))
	var secret string
	var err error
	p.Relay, secret, err = c.Relay.plan(c.Listen, false, c.Log)
	errs.add(err)
	p.Relay.MaxAge = maxAllocationAge
	p.Descriptors = shareDescriptors(maxDescriptors(), false)
	p.Descriptors.bound(&p.Relay)
	if secret == "" {
		errs.add(
			errors.New("a relay secret is required: --relay-secret-file or IEUM_RELAY_SECRET, " +
				"the same as that of the servers"),
		)
	}
	errs.add(validateRelay(p.Relay, errs, "--listen", secret))
	p.Cert, err = loadCert(c.TLSCert, c.TLSKey)
	errs.add(err)
	p.Admin, err = c.Admin.plan(c.Log)
	errs.add(err)
	return p, errs.err()
}
