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
