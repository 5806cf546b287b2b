package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// database is the bbolt file. Losing it costs users of the last seconds a new login, so damage is
// survived: bbolt panics where it meets damage, and a missing page of its mapped file is a memory
// fault. guard turns both into errDamaged.
type database struct {
	path   string
	node   string      // node id stored in the file
	file   *os.File    // opened by bbolt
	opened os.FileInfo // of file
	db     *bbolt.DB
	// damage, once found, ends the use of db, which may hold its own locks from then on.
	damage error
	aside  bool // path no longer names this file
}

var errDamaged = errors.New("damaged")

var (
	recordsBucket = []byte("records")
	nodeBucket    = []byte("node")
	nodeKey       = []byte("id")
)

// minSize is below the size of any bbolt file, which has four pages of at least 4 KiB.
const minSize = 4 * 4096

// contents are what a database held when it was opened.
type contents struct {
	node    string
	records map[string][]byte
}

// openDatabase opens or creates a file and reads all of it. A damaged file is moved aside and
// replaced by an empty one.
func openDatabase(path string, log *slog.Logger) (*database, contents, error) {
	d, k, err := readDatabase(path)
	if !errors.Is(err, errDamaged) {
		return d, k, err
	}
	if err := d.moveAside(log); err != nil {
		return nil, contents{}, err
	}
	return readDatabase(path)
}

// readDatabase also returns the database with errDamaged, so that the caller can move it aside.
func readDatabase(path string) (*database, contents, error) {
	d := &database{path: path}
	k := contents{records: map[string][]byte{}}
	err := guard(func() (err error) {
		options := &bbolt.Options{Timeout: time.Second, OpenFile: d.open}
		if d.db, err = bbolt.Open(path, 0o600, options); err != nil {
			if d.file == nil || errors.Is(err, berrors.ErrTimeout) {
				return err
			}
			if tooSmall(path) {
				err = fmt.Errorf("%w: %w", errDamaged, err)
			}
			return err
		}
		return d.db.Update(k.read)
	})
	for _, damage := range []error{
		berrors.ErrInvalid,
		berrors.ErrChecksum,
		berrors.ErrVersionMismatch,
		berrors.ErrInvalidMapping,
	} {
		if errors.Is(err, damage) {
			err = fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	switch {
	case err == nil:
		d.node = k.node
		return d, k, nil
	case errors.Is(err, errDamaged):
		d.damage = err
		return d, contents{}, err
	case errors.Is(err, berrors.ErrTimeout):
		err = fmt.Errorf("%s is in use by another server", path)
	}
	if d.db != nil {
		err = errors.Join(err, d.db.Close())
	}
	return nil, contents{}, err
}

// open implements bbolt.Options.OpenFile.
func (d *database) open(name string, flag int, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, flag, mode)
	if err == nil {
		d.file = f
		d.opened, err = f.Stat()
	}
	return f, err
}

// tooSmall reports whether path is a regular file that holds something, but cannot be a whole
// database.
func tooSmall(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() > 0 && info.Size() < minSize
}

// read reads all records and creates what a new file lacks.
func (k *contents) read(tx *bbolt.Tx) error {
	records, err1 := tx.CreateBucketIfNotExists(recordsBucket)
	node, err2 := tx.CreateBucketIfNotExists(nodeBucket)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if k.node = string(node.Get(nodeKey)); len(k.node) != 2*nodeIDBytes {
		k.node = NewNodeID()
		if err := node.Put(nodeKey, []byte(k.node)); err != nil {
			return err
		}
	}
	return records.ForEach(func(key, v []byte) error {
		if found := records.Get(key); found == nil || !bytes.Equal(found, v) {
			// Keys out of order: later writes would not be found, deleted records would.
			return errDamaged
		}
		k.records[string(key)] = append([]byte(nil), v...)
		return nil
	})
}

// put writes records, and the node id if the file has another; a nil value deletes. After damage
// nothing is written any more.
func (d *database) put(node string, records map[string][]byte) error {
	if d.damage != nil {
		return d.damage
	}
	err := guard(func() error {
		return d.db.Update(func(tx *bbolt.Tx) error {
			to, of := tx.Bucket(recordsBucket), tx.Bucket(nodeBucket)
			if to == nil || of == nil {
				return errDamaged
			}
			var errs []error
			if d.node != node {
				errs = append(errs, of.Put(nodeKey, []byte(node)))
			}
			for key, v := range records {
				if v != nil {
					errs = append(errs, to.Put([]byte(key), v))
				} else {
					errs = append(errs, to.Delete([]byte(key)))
				}
			}
			return errors.Join(errs...)
		})
	})
	switch {
	case err == nil:
		d.node = node
	case errors.Is(err, errDamaged):
		d.damage = err
	}
	return err
}

// moveAside renames a damaged file, so that it can be examined; it may be retried. The database is
// not closed: that costs one mapping, which also keeps the lock on the file. A file that has taken
// its place is left alone.
func (d *database) moveAside(log *slog.Logger) error {
	if d.aside {
		return nil
	}
	_ = d.file.Close()
	there, err := os.Stat(d.path)
	switch {
	case errors.Is(err, os.ErrNotExist): // it may come back, with its directory
		return nil
	case err == nil && !os.SameFile(d.opened, there):
		d.aside = true
		return nil
	}
	to := d.path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000Z")
	if err := os.Rename(d.path, to); err != nil {
		return fmt.Errorf("%s is damaged (%w) and cannot be moved aside: %w", d.path, d.damage, err)
	}
	d.aside = true
	log.Warn(
		"data file damaged: moved aside and replaced by an empty file; "+
			"users have to register again",
		"file", d.path, "movedTo", filepath.Base(to), "error", d.damage,
	)
	return nil
}

// close waits for a write in progress.
func (d *database) close() error {
	if d.damage != nil {
		_ = d.file.Close()
		return d.damage
	}
	return guard(d.db.Close)
}

// guard turns a panic or a memory fault in do into errDamaged.
func guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return do()
}
