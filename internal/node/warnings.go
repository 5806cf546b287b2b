package node

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/ieum-rtc/ieum/internal/certs"
)

// endsSoon is when the end of a certificate is worth a warning: those that are renewed by themselves are by then.
const endsSoon = 14 * 24 * time.Hour

// Warnings are what is odd about a configuration without faults, each a *Fault: the server runs, but perhaps not as somebody wants.
func (c Config) Warnings() error {
	p, err := c.plan(false)
	if err != nil {
		return nil
	}
	return p.warnings()
}

func (p *plan) warnings() error {
	var all list
	all.add(readable("--license-key-file", p.LicenseKeyFile), readable("--relay-secret-file", p.Relay.SecretFile))
	all.add(readable("--admin-key-file", p.Admin.KeyFile), readable("--tls-key", p.TLSKey))
	all.add(p.certificateWarnings())
	host, _, _ := net.SplitHostPort(p.Listen)
	if p.cert == nil && !isLoopback(host) && len(p.proxies) == 0 {
		all.add(blamef("--listen", "plain HTTP on an address that others can reach: browsers give camera and microphone to HTTPS pages only. "+
			"Give --tls-cert and --tls-key, or --trusted-proxy for a proxy in front that has TLS"))
	}
	all.add(p.tooFewFiles())
	return all.err()
}

func (p *plan) certificateWarnings() error {
	var all list
	all.add(nearEnd(certs.NewSource(p.cert)))
	name := p.PublicHost
	if p.cert == nil || p.TLSSelfSigned || name == "" || net.ParseIP(name) != nil || p.cert.Leaf == nil {
		return all.err()
	}
	if p.cert.Leaf.VerifyHostname(name) != nil {
		all.add(blamef("--tls-cert", "the certificate is not for %s (--public-host), but for %q: clients are not told of TURN over TLS there",
			name, p.cert.Leaf.DNSNames))
	}
	return all.err()
}

// nearEnd warns before a certificate ends, so that it is renewed in time.
func nearEnd(c *certs.Source) error {
	current := c.Get()
	if current == nil || current.Leaf == nil || time.Until(current.Leaf.NotAfter) > endsSoon {
		return nil
	}
	return blamef("--tls-cert", "the certificate ends soon, %s: renew it, then SIGHUP", c.NotAfter())
}

// Warnings are what is odd about a configuration without faults; see Config.Warnings.
func (c RelayConfig) Warnings() error {
	p, err := c.plan()
	if err != nil {
		return nil
	}
	return p.warnings()
}

func (p *relayPlan) warnings() error {
	var all list
	all.add(readable("--relay-secret-file", p.Relay.SecretFile), readable("--admin-key-file", p.Admin.KeyFile))
	all.add(readable("--tls-key", p.TLSKey), nearEnd(certs.NewSource(p.cert)))
	return all.err()
}

// readable warns of a secret that every user of the machine can read. Windows has other means, which the mode does not show.
func readable(setting, path string) error {
	if path == "" || runtime.GOOS == "windows" {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o004 == 0 {
		return nil
	}
	return &Fault{setting, fmt.Errorf("every user of this machine can read %s: chmod 600 it", path)}
}

// tooFewFiles tells that the system grants fewer files than the connections that were asked for need.
func (p *plan) tooFewFiles() error {
	asked := defaultConnections
	if n := p.Limits.Connections; n != nil {
		asked = *n
	}
	granted := p.files.connections
	if p.Dev || granted == 0 || (asked > 0 && asked <= granted) {
		return nil
	}
	return blamef("--max-connections", "this process may have %d open files, which do for %d connections: "+
		"raise that (ulimit -n; LimitNOFILE= in systemd) or allow fewer connections", openFiles(), granted)
}
