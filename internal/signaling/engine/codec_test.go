package engine

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
)

// filled is a table with some of everything.
func filled(t testing.TB) *Table {
	t.Helper()
	table := NewTable()
	table.Join("n1")
	table.Join("n2")
	table.Join("n2")
	for i := range 20 {
		l := Location{Node: fmt.Sprint("n", i%2+1), Session: fmt.Sprint("s", i)}
		got, err := table.ClaimUser(fmt.Sprint("t", i%3), fmt.Sprint("u", i), l, 100)
		if err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 {
			table.ReleaseUser(fmt.Sprint("t", i%3), fmt.Sprint("u", i), got)
		}
		if _, err := table.ClaimRoom("t1", fmt.Sprint("r", i), Owner{Node: "n1"}); err != nil {
			t.Fatal(err)
		}
	}
	table.SetState("n1", 1, Dead)
	return table
}

func encode(t testing.TB, table *Table) []byte {
	t.Helper()
	b, err := table.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestATableSurvivesItsEncoding(t *testing.T) {
	table := filled(t)
	b := encode(t, table)
	parsed, err := ParseTable(b)
	if err != nil || !reflect.DeepEqual(parsed, table) {
		t.Fatalf("%v: %+v, want %+v", err, parsed, table)
	}
	if !bytes.Equal(encode(t, parsed), b) {
		t.Error("the same table gives other bytes")
	}
	for n := range b {
		if _, err := ParseTable(b[:n]); err == nil {
			t.Fatalf("the first %d bytes of %d are a table", n, len(b))
		}
	}
}

func TestSkippedNumbersAreNeverGiven(t *testing.T) {
	table := filled(t)
	epoch, term := table.epoch, table.term
	table.Skip(1000)
	l, err := table.ClaimUser("t", "new", Location{Node: "n2", Session: "s"}, 1)
	if err != nil || l.Epoch <= epoch+1000 {
		t.Errorf("%v %v", l, err)
	}
	o, err := table.ClaimRoom("t", "new", Owner{Node: "n2"})
	if err != nil || o.Term <= term+1000 {
		t.Errorf("%v %v", o, err)
	}
	if n := table.JoinAfter("n3", 7); n.Incarnation != 8 || n.State != Up {
		t.Errorf("%+v", n)
	}
	if n := table.JoinAfter("n2", 7); n.Incarnation != 1003 {
		t.Errorf("%+v", n)
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add(encode(f, filled(f)))
	f.Add(encode(f, NewTable()))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := ParseTable(b)
		if err != nil {
			return
		}
		again, err := ParseTable(encode(t, table))
		if err != nil || !reflect.DeepEqual(again, table) {
			t.Fatalf("%v: %+v, want %+v", err, again, table)
		}
	})
}
