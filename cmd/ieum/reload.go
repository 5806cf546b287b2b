package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// hangups delivers each SIGHUP, from now on: one that comes while a server starts must not end it. Where there is none (Windows) nothing
// comes.
func hangups() (hangup <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

// outliveLog keeps a server alive when whoever reads its log ends, as log shippers and terminals do: calls matter more. Go would end it at
// the next line, since a write to a broken pipe on standard output or error raises SIGPIPE.
func outliveLog() (undo func()) {
	signal.Ignore(syscall.SIGPIPE)
	return func() { signal.Reset(syscall.SIGPIPE) }
}

// untilEnd waits for the end of ctx, or for that with which the server ends by itself. At a SIGHUP the configuration is read again;
// reload says in the log what came of it.
func untilEnd(ctx context.Context, failed <-chan error, hangup <-chan os.Signal, reload func() error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-hangup:
			_ = reload()
		}
	}
}
