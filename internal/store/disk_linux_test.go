package store

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A disk that was full and has room again gets what could not be written, though nothing else
// happens.
func TestAFullDiskIsSurvived(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf(
			"no file system of its own (%v): "+
				"TestWhatCouldNotBeWrittenIsTriedAgain has the same without",
			err,
		)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	d, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	junk := filepath.Join(dir, "junk")
	f, err := os.Create(junk)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	_ = f.Close()
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	for i := range 200 {
		d.Keep(string(rune('a'+i%26))+strings.Repeat("k", i), value(strings.Repeat("v", 500)))
	}
	until("the disk is not full", func() bool { return d.unwritten.Load() == 200 })
	if err := os.Remove(junk); err != nil {
		t.Fatal(err)
	}
	until("not written", func() bool { return d.unwritten.Load() == 0 })
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	all, _ := d.Load()
	if len(all) != 200 || len(stores(t, dir)) != 1 {
		t.Errorf("%d records in %v", len(all), stores(t, dir))
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
