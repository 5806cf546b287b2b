package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	runInstead()
	// Where --dev keeps its license: not that of whoever runs the tests.
	cache, err := os.MkdirTemp("", "ieum-cache")
	if err != nil {
		panic(err)
	}
	_ = os.Setenv("XDG_CACHE_HOME", cache)
	_ = os.Setenv("HOME", cache)
	goleak.VerifyTestMain(m)
}

// packageName finds the name of a package in front of its error, which says nothing to whoever
// runs a command. The package node shares its name with a setting.
var packageName = regexp.MustCompile(
	`(?m)(?:^|: | )(?:license|relay|config|credentials|netaddr|certs|cluster|identity|limit|` +
		`store|transport|signaling|kong|strconv\.\w+|yaml|json|field \w+ not found in type): ` +
		`(?:[^u]|u[^n]).*$`, // or a key of another command, which is "unknown"
)

// ieum runs a command and returns its exit code and what it printed.
func ieum(t *testing.T, args ...string) (code int, out, err string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, &o, &e)
	if leak := packageName.FindString(e.String()); leak != "" {
		t.Errorf("%v: an error names a package:%s", args, leak)
	}
	return code, o.String(), e.String()
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const key = "0123456789abcdef0123456789abcdef"

func TestCommandLine(t *testing.T) {
	keys := file(t, "keys", key+"\n")
	for name, c := range map[string]struct {
		args []string
		code int
		want []string // parts of what is printed, on either output
	}{
		"help": {
			[]string{"--help"},
			exitOK,
			[]string{"serve", "license issue", "version"},
		},
		"help of serve": {
			[]string{"serve", "--help"},
			exitOK,
			[]string{"--relay-allow-peer", "$IEUM_LISTEN", "--tls-self-signed"},
		},
		"version":           {[]string{"version"}, exitOK, []string{"ieum ", "go1."}},
		"no command":        {nil, exitOK, []string{"Usage: ieum <command>", "license issue"}},
		"help as a command": {[]string{"help"}, exitOK, []string{"Usage: ieum <command>"}},
		"help of a command": {
			[]string{"help", "serve"},
			exitOK,
			[]string{"Usage: ieum serve", "Network:"},
		},
		"help of one below": {
			[]string{"help", "license", "issue"},
			exitOK,
			[]string{"Usage: ieum license issue", "(default 100)"},
		},
		"help of no command": {
			[]string{"help", "nonsense"},
			exitUsage,
			[]string{"unexpected argument nonsense"},
		},
		"a group of commands": {
			[]string{"license"},
			exitOK,
			[]string{"Usage: ieum license <command>", "license inspect"},
		},
		"a misspelt command": {
			[]string{"licens"},
			exitUsage,
			[]string{`did you mean "license"?`},
		},
		"version as a flag": {[]string{"--version"}, exitOK, []string{"ieum ", "go1."}},
		"short help":        {[]string{"serve", "-h"}, exitOK, []string{"Usage: ieum serve"}},
		"no flag like it": {
			[]string{"serve", "--listn", ":1"},
			exitUsage,
			[]string{
				"not started", "unknown flag --listn; did you mean --listen?",
				"license signing key is required",
			},
		},
		"a value is missing": {
			[]string{"config", "check", "--listen", "--max-joins", "many"},
			exitUsage,
			[]string{"--listen: needs a value: HOST:PORT", `--max-joins: "many"`},
		},
		"a negative number": {
			[]string{
				"config", "check", "--license-signing-key-file", keys, "--max-joins", "-1",
				"--relay-bandwidth", "-1",
			},
			exitOK,
			[]string{"configuration OK"},
		},
		"a port alone": {
			[]string{
				"config", "check", "--license-signing-key-file", keys, "--listen", "7102",
				"--stun-listen", "3478", "--admin-listen", "9000",
			},
			exitOK,
			[]string{"configuration OK"},
		},
		"no port": {
			[]string{"config", "check", "--license-signing-key-file", keys, "--listen", "99999"},
			exitUsage,
			[]string{`--listen: "99999" is not a port`},
		},
		"nothing was to start": {
			[]string{
				"license", "issue", "--start", "2026-13-01", "--max-user", "many",
				"--license-signing-key-file", keys,
			},
			exitUsage,
			[]string{"3 errors", "missing flags: --cp-code", "--start: ", `--max-user: "many"`},
		},
		"a code with a blank": {
			[]string{
				"license", "issue", "--cp-code", "a b", "--max-user", "0",
				"--license-signing-key-file", keys,
			},
			exitUsage,
			[]string{"--cp-code: ", "--max-user: must be"},
		},
		"a day before the other": {
			[]string{
				"license", "issue", "--cp-code", "C", "--start", "2090-01-01", "--end",
				"2089-01-01", "--license-signing-key-file", keys,
			},
			exitUsage,
			[]string{"ieum: --end: is not after --start"},
		},
		"unknown flag": {
			[]string{"serve", "--nonsense"},
			exitUsage,
			[]string{"unknown flag --nonsense"},
		},
		"secrets are no flags": {
			[]string{"serve", "--license-key", key},
			exitUsage,
			[]string{"unknown flag"},
		},
		"no license key": {
			[]string{"serve"},
			exitUsage,
			[]string{"a license signing key is required"},
		},
		"all errors at once": {
			[]string{
				"config", "check", "--listen", "x", "--relay-ports", "9", "--relay-ip", "y",
				"--relay-allow-peer", "z", "--tls-cert", "c",
			},
			exitUsage,
			[]string{
				"--listen", "--relay-ports", "--relay-ip", "--relay-allow-peer", "--tls-cert",
				"license signing key",
			},
		},
		"short key": {
			[]string{
				"config", "check", "--license-signing-key-file", file(t, "short", "too short"),
			},
			exitUsage,
			[]string{"at least 32"},
		},
		"key file missing": {
			[]string{"config", "check", "--license-signing-key-file", "/nonexistent/key"},
			exitUsage,
			[]string{"--license-signing-key-file"},
		},
		"a good configuration": {
			[]string{
				"config", "check", "--license-signing-key-file", keys, "--relay-ip",
				"203.0.113.7/10.0.0.7",
			},
			exitOK,
			[]string{"configuration OK"},
		},
		"from a file": {
			[]string{
				"config", "check", "--config",
				file(
					t, "c.yaml",
					"license-signing-key-file: "+keys+"\n"+
						"relay-ip: [203.0.113.7, '2001:db8::7']\n"+
						"relay-quota: 8\n"+
						"tls-self-signed: true\n",
				),
			},
			exitOK,
			[]string{"configuration OK"},
		},
		"from a JSON file": {
			[]string{
				"config", "check", "--config",
				file(t, "c.json", `{"license-signing-key-file":"`+keys+`"}`),
			},
			exitOK,
			[]string{"configuration OK"},
		},
		"error in the file": {
			[]string{
				"config", "check", "--config",
				file(t, "f.yaml", "license-signing-key-file: "+keys+"\nrelay-ports: x\n"),
			},
			exitUsage,
			[]string{"f.yaml:2: relay-ports: "},
		},
		"unknown keys": {
			[]string{"config", "check", "--config", file(t, "u.yaml", "listen: ':1'\nextra: 1\n")},
			exitUsage,
			[]string{"u.yaml:2: extra: unknown key"},
		},
		"file that is not YAML": {
			[]string{"config", "check", "--config", file(t, "b.yaml", "{")},
			exitUsage,
			[]string{"b.yaml:1: ", "license signing key is required"},
		},
		"help of relay": {
			[]string{"relay", "--help"},
			exitOK,
			[]string{"--relay-secret-file", "$IEUM_RELAY_IP", ":3478)"},
		},
		"relay without secret": {
			[]string{"relay", "--listen", "127.0.0.1:0"},
			exitUsage,
			[]string{"a relay secret is required"},
		},
		"relay's errors": {
			[]string{"relay", "--listen", "x", "--relay-ports", "9", "--tls-key", "k"},
			exitUsage,
			[]string{"--listen", "--relay-ports", "--tls-cert"},
		},
		"relay from a file": {
			[]string{
				"relay", "--config",
				file(t, "r.yaml", "relay-secret-file: /nonexistent/secret\nrelay-quota-total: 5\n"),
			},
			exitUsage,
			[]string{"/nonexistent/secret"},
		},
		"relays elsewhere": {
			[]string{
				"config", "check", "--license-signing-key-file", keys, "--relay-external",
				"turn:r.example", "--relay-external", "turns:r.example", "--relay-secret-file",
				keys,
			},
			exitOK,
			[]string{"configuration OK"},
		},
		"without their secret": {
			[]string{
				"config", "check", "--license-signing-key-file", keys, "--relay-external",
				"turn:r.example",
			},
			exitUsage,
			[]string{"--relay-secret-file"},
		},
		"relays' URLs": {
			[]string{
				"config", "check", "--license-signing-key-file", keys, "--relay-external",
				"r.example", "--relay-secret-file", keys,
			},
			exitUsage,
			[]string{"--relay-external", "turns:host"},
		},
		"all of the network": {
			[]string{
				"config", "check", "--license-signing-key-file", keys, "--public-host",
				"calls.example", "--stun-listen", "off", "--relay-listen", ":3478",
				"--relay-coalesce", "0", "--relay-bandwidth=-1",
			},
			exitOK,
			[]string{"configuration OK"},
		},
		"network errors": {
			[]string{
				"config", "check", "--license-signing-key-file", keys, "--public-host", "x:1",
				"--stun-listen", "y", "--relay-listen", "z",
			},
			exitUsage,
			[]string{"--public-host", "--stun-listen", "--relay-listen"},
		},
		"limits": {
			[]string{
				"config", "check", "--config",
				file(
					t, "m.yaml",
					"license-signing-key-file: "+keys+"\n"+
						"max-connections: -1\n"+
						"max-unregistered-per-address: 8\n"+
						"trusted-proxy: ['10.0.0.0/8', '::1']\n",
				),
			},
			exitOK,
			[]string{"configuration OK"},
		},
		"limits of nobody": {
			[]string{
				"config", "check", "--license-signing-key-file", keys, "--max-connections", "0",
				"--max-unregistered-per-address=-2", "--trusted-proxy", "0.0.0.0/0",
			},
			exitUsage,
			[]string{"--max-connections", "--max-unregistered-per-address", "--trusted-proxy"},
		},
		"issue without key": {
			[]string{"license", "issue", "--cp-code", "C"},
			exitUsage,
			[]string{"license signing key is required"},
		},
		"issue with a bad day": {
			[]string{
				"license", "issue", "--cp-code", "C", "--end", "tomorrow",
				"--license-signing-key-file", keys,
			},
			exitUsage,
			[]string{"YYYY-MM-DD"},
		},
		"issue that ended": {
			[]string{
				"license", "issue", "--cp-code", "C", "--start", "2020-01-01", "--end",
				"2020-02-01", "--license-signing-key-file", keys,
			},
			exitUsage,
			[]string{"past"},
		},
		"licenses missing": {
			[]string{
				"config", "check", "--license-signing-key-file", keys, "--licenses",
				"/nonexistent/list",
			},
			exitUsage,
			[]string{"--licenses"},
		},
		"licenses with errors": {
			[]string{
				"config", "check", "--licenses", file(t, "l.yaml", "- {cpCode: C, authkey: x}"),
			},
			exitUsage,
			[]string{"--licenses", "authkey", "license signing key is required"},
		},
		"licenses from a file": {
			[]string{
				"config", "check", "--config",
				file(
					t, "d.yaml",
					"license-signing-key-file: "+keys+"\nlicenses: "+file(t, "l.json", "[]")+"\n",
				),
			},
			exitOK,
			[]string{"configuration OK"},
		},
		"revoked missing": {
			[]string{
				"config", "check", "--license-signing-key-file", keys, "--revocation-list",
				"/nonexistent/list",
			},
			exitUsage,
			[]string{"--revocation-list"},
		},
		"revoked with errors": {
			[]string{"config", "check", "--revocation-list", file(t, "r.txt", "# x\nabc\n")},
			exitUsage,
			[]string{
				"--revocation-list: line 2", "license hash", "license signing key is required",
			},
		},
		"revoked from a file": {
			[]string{
				"config", "check", "--config",
				file(
					t, "e.yaml",
					"license-signing-key-file: "+keys+"\nrevocation-list: "+file(
						t, "e.txt", "",
					)+"\n",
				),
			},
			exitOK,
			[]string{"configuration OK"},
		},
		"serve with a bad list": {
			[]string{
				"serve", "--license-signing-key-file", keys, "--revocation-list",
				file(t, "s.txt", "abc"),
			},
			exitUsage,
			[]string{"--revocation-list: line 1"},
		},
		"hash what is no JWT": {
			[]string{"license", "hash", "hello"},
			exitFailed,
			[]string{"JWT"},
		},
		"token without user": {
			[]string{"license", "user-token", "--cp-code", "C", "--license-signing-key-file", keys},
			exitUsage,
			[]string{"--user"},
		},
		"token without key": {
			[]string{"license", "user-token", "--cp-code", "C", "--user", "kim"},
			exitUsage,
			[]string{"license signing key is required"},
		},
		"token for no time": {
			[]string{
				"license", "user-token", "--cp-code", "C", "--user", "kim", "--minutes", "0",
				"--license-signing-key-file", keys,
			},
			exitUsage,
			[]string{"--minutes"},
		},
		"token with no license": {
			[]string{
				"license", "user-token", "--cp-code", "C", "--user", "kim", "--auth-key", "x",
				"--license-signing-key-file", keys,
			},
			exitUsage,
			[]string{"not an authKey"},
		},
		"inspect what is no JWT": {
			[]string{"license", "inspect", "hello"},
			exitFailed,
			[]string{"JWT"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, err := ieum(t, c.args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d\n%s%s", code, c.code, out, err)
			}
			for _, w := range c.want {
				if !strings.Contains(out+err, w) {
					t.Errorf("%q is not said:\n%s%s", w, out, err)
				}
			}
		})
	}
}

func TestEnvironmentStandsForFlags(t *testing.T) {
	t.Setenv("IEUM_LICENSE_SIGNING_KEY", key)
	t.Setenv("IEUM_RELAY_PORTS", "nonsense")
	if code, _, err := ieum(t, "config", "check"); code != exitUsage ||
		!strings.Contains(err, "nonsense") || strings.Contains(err, "license signing key") {
		t.Errorf("%d %s", code, err)
	}
	// A flag wins.
	if code, _, err := ieum(t, "config", "check", "--relay-ports", "50000-50100"); code != exitOK {
		t.Errorf("%d %s", code, err)
	}
}

func TestIssuedLicenseCanBeInspected(t *testing.T) {
	keys := file(t, "keys", key)
	code, out, errs := ieum(
		t, "license", "issue", "--cp-code", "KP-1", "--max-user", "7", "--origin",
		"https://app.example", "--json", "--license-signing-key-file", keys,
	)
	if code != exitOK {
		t.Fatal(code, errs)
	}
	var l issued
	if err := json.Unmarshal([]byte(out), &l); err != nil || l.CpCode != "KP-1" ||
		len(l.UserTokenKey) < 40 {
		t.Fatalf("%v: %s", err, out)
	}
	code, out, _ = ieum(t, "license", "inspect", l.AuthKey)
	if code != exitOK || !strings.Contains(out, "KP-1") ||
		!strings.Contains(out, "https://app.example") {
		t.Errorf("%d %s", code, out)
	}
}

// The line that revokes a license is one that the server takes, and has the hash that other tools
// have.
func TestAHashFromTheCommandLineRevokes(t *testing.T) {
	keys := file(t, "keys", key)
	_, out, errs := ieum(
		t, "license", "issue", "--cp-code", "KP-#1", "--end", "2099-12-31", "--json",
		"--license-signing-key-file", keys,
	)
	var l issued
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		t.Fatal(err, errs)
	}
	code, line, errs := ieum(t, "license", "hash", l.AuthKey)
	if want := fmt.Sprintf(
		"%x # \"KP-#1\", ends 2100-01-01T00:00:00Z\n",
		sha256.Sum256([]byte(l.AuthKey)),
	); code != exitOK || line != want {
		t.Fatalf("%d %s\n%q, want\n%q", code, errs, line, want)
	}
	_, token, _ := ieum(
		t, "license", "user-token", "--cp-code", "KP-#1", "--user", "kim", "--auth-key", l.AuthKey,
		"--license-signing-key-file", keys,
	)
	code, second, errs := ieum(t, "license", "hash", strings.TrimSpace(token))
	if code != exitOK || !strings.HasSuffix(second, " # \"KP-#1\", a user token of \"kim\"\n") {
		t.Fatalf("%d %s %q", code, errs, second)
	}
	if code, out, errs := ieum(
		t, "config", "check", "--license-signing-key-file", keys, "--revocation-list",
		file(t, "revoked", line+second),
	); code != exitOK {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

func TestUserTokenFromTheCommandLine(t *testing.T) {
	keys := file(t, "keys", key)
	code, out, errs := ieum(
		t, "license", "issue", "--cp-code", "KP-1", "--require-user-token", "--json",
		"--license-signing-key-file", keys,
	)
	var l issued
	if err := json.Unmarshal([]byte(out), &l); code != exitOK || err != nil {
		t.Fatal(code, err, errs)
	}
	if _, out, _ = ieum(
		t, "license", "inspect", l.AuthKey,
	); !strings.Contains(out, `"requireUserToken": true`) {
		t.Errorf("the license does not require user tokens:\n%s", out)
	}
	mint := []string{
		"license", "user-token", "--cp-code", "KP-1", "--user", "kim", "--license-signing-key-file",
		keys,
	}
	code, token, errs := ieum(
		t,
		append(
			mint, "--name", "Kim", "--room", "K1", "--room", "K2", "--host", "--minutes", "5",
			"--auth-key", l.AuthKey,
		)...,
	)
	if code != exitOK || strings.Count(token, "\n") != 1 || errs != "" {
		t.Fatalf("%d %q %s", code, token, errs)
	}
	code, out, _ = ieum(t, "license", "inspect", token)
	for _, want := range []string{
		`"typ": "user+jwt"`, `"sub": "kim"`, `"name": "Kim"`, `"K2"`, `"host": true`, l.AuthKey,
		"a user token for one user",
	} {
		if code != exitOK || !strings.Contains(out, want) {
			t.Errorf("%d: no %s in\n%s", code, want, out)
		}
	}
	if code, token, errs = ieum(t, mint...); code != exitOK || strings.Count(token, ".") != 2 ||
		!strings.Contains(errs, "refers to no license") {
		t.Errorf("%d %q %s", code, token, errs)
	}
}

// lines hands out what is written, so that a test can wait for it.
type lines struct {
	bytes.Buffer
	w *io.PipeWriter
}

func (l *lines) Write(p []byte) (int, error) { return l.w.Write(p) }

// started runs serve until stop is called, and returns the address it printed.
func started(t *testing.T, args ...string) (url string, stop func() int) {
	t.Helper()
	args = append(
		[]string{
			"serve", "--dev", "--listen", "127.0.0.1:0", "--stun-listen", "off", "--admin-listen",
			"off", "--log-level", "error",
		},
		args...,
	)
	return running(t, regexp.MustCompile(`https?://\S+/`), args...)
}

// running runs a command until stop is called, and returns what it printed of the form of said.
func running(t *testing.T, said *regexp.Regexp, args ...string) (found string, stop func() int) {
	t.Helper()
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int, 1)
	var errs bytes.Buffer
	go func() {
		done <- run(ctx, args, &lines{w: w}, &errs)
		_ = w.Close()
	}()
	var all []byte
	buf := make([]byte, 1024)
	for found == "" {
		n, err := r.Read(buf)
		all = append(all, buf[:n]...)
		found = string(said.Find(all))
		if err != nil {
			t.Fatalf("ended: %v\n%s%s", err, all, errs.String())
		}
	}
	rest := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, r); close(rest) }()
	return found, func() int {
		cancel()
		code := <-done
		<-rest
		return code
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestServeServesAndStops(t *testing.T) {
	url, stop := started(t)
	for path, want := range map[string]string{
		"":                     "Ieum",
		"sample":               "",
		"p2p":                  "",
		"guide":                "init",
		"knowledgetalk.min.js": "Knowledgetalk",
		"dev/license":          "authKey",
		"dev/stats":            "goroutines",
	} {
		if code, body := get(t, url+path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("/%s: %d, no %q", path, code, want)
		}
	}
	if code, _ := get(t, url+"nonsense"); code != 404 {
		t.Errorf("/nonsense: %d", code)
	}
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestRelayRunsAloneAndStops(t *testing.T) {
	secret := file(t, "secret", "a secret that two machines have\n")
	args := []string{
		"relay", "--listen", "127.0.0.1:0", "--stun-listen", "127.0.0.1:0", "--admin-listen", "off",
		"--relay-secret-file", secret, "--log-level", "error",
	}
	port, stop := running(
		t,
		regexp.MustCompile(
			`Relay: UDP and TCP port \d+, second STUN port UDP \d+, relayed addresses 127\.0\.0\.1`,
		),
		args...,
	)
	port, _, _ = strings.Cut(strings.TrimPrefix(port, "Relay: UDP and TCP port "), ",")
	if code, body := get(t, "http://127.0.0.1:"+port+"/sample"); code != 404 ||
		!strings.Contains(body, "STUN and TURN") {
		t.Errorf("%d %s", code, body)
	}
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestDevLicenseIsKeptWithData(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	var seen []string
	for range 2 {
		url, stop := started(t, "--data", dir)
		_, body := get(t, url+"dev/license")
		seen = append(seen, body)
		stop()
	}
	if seen[0] != seen[1] || !strings.Contains(seen[0], "authKey") {
		t.Errorf("a restart changed the license:\n%s\n%s", seen[0], seen[1])
	}
	info, err := os.Stat(filepath.Join(dir, "dev-license.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v: the key must be for its owner alone", info, err)
	}
	url, stop := started(t)
	defer stop()
	if _, body := get(t, url+"dev/license"); body == seen[0] {
		t.Error("the license of a data folder is nobody else's")
	}
}
