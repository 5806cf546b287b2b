//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/ieum-rtc/ieum/e2e/netlab/link"
	"github.com/ieum-rtc/ieum/e2e/netlab/netns"
	"github.com/ieum-rtc/ieum/e2e/netlab/topo"
)

// lab is a plan carried out. Its namespaces belong to the claim, its cables to itself.
type lab struct {
	plan   topo.Plan
	links  map[string]*link.Link
	names  []string
	failed chan error // the first device that breaks
	quit   chan struct{}
	wg     sync.WaitGroup
}

func build(spec topo.Spec) (*lab, error) {
	plan, err := topo.New(spec)
	if err != nil {
		return nil, err
	}
	l := &lab{
		plan:   plan,
		links:  map[string]*link.Link{},
		failed: make(chan error, 1),
		quit:   make(chan struct{}),
	}
	if err := l.carryOut(); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *lab) carryOut() error {
	for _, ns := range l.plan.Namespaces {
		if err := netns.Run("", "ip", "netns", "add", ns); err != nil {
			return err
		}
	}
	ends := make([][2]*os.File, 0, len(l.plan.Cables))
	defer func() {
		for _, e := range ends {
			// Those not plugged in, on the way out of a failure.
			_ = errors.Join(e[0].Close(), e[1].Close())
		}
	}()
	for _, c := range l.plan.Cables {
		near, err := netns.OpenTUN(c.NS, c.Dev)
		if err != nil {
			return err
		}
		far, err := netns.OpenTUN(c.CoreNS, c.CoreDev)
		if err != nil {
			return errors.Join(err, near.Close())
		}
		ends = append(ends, [2]*os.File{near, far})
	}
	for _, s := range l.plan.Steps {
		if s.SysctlKey != "" {
			if err := netns.Sysctl(s.SysctlNS, s.SysctlKey, s.SysctlValue); err != nil {
				return fmt.Errorf("%s in %s: %w", s.SysctlKey, s.SysctlNS, err)
			}
			continue
		}
		if err := netns.Run(s.Input, s.Argv...); err != nil {
			return err
		}
	}
	// Only now are the devices up and can be read.
	for i, c := range l.plan.Cables {
		k := link.Start(ends[i][0], ends[i][1], link.Params{Delay: c.Delay})
		l.links[c.Name] = k
		l.names = append(l.names, c.Name)
		l.watch(c.Name, k)
	}
	ends = nil
	return nil
}

func (l *lab) watch(name string, k *link.Link) {
	l.wg.Go(func() {
		select {
		case err := <-k.Failed():
			select {
			case l.failed <- fmt.Errorf("cable %s: %w", name, err):
			default:
			}
		case <-l.quit:
		}
	})
}

func (l *lab) close() error {
	close(l.quit)
	l.wg.Wait()
	var errs []error
	for _, k := range l.links {
		errs = append(errs, k.Close())
	}
	return errors.Join(errs...)
}
