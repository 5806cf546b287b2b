package signaling

import (
	"reflect"
	"strings"
	"testing"
)

// docs/operating/capacity.md says how much memory all tables take: a new one changes that.
func TestTablesOfTheLimitersAreAsDocumented(t *testing.T) {
	const documented = 20
	var tables func(reflect.Type) int
	tables = func(t reflect.Type) (n int) {
		for i := range t.NumField() {
			switch f := t.Field(i).Type; {
			case f.Kind() == reflect.Struct:
				n += tables(f)
			case f.Kind() == reflect.Pointer &&
				strings.HasPrefix(f.Elem().Name(), "FixedWindow["):
				n++
			}
		}
		return n
	}
	if n := tables(reflect.TypeFor[limiters]()); n != documented {
		t.Errorf("%d tables, %d are documented", n, documented)
	}
}
