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
	path string
	file *os.File // as opened by bbolt
	db   *bbolt.DB
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
	if err := s.moveAside(log, err); err != nil {
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
			s.file = f
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
		return s, k, nil
	case errors.Is(err, errDamaged):
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

// put writes records; an empty value deletes.
func (s *store) put(records map[string][]byte) error {
	return guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(recordsBucket)
			if b == nil {
				return errDamaged
			}
			for key, v := range records {
				var err error
				if v != nil {
					err = b.Put([]byte(key), v)
				} else {
					err = b.Delete([]byte(key))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// setNode writes the node's id.
func (s *store) setNode(id string) error {
	return guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(nodeBucket).Put(nodeKey, []byte(id)) })
	})
}

// moveAside gives a damaged file another name, for whoever wants to look at it. The database is not closed: it may hold its own locks since
// the panic. That costs a mapping, once.
func (s *store) moveAside(log *slog.Logger, why error) error {
	opened, err1 := s.file.Stat()
	there, err2 := os.Stat(s.path)
	if err1 == nil && err2 == nil && !os.SameFile(opened, there) {
		return fmt.Errorf("%s is in use by another server", s.path)
	}
	_ = s.file.Close() // gives up the lock on the file
	aside := s.path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000Z")
	if err := os.Rename(s.path, aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is damaged (%w) and cannot be moved aside: %w", s.path, why, err)
	}
	log.Warn("data file damaged: moved aside, and an empty one made; users register again", "file", s.path, "movedTo", filepath.Base(aside), "error", why)
	return nil
}

// close waits for what is being written.
func (s *store) close() error { return guard(s.db.Close) }

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
