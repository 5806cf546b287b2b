package node

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

func TestDataOutlastsItsProcess(t *testing.T) {
	dir := t.TempDir()
	var ids []string
	for round := range 3 {
		d, err := openData(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		id, err := d.nodeID()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		all, err := d.Load()
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != round*100 {
			t.Errorf("round %d: %d records", round, len(all))
		}
		for i := range 200 {
			d.Keep(fmt.Sprintf("%d-%d", round, i%100), func() []byte { return fmt.Appendf(nil, "old %d", i) })
		}
		d.Keep("gone", func() []byte { return []byte("x") })
		d.Keep("gone", func() []byte { return nil })
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
		d.Keep("late", func() []byte { t.Error("asked for a value after close"); return nil })
		if err := d.close(); err != nil {
			t.Error("closing twice:", err)
		}
	}
	if ids[0] != ids[1] || ids[1] != ids[2] || len(ids[0]) != 12 {
		t.Errorf("the node's id changed: %v", ids)
	}
}

func TestDataBelongsToOneServer(t *testing.T) {
	dir := t.TempDir()
	d, err := openData(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openData(dir, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("opened twice")
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

func TestWhatCouldNotBeWrittenIsWrittenLater(t *testing.T) {
	dir := t.TempDir()
	d, err := openData(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	healthy := d.db
	sick, err := bbolt.Open(filepath.Join(t.TempDir(), "sick.db"), 0o600, nil) // without buckets, and closed: every write fails
	if err != nil {
		t.Fatal(err)
	}
	if err := sick.Close(); err != nil {
		t.Fatal(err)
	}
	value := func(s string) func() []byte { return func() []byte { return []byte(s) } }
	d.db = sick
	d.dirty["a"], d.dirty["b"] = value("old"), value("kept") // without a word to the writer, which sleeps
	d.flush()
	d.db = healthy
	d.Keep("a", value("new"))
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if d, err = openData(dir, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	all, err := d.Load()
	if err := errors.Join(err, d.close()); err != nil {
		t.Fatal(err)
	}
	if string(all["a"]) != "new" || string(all["b"]) != "kept" {
		t.Errorf("kept %q", all)
	}
}
