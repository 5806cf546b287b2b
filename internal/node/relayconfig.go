package node

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/ieum-rtc/ieum/internal/relay"
)

// RelaySettings say how a relay works, in a server or alone. Zero values mean the defaults named.
type RelaySettings struct {
	// STUNListen is the UDP address of a second STUN port, by which clients can tell how their NAT maps: "off" none; default: port
	// 3478 of the relay's own host, if it is free.
	STUNListen string
	IPs        []string // "203.0.113.7" or "203.0.113.7/10.0.0.7" behind 1:1 NAT; default: found
	Ports      string   // for relayed traffic, default "49152-65535"
	AllowPeers []string // CIDRs that the relay may reach though they are private
	Quota      RelayQuota
	Bandwidth  int // bytes a second each way that an allocation may relay; 0 the relay's default, -1 no limit
	// SessionBandwidth is the same for all allocations of a session together.
	SessionBandwidth int
	Linger           time.Duration // for more to send at once; 0 the relay's default, -1 not at all
	Workers          int           // default one a core
	Secret           string        // HMAC key of the credentials
	SecretFile       string
}

// RelayQuota bounds allocations at a time; 0 is the relay's default.
type RelayQuota struct {
	Session, License, Address, Total int
}

const stunPort = "3478" // RFC 8489, section 8.1

func (r *RelaySettings) defaults() {
	if r.Ports == "" {
		r.Ports = "49152-65535"
	}
}

// plan makes a relay's configuration, all but a secret that is derived, and reports every fault but those that relay.Config knows
// itself. secret names the setting that the secret comes from; empty: there is none.
func (r RelaySettings) plan(listen string, dev bool, log *slog.Logger) (c relay.Config, secretFrom string, _ error) {
	c = relay.Config{
		Listen: listen, Realm: "ieum", Bandwidth: r.Bandwidth, SessionBandwidth: r.SessionBandwidth, Coalesce: r.Linger, Workers: r.Workers, Log: log,
		Quota: relay.Quota{Session: r.Quota.Session, Tenant: r.Quota.License, Source: r.Quota.Address, Total: r.Quota.Total},
	}
	var faults list
	var err error
	c.STUN, err = r.secondPort(listen)
	faults.add(err)
	c.MinPort, c.MaxPort, err = portRange(r.Ports)
	faults.add(err)
	for _, s := range r.IPs {
		a, err := relay.ParseAddress(s)
		if err != nil {
			faults.add(blame("--relay-ip", err))
			continue
		}
		c.Addresses = append(c.Addresses, a)
	}
	for _, s := range r.AllowPeers {
		network, err := netip.ParsePrefix(s)
		if err != nil {
			faults.add(blamef("--relay-allow-peer", "%q is not a network like 192.0.2.0/24", s))
			continue
		}
		c.AllowPeers = append(c.AllowPeers, network)
	}
	if dev {
		c.AllowPeers = append(c.AllowPeers, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
		if h, _, err := net.SplitHostPort(listen); err == nil && isLoopback(h) && len(c.Addresses) == 0 {
			ip := netip.MustParseAddr("127.0.0.1")
			c.Addresses = []relay.Address{{Public: ip, Private: ip}}
		}
	}
	text, secretFrom, err := secret("--relay-secret-file", r.SecretFile, "IEUM_RELAY_SECRET", r.Secret)
	faults.add(err)
	c.Secret = bytes.TrimSpace(text)
	return c, secretFrom, faults.err()
}

// secondPort is where Binding requests are answered too; empty: nowhere.
func (r RelaySettings) secondPort(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	switch {
	case r.STUNListen == "off":
		return "", nil
	case r.STUNListen != "":
		if err := checkListen("--stun-listen", r.STUNListen); err != nil {
			return "", err
		}
		if r.STUNListen == listen && port != "0" {
			return "", blamef("--stun-listen", "%s is the relay's own port, which answers already: give another, or off", listen)
		}
		return r.STUNListen, nil
	case err != nil || port == stunPort: // a fault of listen has been said
		return "", nil
	}
	return net.JoinHostPort(host, stunPort), nil
}

func portRange(s string) (low, high uint16, err error) {
	lo, hi, ok := strings.Cut(s, "-")
	a, err1 := strconv.ParseUint(lo, 10, 16)
	b, err2 := strconv.ParseUint(hi, 10, 16)
	if !ok || err1 != nil || err2 != nil {
		return 0, 0, blamef("--relay-ports", "%q is not of the form 49152-65535", s)
	}
	return uint16(a), uint16(b), nil
}
