package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// hangups delivers each SIGHUP from now on: a SIGHUP while the server starts must not end it.
// Windows has no SIGHUP, and nothing is delivered.
func hangups() (hangup <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

// outliveLog keeps a server alive when the reader of its log ends, such as a log shipper or a
// terminal: calls matter more. Go would end the process at the next line, since a write to a broken
// pipe on standard output or error raises SIGPIPE.
func outliveLog() (undo func()) {
	signal.Ignore(syscall.SIGPIPE)
	return func() { signal.Reset(syscall.SIGPIPE) }
}

// untilEnd waits until ctx is done, the server fails or drained is closed. A SIGHUP reloads the
// configuration; reload logs the result.
func untilEnd(
	ctx context.Context, failed <-chan error, hangup <-chan os.Signal, drained <-chan struct{},
	reload func() error,
) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-drained:
			return nil
		case <-hangup:
			_ = reload()
		}
	}
}
