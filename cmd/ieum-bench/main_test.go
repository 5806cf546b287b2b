package main

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// runAs makes the test's program a process of ieum-bench with these arguments, one a line.
const runAs = "IEUM_TEST_RUN"

func TestMain(m *testing.M) {
	if args := os.Getenv(runAs); args != "" {
		os.Exit(
			run(context.Background(), strings.Split(args, "\n"), os.Stdin, os.Stdout, os.Stderr),
		)
	}
	// where a server with --dev keeps its license: not that of whoever runs the tests
	cache, err := os.MkdirTemp("", "ieum-cache")
	if err != nil {
		panic(err)
	}
	_ = os.Setenv("XDG_CACHE_HOME", cache)
	_ = os.Setenv("HOME", cache)
	goleak.VerifyTestMain(m)
}

// ieumBench runs a command and returns its exit code and what it printed.
func ieumBench(t *testing.T, args ...string) (code int, out, err string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &o, &e)
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

// launch starts a server, which the end of the test kills, and returns the first match of each
// pattern in what it prints, in that order.
func launch(t *testing.T, c *exec.Cmd, patterns ...string) (said []string) {
	t.Helper()
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	for lines := bufio.NewScanner(out); len(said) < len(patterns) && lines.Scan(); {
		if found := regexp.MustCompile(patterns[len(said)]).FindString(lines.Text()); found != "" {
			said = append(said, found)
		}
	}
	if len(said) < len(patterns) {
		t.Fatalf("the server said no more than %v", said)
	}
	return said
}

func TestHelp(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"of all":          {[]string{"--help"}, exitOK, "Usage: ieum-bench <command>"},
		"of pair":         {[]string{"pair", "--help"}, exitOK, "--latency-rate"},
		"of mix":          {[]string{"mix", "--help"}, exitOK, "--half-open"},
		"of turn":         {[]string{"turn", "--help"}, exitOK, "hairpin"},
		"no command":      {nil, exitUsage, "expected one of"},
		"unknown command": {[]string{"nonsense"}, exitUsage, "unexpected argument nonsense"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := ieumBench(t, c.args...)
			if code != c.code || !strings.Contains(out+errs, c.want) ||
				strings.Contains(out+errs, "adversary  ") {
				t.Errorf("%d %s%s", code, out, errs)
			}
		})
	}
}
