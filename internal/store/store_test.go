package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDataOutlastsItsProcess(t *testing.T) {
	dir := t.TempDir()
	var ids []string
	for round := range 3 {
		d, err := Open(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, d.NodeID())
		all, err := d.Load()
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != round*100 {
			t.Errorf("round %d: %d records", round, len(all))
		}
		for i := range 200 {
			d.Keep(
				fmt.Sprintf("%d-%d", round, i%100),
				func() []byte { return fmt.Appendf(nil, "old %d", i) },
			)
		}
		d.Keep("gone", func() []byte { return []byte("x") })
		d.Keep("gone", func() []byte { return nil })
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d.Keep("late", func() []byte { t.Error("asked for a value after close"); return nil })
		if err := d.Close(); err != nil {
			t.Error("closing twice:", err)
		}
	}
	if ids[0] != ids[1] || ids[1] != ids[2] || len(ids[0]) != 12 {
		t.Errorf("the node's id changed: %v", ids)
	}
}

func TestDataBelongsToOneServer(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("opened twice")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func value(s string) func() []byte { return func() []byte { return []byte(s) } }

// What cannot be written is tried again every second and with no other change, is told once, and is
// written as soon as that can be.
func TestWhatCouldNotBeWrittenIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		d, err := Open(dir, slog.New(slog.NewTextHandler(&said, nil)))
		if err != nil {
			t.Fatal(err)
		}
		healthy := d.db.db
		// Closed: every write fails.
		sick, err := bbolt.Open(filepath.Join(t.TempDir(), "sick.db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := sick.Close(); err != nil {
			t.Fatal(err)
		}
		d.mu.Lock()
		d.db.db = sick
		d.mu.Unlock()
		d.Keep("a", value("old"))
		d.Keep("b", value("kept"))
		time.Sleep(10 * retryAfter)
		for range 100 {
			d.Keep("a", value("new"))
			time.Sleep(retryAfter / 50)
		}
		synctest.Wait()
		if n := d.unwritten.Load(); n != 2 {
			t.Errorf("%d are said to be unwritten", n)
		}
		d.mu.Lock() // the writer takes it before each try
		d.db.db = healthy
		d.mu.Unlock()
		time.Sleep(retryAfter + writeAfter)
		synctest.Wait()
		if n := d.unwritten.Load(); n != 0 {
			t.Errorf("%d are said to be unwritten, after all could be", n)
		}
		log := said.String()
		got := strings.Count(log, "data not written") + strings.Count(log, "data written again")
		if got != 2 {
			t.Errorf("the log says\n%s", said.String())
		}
		d.Keep("c", value("later"))
		time.Sleep(writeAfter)
		synctest.Wait()
		if err := healthy.View(func(tx *bbolt.Tx) error {
			for key, want := range map[string]string{"a": "new", "b": "kept", "c": "later"} {
				if got := tx.Bucket(recordsBucket).Get([]byte(key)); string(got) != want {
					t.Errorf("%s is %q", key, got)
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
}

// damage is done to one page of a file, or to all behind it.
var damage = map[string]func(r *rand.Rand, file []byte, from, to int) []byte{
	"zero": func(_ *rand.Rand, file []byte, from, to int) []byte {
		clear(file[from:to])
		return file
	},
	"ones": func(_ *rand.Rand, file []byte, from, to int) []byte {
		return fill(file, from, to, func() byte { return 0xFF })
	},
	"random": func(r *rand.Rand, file []byte, from, to int) []byte {
		return fill(file, from, to, func() byte { return byte(r.Uint32()) })
	},
	// The id stays, so that bbolt goes on.
	"a header": func(r *rand.Rand, file []byte, from, _ int) []byte {
		return fill(file, from+8, from+16, func() byte { return byte(r.Uint32()) })
	},
	"bits": func(r *rand.Rand, file []byte, from, to int) []byte {
		for range 20 {
			file[from+r.IntN(to-from)] ^= 1 << r.IntN(8)
		}
		return file
	},
	"another page": func(_ *rand.Rand, file []byte, from, to int) []byte {
		copy(file[from:to], file[:to-from])
		return file
	},
	"cut":        func(_ *rand.Rand, file []byte, from, _ int) []byte { return file[:from] },
	"cut within": func(_ *rand.Rand, file []byte, from, _ int) []byte { return file[:from+100] },
}

func fill(file []byte, from, to int, with func() byte) []byte {
	for i := from; i < to; i++ {
		file[i] = with()
	}
	return file
}

// Whatever happens to its file, a server starts, keeps what happens from then on, and finds that
// after its next start.
func TestADamagedFileIsSurvived(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, dataFile)
	d, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		d.Keep(fmt.Sprintf("session-%d", i), value(strings.Repeat("s", 200)))
	}
	d.Keep("room", value(strings.Repeat("r", 20_000)))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	r := rand.New(rand.NewPCG(1, 1))
	moved := 0
	for from := 0; from < len(good); from += page {
		for kind, do := range damage {
			name := fmt.Sprintf("page %d, %s", from/page, kind)
			for _, old := range stores(t, dir) {
				_ = os.Remove(old)
			}
			damaged := do(r, bytes.Clone(good), from, from+page)
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			d, err := Open(dir, slog.New(slog.NewTextHandler(&said, nil)))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			for i := range 100 {
				d.Keep(fmt.Sprintf("session-%d", 3*i), newOrGone(i))
			}
			id := d.NodeID()
			if err := d.Close(); err != nil {
				t.Errorf("%s: close: %v", name, err)
			}
			aside := len(stores(t, dir)) - 1
			if moved += aside; aside != strings.Count(said.String(), "data file damaged") {
				t.Errorf(
					"%s: %d files were moved aside, the log says %s",
					name, aside, said.String(),
				)
			}
			if d, err = Open(dir, slog.New(slog.DiscardHandler)); err != nil {
				t.Errorf("%s: at the next start: %v", name, err)
				continue
			}
			all, _ := d.Load()
			for i := range 100 {
				got, want := string(all[fmt.Sprintf("session-%d", 3*i)]), string(newOrGone(i)())
				if got != want {
					t.Errorf("%s: the record %d is %q, want %q", name, i, got, want)
					break
				}
			}
			if d.NodeID() != id {
				t.Errorf("%s: the node has another id", name)
			}
			if err := d.Close(); err != nil {
				t.Errorf("%s: the second close: %v", name, err)
			}
		}
	}
	if moved == 0 {
		t.Error("nothing was damaged")
	}
}

// newOrGone is a value for even numbers, and a removal for odd ones.
func newOrGone(i int) func() []byte {
	if i%2 == 1 {
		return func() []byte { return nil }
	}
	return value(fmt.Sprint("new ", i))
}

func stores(t *testing.T, dir string) (paths []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, dataFile+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// A file that is cut or overwritten while it is in use is replaced.
func TestAFileDamagedInUseIsReplaced(t *testing.T) {
	for name, do := range map[string]func(path string) error{
		"cut":     func(path string) error { return os.Truncate(path, 4096) },
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"overwritten": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(bytes.Repeat([]byte{0x5A}, 32<<10), 8<<10)
			return errors.Join(err, f.Close())
		},
	} {
		dir := t.TempDir()
		d, err := Open(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			d.Keep(fmt.Sprint("before-", i), value(strings.Repeat("x", 200)))
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if d, err = Open(dir, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		id := d.NodeID()
		if err := do(filepath.Join(dir, dataFile)); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			d.Keep(fmt.Sprint("after-", i), value("y"))
		}
		if err := d.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d, err = Open(dir, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		all, _ := d.Load()
		for i := range 100 {
			if string(all[fmt.Sprint("after-", i)]) != "y" {
				t.Errorf("%s: after-%d is lost", name, i)
				break
			}
		}
		if d.NodeID() != id {
			t.Errorf("%s: the node has another id", name)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// While there can be no new file in place of one that was damaged in use, the server goes on and
// can be stopped. When there can be, all that has changed meanwhile is written to it, and the node
// keeps its id.
func TestADamagedFileIsReplacedAsSoonAsThatCanBe(t *testing.T) {
	for name, hinder := range map[string]func(dir string) (undo func() error, err error){
		"the folder is away": func(dir string) (func() error, error) {
			return func() error { return os.Rename(dir+"-away", dir) }, os.Rename(dir, dir+"-away")
		},
		"a folder stands there": func(dir string) (func() error, error) {
			path := filepath.Join(dir, dataFile)
			err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
			return func() error { return os.Remove(path) }, err
		},
	} {
		for _, stop := range []bool{false, true} {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			var id string
			var undo func() error
			synctest.Test(t, func(t *testing.T) {
				var said strings.Builder
				d, err := Open(dir, slog.New(slog.NewTextHandler(&said, nil)))
				if err != nil {
					t.Fatal(err)
				}
				id = d.NodeID()
				if err := os.Truncate(filepath.Join(dir, dataFile), 0); err != nil {
					t.Fatal(err)
				}
				if undo, err = hinder(dir); err != nil {
					t.Fatal(err)
				}
				d.Keep("a", value("old"))
				time.Sleep(10 * retryAfter)
				synctest.Wait()
				if n := d.unwritten.Load(); n != 1 {
					t.Errorf("%s: %d are said to be unwritten", name, n)
				}
				if !stop {
					d.Keep("b", value("kept"))
					if err := undo(); err != nil {
						t.Fatal(err)
					}
					time.Sleep(2 * retryAfter)
					synctest.Wait()
					if n := d.unwritten.Load(); n != 0 {
						t.Errorf("%s: %d are said to be unwritten, after all could be", name, n)
					}
				}
				if err := d.Close(); (err != nil) != stop {
					t.Errorf("%s: close: %v", name, err)
				}
				if n := strings.Count(said.String(), "data not written"); n != 1 {
					t.Errorf("%s: the log says\n%s", name, said.String())
				}
			})
			if stop {
				continue
			}
			d, err := Open(dir, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			all, _ := d.Load()
			if string(all["a"]) != "old" || string(all["b"]) != "kept" || d.NodeID() != id {
				t.Errorf("%s: %q of node %s, want that of %s", name, all, d.NodeID(), id)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
