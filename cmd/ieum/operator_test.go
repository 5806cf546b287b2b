package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lxzan/gws"
)

// certified writes a certificate for calls.example with those days, and its key.
func certified(t *testing.T, from, until time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"calls.example"},
		NotBefore:    from,
		NotAfter:     until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return file(
			t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		),
		file(
			t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
		)
}

func TestCertificatesAreChecked(t *testing.T) {
	now := time.Now()
	const day = 24 * time.Hour
	keys := file(t, "keys", key)
	good, goodKey := certified(t, now.Add(-day), now.Add(60*day))
	expired, expiredKey := certified(t, now.Add(-2*day), now.Add(-day))
	future, futureKey := certified(t, now.Add(day), now.Add(2*day))
	soon, soonKey := certified(t, now.Add(-day), now.Add(5*day))
	for name, c := range map[string]struct {
		cert, key string
		more      []string
		code      int
		want      string
	}{
		"good": {
			good,
			goodKey,
			[]string{"--public-host", "calls.example"},
			exitOK,
			"",
		},
		"reached by address": {good, goodKey, []string{"--public-host", "203.0.113.7"}, exitOK, ""},
		"expired": {
			expired, expiredKey, nil, exitUsage, "--tls-cert: the certificate has expired",
		},
		"not valid yet": {
			future, futureKey, nil, exitUsage, "--tls-cert: the certificate is not valid before",
		},
		"another's key": {
			good, expiredKey, nil, exitUsage, "--tls-key: private key does not match",
		},
		"no key": {good, good, nil, exitUsage, "--tls-key: no private key found"},
		"no certificate": {
			goodKey, goodKey, nil, exitUsage, "--tls-cert: no certificate found",
		},
		"another name": {
			good,
			goodKey,
			[]string{"--public-host", "other.example"},
			exitOK,
			"warning: --tls-cert: the certificate is not valid for other.example",
		},
		"ends soon": {
			soon, soonKey, nil, exitOK, "warning: --tls-cert: the certificate expires soon",
		},
	} {
		args := append(
			[]string{
				"config", "check", "--license-signing-key-file", keys, "--listen", "127.0.0.1:0",
				"--tls-cert", c.cert, "--tls-key", c.key,
			},
			c.more...,
		)
		code, _, errs := ieum(t, args...)
		ours := []string{}
		for line := range strings.Lines(errs) {
			// A low limit of this machine is another matter.
			if !strings.Contains(line, "--max-connections") {
				ours = append(ours, line)
			}
		}
		if said := strings.Join(ours, ""); code != c.code || !strings.Contains(said, c.want) ||
			(c.want == "") != (said == "") {
			t.Errorf("%s: %d %q, want %q", name, code, said, c.want)
		}
		if relay, _, errs := ieum(
			t, "relay", "--relay-secret-file", keys, "--tls-cert", c.cert, "--tls-key", c.key,
			"--listen", "x",
		); relay != exitUsage ||
			(c.code == exitUsage && !strings.Contains(errs, c.want)) {
			t.Errorf("%s: of a relay: %d %s", name, relay, errs)
		}
	}
}

func TestOddSettingsAreWarnedOf(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes of files say nothing there")
	}
	keys := file(t, "keys", key)
	secret := file(t, "secret", "a secret that two machines have\n")
	warned := func(args ...string) string {
		t.Helper()
		code, _, errs := ieum(
			t,
			append(
				[]string{
					"config", "check", "--license-signing-key-file", keys, "--relay-secret-file",
					secret,
				},
				args...,
			)...,
		)
		if code != exitOK {
			t.Fatal(code, errs)
		}
		return errs
	}
	if said := warned("--listen", ":7102"); !strings.Contains(
		said, "warning: --listen: plain HTTP",
	) {
		t.Errorf("plain HTTP: %q", said)
	}
	if said := warned(
		"--listen", ":7102", "--trusted-proxy", "10.0.0.1",
	); strings.Contains(said, "plain HTTP") {
		t.Errorf("behind a proxy: %q", said)
	}
	if said := warned("--listen", "127.0.0.1:7102"); strings.Contains(said, "plain HTTP") ||
		strings.Contains(said, "can read") {
		t.Errorf("on loopback: %q", said)
	}
	for _, path := range []string{keys, secret} {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	said := warned()
	for _, want := range []string{
		"warning: --license-signing-key-file: every user",
		"warning: --relay-secret-file: every user",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in %q", want, said)
		}
	}
}

// A port that is taken is blamed on the flag that asked for it, wherever that stands.
func TestABusyPortIsBlamedOnItsFlag(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for flag, at := range map[string]string{
		"listen":       tcp.Addr().String(),
		"relay-listen": tcp.Addr().String(),
		"admin-listen": tcp.Addr().String(),
		"stun-listen":  udp.LocalAddr().String(),
	} {
		settings := map[string]string{
			"listen":       "127.0.0.1:0",
			"stun-listen":  `"off"`,
			"admin-listen": `"off"`,
			"relay-ip":     "127.0.0.1",
		}
		settings[flag] = at
		var yaml strings.Builder
		line := 0
		for i, name := range []string{
			"listen", "stun-listen", "admin-listen", "relay-ip", "relay-listen",
		} {
			if settings[name] == "" {
				continue
			}
			fmt.Fprintf(&yaml, "%s: %s\n", name, settings[name])
			if name == flag {
				line = i + 1
			}
		}
		path := file(t, "c.yaml", yaml.String())
		code, _, errs := ieum(
			t, "serve", "--license-signing-key-file", file(t, "keys", key), "--config", path,
			"--log-level", "error",
		)
		if want := fmt.Sprintf("ieum: %s:%d: %s: ", path, line, flag); code != exitFailed ||
			!strings.HasPrefix(errs, want) || !strings.Contains(errs, "is in use") {
			t.Errorf("--%s: %d %s, want %s…", flag, code, errs, want)
		}
	}
}

func TestKeygenKeepsAnExistingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "license-signing.key")
	if code, _, errs := ieum(t, "license", "keygen", path); code != exitOK {
		t.Fatal(code, errs)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil ||
		(runtime.GOOS != "windows" && info.Mode().Perm() != 0o600) {
		t.Errorf("%v %v: the key is for its owner alone", info, err)
	}
	if code, _, errs := ieum(t, "license", "keygen", path); code != exitFailed ||
		!strings.Contains(errs, "exists") {
		t.Errorf("%d %s", code, errs)
	}
	if again, _ := os.ReadFile(path); string(again) != string(first) {
		t.Error("the key was overwritten")
	}
	if code, _, errs := ieum(
		t, "config", "check", "--license-signing-key-file", path,
	); code != exitOK {
		t.Errorf("%d %s", code, errs)
	}
}

func TestInspectVerifies(t *testing.T) {
	keys, others := file(t, "keys", key), file(t, "others", "another key, of thirty-two bytes.")
	_, out, errs := ieum(
		t, "license", "issue", "--cp-code", "KP-1", "--json", "--license-signing-key-file", keys,
	)
	var l issued
	if err := json.Unmarshal([]byte(out), &l); err != nil || l.Grants.MaxUser != 100 ||
		l.Grants.Last == "" {
		t.Fatal(err, out, errs)
	}
	_, token, _ := ieum(
		t, "license", "user-token", "--cp-code", "KP-1", "--user", "kim", "--auth-key", l.AuthKey,
		"--license-signing-key-file", keys,
	)
	for kind, text := range map[string]string{
		"a license":    l.AuthKey,
		"a user token": strings.TrimSpace(token),
	} {
		for name, c := range map[string]struct {
			args []string
			code int
			want string
		}{
			"without a key": {nil, exitOK, "Signature NOT verified"},
			"with the key":  {[]string{"--license-signing-key-file", keys}, exitOK, "accepted now"},
			"with another": {
				[]string{"--license-signing-key-file", others},
				exitFailed,
				"Signature INVALID",
			},
		} {
			code, out, errs := ieum(t, append([]string{"license", "inspect", text}, c.args...)...)
			if code != c.code || !strings.Contains(out, c.want) {
				t.Errorf("%s, %s: %d %s%s", kind, name, code, out, errs)
			}
		}
	}
}

// The script for bash completes commands, flags, values and files, in a real bash.
func TestCompletionInBash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	dir := t.TempDir()
	rewrite(t, filepath.Join(dir, "cert.pem"), "")
	_, script, _ := ieum(t, "completion", "bash")
	// this test's program stands for ieum, which takes its arguments from the environment
	program := fmt.Sprintf(
		"#!/bin/sh\n%s=$(printf '%%s\\n' \"$@\") exec %q -test.run='^$'\n",
		runAs, os.Args[0],
	)
	rewrite(t, filepath.Join(dir, "ieum"), program)
	if err := os.Chmod(filepath.Join(dir, "ieum"), 0o700); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"ieum ser":                    "serve",
		"ieum license iss":            "issue",
		"ieum serve --public-h":       "--public-host",
		"ieum serve --log-level de":   "debug",
		"ieum serve --log-level = wa": "warn",
		"ieum serve --tls-cert ce":    "cert.pem",
		"ieum completion f":           "fish",
		"ieum config ch":              "check",
	} {
		words := strings.Fields(line)
		ask := fmt.Sprintf(
			"\nCOMP_WORDS=(%s); COMP_CWORD=%d; _ieum 2>/dev/null; "+
				"printf '%%s\\n' \"${COMPREPLY[@]}\"",
			strings.Join(words, " "), len(words)-1,
		)
		run := exec.Command(bash, "--norc", "-c", script+ask)
		run.Dir = dir
		run.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := run.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%s: %v %q, want %s", line, err, out, want)
		}
	}
}

// make run, stop, make run: the pages that are open have a license that the new process takes.
func TestTheLicenseOfDevSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", dir)
	t.Setenv("HOME", dir)
	serve := []string{
		"serve", "--dev", "--listen", "127.0.0.1:0", "--stun-listen", "off", "--admin-listen",
		"off", "--log-level", "error",
	}
	at, _, kill := spawn(t, io.Discard, serve...)
	_, first := get(t, at.String()+"dev/license")
	var license map[string]any
	if err := json.Unmarshal([]byte(first), &license); err != nil {
		t.Fatal(err)
	}
	register := func(host string, more map[string]any) map[string]any {
		t.Helper()
		m := connect(t, host, nil)
		t.Cleanup(func() { _ = m.ws.NetConn().Close() })
		q := map[string]any{
			"eventOp": "register",
			"reqId":   "1",
			"cpCode":  license["cpCode"],
			"authKey": license["authKey"],
		}
		for k, v := range more {
			q[k] = v
		}
		text, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.ws.WriteMessage(gws.OpcodeText, text); err != nil {
			t.Fatal(err)
		}
		return await(t, m.answers)
	}
	a := register(at.Host, map[string]any{"userId": "kim"})
	kill()
	at, _, kill = spawn(t, io.Discard, serve...)
	defer kill()
	if _, second := get(t, at.String()+"dev/license"); second != first {
		t.Errorf("the license is another after a restart:\n%s\n%s", first, second)
	}
	// without --data the session is gone, which is no refusal: with the same license the page
	// registers again and its calls go on
	if b := register(
		at.Host, map[string]any{"userId": "kim", "resume": a["resume"]},
	); b["code"] != "410" {
		t.Errorf("a session of before: %v", b)
	}
	if b := register(at.Host, map[string]any{"userId": "kim"}); b["code"] != "200" ||
		b["userId"] != "kim" {
		t.Errorf("the same license: %v", b)
	}
	path, err := filepath.Glob(filepath.Join(dir, "*", "dev-license.json"))
	if info, statErr := os.Stat(strings.Join(path, "")); runtime.GOOS == "linux" &&
		(err != nil || statErr != nil || info.Mode().Perm() != 0o600) {
		t.Errorf("%v %v %v: the key is for its owner alone", path, err, statErr)
	}
}
