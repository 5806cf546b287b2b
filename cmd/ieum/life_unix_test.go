//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// The log of serve and relay begins and ends with lines for the start, the signal and the stop, in
// this order.
func TestStartAndStopAreLogged(t *testing.T) {
	secret := file(t, "secret", "a secret that two machines have\n")
	quiet := []string{"--listen", "127.0.0.1:0", "--stun-listen", "off", "--admin-listen", "off"}
	for name, c := range map[string]struct {
		ready string
		args  []string
		want  string
	}{
		"serve": {
			`127.0.0.1:\d+/$`,
			append([]string{"serve", "--dev"}, quiet...),
			`(?s)level=INFO msg=started version=(?:"[^"]+"|\S+) ` +
				`listen=127\.0\.0\.1:\d+ urls=\S+\n.*` +
				`level=INFO msg=stopping cause="terminated signal received"\n.*` +
				`level=INFO msg=stopped\n$`,
		},
		"relay": {
			`TCP port \d+`,
			append([]string{"relay", "--relay-secret-file", secret}, quiet...),
			`(?s)level=INFO msg=started version=(?:"[^"]+"|\S+) port=\d+\n.*` +
				`level=INFO msg=stopping cause="terminated signal received"\n.*` +
				`level=INFO msg=stopped\n$`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			log, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			p := exec.Command(os.Args[0], "-test.run=^$")
			p.Env = append(os.Environ(), runAs+"="+strings.Join(c.args, "\n"))
			launch(t, p, log, c.ready)
			if err := p.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := p.Wait(); err != nil {
				t.Error(err)
			}
			text, err := os.ReadFile(path)
			if err != nil || !regexp.MustCompile(c.want).Match(text) {
				t.Errorf("the log is, %v,\n%s", err, text)
			}
		})
	}
}

// A process that may open few files says so before it serves.
func TestAFewOpenFilesAreWarnedOf(t *testing.T) {
	c := exec.Command("/bin/sh", "-c", `ulimit -n 300; exec "$0" -test.run=^$`, os.Args[0])
	c.Env = append(
		os.Environ(),
		runAs+"="+strings.Join(
			[]string{"config", "check", "--license-signing-key-file", file(t, "key", key)}, "\n",
		),
	)
	out, err := c.CombinedOutput()
	if want := "--max-connections: this process may have 300 open files"; err != nil ||
		!strings.Contains(string(out), want) {
		t.Errorf("%v, %q is not said in\n%s", err, want, out)
	}
}
