package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/config"
)

func clustered(c config.ClusterSettings) config.Server {
	return config.Server{LicenseSigningKey: "a license signing key of 32 bytes", Cluster: c}
}

func TestANodeWithoutClusterSettingsStandsAlone(t *testing.T) {
	c := clustered(config.ClusterSettings{Node: "a"})
	p, err := c.Plan(nil, false)
	if err != nil || p.Cluster != nil {
		t.Fatalf("%+v, %v", p.Cluster, err)
	}
}

func TestClusterPlan(t *testing.T) {
	c := clustered(config.ClusterSettings{
		Listen: "10.0.0.1:7104",
		Peers:  []string{"nodes.example:7104", "[2001:db8::2]:7104", "nodes.example:7104"},
		Expect: 3,
		Secret: strings.Repeat("s", 32),
	})
	p, err := c.Plan(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	if p.Cluster.Node != host || len(p.Cluster.Peers) != 2 || p.Cluster.Identity == nil {
		t.Errorf("%+v", p.Cluster)
	}
}

// Each error says what to do, and all are told at once.
func TestClusterErrors(t *testing.T) {
	secret := strings.Repeat("s", 32)
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, of := range map[string]struct {
		c    config.ClusterSettings
		want []string
	}{
		"everything wrong at once": {
			config.ClusterSettings{
				Node: "-", Listen: "7104", Peers: []string{"x", ":7104"}, Expect: -1,
				SecretFile: file, DrainTimeout: -time.Second,
			},
			[]string{
				"--node:", "--cluster-listen: \"7104\"", "--cluster-peer: \"x\"",
				"--cluster-peer: \":7104\" needs a host", "--cluster-expect: must be at least 1",
				"--cluster-secret-file: has 5 bytes", "--drain-timeout:",
			},
		},
		"no listen": {
			config.ClusterSettings{Peers: []string{"a:1"}, Expect: 3, Secret: secret},
			[]string{
				"--cluster-peer: needs --cluster-listen", "--cluster-expect: needs",
				"IEUM_CLUSTER_SECRET: needs",
			},
		},
		"no proof": {
			config.ClusterSettings{Listen: "10.0.0.1:7104", Expect: 3},
			[]string{"--cluster-secret-file or IEUM_CLUSTER_SECRET"},
		},
		"two proofs": {
			config.ClusterSettings{Listen: "10.0.0.1:7104", Expect: 3, Secret: secret, Cert: file},
			[]string{
				"--cluster-cert: " + file + " contains no certificate",
				"IEUM_CLUSTER_SECRET: excludes --cluster-cert",
			},
		},
		"a part of the files": {
			config.ClusterSettings{Listen: "10.0.0.1:7104", Expect: 3, Key: file},
			[]string{"--cluster-key: needs --cluster-cert and --cluster-ca too"},
		},
		"no number": {
			config.ClusterSettings{Listen: "10.0.0.1:7104", Secret: secret},
			[]string{"needs --cluster-expect"},
		},
		"any address": {
			config.ClusterSettings{Listen: ":7104", Expect: 3, Secret: secret},
			[]string{"its own address"},
		},
		"the last port": {
			config.ClusterSettings{Listen: "10.0.0.1:65535", Expect: 3, Secret: secret},
			[]string{"the next port is needed"},
		},
		"alone with peers": {
			config.ClusterSettings{
				Listen: "10.0.0.1:7104", Expect: 1, Peers: []string{"a:1"}, Secret: secret,
			},
			[]string{"--cluster-expect: 1 starts a cluster of this node alone"},
		},
		"NATS with the others": {
			config.ClusterSettings{
				NATS: []string{"nats://a"}, Listen: "10.0.0.1:7104", Expect: 3, Secret: secret,
			},
			[]string{
				"--cluster-listen: excludes --cluster-nats", "--cluster-expect: excludes",
				"IEUM_CLUSTER_SECRET: excludes",
			},
		},
		"no URL of NATS": {
			config.ClusterSettings{NATS: []string{"http://a", "nats://", "nats://a:x"}},
			[]string{"begins with nats://", "names no host", "--cluster-nats:"},
		},
		"a certificate without a key": {
			config.ClusterSettings{NATS: []string{"tls://a"}, Key: file},
			[]string{"--cluster-key: needs --cluster-cert too"},
		},
	} {
		c := clustered(of.c)
		if of.c.Node == "" {
			c.Cluster.Node = "a"
		}
		err := c.Validate()
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if n := len(config.Errors(err)); n != len(of.want) {
			t.Errorf("%s: %d errors, want %d: %v", name, n, len(of.want), err)
		}
		for _, want := range of.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", name, err, want)
			}
		}
	}
}

func TestTwoNodesAreWorthAWarning(t *testing.T) {
	c := clustered(config.ClusterSettings{
		Node: "a", Listen: "10.0.0.1:7104", Expect: 2, Secret: strings.Repeat("s", 32),
	})
	if w := c.Warnings(); w == nil || !strings.Contains(w.Error(), "no quorum when one") {
		t.Errorf("%v", w)
	}
}

// An error must not repeat the password of a URL.
func TestNATSErrorsHoldNoPassword(t *testing.T) {
	for _, url := range []string{
		"nats://u:hunter2@a b", "http://u:hunter2@a", "nats://u:hunter2@a:x",
	} {
		err := clustered(config.ClusterSettings{Node: "a", NATS: []string{url}}).Validate()
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v", err)
		}
	}
}
