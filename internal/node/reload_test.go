package node

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ieum-rtc/ieum/internal/config"
	"github.com/ieum-rtc/ieum/internal/license"
	"github.com/ieum-rtc/ieum/internal/logtest"
	"github.com/ieum-rtc/ieum/internal/relay"
)

const nextKey = "another key, of thirty-two bytes."

// reloadable is a server of which everything that can be read again stands in files.
type reloadable struct {
	*Node
	log                                          *logtest.Buffer
	cert, key, keys, listed, revoked, secretFile string
	roots                                        *x509.CertPool
	metrics                                      string
}

func startReloadable(t *testing.T) *reloadable {
	t.Helper()
	dir := t.TempDir()
	r := &reloadable{
		log:        &logtest.Buffer{},
		keys:       filepath.Join(dir, "keys"),
		listed:     filepath.Join(dir, "licenses"),
		revoked:    filepath.Join(dir, "revoked"),
		secretFile: filepath.Join(dir, "secret"),
	}
	r.cert, r.key, r.roots = certFor(t, "localhost")
	write(t, r.keys, signingKey+"\n")
	write(t, r.listed, "[]")
	write(t, r.revoked, "")
	write(t, r.secretFile, "a secret that two machines have\n")
	r.Node = start(t, config.Server{
		Dev:                   true,
		LicenseSigningKeyFile: r.keys,
		Licenses:              r.listed,
		RevocationList:        r.revoked,
		TLSCert:               r.cert,
		TLSKey:                r.key,
		Relay:                 config.RelaySettings{SecretFile: r.secretFile},
		Admin:                 config.AdminSettings{Listen: "127.0.0.1:0"},
		Log:                   slog.New(slog.NewTextHandler(r.log, nil)),
	})
	r.metrics = "http://" + r.AdminAddr().String() + "/metrics"
	return r
}

// moved copies a certificate and its key into the place of those of the server.
func (r *reloadable) moved(t *testing.T, names ...string) (roots *x509.CertPool) {
	t.Helper()
	cert, key, roots := certFor(t, names...)
	for from, to := range map[string]string{cert: r.cert, key: r.key} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, to, string(text))
	}
	return roots
}

// trusts makes a full handshake, with a client that knows one authority alone.
func (r *reloadable) trusts(roots *x509.CertPool) bool {
	conn, err := tls.Dial(
		"tcp", r.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "localhost"},
	)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// licensed is a license of a tenant, by the key.
func licensed(t *testing.T, key, cpCode string, origins ...string) map[string]any {
	t.Helper()
	v, err := license.New(license.Config{Keys: [][]byte{[]byte(key)}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := v.Issue(license.Params{
		Name:    cpCode,
		CpCode:  cpCode,
		MaxUser: 10,
		Origins: origins,
		Start:   time.Now().Add(-time.Hour),
		End:     time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"cpCode": cpCode, "authKey": token}
}

func (r *reloadable) answers(t *testing.T, code string, who map[string]any, more ...any) {
	t.Helper()
	q := maps.Clone(who)
	for i := 0; i < len(more); i += 2 {
		q[more[i].(string)] = more[i+1]
	}
	if a := register(t, r.Node, q, true); a["code"] != code {
		t.Errorf("%v is answered %v, want %s", q["cpCode"], a, code)
	}
}

func TestReloadTakesOverWhatStandsInFiles(t *testing.T) {
	r := startReloadable(t)
	old, next := licensed(t, signingKey, "KP-1"), licensed(t, nextKey, "KP-2")
	elsewhere := licensed(t, "the key of the server they leave behind", "MOVED-01")
	kim := call(t, r.Node, maps.Clone(old))
	kim.join()
	permit := kim.hold()
	r.answers(t, "401", next)
	r.answers(t, "401", elsewhere)

	roots := r.moved(t, "localhost")
	write(t, r.keys, nextKey+"\n"+signingKey+"\n")
	write(
		t, r.listed,
		fmt.Sprintf(
			"- cpCode: MOVED-01\n  authKey: %s\n  origins: [https://moved.example]\n",
			elsewhere["authKey"],
		),
	)
	write(t, r.secretFile, "another secret that two machines have\n")
	if !r.trusts(r.roots) || r.trusts(roots) {
		t.Error("a new certificate is used before it was asked for")
	}
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if r.trusts(r.roots) || !r.trusts(roots) {
		t.Error("the next handshake has the old certificate")
	}
	r.answers(t, "200", old)
	r.answers(t, "200", next)
	r.answers(t, "200", elsewhere)
	if err := permit(); err != nil {
		t.Errorf("a running allocation: %v", err)
	}
	// credentials of before, and of now
	urls := kim.urls()
	if err := kim.allocate(urls[len(urls)-2], nil); err != nil {
		t.Errorf("with credentials of the secret before: %v", err)
	}
	lee := call(t, r.Node, maps.Clone(next))
	lee.join()
	if err := lee.allocate(urls[len(urls)-2], nil); err != nil {
		t.Errorf("with credentials of the new secret: %v", err)
	}
	kim.ask(map[string]any{"eventOp": "keepAlive"})

	write(t, r.keys, nextKey+"\n")
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	r.answers(t, "401", old)
	r.answers(t, "200", next)
	kim.ask(map[string]any{"eventOp": "keepAlive"})
	has(t, r.metrics, `ieum_config_reloads_total{result="success"} 2`)
	for _, secret := range []string{
		nextKey, signingKey, "two machines", old["authKey"].(string), elsewhere["authKey"].(string),
	} {
		if strings.Contains(r.log.String(), secret) {
			t.Errorf("%.20s is in the log:\n%s", secret, r.log)
		}
	}
	if !strings.Contains(r.log.String(), "certificateNotAfter=20") {
		t.Errorf("the log does not say when the certificate ends:\n%s", r.log)
	}
}

// An error in any of the files keeps all others from being applied.
func TestAReloadWithAnErrorChangesNothing(t *testing.T) {
	r := startReloadable(t)
	old, next := licensed(t, signingKey, "KP-1"), licensed(t, nextKey, "KP-2")
	kim := call(t, r.Node, maps.Clone(old))
	kim.join()
	permit := kim.hold()
	roots := r.moved(t, "localhost")
	write(t, r.keys, nextKey+"\n")
	write(t, r.secretFile, "another secret that two machines have\n")
	refused := 0
	for name, files := range map[string][]string{
		"certificate":           {r.cert},
		"key of it":             {r.key},
		"license keys":          {r.keys},
		"listed licenses":       {r.listed},
		"revoked licenses":      {r.revoked},
		"the relay's secret":    {r.secretFile},
		"all of them, together": {r.cert, r.key, r.keys, r.listed, r.revoked},
	} {
		good := map[string]string{}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			good[f] = string(text)
			write(t, f, "x")
		}
		err := r.Reload()
		refused++
		switch {
		case err == nil:
			t.Fatalf("%s: no error was found", name)
		case len(files) > 1:
			for _, flag := range []string{
				"--tls-cert", "--tls-key", "--license-signing-key-file", "--licenses",
				"--revocation-list",
			} {
				if !strings.Contains(err.Error(), flag) {
					t.Errorf("%s is not said: %v", flag, err)
				}
			}
		}
		if !r.trusts(r.roots) || r.trusts(roots) {
			t.Errorf("%s: the certificate has changed", name)
		}
		r.answers(t, "200", old)
		r.answers(t, "401", next)
		for f, text := range good {
			write(t, f, text)
		}
	}
	if err := permit(); err != nil {
		t.Error(err)
	}
	lee := call(t, r.Node, maps.Clone(old))
	last := lee.ice[len(lee.ice)-1]
	secret := []byte("a secret that two machines have")
	if last.Credential != relay.RESTPassword(secret, last.Username) {
		t.Error("the relay's secret has changed")
	}
	has(t, r.metrics, fmt.Sprintf(`ieum_config_reloads_total{result="failure"} %d`, refused))
	has(t, r.metrics, `ieum_config_reloads_total{result="success"} 0`)
	if n := strings.Count(r.log.String(), "configuration reload failed"); n != refused {
		t.Errorf("said %d times:\n%s", n, r.log)
	}
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if r.trusts(r.roots) || !r.trusts(roots) {
		t.Error("mended, nothing has changed")
	}
	r.answers(t, "200", next)
}

// A second connection with the ticket of the first needs no certificate and no signature, also when
// there is a new one by then: a thousand clients that come back at once cost little.
func TestTLSSessionsResume(t *testing.T) {
	r := startReloadable(t)
	cfg := &tls.Config{
		RootCAs:            r.roots,
		ServerName:         "localhost",
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
		NextProtos:         []string{"http/1.1"},
	}
	resumed := func() bool {
		conn, err := tls.Dial("tcp", r.Addr().String(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// tickets come after the handshake (RFC 8446, section 4.6.1)
		if _, err := fmt.Fprint(
			conn, "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
		); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return conn.ConnectionState().DidResume
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cfg.MaxVersion = version
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		if resumed() {
			t.Error("the first resumed")
		}
		if !resumed() {
			t.Errorf("%s: the second did not", tls.VersionName(version))
		}
	}
	r.moved(t, "localhost")
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if !resumed() {
		t.Error("tickets do not outlast a reload")
	}
}

func TestReloadOfATriedServerKeepsItsLicenseAndCertificate(t *testing.T) {
	n := start(t, config.Server{Dev: true, TLSSelfSigned: true})
	res, before := get(t, n.URLs()[0]+"dev/license")
	kim := call(t, n, nil)
	if err := n.Reload(); err != nil {
		t.Fatal(err)
	}
	again, after := get(t, n.URLs()[0]+"dev/license")
	if before != after || !res.TLS.PeerCertificates[0].Equal(again.TLS.PeerCertificates[0]) {
		t.Error("license or certificate changed")
	}
	if a := register(t, n, nil, true); a["code"] != "200" {
		t.Errorf("answer %v", a)
	}
	kim.ask(map[string]any{"eventOp": "keepAlive"})
}

func TestARelayAloneReloads(t *testing.T) {
	dir := t.TempDir()
	shared := filepath.Join(dir, "secret")
	write(t, shared, relaySecret)
	cert, key, old := certFor(t, "localhost")
	r := startRelayAlone(
		t,
		config.Relay{TLSCert: cert, TLSKey: key, Relay: config.RelaySettings{SecretFile: shared}},
	)
	at := fmt.Sprintf("localhost:%d", r.RelayPort())
	n := start(
		t,
		config.Server{
			Dev:           true,
			RelayExternal: []string{"turn:" + at, "turns:" + at},
			Relay:         config.RelaySettings{SecretFile: shared},
		},
	)
	kim := call(t, n, nil)

	write(t, shared, "x")
	if err := r.Reload(); err == nil || !strings.Contains(err.Error(), "secret") {
		t.Errorf("a short secret: %v", err)
	}
	write(t, shared, "the next secret that two machines have")
	next, nextKey, roots := certFor(t, "localhost")
	for from, to := range map[string]string{next: cert, nextKey: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	urls := kim.urls()
	if err := kim.allocate(urls[0], nil); err != nil {
		t.Errorf("the server has the old secret still: %v", err)
	}
	if kim.allocate(urls[1], old) == nil {
		t.Error("the old certificate is shown")
	}
	if err := n.Reload(); err != nil {
		t.Fatal(err)
	}
	lee := call(t, n, nil)
	if lee.ice[len(lee.ice)-1].Credential != relay.RESTPassword(
		[]byte("the next secret that two machines have"), lee.ice[len(lee.ice)-1].Username,
	) {
		t.Error("the server makes credentials with the old secret")
	}
	if err := lee.allocate(lee.urls()[1], roots); err != nil {
		t.Errorf("with the new secret and certificate: %v", err)
	}
}
