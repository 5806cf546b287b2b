// Package store persists sessions and rooms across restarts of a node, in one bbolt file of the
// data directory. A damaged file neither stops a server nor keeps it from starting: it is moved
// aside and replaced by an empty one.
package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Store is a signaling.Keeper. One goroutine writes, a moment after the first change, so that a
// burst of joins costs one transaction; a crash loses that moment at most. A failed write, on a
// full disk for example, is retried every second.
type Store struct {
	// Static after Open.
	log  *slog.Logger
	node string
	wake chan struct{}
	stop chan struct{}
	done chan struct{}

	// Owned by run.
	db    *database
	stale bool // the last write failed

	unwritten atomic.Int64      // changes that the last write failed to store
	loaded    map[string][]byte // from Open until Load, which is called once

	mu     sync.Mutex
	dirty  map[string]func() []byte // Guarded by mu. At most one entry per session or room.
	closed bool                     // Guarded by mu.
}

const (
	dataFile   = "ieum.db"
	writeAfter = 20 * time.Millisecond
	retryAfter = time.Second
)

// Open opens the file in dir, or creates it, and reads all of it.
func Open(dir string, log *slog.Logger) (*Store, error) {
	db, found, err := openDatabase(filepath.Join(dir, dataFile), log)
	if err != nil {
		return nil, err
	}
	s := &Store{
		log:    log,
		node:   found.node,
		wake:   make(chan struct{}, 1),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
		db:     db,
		loaded: found.records,
		dirty:  map[string]func() []byte{},
	}
	go s.run()
	return s, nil
}

// NodeID is stable across restarts: persisted sessions and rooms refer to it.
func (s *Store) NodeID() string { return s.node }

const nodeIDBytes = 6

// NewNodeID returns a random node id, 12 hex digits.
func NewNodeID() string {
	var b [nodeIDBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Load returns what the file held when it was opened. It implements signaling.Keeper and is called
// once.
func (s *Store) Load() (map[string][]byte, error) {
	all := s.loaded
	s.loaded = nil
	return all, nil
}

// Keep implements signaling.Keeper.
func (s *Store) Keep(key string, value func() []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.dirty[key] = value
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Store) run() {
	defer close(s.done)
	for {
		pause := retryAfter
		if !s.stale { // after a failure the next change does not trigger an earlier retry
			select {
			case <-s.stop:
			case <-s.wake:
			}
			pause = writeAfter // let changes gather
		}
		select {
		case <-s.stop:
			s.flush()
			return
		case <-time.After(pause):
			s.flush()
		}
	}
}

func (s *Store) flush() {
	s.mu.Lock()
	dirty := s.dirty
	s.dirty = make(map[string]func() []byte)
	s.mu.Unlock()
	if len(dirty) == 0 {
		return
	}
	records := make(map[string][]byte, len(dirty))
	for key, value := range dirty {
		records[key] = value()
	}
	err := s.db.put(s.node, records)
	if errors.Is(err, errDamaged) {
		err = s.replace(records)
	}
	if err == nil {
		if s.unwritten.Store(0); s.stale {
			s.stale = false
			s.log.Info("data written again")
		}
		return
	}
	if !s.stale { // logged once, not for each retry
		s.stale = true
		s.log.Error(
			"data not written: a restart would lose the latest sessions and rooms; "+
				"retrying every second",
			"error", err,
		)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, value := range dirty {
		if s.dirty[key] == nil {
			s.dirty[key] = value
		}
	}
	s.unwritten.Store(int64(len(s.dirty)))
}

// replace continues with an empty file in place of the damaged one. Records that were in it and
// have not changed since are lost to a restart. When it fails, on a full disk for example, the next
// retry resumes where it stopped.
func (s *Store) replace(records map[string][]byte) error {
	if err := s.db.moveAside(s.log); err != nil {
		return err
	}
	db, _, err := openDatabase(s.db.path, s.log)
	if err != nil {
		return err
	}
	s.db = db
	return db.put(s.node, records)
}

// Close writes pending changes and closes the file. Later calls of Keep are ignored: a server that
// shuts down must not record that its rooms end.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	close(s.stop)
	<-s.done
	return s.db.close()
}

// Collector exports how many changes wait to be written, because the disk is full for example.
func (s *Store) Collector() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ieum_data_pending_writes",
		Help: "Sessions and rooms whose latest state could not be written to --data yet.",
	}, func() float64 { return float64(s.unwritten.Load()) })
}
