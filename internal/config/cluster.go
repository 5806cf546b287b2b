package config

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ieum-rtc/ieum/internal/cluster/identity"
)

// ClusterSettings connect this node to others. Without Listen and NATS it stands alone.
type ClusterSettings struct {
	Node string // name of this node, unique; default: the host name

	// Listen is the address at which other nodes reach this one: NATS routes on its port, raft on
	// the next one.
	Listen string
	Peers  []string // HOST:PORT of other nodes; a name stands for all its addresses
	Expect int      // nodes that must be there before a cluster starts for the first time

	// NATS are URLs of NATS servers with JetStream, instead of Listen, Peers and Expect.
	NATS []string

	// Secret is shared by all nodes, at least 32 bytes. Cert, Key and CA are files instead.
	Secret, SecretFile string
	Cert, Key, CA      string

	DrainTimeout time.Duration // default 3 s, in a cluster 20 s
}

const (
	// DefaultDrainTimeout is how long a server that stops waits for its clients.
	DefaultDrainTimeout = 3 * time.Second
	// clusterDrainTimeout is how long a node waits until its clients and their calls have moved. It
	// leaves some of the 30 s after which Kubernetes kills.
	clusterDrainTimeout = 20 * time.Second
)

const maxDrainTimeout = 24 * time.Hour

// ClusterPlan is how this node reaches others. It is static.
type ClusterPlan struct {
	Node   string
	Listen string // HOST:PORT; empty with NATS
	Peers  []string
	Expect int
	NATS   []string

	Identity *identity.Material // nil with NATS
	NATSTLS  *tls.Config        // for NATS URLs with tls://; nil: the system's CAs
}

var (
	nodeName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)
	hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)
)

// plan returns nil without an error if the node stands alone. Values are checked before what they
// mean together, and none is blamed for both.
func (s ClusterSettings) plan() (*ClusterPlan, error) {
	p := &ClusterPlan{Node: s.Node, Listen: s.Listen, Expect: s.Expect, NATS: s.NATS}
	var errs list
	errs.add(p.checkValues(s))
	proof, files, err := s.proofs()
	errs.add(err)
	var found error
	switch {
	case len(s.NATS) > 0:
		found = p.planNATS(s, files)
	case s.Listen != "":
		p.Identity, found = s.identity(proof, files)
		found = errors.Join(s.counts(), found)
	default:
		p, found = nil, s.needless("needs --cluster-listen, or --cluster-nats")
	}
	for _, err := range Errors(found) {
		if e, ok := err.(*Error); !ok || !errs.blames(e.Setting) {
			errs.add(err)
		}
	}
	if p != nil && p.Node == "" {
		name, err := os.Hostname()
		if err != nil || !nodeName.MatchString(name) {
			errs.add(blamef("--node", "this machine's host name, %q, is not usable as a name: "+
				"set --node", name))
		}
		p.Node = name
	}
	return p, errs.err()
}

// checkValues checks each setting for itself.
func (p *ClusterPlan) checkValues(s ClusterSettings) error {
	var errs list
	if s.DrainTimeout < 0 || s.DrainTimeout > maxDrainTimeout {
		errs.add(blamef("--drain-timeout", "must be between 0 and 24h"))
	}
	if s.Node != "" && !nodeName.MatchString(s.Node) {
		errs.add(blamef("--node", "%q is not a name: at most 63 letters, digits, '.', '_' and "+
			"'-', with a letter or digit at both ends", s.Node))
	}
	if s.Listen != "" {
		errs.add(Blame("--cluster-listen", checkClusterListen(s.Listen)))
	}
	for _, peer := range s.Peers {
		host, port, err := hostPort(peer)
		switch {
		case err != nil:
			errs.add(Blame("--cluster-peer", err))
		case host == "" || port == 0:
			errs.add(blamef("--cluster-peer", "%q needs a host and a port", peer))
		case !slices.Contains(p.Peers, peer):
			p.Peers = append(p.Peers, peer)
		}
	}
	if s.Expect < 0 {
		errs.add(blamef("--cluster-expect", "must be at least 1, not %d", s.Expect))
	}
	for _, text := range s.NATS {
		errs.add(Blame("--cluster-nats", checkNATS(text)))
	}
	return errs.err()
}

func checkClusterListen(addr string) error {
	host, port, err := hostPort(addr)
	if err != nil {
		return err
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case host == "" || err == nil && ip.IsUnspecified():
		return fmt.Errorf("%q names no address: other nodes reach this one there, "+
			"so give its own address, like 10.0.0.7:7104", addr)
	case port == 65535:
		return errors.New("the next port is needed too: choose one below 65535")
	}
	return nil
}

// counts checks how many nodes there are to be.
func (s ClusterSettings) counts() error {
	switch {
	case s.Expect == 0:
		return blamef("--cluster-listen", "needs --cluster-expect, the number of nodes that a new "+
			"cluster starts with: 3, or 1 for a node that others may join later")
	case s.Expect == 1 && len(s.Peers) > 0:
		return blamef("--cluster-expect", "1 starts a cluster of this node alone, which excludes "+
			"--cluster-peer: a node that joins others needs their number")
	}
	return nil
}

// proofs reads the secret and the files that are given.
func (s ClusterSettings) proofs() (proof []byte, files *identity.Files, err error) {
	text, _, err := secret("--cluster-secret-file", s.SecretFile, "IEUM_CLUSTER_SECRET", s.Secret)
	files, certErr, keyErr, caErr := identity.ReadFiles(s.Cert, s.Key, s.CA)
	return bytes.TrimSpace(text), files, errors.Join(err, Blame("--cluster-cert", certErr),
		Blame("--cluster-key", keyErr), Blame("--cluster-ca", caErr))
}

// identity makes what this node proves itself with to others.
func (s ClusterSettings) identity(
	proof []byte, files *identity.Files,
) (m *identity.Material, err error) {
	from := "--cluster-secret-file"
	if s.Secret != "" {
		from = "IEUM_CLUSTER_SECRET"
	}
	given := s.SecretFile != "" || s.Secret != ""
	switch {
	case given && (s.Cert != "" || s.Key != "" || s.CA != ""):
		return nil, blamef(from, "excludes --cluster-cert, --cluster-key and --cluster-ca: "+
			"remove the one or the others")
	case given:
		m, err = identity.FromSecret(proof)
		return m, Blame(from, err)
	}
	var missing []string
	blamed := "--cluster-listen"
	for _, of := range []struct{ flag, file string }{
		{"--cluster-cert", s.Cert}, {"--cluster-key", s.Key}, {"--cluster-ca", s.CA},
	} {
		if of.file == "" {
			missing = append(missing, of.flag)
		} else {
			blamed = of.flag
		}
	}
	switch {
	case len(missing) == 3:
		return nil, blamef(blamed, "needs a proof that nodes belong together: "+
			"--cluster-secret-file or IEUM_CLUSTER_SECRET, the same for all nodes; "+
			"or --cluster-cert, --cluster-key and --cluster-ca")
	case len(missing) > 0:
		return nil, blamef(blamed, "needs %s too", strings.Join(missing, " and "))
	case files == nil: // the errors of the files have been told
		return nil, nil
	}
	m, err = identity.FromFiles(files)
	return m, Blame("--cluster-cert", err)
}

// needless blames every setting that has a value. The addresses of NATS are not among them.
func (s ClusterSettings) needless(text string) error {
	var errs list
	for _, of := range []struct {
		flag string
		set  bool
	}{
		{"--cluster-listen", s.Listen != ""},
		{"--cluster-peer", len(s.Peers) > 0},
		{"--cluster-expect", s.Expect != 0},
		{"--cluster-secret-file", s.SecretFile != ""},
		{"IEUM_CLUSTER_SECRET", s.Secret != ""},
		{"--cluster-cert", s.Cert != ""},
		{"--cluster-key", s.Key != ""},
		{"--cluster-ca", s.CA != ""},
	} {
		if of.set {
			errs.add(blamef(of.flag, "%s", text))
		}
	}
	return errs.err()
}

// planNATS plans nodes that meet at NATS servers.
func (p *ClusterPlan) planNATS(s ClusterSettings, files *identity.Files) error {
	var errs list
	others := s
	others.Cert, others.Key, others.CA = "", "", ""
	errs.add(others.needless("excludes --cluster-nats, whose servers connect the nodes and " +
		"authenticate them: remove one"))
	switch {
	case s.Cert != "" && s.Key == "":
		errs.add(blamef("--cluster-cert", "needs --cluster-key too"))
	case s.Cert == "" && s.Key != "":
		errs.add(blamef("--cluster-key", "needs --cluster-cert too"))
	case files != nil && (s.Cert != "" || s.CA != ""):
		p.NATSTLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: files.CA}
		if files.Cert != nil {
			p.NATSTLS.Certificates = []tls.Certificate{*files.Cert}
		}
	}
	return errs.err()
}

func checkNATS(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil: // the error would repeat the password
		return errors.New("this is not a URL like nats://USER:PASSWORD@nats.example:4222")
	case u.Scheme != "nats" && u.Scheme != "tls":
		return fmt.Errorf("%q is not a URL of NATS: it begins with nats:// or tls://", u.Redacted())
	case u.Hostname() == "":
		return fmt.Errorf("%q names no host", u.Redacted())
	case u.Port() != "":
		_, _, err := hostPort(u.Host)
		return err
	}
	return nil
}

// hostPort splits HOST:PORT. The host may be empty.
func hostPort(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not of the form HOST:PORT", addr)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not a port: a number from 0 to 65535", text)
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil && !hostName.MatchString(host) {
		return "", 0, fmt.Errorf("%q is neither an IP address nor a host name", host)
	}
	return host, int(n), nil
}

// Drain is how long a server that stops waits for its clients: to close their connections or, in a
// cluster, to go to other nodes.
func (s ClusterSettings) Drain() time.Duration {
	switch {
	case s.DrainTimeout != 0:
		return s.DrainTimeout
	case s.several():
		return clusterDrainTimeout
	}
	return DefaultDrainTimeout
}

// Close is how long a server that stops waits for connections to close.
func (s ClusterSettings) Close() time.Duration {
	if s.several() {
		return DefaultDrainTimeout
	}
	return s.Drain()
}

func (s ClusterSettings) several() bool { return s.Listen != "" || len(s.NATS) > 0 }

// expiry warns of a certificate that expires soon.
func (p *ClusterPlan) expiry() error {
	if p == nil || p.Identity == nil {
		return nil
	}
	until := p.Identity.NotAfter()
	if until.IsZero() || time.Until(until) > expirySoon {
		return nil
	}
	return blamef("--cluster-cert", "the certificate expires soon, %s: renew it and send SIGHUP",
		until.Format(time.DateTime))
}

// fewNodes warns of a number of nodes that does not help against the death of any.
func (p *ClusterPlan) fewNodes() error {
	if p == nil || p.Expect != 2 {
		return nil
	}
	return blamef("--cluster-expect", "two nodes have no quorum when one of them dies: "+
		"nobody new can register until it is back. Use three")
}
