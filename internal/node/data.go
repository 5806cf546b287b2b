package node

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// data is what a node remembers across restarts: a bbolt file in the data folder. One goroutine writes, a moment after the
// first change, so that a burst of joins costs one transaction. A crash loses that moment at most.
type data struct {
	db  *bbolt.DB
	log *slog.Logger

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
)

var (
	recordsBucket = []byte("records")
	nodeBucket    = []byte("node")
)

func openData(dir string, log *slog.Logger) (*data, error) {
	db, err := bbolt.Open(filepath.Join(dir, dataFile), 0o600, &bbolt.Options{Timeout: time.Second})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("%s is in use by another server", filepath.Join(dir, dataFile))
	}
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err1 := tx.CreateBucketIfNotExists(recordsBucket)
		_, err2 := tx.CreateBucketIfNotExists(nodeBucket)
		return errors.Join(err1, err2)
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	d := &data{
		db: db, log: log, dirty: map[string]func() []byte{},
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go d.write()
	return d, nil
}

// nodeID is the same after every restart: sessions and rooms that are kept belong to it.
func (d *data) nodeID() (id string, err error) {
	err = d.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(nodeBucket)
		if v := b.Get([]byte("id")); v != nil {
			id = string(v)
			return nil
		}
		id = newNodeID()
		return b.Put([]byte("id"), []byte(id))
	})
	return id, err
}

func newNodeID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Load implements signaling.Keeper.
func (d *data) Load() (map[string][]byte, error) {
	all := map[string][]byte{}
	err := d.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(recordsBucket).ForEach(func(k, v []byte) error {
			all[string(k)] = append([]byte(nil), v...)
			return nil
		})
	})
	return all, err
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
		select {
		case <-d.stop:
			d.flush()
			return
		case <-d.wake:
		}
		select { // let changes gather
		case <-d.stop:
		case <-time.After(writeAfter):
		}
		d.flush()
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
	err := d.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(recordsBucket)
		var faults []error
		for key, value := range dirty {
			if v := value(); v != nil {
				faults = append(faults, b.Put([]byte(key), v))
			} else {
				faults = append(faults, b.Delete([]byte(key)))
			}
		}
		return errors.Join(faults...)
	})
	if err == nil {
		return
	}
	d.log.Error("data not written", "error", err)
	d.mu.Lock() // to be written with the next change, or at the end
	defer d.mu.Unlock()
	for key, value := range dirty {
		if d.dirty[key] == nil {
			d.dirty[key] = value
		}
	}
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
	return d.db.Close()
}
