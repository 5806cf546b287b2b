package signaling

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every error that a client may cause has a code and a sentence of its own: what is not listed gets
// 500, and an entry in the log as a bug.
func TestEveryErrorHasACode(t *testing.T) {
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	own := read("errors.go")
	_, listed, found := strings.Cut(own, "\nvar outcomes = ")
	if !found {
		t.Fatal("errors.go has no outcomes")
	}
	declared := regexp.MustCompile(`(?m)^\t([Ee]rr\w+) += errors\.New\(`)
	checked := 0
	for name, source := range map[string]string{
		"":         own,
		"room.":    read("../room/room.go"),
		"engine.":  read("engine/engine.go"),
		"license.": read("../license/license.go"),
	} {
		for _, m := range declared.FindAllStringSubmatch(source, -1) {
			names := []string{name + m[1]}
			if name == "engine." {
				names = append(names, m[1]) // signaling has names of its own for some
			}
			checked++
			if !slices.ContainsFunc(names, func(n string) bool {
				return regexp.MustCompile(`[{\t]` + regexp.QuoteMeta(n) + `, protocol\.`).
					MatchString(listed)
			}) {
				t.Errorf("%s%s has no row in outcomes: clients get 500", name, m[1])
			}
		}
	}
	if checked < 60 {
		t.Errorf("only %d errors were found", checked)
	}
}
