package adversary

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/ieum-rtc/ieum/internal/bench/proc"
)

// The adversaries' process reads its configuration, prints started, runs until its input ends, and
// prints its report.
const started = "started"

// RunProcess runs adversaries in a process of their own while f runs: in this process a thousand
// simultaneous handshakes would delay the measured clients, and not only the server's answers. The
// command runs Serve.
func RunProcess(
	ctx context.Context,
	command func(context.Context) *exec.Cmd,
	cfg Config,
	f func(context.Context) error,
) (Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := command(ctx)
	in, err := c.StdinPipe()
	if err != nil {
		return Report{}, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return Report{}, err
	}
	if err := c.Start(); err != nil {
		return Report{}, fmt.Errorf("adversaries: %w", err)
	}
	r, err := control(ctx, in, bufio.NewReader(out), cfg, f)
	if err != nil {
		cancel() // kills it
	}
	return r, errors.Join(err, c.Wait())
}

// control talks to a process that runs Serve.
func control(
	ctx context.Context,
	in io.WriteCloser,
	out *bufio.Reader,
	cfg Config,
	f func(context.Context) error,
) (r Report, err error) {
	if err := json.NewEncoder(in).Encode(cfg); err != nil {
		return r, err
	}
	line, err := out.ReadString('\n')
	if err != nil || line != started+"\n" {
		return r, fmt.Errorf("the adversaries did not start: %w", err)
	}
	if err := f(ctx); err != nil {
		return r, err
	}
	if err := in.Close(); err != nil {
		return r, err
	}
	return r, json.NewDecoder(out).Decode(&r)
}

// Serve runs adversaries for a process that called RunProcess.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	input := bufio.NewReader(in)
	text, err := input.ReadBytes('\n')
	if err != nil {
		return err
	}
	var cfg Config
	if err := json.Unmarshal(text, &cfg); err != nil {
		return err
	}
	if err := cfg.validate(); err != nil {
		return err
	}
	proc.Renice()
	r, err := Run(ctx, cfg, func(ctx context.Context) error {
		if _, err := fmt.Fprintln(out, started); err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { // ends with the process at the latest
			_, err := io.Copy(io.Discard, input)
			ended <- err
		}()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}
