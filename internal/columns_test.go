package internal_test

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxColumns is the width of a line of code; a tab is four columns wide.
const maxColumns = 100

// notYetNarrow are the folders with lines that are still wider. The list only shrinks.
var notYetNarrow = []string{
	"internal/signaling/enginetest",
}

// unbroken are lines that cannot be broken: the tag of a struct's field, an address of the web.
var unbroken = regexp.MustCompile("^\\s*[\\w\\[\\]*. ]+`.*`,?$|https?://\\S{40,}")

func columnsOf(line string) int {
	return utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    "))
}

func TestLinesFitIntoAHundredColumns(t *testing.T) {
	sources(t, func(name, path string) {
		if listed(notYetNarrow, name) {
			return
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		lines := bufio.NewScanner(file)
		for number := 1; lines.Scan(); number++ {
			if n := columnsOf(lines.Text()); n > maxColumns && !unbroken.MatchString(lines.Text()) {
				t.Errorf("%s:%d: %d columns, at most %d", name, number, n, maxColumns)
			}
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	})
	for _, dir := range notYetNarrow {
		if _, err := os.Stat(filepath.Join("..", dir)); err != nil {
			t.Errorf("notYetNarrow names %s, which does not exist", dir)
		}
	}
}
