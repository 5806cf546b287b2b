package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// commandLine is one command line, parsed.
type commandLine struct {
	cli      commands
	app      *kong.Application
	parsed   *kong.Context // nil: see wrong
	settings *settings
	// Of the command line as a whole: unknown flags, arguments that are missing or too many.
	wrong  []error
	helped bool // help was asked for and printed
}

// groups are the headings of the help of serve, in its order.
var groups = []kong.Group{
	{Key: "network", Title: "Network:"},
	{Key: "tls", Title: "TLS:"},
	{Key: "relay", Title: "Relay:"},
	{Key: "licenses", Title: "Licenses:"},
	{Key: "sessions", Title: "Sessions:"},
	{Key: "limits", Title: "Limits:"},
	{Key: "cluster", Title: "Several nodes:"},
	{Key: "admin", Title: "Metrics and health:"}, {Key: "logging", Title: "Logging:"},
}

// newParser makes the grammar, with values read by settings.
func newParser(stdout, stderr io.Writer) (*commandLine, *kong.Kong, error) {
	line := &commandLine{settings: &settings{}}
	parser, err := kong.New(&line.cli,
		kong.Name("ieum"),
		kong.Description(
			"Self-hosted peer-to-peer video calling: "+
				"signaling, STUN/TURN relay and browser SDK in one program.",
		),
		defaults(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ValueFormatter(flagHelp),
		kong.ExplicitGroups(groups),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { line.helped = true }), // after help, which run checks first
	)
	if err != nil {
		return nil, nil, err
	}
	line.app = parser.Model
	line.settings.watch(parser.Model)
	return line, parser, nil
}

// parseCommandLine reads the command line, the environment and the file of --config. Its error is a
// bug of the program.
func parseCommandLine(args []string, stdout, stderr io.Writer) (line *commandLine, err error) {
	line, parser, err := newParser(stdout, stderr)
	if err != nil {
		return nil, err
	}
	if len(args) > 0 && args[0] == "help" {
		args = append(slices.Clone(args[1:]), "--help")
	}
	args = line.takeUnknown(args)
	line.parsed, err = parser.Parse(args)
	if line.helped {
		return line, nil
	}
	if err != nil {
		line.wrong = append(line.wrong, err)
	}
	// missing flags are reported together with the errors of the others
	if wrong := (*kong.ParseError)(nil); errors.As(err, &wrong) &&
		strings.HasPrefix(err.Error(), "missing flags") {
		line.parsed = wrong.Context
	}
	if line.parsed == nil {
		return line, nil
	}
	if configured(line.parsed.Selected()) {
		line.settings.resolve(line.parsed)
	}
	return line, nil
}

// takeUnknown returns the arguments without unknown flags, which it notes: the parser would end at
// the first. For a command that only has subcommands it adds --help.
func (l *commandLine) takeUnknown(args []string) (known []string) {
	command := l.app.Node
	flags := slices.Clone(command.Flags)
	complete := false
	for i := 0; i < len(args); i++ {
		arg := args[i]
		name, _, hasValue := strings.Cut(arg, "=")
		switch {
		case arg == "--":
			return append(known, args[i:]...)
		case !strings.HasPrefix(arg, "-") || arg == "-" || isNegative(arg):
			known = append(known, arg)
			if child := childOf(command, arg); child != nil {
				command, flags = child, append(flags, child.Flags...)
			} else {
				complete = true
			}
			continue
		}
		flag := flagNamed(flags, name)
		if flag == nil {
			l.wrong = append(
				l.wrong, fmt.Errorf("unknown flag %s%s", name, didYouMean(name, flagNames(flags))),
			)
			if isLeaf(command) && !hasValue && i+1 < len(args) && !isFlag(args[i+1]) {
				i++ // its value
			}
			continue
		}
		complete = complete || flag.Name == "version"
		known = append(known, arg)
		if !flag.IsBool() && !hasValue && i+1 < len(args) && !isFlag(args[i+1]) {
			i++
			known = append(known, args[i])
		}
	}
	if len(command.Children) > 0 && !complete && len(l.wrong) == 0 {
		known = append(known, "--help")
	}
	return known
}

func isFlag(arg string) bool {
	return strings.HasPrefix(arg, "-") && arg != "-" && !isNegative(arg)
}

func isLeaf(n *kong.Node) bool { return len(n.Children) == 0 && len(n.Positional) == 0 }

func childOf(n *kong.Node, name string) *kong.Node {
	for _, child := range n.Children {
		if child.Name == name {
			return child
		}
	}
	return nil
}

func flagNamed(flags []*kong.Flag, name string) *kong.Flag {
	for _, f := range flags {
		if name == "--"+f.Name || (f.Short != 0 && name == "-"+string(f.Short)) {
			return f
		}
	}
	return nil
}

func flagNames(flags []*kong.Flag) (names []string) {
	for _, f := range flags {
		names = append(names, "--"+f.Name)
	}
	return names
}

// errors lists all errors: of the command line, of values, and those that the command finds.
func (l *commandLine) errors() []error {
	if l.parsed == nil || l.parsed.Selected() == nil {
		return append(slices.Clone(l.wrong), l.settings.all(nil)...)
	}
	var found error
	if c, ok := l.parsed.Selected().Target.Addr().Interface().(checker); ok {
		found = c.check()
	}
	return append(slices.Clone(l.wrong), l.settings.all(found)...)
}

// placed is err with the place of the setting that it blames.
func (l *commandLine) placed(err error) error {
	return errors.Join((&settings{origins: l.settings.origins}).all(err)...)
}

// tell formats all errors.
func (l *commandLine) tell(errs []error) string {
	var command any
	if l.parsed != nil && l.parsed.Selected() != nil {
		command = l.parsed.Selected().Target.Addr().Interface()
	}
	head := ""
	if _, ok := command.(starter); ok {
		head = "not started: "
	}
	if len(errs) == 1 {
		return head + errs[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s%d errors", head, len(errs))
	for _, f := range errs {
		b.WriteString("\n  " + strings.ReplaceAll(f.Error(), "\n", "\n  "))
	}
	return b.String()
}

// flagHelp is the help of a flag with its default and its variable.
func flagHelp(v *kong.Value) string {
	help := strings.TrimSuffix(v.Help, ".")
	if v.Flag == nil {
		return v.Help
	}
	if v.HasDefault && !strings.Contains(help, "(default") {
		help += " (default " + v.Default + ")"
	}
	if v.Tag.Group != "" || v.Name == "config" {
		help += " ($" + variable(v.Name) + ")"
	}
	return help + "."
}
