package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// commandsWithSettings are those that take variables and a file.
var commandsWithSettings = map[string][]string{
	"serve":        {"serve"},
	"relay":        {"relay"},
	"config check": {"config", "check"},
	"config show":  {"config", "show"},
}

// underRace is true with the race detector.
var underRace bool

// grammar is the command line as Kong knows it.
func grammar(t *testing.T) *kong.Application {
	t.Helper()
	line, _, err := newParser(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return line.app
}

func nodeAt(t *testing.T, path ...string) *kong.Node {
	t.Helper()
	n := grammar(t).Node
	for _, name := range path {
		if n = childOf(n, name); n == nil {
			t.Fatalf("there is no command %v", path)
		}
	}
	return n
}

// wrongValue is a value that each flag of its kind must refuse. A new kind of text needs a row
// here.
func wrongValue(t *testing.T, f *kong.Flag) string {
	t.Helper()
	if !f.IsSlice() && f.Target.Kind().String() != "string" {
		return "perhaps"
	}
	if f.Enum != "" {
		return "loud"
	}
	wrong := map[string]string{
		"FILE":      "/nonexistent/file",
		"FOLDER":    "/dev/null/folder",
		"HOST:PORT": "x",
		"HOST":      "x:1",
		"IP[/IP]":   "300.1.1.1",
		"CIDR":      "10.0.0.0/99",
		"URL":       "ftp:x", "FROM-TO": "9", "NAME": "two words",
	}[f.PlaceHolder]
	if wrong == "" {
		t.Fatalf("--%s: no value is known that it refuses: add one for %q", f.Name, f.PlaceHolder)
	}
	return wrong
}

// partner is what a flag needs beside it, so that its own value is all that is wrong.
func partner(t *testing.T, command string, f *kong.Flag) (args []string) {
	t.Helper()
	dir := t.TempDir()
	secret := file(t, "secret", "a secret that two machines have\n")
	if command != "relay" && f.Name != "license-signing-key-file" {
		args = append(args, "--license-signing-key-file", file(t, "keys", key))
	}
	if (command == "relay" || f.Name == "relay-external") && f.Name != "relay-secret-file" {
		args = append(args, "--relay-secret-file", secret)
	}
	cert, private := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	pair(t, cert, private)
	switch f.Name {
	case "tls-cert":
		args = append(args, "--tls-key", private)
	case "tls-key":
		args = append(args, "--tls-cert", cert)
	}
	return args
}

// errorsIn returns the errors that were reported, without the heading.
func errorsIn(text string) []string {
	text = strings.TrimPrefix(strings.TrimSpace(text), "ieum: ")
	text = strings.TrimPrefix(text, "not started: ")
	lines := strings.Split(text, "\n")
	if len(lines) > 1 {
		lines = lines[1:]
	}
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines
}

// Every setting, given a wrong value on the command line, in the environment, in YAML and in JSON,
// is told once, with its place. With the race detector, which has little to find here and takes ten
// times as long, every fifth; make race runs all without it.
func TestEveryWrongValueIsToldWithItsPlace(t *testing.T) {
	checks, flags := 0, 0
	for command, args := range commandsWithSettings {
		for _, f := range nodeAt(t, args...).Flags {
			if command == "config show" && (f.Target.Kind().String() == "string" || f.IsSlice()) &&
				f.Enum == "" {
				continue // it shows what stands there, and does not judge it
			}
			if flags++; underRace && flags%20 != 0 {
				continue
			}
			wrong, rest := wrongValue(t, f), partner(t, command, f)
			told := func(where string, more ...string) {
				t.Helper()
				checks++
				code, out, errs := ieum(t, slices.Concat(args, rest, more)...)
				reported := errorsIn(errs)
				if code != exitUsage || len(reported) != 1 ||
					!strings.HasPrefix(reported[0], where+": ") {
					t.Errorf(
						"%s --%s, wrong at %s: exit code %d, told %q %s",
						command, f.Name, where, code, reported, out,
					)
				}
			}
			told("--"+f.Name, "--"+f.Name+"="+wrong)
			t.Setenv(variable(f.Name), wrong)
			told(variable(f.Name))
			if err := os.Unsetenv(variable(f.Name)); err != nil {
				t.Fatal(err)
			}
			if f.Name == "config" {
				continue
			}
			yaml := file(t, "c.yaml", fmt.Sprintf("# a comment\n\n%s: %q\n", f.Name, wrong))
			told(yaml+":3: "+f.Name, "--config", yaml)
			text, err := json.MarshalIndent(map[string]string{f.Name: wrong}, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			as := file(t, "c.json", string(text))
			told(as+":2: "+f.Name, "--config", as)
			// Nor does a list of two hide it.
			if list, ok := strings.CutSuffix(string(text), "\"\n}"); ok {
				at := strings.LastIndex(list, "\"")
				as = file(t, "d.json", list[:at]+`[`+list[at:]+"\",\n\t\""+wrong+"\"]\n}")
				code, _, errs := ieum(t, slices.Concat(args, rest, []string{"--config", as})...)
				if code != exitUsage || !strings.Contains(errs, as+":2: "+f.Name+": ") {
					t.Errorf("%s --%s, a list: %d %s", command, f.Name, code, errs)
				}
			}
		}
	}
	if least := 400; checks < least && !(underRace && checks >= least/20) {
		t.Errorf("%d checks only", checks)
	}
}

// All at once, wherever each comes from: none hides another, and none is told twice.
func TestAllWrongValuesAreToldTogether(t *testing.T) {
	for command, args := range commandsWithSettings {
		if command == "config show" {
			continue
		}
		line := slices.Clone(args)
		want := map[string]bool{}
		var yaml strings.Builder
		yaml.WriteString("nonsense: 1\n")
		path := filepath.Join(t.TempDir(), "c.yaml")
		want[path+":1: nonsense: "] = true
		number := 1
		for i, f := range nodeAt(t, args...).Flags {
			if f.Name == "config" {
				continue
			}
			wrong := wrongValue(t, f)
			switch i % 3 {
			case 0:
				line = append(line, "--"+f.Name+"="+wrong)
				want["--"+f.Name+": "] = true
			case 1:
				t.Setenv(variable(f.Name), wrong)
				want[variable(f.Name)+": "] = true
			case 2:
				number++
				fmt.Fprintf(&yaml, "%s: %q\n", f.Name, wrong)
				want[fmt.Sprintf("%s:%d: %s: ", path, number, f.Name)] = true
			}
		}
		rewrite(t, path, yaml.String())
		t.Setenv("IEUM_LISTN", ":1")
		want["IEUM_LISTN: "] = true
		line = append(line, "--nonsense", "5", "--config", path)
		want["unknown flag --nonsense"] = true
		_, _, errs := ieum(t, line...)
		for _, text := range errorsIn(errs) {
			found := ""
			for w := range want {
				if strings.HasPrefix(text, w) {
					found = w
				}
			}
			if found == "" {
				t.Errorf("%s: %q is told, once too often or out of nothing", command, text)
			}
			delete(want, found)
		}
		for w := range want {
			t.Errorf("%s: %q is not told in:\n%s", command, w, errs)
		}
		for _, f := range nodeAt(t, args...).Flags {
			_ = os.Unsetenv(variable(f.Name))
		}
		_ = os.Unsetenv("IEUM_LISTN")
	}
}

func TestFlagsWinOverTheEnvironmentAndThatOverTheFile(t *testing.T) {
	show := func(args ...string) string {
		t.Helper()
		code, out, errs := ieum(t, append([]string{"config", "show"}, args...)...)
		if code != exitOK {
			t.Fatal(code, errs)
		}
		return out
	}
	yaml := file(t, "c.yaml", "max-joins: 7\nrelay-ip: [192.0.2.1]\n")
	if out := show(); !strings.Contains(out, "# max-joins: 20  # default\n") {
		t.Errorf("the default:\n%s", out)
	}
	if out := show("--config", yaml); !strings.Contains(out, "max-joins: 7  # from "+yaml+":1\n") ||
		!strings.Contains(out, "relay-ip: [192.0.2.1]  # from "+yaml+":2\n") {
		t.Errorf("the file:\n%s", out)
	}
	t.Setenv("IEUM_CONFIG", yaml)
	if out := show(); !strings.Contains(out, "max-joins: 7  # from "+yaml+":1\n") {
		t.Errorf("IEUM_CONFIG:\n%s", out)
	}
	t.Setenv("IEUM_MAX_JOINS", "8")
	if out := show(); !strings.Contains(out, "max-joins: 8  # from IEUM_MAX_JOINS\n") {
		t.Errorf("the environment:\n%s", out)
	}
	if out := show("--max-joins", "9"); !strings.Contains(
		out, "max-joins: 9  # from --max-joins\n",
	) {
		t.Errorf("the flag:\n%s", out)
	}
	t.Setenv("IEUM_MAX_JOINS", "")
	if out := show(); !strings.Contains(out, "max-joins: 7  # from "+yaml) {
		t.Errorf("an empty variable is one that is not set:\n%s", out)
	}
}

// A value that another place overrides must be good all the same: one day it will be in force.
func TestAnOverriddenValueIsChecked(t *testing.T) {
	yaml := file(t, "c.yaml", "max-joins: many\n")
	t.Setenv("IEUM_MAX_JOINS", "few")
	_, _, errs := ieum(
		t, "config", "check", "--license-signing-key-file", file(t, "keys", key), "--config", yaml,
		"--max-joins", "5",
	)
	if got := errorsIn(errs); len(got) != 2 || !strings.Contains(errs, yaml+":1: ") ||
		!strings.Contains(errs, "IEUM_MAX_JOINS: ") {
		t.Errorf("%q", got)
	}
}

// A key that another command has is as unknown as any.
func TestKeysOfOtherCommandsAreUnknown(t *testing.T) {
	app := grammar(t)
	for command, args := range commandsWithSettings {
		own := map[string]bool{}
		for _, f := range nodeAt(t, args...).Flags {
			own[f.Name] = true
		}
		others := map[string]bool{"config": true, "help": true, "version": true}
		_ = kong.Visit(app, func(n kong.Visitable, next kong.Next) error {
			if f, ok := n.(*kong.Flag); ok && !own[f.Name] {
				others[f.Name] = true
			}
			return next(nil)
		})
		var text strings.Builder
		names := slices.Sorted(maps.Keys(others))
		for _, name := range names {
			fmt.Fprintf(&text, "%s: 1\n", name)
		}
		path := file(t, "c.yaml", text.String())
		code, _, errs := ieum(t, append(args, "--config", path)...)
		if code != exitUsage || len(names) < 15 {
			t.Fatalf("%s: exit code %d, %d keys\n%s", command, code, len(names), errs)
		}
		for i, name := range names {
			if want := fmt.Sprintf(
				"%s:%d: %s: unknown key of `ieum %s`",
				path, i+1, name, command,
			); !strings.Contains(errs, want) {
				t.Errorf("%q is not told:\n%s", want, errs)
			}
		}
	}
}

func TestUnknownVariables(t *testing.T) {
	keys := file(t, "keys", key)
	t.Setenv("IEUM_SERVICE_HOST", "10.0.0.1")
	t.Setenv("IEUM_PORT_7102_TCP_ADDR", "10.0.0.1")
	code, _, errs := ieum(t, "config", "check", "--license-signing-key-file", keys)
	if code != exitOK || strings.Count(errs, "unknown variable, ignored") != 2 {
		t.Errorf("what is somebody else's is told, and no error: %d %s", code, errs)
	}
	of := 2
	for _, service := range []string{"RELAY", "ADMIN", "DATA", "PUBLIC", "STUN", "TLS", "MAX"} {
		for _, v := range []string{
			"SERVICE_HOST=10.0.0.1", "SERVICE_PORT=80", "SERVICE_PORT_METRICS=80",
			"PORT=tcp://10.0.0.1:80",
			"PORT_80_TCP=tcp://10.0.0.1:80", "PORT_80_TCP_PROTO=tcp", "PORT_80_TCP_PORT=80",
			"PORT_80_TCP_ADDR=10.0.0.1",
			"PORT_3478_UDP=udp://10.0.0.1:3478",
		} {
			name, text, _ := strings.Cut("IEUM_"+service+"_"+v, "=")
			t.Setenv(name, text)
			of++
		}
	}
	code, _, errs = ieum(t, "config", "check", "--license-signing-key-file", keys)
	if code != exitOK || strings.Count(errs, "unknown variable, ignored") != of {
		t.Errorf("services named ieum-relay and the like: %d %s", code, errs)
	}
	for _, name := range []string{
		"IEUM_RELAY_PORT", "IEUM_LISTN", "IEUM_LICENSE_SIGNING_KEYFILE", "IEUM_MAX_CONECTIONS",
		"IEUM_RELAY_SECRETS",
	} {
		t.Setenv(name, "1")
		code, _, errs := ieum(t, "config", "check", "--license-signing-key-file", keys)
		want := name + ": unknown variable; did you mean IEUM_"
		if code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%s: %d %s", name, code, errs)
		}
		_ = os.Unsetenv(name)
	}
}

// Variables stand for flags of serve, relay and config, and for no others.
func TestTheEnvironmentIsLeftAloneByOtherCommands(t *testing.T) {
	keys := file(t, "keys", key)
	for _, name := range []string{
		"NAME", "MAX_USER", "END", "JSON", "RELAY", "ORIGIN", "COMPANY_CODE", "CP_CODE", "START",
	} {
		t.Setenv("IEUM_"+name, "nonsense")
	}
	code, out, errs := ieum(
		t, "license", "issue", "--cp-code", "KP-1", "--license-signing-key-file", keys,
	)
	if code != exitOK || strings.Contains(out, "nonsense") {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

// A relative path in the file is relative to the file, wherever the program is started; on the
// command line it is not.
func TestPathsInTheFileAreRelativeToIt(t *testing.T) {
	dir := t.TempDir()
	rewrite(t, filepath.Join(dir, "license-signing.key"), key)
	for _, f := range nodeAt(t, "serve").Flags {
		if !isPath(f) || f.Name == "config" {
			continue
		}
		yaml := filepath.Join(dir, "c.yaml")
		rewrite(t, yaml, f.Name+": sub/x\n")
		_, out, _ := ieum(t, "config", "show", "--config", yaml)
		if want := fmt.Sprintf(
			"%s: %s  #",
			f.Name, filepath.Join(dir, "sub/x"),
		); !strings.Contains(out, want) {
			t.Errorf("%q is not shown:\n%s", want, out)
		}
		_, out, _ = ieum(t, "config", "show", "--config", yaml, "--"+f.Name, "y")
		if want := f.Name + `: "y"  #`; !strings.Contains(out, want) &&
			!strings.Contains(out, f.Name+": y  #") {
			t.Errorf("%q is not shown:\n%s", want, out)
		}
	}
	rewrite(t, filepath.Join(dir, "c.yaml"), "license-signing-key-file: license-signing.key\n")
	if code, _, errs := ieum(
		t, "config", "check", "--config", filepath.Join(dir, "c.yaml"),
	); code != exitOK {
		t.Errorf("%d %s", code, errs)
	}
}

func TestFilesThatAreNoConfiguration(t *testing.T) {
	keys := file(t, "keys", key)
	for name, c := range map[string]struct{ text, want string }{
		"a list": {"- listen: x\n", "c:1: this is not a list of keys"},
		"two documents": {
			"listen: ':1'\n---\nlisten: ':2'\n", "c: there is more than one document",
		},
		"a key twice": {
			"max-joins: 1\nmax-joins: 2\n", "c:2: max-joins: stands in line 1 already",
		},
		"a key with nothing": {"max-joins:\n", "c:1: max-joins: a value is missing"},
		"a mapping":          {"listen: {port: 1}\n", "c:1: listen: this is a mapping"},
		"a list of lists": {
			"relay-ip: [[192.0.2.1]]\n", "c:1: relay-ip: line 1: this is not a value",
		},
		"an empty list": {"trusted-proxy: []\n", "c:1: trusted-proxy: the list is empty"},
		"two values for one": {
			"listen: [':1', ':2']\n", "c:1: listen: has 2 values; it takes one",
		},
		"something else": {"\x00\x01", "c: "},
		"more than there are": {
			"#" + strings.Repeat(" ", maxConfigFile), "more than 1048576 bytes",
		},
	} {
		path := file(t, "c", c.text)
		code, _, errs := ieum(
			t, "config", "check", "--license-signing-key-file", keys, "--config", path,
		)
		if code != exitUsage || len(errorsIn(errs)) != 1 || !strings.Contains(errs, c.want) {
			t.Errorf("%s: %d %s", name, code, errs)
		}
	}
}

// The example is a configuration, and each line of it that is commented out could stand there.
func TestTheExampleIsAConfiguration(t *testing.T) {
	code, text, errs := ieum(t, "config", "example")
	if code != exitOK {
		t.Fatal(code, errs)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "ieum.yaml")
	rewrite(t, path, text)
	rewrite(t, filepath.Join(dir, "license-signing.key"), key)
	if code, _, errs := ieum(t, "config", "check", "--config", path); code != exitOK {
		t.Errorf("%d %s", code, errs)
	}
	for _, f := range nodeAt(t, "serve").Flags {
		if f.Name == "config" || f.Name == "license-signing-key-file" {
			continue
		}
		commented := "\n#" + f.Name + ": "
		if !strings.Contains(text, commented) {
			t.Errorf("%s is not in the example", f.Name)
			continue
		}
		rewrite(t, path, strings.Replace(text, commented, "\n"+f.Name+": ", 1))
		code, _, errs := ieum(t, "config", "check", "--config", path)
		// Which need something else beside them.
		allowed := isPath(f) || f.Name == "relay-external" || f.Name == "relay-ip" ||
			strings.HasPrefix(f.Name, "cluster-")
		if code != exitOK && !(allowed && !strings.Contains(errs, "unknown key")) {
			t.Errorf("%s: %d %s", f.Name, code, errs)
		}
	}
}

// What is shown is a configuration with the same effect, and no secret is in it.
func TestWhatIsShownIsAConfiguration(t *testing.T) {
	dir := t.TempDir()
	const secret = "a secret of relays, in the environment"
	t.Setenv("IEUM_LICENSE_SIGNING_KEY", key)
	t.Setenv("IEUM_RELAY_SECRET", secret)
	args := []string{
		"config", "show", "--listen", ":443", "--relay-ip", "203.0.113.7/10.0.0.7", "--max-joins",
		"-1", "--resume-window", "1m30s", "--dev", "--data", dir,
	}
	code, first, errs := ieum(t, args...)
	if code != exitOK || strings.Contains(first, key) || strings.Contains(first, secret) ||
		!strings.Contains(first, "IEUM_LICENSE_SIGNING_KEY is set") {
		t.Fatalf("%d %s%s", code, first, errs)
	}
	path := file(t, "shown.yaml", first)
	_, second, errs := ieum(t, "config", "show", "--config", path)
	values := func(text string) (all []string) {
		for line := range strings.Lines(text) {
			if value, _, ok := strings.Cut(line, "  # "); ok {
				all = append(all, value)
			}
		}
		return all
	}
	if !slices.Equal(values(first), values(second)) {
		t.Errorf("shown:\n%s\nand of that:\n%s%s", first, second, errs)
	}
}

// Whoever reads the documents finds every setting with its variable and its default, and nothing
// that there is not.
func TestEverySettingIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/operating/configure.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{} // by flag: the cells after it
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		if flag, ok := strings.CutPrefix(cells[0], "| `--"); ok && len(cells) >= 3 {
			documented[strings.TrimSuffix(flag, "`")] = strings.Join(cells[1:3], " | ")
		}
	}
	known := map[string]bool{}
	for _, args := range commandsWithSettings {
		for _, f := range nodeAt(t, args...).Flags {
			known[f.Name] = true
			row, ok := documented[f.Name]
			if !ok {
				t.Errorf("--%s has no row in docs/operating/configure.md", f.Name)
				continue
			}
			if !strings.Contains(row, "`"+variable(f.Name)+"`") {
				t.Errorf("--%s: %s is not in its row: %s", f.Name, variable(f.Name), row)
			}
			if value, literal := literalDefault(f); literal && !strings.Contains(row, value) {
				t.Errorf("--%s: its default %s is not in its row: %s", f.Name, value, row)
			}
		}
	}
	for name := range documented {
		if !known[name] {
			t.Errorf("docs/operating/configure.md has --%s, which is no setting", name)
		}
	}
}

// Help says what holds where nothing is said.
func TestHelpSaysEveryDefault(t *testing.T) {
	_ = kong.Visit(grammar(t), func(n kong.Visitable, next kong.Next) error {
		f, ok := n.(*kong.Flag)
		if ok && f.Name != "help" && !f.Required && !f.IsBool() && defaultOf(f) == "" {
			optional := []string{
				"license-signing-key-file", "name", "user", "password-file", "relay-secret-file",
				"pace", "rate", "admin", "dev-license", "pid", "server",
			}
			if !slices.Contains(optional, f.Name) {
				t.Errorf("--%s has no default in its help: %s", f.Name, f.Help)
			}
		}
		return next(nil)
	})
}
