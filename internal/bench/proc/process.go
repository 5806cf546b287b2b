// Package proc reads from /proc what a process on this machine uses: CPU time, memory, open files.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// PID is the id of a process on this machine (Linux). Zero is no process: it uses nothing.
type PID int

// /proc counts CPU time in hundredths of a second, whatever the kernel's own tick is (USER_HZ).
const tick = 10 * time.Millisecond

var errStat = errors.New("not of the known form")

// CPU is the user and system time the process has used so far.
func (p PID) CPU() (time.Duration, error) {
	if p == 0 {
		return 0, nil
	}
	name := fmt.Sprintf("/proc/%d/stat", p)
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	d, err := parseCPU(b)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}

// parseCPU adds fields 14 and 15 of /proc/PID/stat (proc(5)). The second field is the program's
// name in brackets and may hold blanks and brackets itself, so counting starts behind the last
// bracket.
func parseCPU(stat []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, errStat
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 13 {
		return 0, errStat
	}
	var sum time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, errStat
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// During is Group.During of this process alone.
func (p PID) During(f func() error) (spent, took time.Duration, err error) {
	return Group{p}.During(f)
}

// Scheduled is the CPU time that the scheduler has given to the process's threads. It counts
// nanoseconds where CPU counts ticks, but forgets a thread that has ended: it is for short
// measurements of servers that keep their threads.
func (p PID) Scheduled() (time.Duration, error) {
	if p == 0 {
		return 0, nil
	}
	folder := fmt.Sprintf("/proc/%d/task", p)
	threads, err := os.ReadDir(folder)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, t := range threads {
		name := filepath.Join(folder, t.Name(), "schedstat")
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // ended meanwhile
		}
		if err != nil {
			return 0, err
		}
		d, err := parseScheduled(string(b))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		sum += d
	}
	if sum == 0 {
		return 0, fmt.Errorf("%s: the kernel keeps no schedstat", folder)
	}
	return sum, nil
}

// parseScheduled reads the first of three numbers: nanoseconds on a CPU, waiting for one, and how
// often.
func parseScheduled(schedstat string) (time.Duration, error) {
	f := strings.Fields(schedstat)
	if len(f) != 3 {
		return 0, errStat
	}
	n, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return 0, errStat
	}
	return time.Duration(n), nil
}

// RSS is the resident memory in KB. smaps_rollup counts pages; VmRSS of status is an estimate that
// can be half a megabyte off.
func (p PID) RSS() (int, error) {
	if p == 0 {
		return 0, nil
	}
	return p.figure("smaps_rollup", parseRSS)
}

// figure reads one from a file that the kernel has for the process.
func (p PID) figure(file string, parse func(string) (int, error)) (int, error) {
	name := fmt.Sprintf("/proc/%d/%s", p, file)
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	n, err := parse(string(b))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

func parseRSS(rollup string) (int, error) {
	for line := range strings.Lines(rollup) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "Rss:" && f[2] == "kB" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, errStat
}

// Memory is stable when this many samples in a row lie within half a percent.
const (
	sampleEvery   = 250 * time.Millisecond
	stableSamples = 12
)

// Settle is Group.Settle of this process alone.
func (p PID) Settle(ctx context.Context, patience time.Duration) (rss int, stable bool, err error) {
	return Group{p}.Settle(ctx, patience)
}

// Settle waits until the group's memory is stable, but not longer than patience, and returns the
// last sample.
func (g Group) Settle(
	ctx context.Context, patience time.Duration,
) (rss int, stable bool, err error) {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	next := time.NewTicker(sampleEvery)
	defer next.Stop()
	var w window
	for {
		if rss, err = g.RSS(); err != nil {
			return 0, false, err
		}
		if w.add(rss) {
			return rss, true, nil
		}
		select {
		case <-ctx.Done():
			return 0, false, ctx.Err()
		case <-deadline.C:
			return rss, false, nil
		case <-next.C:
		}
	}
}

// window holds the last samples.
type window struct {
	samples [stableSamples]int
	n       int
}

// add tells whether the last stableSamples are within half a percent of each other.
func (w *window) add(v int) bool {
	w.samples[w.n%stableSamples] = v
	w.n++
	if w.n < stableSamples {
		return false
	}
	lo, hi := w.samples[0], w.samples[0]
	for _, s := range w.samples {
		lo, hi = min(lo, s), max(hi, s)
	}
	return (hi-lo)*200 <= hi
}

// files is how many files the process may have open. Every connection is one.
func (p PID) files() (int, error) { return p.figure("limits", parseFiles) }

func parseFiles(limits string) (int, error) {
	for line := range strings.Lines(limits) {
		if rest, is := strings.CutPrefix(line, "Max open files"); is {
			if f := strings.Fields(rest); len(f) > 0 {
				if f[0] == "unlimited" {
					return math.MaxInt, nil
				}
				return strconv.Atoi(f[0])
			}
		}
	}
	return 0, errStat
}

// otherFiles is what a program has open besides its connections.
const otherFiles = 100

// EnoughFiles tells whether this program, and the server if it runs here, may open so many
// connections. A system that does not tell its limit is trusted.
func EnoughFiles(conns int, server PID) error {
	for name, p := range map[string]PID{"this program": PID(os.Getpid()), "the server": server} {
		if p == 0 {
			continue
		}
		if n, err := p.files(); err == nil && n < conns+otherFiles {
			return fmt.Errorf("%s may open %d files, but %d connections need %d: "+
				"raise the limit (ulimit -n) before it starts", name, n, conns, conns+otherFiles)
		}
	}
	return nil
}
