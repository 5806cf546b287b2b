package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ieum-rtc/ieum/internal/license"
)

// revokedEvery is how often the file of --license-revoked is read. Nothing is asked of its time of change: a file may be written twice
// in one tick of that clock, or be moved here with an older one.
const revokedEvery = 2 * time.Second

// revocations keeps the list of revoked licenses as its file has it, until close.
type revocations struct {
	path  string
	list  *license.Revoked
	apply func() // ends what the list, which is in force, has revoked
	log   *slog.Logger

	mu    sync.Mutex // one look at a time; guards what follows
	text  []byte     // of the list in force
	fault string     // that was logged last; empty: none since the list could be read

	stale atomic.Bool // the list in force is older than the file, which has faults

	quit  chan struct{}
	once  sync.Once
	quiet sync.WaitGroup
}

// revokedFile is the file of --license-revoked, read.
type revokedFile struct {
	hashes license.RevokedList
	text   []byte
}

// readRevoked reads the file of --license-revoked; without one nothing is revoked.
func readRevoked(path string) (read revokedFile, err error) {
	if path == "" {
		return read, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return read, err
	}
	if !info.Mode().IsRegular() { // to open a pipe could take for ever
		return read, errors.New("it is not a file")
	}
	f, err := os.Open(path)
	if err != nil {
		return read, err
	}
	defer f.Close()
	if read.text, err = io.ReadAll(io.LimitReader(f, license.MaxRevokedText+1)); err != nil {
		return read, err
	}
	read.hashes, err = license.ParseRevoked(read.text)
	return read, err
}

// watchRevoked reads the file again and again. text is that of the list, which is in force by now.
func watchRevoked(path string, text []byte, list *license.Revoked, apply func(), log *slog.Logger) *revocations {
	r := &revocations{path: path, text: text, list: list, apply: apply, log: log, quit: make(chan struct{})}
	if path == "" {
		return r
	}
	r.quiet.Go(func() {
		every := time.NewTicker(revokedEvery)
		defer every.Stop()
		for {
			select {
			case <-r.quit:
				return
			case <-every.C:
				r.look()
			}
		}
	})
	return r
}

// look reads the file and puts the list in force if it has changed. With a fault the list before stays: half a list, or none, would let
// in whom somebody wanted out.
func (r *revocations) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	read, err := readRevoked(r.path)
	if err != nil {
		r.stale.Store(true)
		if said := err.Error(); said != r.fault { // once, not at each look
			r.fault = said
			r.log.Error("list of revoked licenses not reloaded: the previous list stays in force; fix the file", "file", r.path, "faults", said)
		}
		return
	}
	same, mended := bytes.Equal(read.text, r.text), r.fault != ""
	r.fault = ""
	r.stale.Store(false)
	if !same {
		r.text = read.text
		r.list.Set(read.hashes)
		r.apply()
	}
	if !same || mended {
		r.log.Info("list of revoked licenses reloaded", "revoked", r.list.Len())
	}
}

func (r *revocations) register(to *prometheus.Registry) error {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	for _, c := range []prometheus.Collector{
		gauge("ieum_licenses_revoked", "Licenses and user tokens on the list of revoked ones that is in force.",
			func() float64 { return float64(r.list.Len()) }),
		gauge("ieum_licenses_revoked_stale", "1 while that list's file has faults, so that an older list is in force.", func() float64 {
			if r.stale.Load() {
				return 1
			}
			return 0
		}),
	} {
		if err := to.Register(c); err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
	}
	return nil
}

// close returns when nothing is read any more.
func (r *revocations) close() {
	r.once.Do(func() { close(r.quit) })
	r.quiet.Wait()
}
