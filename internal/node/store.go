package node

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

// store is the file of data: a bbolt database. One that is damaged must not end the server, nor keep it from starting: what is in it
// are sessions and rooms of the last seconds, whose loss costs users a new login. bbolt panics where it meets damage, and its file is
// mapped, so that a page that is gone is a memory fault; both end here as errDamaged.
type store struct {
	path   string
	node   string      // the id in it
	file   *os.File    // as opened by bbolt
	opened os.FileInfo // of file
	db     *bbolt.DB
	damage error // found in it: the database is not used any more, since it may hold its own locks from then on
	aside  bool  // the path is not that of this file any more
}

var errDamaged = errors.New("damaged")

var (
	recordsBucket = []byte("records")
	nodeBucket    = []byte("node")
	nodeKey       = []byte("id")
)

// smallest is less than any database: it has four pages, of 4 KiB at least.
const smallest = 4 * 4096

// kept is what a store held when it was opened.
type kept struct {
	node    string
	records map[string][]byte
}

// openStore opens a file, or makes it, and reads all of it. One that is damaged is moved aside, and an empty one made.
func openStore(path string, log *slog.Logger) (*store, kept, error) {
	s, k, err := readStore(path)
	if !errors.Is(err, errDamaged) {
		return s, k, err
	}
	if err := s.moveAside(log); err != nil {
		return nil, kept{}, err
	}
	return readStore(path)
}

// readStore returns a store beside errDamaged too, for moving it aside.
func readStore(path string) (*store, kept, error) {
	s := &store{path: path}
	k := kept{records: map[string][]byte{}}
	err := guard(func() (err error) {
		options := &bbolt.Options{Timeout: time.Second, OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag, mode)
			if err == nil {
				s.file = f
				s.opened, err = f.Stat()
			}
			return f, err
		}}
		if s.db, err = bbolt.Open(path, 0o600, options); err != nil {
			if s.file == nil || errors.Is(err, berrors.ErrTimeout) {
				return err
			}
			if info, lost := os.Stat(path); lost == nil && info.Mode().IsRegular() && info.Size() > 0 && info.Size() < smallest {
				err = fmt.Errorf("%w: %w", errDamaged, err)
			}
			return err
		}
		return s.db.Update(k.read)
	})
	for _, damage := range []error{berrors.ErrInvalid, berrors.ErrChecksum, berrors.ErrVersionMismatch, berrors.ErrInvalidMapping} {
		if errors.Is(err, damage) {
			err = fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	switch {
	case err == nil:
		s.node = k.node
		return s, k, nil
	case errors.Is(err, errDamaged):
		s.damage = err
		return s, kept{}, err
	case errors.Is(err, berrors.ErrTimeout):
		err = fmt.Errorf("%s is in use by another server", path)
	}
	if s.db != nil {
		err = errors.Join(err, s.db.Close())
	}
	return nil, kept{}, err
}

// read takes everything, and makes what a new file lacks.
func (k *kept) read(tx *bbolt.Tx) error {
	records, err1 := tx.CreateBucketIfNotExists(recordsBucket)
	node, err2 := tx.CreateBucketIfNotExists(nodeBucket)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if k.node = string(node.Get(nodeKey)); len(k.node) != 2*nodeIDBytes {
		k.node = newNodeID()
		if err := node.Put(nodeKey, []byte(k.node)); err != nil {
			return err
		}
	}
	return records.ForEach(func(key, v []byte) error {
		if found := records.Get(key); found == nil || !bytes.Equal(found, v) {
			return errDamaged // out of order: what is written from now on would not be found, and what was deleted would be
		}
		k.records[string(key)] = append([]byte(nil), v...)
		return nil
	})
}

// put writes records, and the node's id where there is another; an empty value deletes. After damage nothing is written any more.
func (s *store) put(node string, records map[string][]byte) error {
	if s.damage != nil {
		return s.damage
	}
	err := guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			to, of := tx.Bucket(recordsBucket), tx.Bucket(nodeBucket)
			if to == nil || of == nil {
				return errDamaged
			}
			var faults []error
			if s.node != node {
				faults = append(faults, of.Put(nodeKey, []byte(node)))
			}
			for key, v := range records {
				if v != nil {
					faults = append(faults, to.Put([]byte(key), v))
				} else {
					faults = append(faults, to.Delete([]byte(key)))
				}
			}
			return errors.Join(faults...)
		})
	})
	switch {
	case err == nil:
		s.node = node
	case errors.Is(err, errDamaged):
		s.damage = err
	}
	return err
}

// moveAside gives a damaged file another name, for whoever wants to look at it; it may be tried again. The database is not closed: that
// costs a mapping, once, which also keeps the lock on the file. One that has taken its place is left alone.
func (s *store) moveAside(log *slog.Logger) error {
	if s.aside {
		return nil
	}
	_ = s.file.Close()
	there, err := os.Stat(s.path)
	switch {
	case errors.Is(err, os.ErrNotExist): // it may come back, with its folder
		return nil
	case err == nil && !os.SameFile(s.opened, there):
		s.aside = true
		return nil
	}
	to := s.path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000Z")
	if err := os.Rename(s.path, to); err != nil {
		return fmt.Errorf("%s is damaged (%w) and cannot be moved aside: %w", s.path, s.damage, err)
	}
	s.aside = true
	log.Warn("data file damaged: moved aside, and an empty one made; users register again",
		"file", s.path, "movedTo", filepath.Base(to), "error", s.damage)
	return nil
}

// close waits for what is being written.
func (s *store) close() error {
	if s.damage != nil {
		_ = s.file.Close()
		return s.damage
	}
	return guard(s.db.Close)
}

// guard turns a panic or a memory fault of do into errDamaged.
func guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return do()
}
