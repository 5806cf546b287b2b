package streamlog

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"
)

// Nodes of the previous and of this version understand each other while these bytes stay.
func TestTheEncodingStaysAsItIs(t *testing.T) {
	e := entry{kind: kindRenew, process: 3, id: 9, payload: []byte(`{}`)}
	const want = "01" + "02" + "0000000000000003" + "0000000000000009" + "7b7d"
	if got := hex.EncodeToString(e.append(nil)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestEntriesOfAnotherVersionAreNotUnderstood(t *testing.T) {
	e := entry{kind: kindBury, process: 3, id: 9}
	b := e.append(nil)
	if _, err := parseEntry(b); err != nil {
		t.Error(err)
	}
	b[0]++
	if _, err := parseEntry(b); err == nil {
		t.Error("version 2 is understood")
	}
	if _, err := parseEntry(b[:headerSize-1]); err == nil {
		t.Error("a part of an entry is understood")
	}
}

func TestSnapshotsOfAnotherStreamAreNotUsed(t *testing.T) {
	made := time.Unix(1_800_000_000, 77)
	if at, ok := parseObjectName(made, objectName(made, 8192)); !ok || at != 8192 {
		t.Errorf("%d, %v", at, ok)
	}
	for _, name := range []string{objectName(made.Add(1), 8192), "8192", "", "x-8192"} {
		if at, ok := parseObjectName(made, name); ok {
			t.Errorf("%q is a snapshot at %d", name, at)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	e := entry{kind: kindCommand, process: 1, id: 2, payload: []byte("payload")}
	f.Add(e.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseEntry(b)
		if err == nil && !bytes.Equal(got.append(nil), b) {
			t.Errorf("%x was taken for %+v", b, got)
		}
	})
}

func FuzzParseSave(f *testing.F) {
	s := save{Renewals: map[string]renewal{"n1": {Process: 7, Count: 3}}, Directory: []byte{1}}
	b, err := s.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseSave(b)
		if err != nil {
			return
		}
		again, err := got.encode()
		if err != nil {
			t.Fatal(err)
		}
		if same, err := parseSave(again); err != nil || len(same.Renewals) != len(got.Renewals) {
			t.Errorf("%+v became %+v, %v", got, same, err)
		}
	})
}
