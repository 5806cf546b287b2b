// Package revocation reads the file of --revocation-list, and keeps the list in force up to date
// with it.
package revocation

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ieum-rtc/ieum/internal/license"
)

// pollEvery is how often the file is read. Its modification time does not count: a file may be
// written twice within one tick of that clock, or be replaced by an older one.
const pollEvery = 2 * time.Second

// List is what a file held when it was read.
type List struct {
	Hashes license.RevocationList
	text   []byte
}

// Read reads a file. Without a path nothing is revoked.
func Read(path string) (list List, err error) {
	if path == "" {
		return list, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return list, err
	}
	if !info.Mode().IsRegular() { // opening a pipe could block for ever
		return list, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return list, err
	}
	defer func() { _ = f.Close() }() // only read
	if list.text, err = io.ReadAll(io.LimitReader(f, license.MaxRevocationListSize+1)); err != nil {
		return list, err
	}
	list.Hashes, err = license.ParseRevocationList(list.text)
	return list, err
}

// holds tells whether all entries of an earlier list are in this one.
func (l *List) holds(earlier license.RevocationList) bool {
	for h := range earlier {
		if _, ok := l.Hashes[h]; !ok {
			return false
		}
	}
	return true
}

// Watcher polls the file until Close.
type Watcher struct {
	// Static after Watch.
	path    string
	inForce *license.Revoked
	apply   func()
	log     *slog.Logger
	quit    chan struct{}

	mu      sync.Mutex             // serializes Reload
	text    []byte                 // Guarded by mu. Of the list in force.
	seen    []byte                 // Guarded by mu. What was read last.
	hashes  license.RevocationList // Guarded by mu. In force.
	lastErr string                 // Guarded by mu. As logged; empty after a success.

	stale atomic.Bool // the file cannot be read, so that an older list is in force

	closing sync.Once
	wg      sync.WaitGroup
}

// Watch starts polling. list is what the caller has put in force; apply is called after each
// change, and ends the sessions of what has been revoked.
func Watch(
	path string, list List, inForce *license.Revoked, apply func(), log *slog.Logger,
) *Watcher {
	w := &Watcher{
		path:    path,
		inForce: inForce,
		apply:   apply,
		log:     log,
		quit:    make(chan struct{}),
		text:    list.text,
		seen:    list.text,
		hashes:  list.Hashes,
	}
	if path != "" {
		w.wg.Go(w.run)
	}
	return w
}

func (w *Watcher) run() {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		select {
		case <-w.quit:
			return
		case <-ticker.C:
			w.read(false)
		}
	}
}

// Reload reads the file, and puts its list in force if it has changed. If the file has errors the
// previous list stays in force: half a list, or none, would admit revoked licenses.
func (w *Watcher) Reload() { w.read(true) }

// read reads the file. A list that lacks entries may be one that is being written: unless it is
// said to be whole, it is put in force when it has been read twice.
func (w *Watcher) read(whole bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list, err := Read(w.path)
	if err != nil {
		w.stale.Store(true)
		if text := err.Error(); text != w.lastErr { // logged once, not at each poll
			w.lastErr = text
			w.log.Error(
				"cannot reload revocation list; keeping the previous one",
				"file", w.path, "error", text,
			)
		}
		return
	}
	changed, recovered := !bytes.Equal(list.text, w.text), w.lastErr != ""
	w.lastErr = ""
	w.stale.Store(false)
	again := bytes.Equal(list.text, w.seen)
	w.seen = list.text
	if changed && !whole && !again && !list.holds(w.hashes) {
		return
	}
	if changed {
		w.hashes = list.Hashes
		w.text = list.text
		w.inForce.Set(list.Hashes)
		w.apply()
	}
	if changed || recovered {
		w.log.Info("revocation list reloaded", "entries", w.inForce.Len())
	}
}

// Close stops polling and waits for a reload in progress.
func (w *Watcher) Close() {
	w.closing.Do(func() { close(w.quit) })
	w.wg.Wait()
}

// Collector exports the size of the list in force, and whether it is stale.
func (w *Watcher) Collector() prometheus.Collector { return collector{w} }

type collector struct{ w *Watcher }

var (
	entriesDesc = prometheus.NewDesc("ieum_revocation_list_entries",
		"Entries of the revocation list in force: licenses and user tokens.", nil, nil)
	staleDesc = prometheus.NewDesc(
		"ieum_revocation_list_stale",
		"1 while the file of the revocation list cannot be read or has errors: "+
			"an older list is in force.",
		nil, nil,
	)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- entriesDesc
	ch <- staleDesc
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	stale := 0.0
	if c.w.stale.Load() {
		stale = 1
	}
	entries := float64(c.w.inForce.Len())
	ch <- prometheus.MustNewConstMetric(entriesDesc, prometheus.GaugeValue, entries)
	ch <- prometheus.MustNewConstMetric(staleDesc, prometheus.GaugeValue, stale)
}
