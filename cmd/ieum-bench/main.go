// Command ieum-bench loads a signaling server or a TURN server and reports what the load cost it.
// See `ieum-bench --help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands is the command line. Each command prints one line of JSON.
type commands struct {
	Pair      pairCmd      `cmd:"" help:"Load a signaling server with pairs of users that exchange messages as fast as they arrive."`
	Mix       mixCmd       `cmd:"" help:"Load a signaling server at a fixed rate with users that join, leave, call, chat and reconnect."`
	Turn      turnCmd      `cmd:"" help:"Load a TURN server with packets or idle allocations."`
	Adversary adversaryCmd `cmd:"" hidden:"" help:"Internal: the process that mix --adversaries starts."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes, those of ieum.
const (
	exitOK     = 0
	exitFailed = 1 // the load could not be made, or the server did not stand it
	exitUsage  = 2 // the command line is wrong; no load was made
)

// console is where a command reads and writes.
type console struct {
	ctx context.Context
	in  io.Reader
	out io.Writer
}

// errUsage is part of errors in the command line: exit code 2.
var errUsage = errors.New("usage")

// run is main with everything handed in, so that tests can call it.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	helped := false
	parser, err := kong.New(
		&commands{},
		kong.Name("ieum-bench"),
		kong.Description(
			"Load-test a signaling server or a TURN server. Each command prints one line of JSON.",
		),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }), // only --help asks for it
	)
	if err != nil {
		fmt.Fprintln(stderr, "ieum-bench:", err)
		return exitFailed
	}
	parsed, err := parser.Parse(args)
	switch {
	case helped:
		return exitOK
	case err != nil:
		err = fmt.Errorf("%w: %w", errUsage, err)
	default:
		err = parsed.Run(&console{ctx, stdin, stdout})
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprintln(stderr, "ieum-bench:", strings.TrimPrefix(err.Error(), errUsage.Error()+": "))
		return exitUsage
	default:
		fmt.Fprintln(stderr, "ieum-bench:", err)
		return exitFailed
	}
}

// addThread lets Go run one thread more, unless the environment says how many: the pacer keeps one
// for itself. The function that it returns sets back what was.
func addThread() func() {
	if os.Getenv("GOMAXPROCS") != "" {
		return func() {}
	}
	before := runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	return func() { runtime.GOMAXPROCS(before) }
}
