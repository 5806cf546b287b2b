package config

import (
	"crypto/tls"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/ieum-rtc/ieum/internal/certs"
	"github.com/ieum-rtc/ieum/internal/netaddr"
	"github.com/ieum-rtc/ieum/internal/transport"
)

// expirySoon is how long before its expiry a certificate is worth a warning. Automatic renewal is
// done by then.
const expirySoon = 14 * 24 * time.Hour

// Warnings lists what is valid but probably not intended, as joined Errors; nil if the
// configuration is not valid.
func (c Server) Warnings() error {
	p, err := c.Plan(nil, false)
	if err != nil {
		return nil
	}
	return p.Warnings()
}

// Warnings lists what is valid but probably not intended, as joined Errors.
func (p *ServerPlan) Warnings() error {
	c := &p.Config
	var all list
	all.add(worldReadable("--license-signing-key-file", c.LicenseSigningKeyFile))
	all.add(worldReadable("--relay-secret-file", c.Relay.SecretFile))
	all.add(worldReadable("--admin-token-file", c.Admin.TokenFile))
	all.add(worldReadable("--tls-key", c.TLSKey))
	all.add(worldReadable("--cluster-secret-file", c.Cluster.SecretFile))
	all.add(worldReadable("--cluster-key", c.Cluster.Key))
	all.add(p.Cluster.fewNodes(), p.Cluster.expiry())
	all.add(expiry(p.Cert), p.nameNotCovered())
	host, _, _ := net.SplitHostPort(c.Listen)
	if p.Cert == nil && !netaddr.IsLoopback(host) && len(p.Proxies) == 0 {
		all.add(blamef("--listen", "plain HTTP on an address that other machines can reach: "+
			"browsers allow camera and microphone on HTTPS pages only. "+
			"Set --tls-cert and --tls-key, or --trusted-proxy for a TLS proxy in front"))
	}
	all.add(p.fewDescriptors())
	return all.err()
}

// nameNotCovered warns that clients will not be given TURN over TLS.
func (p *ServerPlan) nameNotCovered() error {
	name := p.Config.PublicHost
	if p.Cert == nil || p.Cert.Leaf == nil || p.Config.TLSSelfSigned || name == "" ||
		net.ParseIP(name) != nil {
		return nil
	}
	if p.Cert.Leaf.VerifyHostname(name) == nil {
		return nil
	}
	return blamef("--tls-cert", "the certificate is not valid for %s (--public-host), but for %q: "+
		"clients will not be given TURN over TLS", name, p.Cert.Leaf.DNSNames)
}

// expiry warns of a certificate that expires soon.
func expiry(cert *tls.Certificate) error {
	if cert == nil || cert.Leaf == nil || time.Until(cert.Leaf.NotAfter) > expirySoon {
		return nil
	}
	return blamef("--tls-cert", "the certificate expires soon, %s: renew it and send SIGHUP",
		certs.NewSource(cert).NotAfter())
}

// Warnings lists what is valid but probably not intended, as joined Errors; nil if the
// configuration is not valid.
func (c Relay) Warnings() error {
	p, err := c.Plan()
	if err != nil {
		return nil
	}
	return p.Warnings()
}

// Warnings lists what is valid but probably not intended, as joined Errors.
func (p *RelayPlan) Warnings() error {
	c := &p.Config
	var all list
	all.add(worldReadable("--relay-secret-file", c.Relay.SecretFile))
	all.add(worldReadable("--admin-token-file", c.Admin.TokenFile))
	all.add(worldReadable("--tls-key", c.TLSKey), expiry(p.Cert))
	return all.err()
}

// worldReadable warns of a secret that every user of the machine can read. On Windows the mode does
// not show that.
func worldReadable(setting, path string) error {
	if path == "" || runtime.GOOS == "windows" {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o004 == 0 {
		return nil
	}
	return blamef(setting, "every user of this machine can read %s: chmod 600 it", path)
}

// fewDescriptors warns of a descriptor limit below what the configured connections need.
func (p *ServerPlan) fewDescriptors() error {
	want := transport.DefaultConnections
	if n := p.Config.Limits.Connections; n != nil {
		want = *n
	}
	granted := p.Descriptors.Connections
	if p.Config.Dev || granted == 0 || (want > 0 && want <= granted) {
		return nil
	}
	return blamef(
		"--max-connections",
		"this process may have %d open files, enough for %d connections: "+
			"raise that (ulimit -n; LimitNOFILE= in systemd), or allow fewer connections",
		maxDescriptors(),
		granted,
	)
}
