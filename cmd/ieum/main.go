// Command ieum is the whole server: signaling, STUN/TURN relay, browser SDK and sample pages. See `ieum --help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands is the command line. Every flag of serve can also stand in the environment as IEUM_… and in the file of --config.
type commands struct {
	Serve   serveCmd   `cmd:"" help:"Run the server."`
	Relay   relayCmd   `cmd:"" help:"Run the relay alone, for servers on other machines."`
	Config  configCmd  `cmd:"" help:"Look at a configuration."`
	License licenseCmd `cmd:"" help:"Make and read licenses."`
	Bench   benchCmd   `cmd:"" help:"Make load on a server and measure what it costs."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

type versionCmd struct{}

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

// console is where a command writes.
type console struct {
	ctx      context.Context
	out, err io.Writer
}

// errUsage marks faults of the command line or the configuration.
var errUsage = errors.New("not started")

// run is main with everything handed in, so that tests can call it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var cli commands
	exit := -1
	parser, err := kong.New(&cli,
		kong.Name("ieum"),
		kong.Description("Self-hosted peer-to-peer video calling: signaling, STUN/TURN relay and browser SDK in one program."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.DefaultEnvars("IEUM"),
		kong.Configuration(loadConfig),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exit = code; panic(errUsage) }),
	)
	if err != nil {
		fmt.Fprintln(stderr, "ieum:", err)
		return exitFailed
	}
	defer func() {
		// --help ends the parser by way of Exit; everything else that panics is a fault
		if r := recover(); r != nil && r != errUsage {
			panic(r)
		}
	}()
	parsed, err := parse(parser, args, &exit)
	if exit >= 0 {
		return exit
	}
	if err == nil {
		err = parsed.Run(&console{ctx, stdout, stderr})
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage), parsed == nil:
		fmt.Fprintln(stderr, "ieum:", err)
		return exitUsage
	default:
		fmt.Fprintln(stderr, "ieum:", err)
		return exitFailed
	}
}

// parse is parser.Parse, ending quietly when --help has been printed.
func parse(parser *kong.Kong, args []string, exit *int) (parsed *kong.Context, err error) {
	defer func() {
		if r := recover(); r != nil && r != errUsage {
			panic(r)
		}
	}()
	return parser.Parse(args)
}

// Run prints version, revision and Go version.
func (versionCmd) Run(c *console) error {
	fmt.Fprintln(c.out, "ieum", version())
	return nil
}

// version is the module's version, or the revision it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = s.Value[:min(12, len(s.Value))]
		}
	}
	return v + " " + info.GoVersion
}
