package internal_test

import (
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

var (
	fence      = regexp.MustCompile("(?ms)^```.*?^```$")
	inlineCode = regexp.MustCompile("`[^`\n]*`")
	heading    = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
	link       = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	// document is a document's path as prose and comments write it, from the root of the
	// repository.
	document = regexp.MustCompile(`\bdocs/[\w./-]+\.md\b`)
)

// sourcesOf returns the repository's own text files with one of the extensions, by their path from
// the root.
func sourcesOf(t *testing.T, extensions ...string) map[string]string {
	t.Helper()
	sources := map[string]string{}
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(
				[]string{".git", "node_modules", "bin", ".work", "testdata"},
				d.Name(),
			) {
				return filepath.SkipDir
			}
			return nil
		}
		if !slices.Contains(extensions, filepath.Ext(p)) {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		sources[strings.TrimPrefix(filepath.ToSlash(p), "../")] = string(text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sources
}

// anchorsOf returns the anchors that forges give the headings of a Markdown text: letters, digits,
// hyphens and underscores in lower case, spaces as hyphens, and a number behind one that is there
// already.
func anchorsOf(text string) map[string]bool {
	anchors := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])
		anchor := slug
		for i := 1; anchors[anchor]; i++ {
			anchor = slug + "-" + strconv.Itoa(i)
		}
		anchors[anchor] = true
	}
	return anchors
}

// Every relative link of the documents leads to a file, and its anchor to a heading.
func TestLinksBetweenDocumentsResolve(t *testing.T) {
	pages := sourcesOf(t, ".md")
	links := 0
	for name, text := range pages {
		text = inlineCode.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: %s: %v", name, m[1], err)
				continue
			}
			if target.IsAbs() {
				continue
			}
			links++
			file := name
			if target.Path != "" {
				file = path.Join(path.Dir(name), target.Path)
			}
			if _, err := os.Stat(filepath.Join("..", filepath.FromSlash(file))); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
				continue
			}
			if target.Fragment != "" && !anchorsOf(pages[file])[target.Fragment] {
				t.Errorf("%s links to %s, but %s has no such heading", name, m[1], file)
			}
		}
	}
	if links < 40 {
		t.Errorf("only %d links were understood in %d documents", links, len(pages))
	}
}

// A document that prose, comments or messages name by its path is there.
func TestDocumentsThatSourcesNameAreThere(t *testing.T) {
	mentions := 0
	kinds := []string{".md", ".go", ".ts", ".mjs", ".mts", ".js", ".json", ".html", ".sh"}
	for name, text := range sourcesOf(t, kinds...) {
		for _, file := range document.FindAllString(text, -1) {
			mentions++
			if _, err := os.Stat(filepath.Join("..", filepath.FromSlash(file))); err != nil {
				t.Errorf("%s names %s, which is not there", name, file)
			}
		}
	}
	if mentions < 40 {
		t.Errorf("only %d mentions were understood", mentions)
	}
}
