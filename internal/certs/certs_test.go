package certs

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestSelfSignedIsKeptWhereItMayWrite(t *testing.T) {
	dir := t.TempDir()
	if _, err := SelfSigned(dir, false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, selfSignedFile)); !os.IsNotExist(err) {
		t.Errorf("written without permission: %v", err)
	}
	first, err := SelfSigned(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := SelfSigned(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if first.Leaf.SerialNumber.Cmp(again.Leaf.SerialNumber) != 0 {
		t.Error("the kept certificate is not reused")
	}
	if cert, err := SelfSigned(filepath.Join(dir, "missing"), true); cert != nil || err == nil {
		t.Errorf(
			"%v, %v from a directory that does not exist, want an error and no certificate",
			cert, err,
		)
	}
}

func TestLoadNamesTheFileInError(t *testing.T) {
	dir := t.TempDir()
	split := func(name string) (cert, key string) {
		text, err := generate()
		if err != nil {
			t.Fatal(err)
		}
		before, after, found := strings.Cut(string(text), "-----BEGIN PRIVATE KEY-----")
		if !found {
			t.Fatal("no private key")
		}
		cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
		for path, text := range map[string]string{
			cert: before,
			key:  "-----BEGIN PRIVATE KEY-----" + after,
		} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return cert, key
	}
	cert, key := split("a")
	_, otherKey := split("b")
	for name, c := range map[string]struct {
		cert, key       string
		certErr, keyErr string
	}{
		"good":          {cert, key, "", ""},
		"swapped":       {key, cert, "no certificate", "no private key"},
		"another's key": {cert, otherKey, "", "does not match"},
		"missing":       {filepath.Join(dir, "x"), key, "no such file", ""},
	} {
		got, certErr, keyErr := Load(c.cert, c.key)
		if !says(certErr, c.certErr) || !says(keyErr, c.keyErr) ||
			(got != nil) != (certErr == nil && keyErr == nil) {
			t.Errorf("%s: %v, %v, %v", name, got != nil, certErr, keyErr)
		}
	}
}

// A file that is read while it is written must not replace a whole chain.
func TestAPartOfAChainIsRefused(t *testing.T) {
	leaf, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	begin := strings.Index(string(leaf), "-----BEGIN PRIVATE KEY-----")
	one := string(leaf[:begin])
	chain := one + one
	if err := checkChain([]byte(chain)); err != nil {
		t.Error(err)
	}
	for at := range len(chain) {
		// Between two certificates a file may end, and before the last line end.
		err := checkChain([]byte(chain[:at]))
		whole := at == len(chain)-1 || at >= len(one)-1 && at < len(one)+len("-----BEGIN ")
		if (err == nil) != whole {
			t.Errorf("the first %d of %d bytes: %v", at, len(chain), err)
		}
	}
	if err := checkChain([]byte("-----BEGIN CERTIFICATE-----\n?" + chain)); err == nil {
		t.Error("a damaged certificate before others is passed over")
	}
}

func says(err error, part string) bool {
	return (err == nil) == (part == "") && (err == nil || strings.Contains(err.Error(), part))
}

func TestASourceWithoutTLSExportsNothing(t *testing.T) {
	none := NewSource(nil)
	none.Set(&tls.Certificate{})
	if none.Get() != nil || none.NotAfter() != "none" {
		t.Errorf("%v, %s", none.Get(), none.NotAfter())
	}
	cert, err := SelfSigned("", false)
	if err != nil {
		t.Fatal(err)
	}
	for source, want := range map[*Source]int{none: 0, NewSource(cert): 1} {
		r := prometheus.NewRegistry()
		r.MustRegister(source.Collector())
		n, err := testutil.GatherAndCount(r, "ieum_tls_certificate_not_after_timestamp_seconds")
		if n != want || err != nil {
			t.Errorf("%d series, want %d, %v", n, want, err)
		}
	}
}

func TestTheMetricIsOfTheCertificateInForce(t *testing.T) {
	cert, err := SelfSigned("", false)
	if err != nil {
		t.Fatal(err)
	}
	source := NewSource(cert)
	r := prometheus.NewRegistry()
	r.MustRegister(source.Collector())
	ends := func(want time.Time) {
		t.Helper()
		all, err := r.Gather()
		if err != nil || len(all) != 1 ||
			all[0].GetMetric()[0].GetGauge().GetValue() != float64(want.Unix()) {
			t.Errorf("%v, %v, want %d", all, err, want.Unix())
		}
	}
	ends(cert.Leaf.NotAfter)
	leaf := *cert.Leaf
	leaf.NotAfter = leaf.NotAfter.Add(48 * time.Hour)
	source.Set(&tls.Certificate{Certificate: cert.Certificate, Leaf: &leaf})
	ends(leaf.NotAfter)
}
