package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// The process of those who disturb reads its configuration, says that they are there, lets them disturb until its input ends, and says
// what came of it.
const disturbersReady = "ready"

// disturbElsewhere runs the others in a process of their own while f plays.
func (m *mixer) disturbElsewhere(ctx context.Context, f func(context.Context) error) (Others, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := m.cfg.Disturber(ctx)
	in, err := c.StdinPipe()
	if err != nil {
		return Others{}, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return Others{}, err
	}
	if err := c.Start(); err != nil {
		return Others{}, fmt.Errorf("those who disturb: %w", err)
	}
	others, err := converseWithDisturbers(ctx, in, bufio.NewReader(out), m.cfg, f)
	if err != nil {
		cancel() // which kills it
	}
	return others, errors.Join(err, c.Wait())
}

func converseWithDisturbers(ctx context.Context, in io.WriteCloser, out *bufio.Reader, cfg MixConfig, f func(context.Context) error) (others Others, err error) {
	if err := json.NewEncoder(in).Encode(cfg); err != nil {
		return others, err
	}
	said, err := out.ReadString('\n')
	if err != nil || said != disturbersReady+"\n" {
		return others, fmt.Errorf("those who disturb did not begin: %w", err)
	}
	if err := f(ctx); err != nil {
		return others, err
	}
	if err := in.Close(); err != nil {
		return others, err
	}
	return others, json.NewDecoder(out).Decode(&others)
}

// Disturb is what that process does.
func Disturb(ctx context.Context, in io.Reader, out io.Writer) error {
	input := bufio.NewReader(in)
	text, err := input.ReadBytes('\n')
	if err != nil {
		return err
	}
	var cfg MixConfig
	if err := json.Unmarshal(text, &cfg); err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg.defaults()
	giveWay()
	m := newMixer(cfg)
	defer m.close()
	others, err := m.disturbHere(ctx, func(ctx context.Context) error {
		if _, err := fmt.Fprintln(out, disturbersReady); err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { // ends with the process, if not before
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
	return json.NewEncoder(out).Encode(others)
}
