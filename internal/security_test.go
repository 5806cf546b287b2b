package internal_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// proof is a file in backticks and, behind a colon, what is in it.
	proof = regexp.MustCompile("^`([\\w./-]+\\.(?:go|mjs))`: (.+)$")
	// proven is a test, a fuzz target, or a function of a browser test.
	proven = regexp.MustCompile("^`(\\w+)`(?: \\(.*\\))?$")
)

// docs/security.md names the tests that show what it says. One that is renamed or gone must not
// leave it saying more than is so.
func TestWhatTheSecurityPageNamesIsThere(t *testing.T) {
	text, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	rows, tests := 0, 0
	sources := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") ||
			strings.HasPrefix(line, "| attack |") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		if len(cells) != 3 {
			t.Errorf("%d cells, want attack, what happens and tests: %s", len(cells), line)
			continue
		}
		rows++
		for _, file := range strings.Split(strings.TrimSpace(cells[2]), "; ") {
			m := proof.FindStringSubmatch(file)
			if m == nil {
				t.Errorf("%.60s: %q is not of the form `file`: `test`, `test`", cells[0], file)
				continue
			}
			source, known := sources[m[1]]
			if !known {
				b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(m[1])))
				if err != nil {
					t.Errorf("%.60s: %v", cells[0], err)
				}
				source = string(b)
				sources[m[1]] = source
			}
			for _, name := range strings.Split(m[2], ", ") {
				n := proven.FindStringSubmatch(name)
				if n == nil ||
					!strings.Contains(source, "func "+n[1]+"(") &&
						!strings.Contains(source, "export function "+n[1]+"(") {
					t.Errorf("%.60s: %s has no %s", cells[0], m[1], name)
				}
				tests++
			}
		}
	}
	if rows < 40 || tests < rows {
		t.Errorf("only %d rows with %d tests were understood", rows, tests)
	}
}
