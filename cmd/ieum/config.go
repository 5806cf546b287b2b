package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

type configCmd struct {
	Check   checkCmd   `cmd:"" help:"Check a configuration without starting anything."`
	Show    showCmd    `cmd:"" help:"Print the effective configuration, with the source of each value."`
	Example exampleCmd `cmd:"" help:"Print a commented configuration file, for --config."`
}

type (
	checkCmd   struct{ serverFlags }
	showCmd    struct{ serverFlags }
	exampleCmd struct{}
)

func (f *checkCmd) check() error { return f.config(io.Discard).Validate() }

// Run is reached when check has found nothing wrong.
func (f *checkCmd) Run(c *console) error {
	found := c.settings.texts(f.config(io.Discard).Warnings())
	for _, w := range append(c.settings.warnings, found...) {
		fmt.Fprintln(c.err, "warning:", w)
	}
	fmt.Fprintln(c.out, "configuration OK")
	return nil
}

// Run prints what stands in the configuration as a file that could be the configuration.
func (f *showCmd) Run(c *console) error {
	for _, w := range c.settings.warnings {
		fmt.Fprintln(c.err, "warning:", w)
	}
	for _, g := range byGroup(c.line.parsed.Selected()) {
		fmt.Fprintf(c.out, "# %s\n", strings.TrimSuffix(g.title, ":"))
		for _, flag := range g.flags {
			from, set := c.settings.origins[flag.Name]
			if !set {
				fmt.Fprintf(c.out, "# %s: %s  # default\n", flag.Name, defaultOf(flag))
				continue
			}
			text, err := yamlOf(flag)
			if err != nil {
				return err
			}
			fmt.Fprintf(
				c.out, "%s: %s  # from %s\n", flag.Name, text,
				strings.TrimSuffix(from, ": "+flag.Name),
			)
		}
		fmt.Fprintln(c.out)
	}
	for _, name := range secretVariables {
		if os.Getenv(name) != "" {
			fmt.Fprintf(c.out, "# %s is set in the environment; its value is not shown\n", name)
		}
	}
	return nil
}

// yamlOf is the value of a flag as YAML, on one line.
func yamlOf(flag *kong.Flag) (string, error) {
	value := flag.Target.Interface()
	if s, ok := value.(fmt.Stringer); ok { // a time
		value = s.String()
	}
	var n yaml.Node
	if err := n.Encode(value); err != nil {
		return "", err
	}
	n.Style = yaml.FlowStyle
	text, err := yaml.Marshal(&n)
	return strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", " "), err
}

// Run prints every setting of serve with its help, its default and its variable. All but the
// license signing key are commented out.
func (exampleCmd) Run(c *console) error {
	fmt.Fprint(c.out, exampleHead)
	for _, g := range byGroup(childOf(c.line.app.Node, "serve")) {
		fmt.Fprintf(c.out, "\n## %s\n", strings.TrimSuffix(g.title, ":"))
		for _, flag := range g.flags {
			fmt.Fprintf(c.out, "\n# %s\n", flagHelp(flag.Value))
			if flag.Name == "license-signing-key-file" {
				fmt.Fprintf(c.out, "%s: %s\n", flag.Name, exampleOf(flag))
				continue
			}
			fmt.Fprintf(c.out, "#%s: %s\n", flag.Name, exampleOf(flag))
		}
	}
	return nil
}

const exampleHead = `# Configuration of ieum serve, for: ieum serve --config FILE
# Keys are the names of flags. Flags win over the environment, the environment over this file.
# Relative paths are relative to the directory of this file.
# Check it with: ieum config check --config FILE
`

// exampleOf is a value that somebody might give a flag: its default, if there is one to write.
func exampleOf(flag *kong.Flag) string {
	if text, literal := literalDefault(flag); literal {
		if flag.Target.Kind().String() == "string" {
			return fmt.Sprintf("%q", text)
		}
		return text
	}
	if text, ok := examples[flag.Name]; ok {
		return text
	}
	switch flag.PlaceHolder {
	case "FILE", "FOLDER":
		return strings.TrimSuffix(flag.Name, "-file")
	case "HOST:PORT":
		return `":3478"`
	case "CIDR":
		return "[10.0.0.0/8]"
	case "N":
		return "100"
	case "TIME":
		return "30s"
	}
	if flag.IsBool() {
		return "true"
	}
	return "x"
}

// examples are for flags whose default is nothing that could be written.
var examples = map[string]string{
	"public-host":              "calls.example",
	"tls-cert":                 "cert.pem",
	"tls-key":                  "key.pem",
	"license-signing-key-file": "license-signing.key",
	"licenses":                 "licenses.yaml",
	"revocation-list":          "revoked.txt",
	"admin-token-file":         "admin.token",
	"relay-secret-file":        "relay.secret",
	"relay-external":           "['turn:relay.example?transport=udp']",
	"relay-ip":                 "[203.0.113.7/10.0.0.7]",
	"relay-workers":            "2",
	"max-queued-bytes":         "268435456",
	"node":                     "node-1",
	"cluster-listen":           "10.0.0.1:7104",
	"cluster-peer":             "['nodes.example:7104']",
	"cluster-expect":           "3",
	"cluster-nats":             "['nats://user:password@nats.example:4222']",
}

// flagGroup is a heading with its flags.
type flagGroup struct {
	title string
	flags []*kong.Flag
}

// byGroup lists the settings of a command under their headings.
func byGroup(command *kong.Node) (all []flagGroup) {
	for _, g := range groups {
		list := flagGroup{title: g.Title}
		for _, f := range command.Flags {
			if f.Group != nil && f.Group.Key == g.Key {
				list.flags = append(list.flags, f)
			}
		}
		if len(list.flags) > 0 {
			all = append(all, list)
		}
	}
	return all
}

// In help, "(default 20s)" is a value and "(default: found)" says what happens without one.
var inHelp = regexp.MustCompile(`\(default(:?) ([^;)]+)`)

// defaultOf is what holds where nothing is set, a value or words; empty: the help does not say.
func defaultOf(flag *kong.Flag) string {
	if flag.HasDefault {
		return flag.Default
	}
	if m := inHelp.FindStringSubmatch(flag.Help); m != nil {
		return m[2]
	}
	return ""
}

// literalDefault is the default, if it is a value.
func literalDefault(flag *kong.Flag) (text string, literal bool) {
	if flag.HasDefault {
		return flag.Default, true
	}
	m := inHelp.FindStringSubmatch(flag.Help)
	if m == nil || m[1] == ":" {
		return "", false
	}
	text, _, _ = strings.Cut(m[2], ",")
	return strings.Fields(text)[0], true
}
