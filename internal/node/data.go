package node

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

// data is what a node remembers across restarts: a file in the data folder. One goroutine writes, a moment after the first change, so
// that a burst of joins costs one transaction. A crash loses that moment at most. What cannot be written, since the disk is full, is
// tried again every second.
type data struct {
	log   *slog.Logger
	store *store // owned by write
	stale bool   // owned by write: the last try failed

	unwritten atomic.Int64 // changes that the last try failed to write
	node      string
	loaded    map[string][]byte // until Load

	mu     sync.Mutex
	dirty  map[string]func() []byte // bounded by what there is to keep: one entry a session or room
	closed bool

	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

const (
	dataFile   = "ieum.db"
	writeAfter = 20 * time.Millisecond
	retryAfter = time.Second
)

func openData(dir string, log *slog.Logger) (*data, error) {
	s, k, err := openStore(filepath.Join(dir, dataFile), log)
	if err != nil {
		return nil, err
	}
	d := &data{
		store: s, log: log, node: k.node, loaded: k.records, dirty: map[string]func() []byte{},
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go d.write()
	return d, nil
}

// nodeID is the same after every restart: sessions and rooms that are kept belong to it.
func (d *data) nodeID() string { return d.node }

const nodeIDBytes = 6

func newNodeID() string {
	var b [nodeIDBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Load implements signaling.Keeper: what was kept when the file was opened, once.
func (d *data) Load() (map[string][]byte, error) {
	all := d.loaded
	d.loaded = nil
	return all, nil
}

// Keep implements signaling.Keeper.
func (d *data) Keep(key string, value func() []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.dirty[key] = value
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *data) write() {
	defer close(d.done)
	for {
		pause := retryAfter
		if !d.stale { // else the next change is no reason to try sooner
			select {
			case <-d.stop:
			case <-d.wake:
			}
			pause = writeAfter // let changes gather
		}
		select {
		case <-d.stop:
			d.flush()
			return
		case <-time.After(pause):
			d.flush()
		}
	}
}

func (d *data) flush() {
	d.mu.Lock()
	dirty := d.dirty
	d.dirty = make(map[string]func() []byte)
	d.mu.Unlock()
	if len(dirty) == 0 {
		return
	}
	records := make(map[string][]byte, len(dirty))
	for key, value := range dirty {
		records[key] = value()
	}
	err := d.store.put(d.node, records)
	if errors.Is(err, errDamaged) {
		err = d.replace(records)
	}
	if err == nil {
		if d.unwritten.Store(0); d.stale {
			d.stale = false
			d.log.Info("data written again")
		}
		return
	}
	if !d.stale { // once, and not for each try
		d.stale = true
		d.log.Error("data not written: a restart would lose the latest sessions and rooms; tried again every second", "error", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, value := range dirty {
		if d.dirty[key] == nil {
			d.dirty[key] = value
		}
	}
	d.unwritten.Store(int64(len(d.dirty)))
}

// replace goes on with an empty file where the present one is damaged. What was in it and has not changed since is lost to a restart.
// When that fails, since the disk is full or gone, the next try goes on from there.
func (d *data) replace(records map[string][]byte) error {
	if err := d.store.moveAside(d.log); err != nil {
		return err
	}
	s, _, err := openStore(d.store.path, d.log)
	if err != nil {
		return err
	}
	d.store = s
	return s.put(d.node, records)
}

// close writes what is still to be written. What is noted afterwards is not kept: a server that stops must not record that its
// rooms are ending.
func (d *data) close() error {
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	d.mu.Unlock()
	if closed {
		return nil
	}
	close(d.stop)
	<-d.done
	return d.store.close()
}

// gauge shows what a full disk, say, keeps from being written.
func (d *data) gauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ieum_data_unwritten", Help: "Sessions and rooms whose latest state could not be written to --data yet.",
	}, func() float64 { return float64(d.unwritten.Load()) })
}
