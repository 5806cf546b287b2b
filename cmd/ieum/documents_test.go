package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	redirect   = regexp.MustCompile(`\s>>?\s.*$`)
	comment    = regexp.MustCompile(`\s+# .*$`)
	printedKey = regexp.MustCompile(`(?m)^authKey:? +(\S+)$`)
)

// commandsOf returns the arguments of each `ieum …` in the shell blocks of a document.
func commandsOf(t *testing.T, name string) (all [][]string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", " ")) {
			line = redirect.ReplaceAllString(
				comment.ReplaceAllString(strings.TrimSpace(line), ""), "",
			)
			args := strings.Fields(strings.ReplaceAll(line, "'", ""))
			if len(args) > 1 && (args[0] == "ieum" || args[0] == "./bin/ieum") {
				all = append(all, args[1:])
			}
		}
	}
	return all
}

// Every `ieum` command of the documents works as it stands there, one after the other in an empty
// folder. Servers are not started: `config check` takes their flags.
func TestDocumentedCommandsWork(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	const first = "docs/operating/install.md"
	documents := []string{
		first, "docs/operating/secure.md", "docs/performance.md", "README.md", "README.ko.md",
	}
	makesKey := func(args []string) bool {
		return len(args) == 3 && args[0] == "license" && strings.HasPrefix(args[1], "key")
	}
	basics := commandsOf(t, filepath.Join(root, first))
	key := slices.IndexFunc(basics, makesKey)
	serve := slices.IndexFunc(basics, func(args []string) bool { return args[0] == "serve" })
	if key < 0 || serve < 0 {
		t.Fatalf("%s has no commands to make a key and to serve: %v", first, basics)
	}
	ran := 0
	for _, name := range documents {
		t.Run(name, func(t *testing.T) {
			cert, certKey := certified(
				t, time.Now().Add(-time.Hour), time.Now().Add(90*24*time.Hour),
			)
			dir := t.TempDir()
			t.Chdir(dir)
			for from, to := range map[string]string{cert: "cert.pem", certKey: "key.pem"} {
				if err := os.Symlink(from, to); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(
				"relay.secret", []byte("0123456789abcdef0123456789abcdef"), 0o600,
			); err != nil {
				t.Fatal(err)
			}
			commands := commandsOf(t, filepath.Join(root, name))
			if !slices.ContainsFunc(commands, makesKey) {
				commands = slices.Insert(commands, 0, basics[key])
			}
			authKey := ""
			for _, documented := range commands {
				args := slices.Clone(documented)
				if i := slices.Index(args, "…"); i >= 0 {
					args = slices.Replace(args, i, i+1, basics[serve][1:]...)
				}
				for i := range args {
					if args[i] == "eyJ…" {
						args[i] = authKey
					}
				}
				switch args[0] {
				case "serve":
					args = slices.Insert(args[1:], 0, "config", "check")
				case "relay":
					args = slices.Insert(args[1:], 0, "config", "check", "--dev")
				}
				code, out, errs := ieum(t, args...)
				if code != exitOK {
					t.Errorf(
						"ieum %s: exit code %d of ieum %s: %s",
						strings.Join(documented, " "), code, strings.Join(args, " "), errs,
					)
				}
				if m := printedKey.FindStringSubmatch(out); m != nil {
					authKey = m[1]
				}
				ran++
			}
		})
	}
	if ran < 15 {
		t.Errorf("only %d commands were understood", ran)
	}
}
