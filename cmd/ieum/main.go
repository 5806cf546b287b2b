// Command ieum is the whole server: signaling, STUN/TURN relay, browser SDK and sample pages. See
// `ieum --help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
)

// commands is the command line. The flags of serve, relay and config can also stand in the
// environment as IEUM_… and in the file of --config.
type commands struct {
	Serve      serveCmd      `cmd:"" help:"Run the server."`
	Relay      relayCmd      `cmd:"" help:"Run a standalone relay, for servers on other machines."`
	Config     configCmd     `cmd:"" help:"Check, show or generate a configuration."`
	License    licenseCmd    `cmd:"" help:"Create, revoke and inspect licenses."`
	Completion completionCmd `cmd:"" help:"Print a shell completion script."`
	Help       helpCmd       `cmd:"" help:"Show help for a command."`
	Version    versionCmd    `cmd:"" help:"Print the version."`

	ShowVersion bool `name:"version" help:"Print the version."`
}

type (
	versionCmd struct{}
	// helpCmd stands in the list of commands; run turns it into --help.
	helpCmd struct {
		Command []string `arg:"" optional:"" help:"The command."`
	}
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // something went wrong while running
	exitUsage  = 2 // the command line or the configuration is wrong; nothing was started
)

// console is where a command writes, and what it has to know of the command line.
type console struct {
	ctx      context.Context
	out, err io.Writer
	settings *settings
	line     *commandLine
}

// errUsage is part of errors of the command line: exit code 2.
var errUsage = errors.New("usage")

// checker is a command that validates its flags before it runs. Its errors are reported together
// with those of the values.
type checker interface{ check() error }

// starter is a command that starts a server, which the report of its errors says.
type starter interface{ starts() }

// run is main with everything handed in, so that tests can call it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == completeCommand {
		return complete(args[1:], stdout)
	}
	line, err := parseCommandLine(args, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "ieum:", err)
		return exitFailed
	}
	if line.helped {
		return exitOK
	}
	if line.cli.ShowVersion {
		fmt.Fprintln(stdout, "ieum", version())
		return exitOK
	}
	if errs := line.errors(); len(errs) > 0 {
		fmt.Fprintln(stderr, "ieum:", line.tell(errs))
		return exitUsage
	}
	err = line.parsed.Run(&console{ctx, stdout, stderr, line.settings, line})
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprintln(stderr, "ieum:", strings.TrimPrefix(err.Error(), errUsage.Error()+": "))
		return exitUsage
	default:
		fmt.Fprintln(stderr, "ieum:", line.placed(err))
		return exitFailed
	}
}

// Run prints version and Go version.
func (versionCmd) Run(c *console) error {
	fmt.Fprintln(c.out, "ieum", version())
	return nil
}

// Run is not reached: see run.
func (helpCmd) Run(*console) error { return nil }

// buildVersion is set by the linker: see the Makefile.
var buildVersion string

// version is the one the linker has set, or else the module's, or the revision it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := buildVersion
	if v == "" {
		v = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = s.Value[:min(12, len(s.Value))]
		}
	}
	return v + " " + info.GoVersion
}
