// Package mismatch tells operators what the nodes of a cluster have differently.
package mismatch

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ieum-rtc/ieum/internal/cluster/lease"
)

const (
	tellEvery    = time.Minute
	maxWarnings  = 1000 // that are remembered; a new one beyond is not logged
	maxClockSkew = 5 * time.Second
)

// Warnings logs warnings, but none again and again. Its methods may be called concurrently.
type Warnings struct {
	log *slog.Logger

	mu   sync.Mutex
	told map[string]time.Duration // Guarded by mu: lease.Now, by key.
}

// New returns Warnings that go to a log.
func New(log *slog.Logger) *Warnings {
	return &Warnings{log: log, told: map[string]time.Duration{}}
}

// Tell logs a warning, unless one with the same key was logged within the minute.
func (w *Warnings) Tell(key, text string, args ...any) {
	now := lease.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if last, ok := w.told[key]; ok && now-last < tellEvery || len(w.told) > maxWarnings {
		return
	}
	w.told[key] = now
	w.log.Warn(text, args...)
}

// Clock warns of a node that has just said another time of day, in milliseconds since 1970.
func (w *Warnings) Clock(node string, millis int64, args ...any) {
	if skew := time.Since(time.UnixMilli(millis)).Abs(); skew > maxClockSkew {
		w.Tell("clock "+node, "the clocks of two nodes differ, so that one may take user tokens "+
			"which the other refuses: run NTP on both", append(args, "seconds", skew.Seconds())...)
	}
}

// Version warns of a node with another version of the program.
func (w *Warnings) Version(node, own, version string, args ...any) {
	if version != own {
		w.Tell("version "+node, "a node runs another version: upgrade one after the other, "+
			"and all of them", append(args, "version", version, "own", own)...)
	}
}

// ShareKey tells whether a node has a license signing key of this one. Its fingerprints are
// separated by commas.
func ShareKey(fingerprints string, own []string) bool {
	return slices.ContainsFunc(strings.Split(fingerprints, ","), func(f string) bool {
		return slices.Contains(own, f)
	})
}
