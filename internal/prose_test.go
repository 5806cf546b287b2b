package internal_test

import (
	"path"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

const (
	maxSentence = 25  // words; a code span is one
	maxCell     = 40  // words; what needs a paragraph stands below its table
	maxLine     = 100 // characters, unless nothing in the line can be broken
)

var (
	listItem  = regexp.MustCompile(`^\s*(?:[-*]|\d+\.) `)
	linkTo    = regexp.MustCompile(`\]\([^)\s]*\)`)
	spanOrURL = regexp.MustCompile("`[^`]*`|<https?://[^>]*>")
	// sentenceEnd is followed by something that begins a sentence.
	sentenceEnd = regexp.MustCompile("[.!?:][\"”*)]*\\s+([A-Z`*\\[(가-힣])")
)

func words(text string) int {
	n := 0
	for _, w := range strings.Fields(text) {
		if strings.IndexFunc(
			w,
			func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) },
		) >= 0 {
			n++
		}
	}
	return n
}

// sentencesOf splits a paragraph without code spans and the targets of links.
func sentencesOf(paragraph string) []string {
	text := linkTo.ReplaceAllString(paragraph, "]")
	text = spanOrURL.ReplaceAllString(text, "`CODE`")
	var all []string
	for {
		m := sentenceEnd.FindStringSubmatchIndex(text)
		if m == nil {
			return append(all, text)
		}
		all = append(all, text[:m[2]])
		text = text[m[2]:]
	}
}

// unbreakable tells whether a line holds one long link or code span, and nothing else that could go
// to the next line.
func unbreakable(line string) bool {
	return !strings.Contains(
		strings.TrimSpace(listItem.ReplaceAllString(spanOrURL.ReplaceAllString(line, ""), "")),
		" ",
	)
}

// Documents are for skimming.
func TestProseIsShort(t *testing.T) {
	paragraphs := 0
	for name, text := range sourcesOf(t, ".md") {
		if strings.HasPrefix(name, "sdk/") || path.Base(name) == "protocol-examples.md" ||
			strings.HasPrefix(name, ".github/") {
			continue // generated, or texts of a forge
		}
		var paragraph []string
		flush := func(line int) {
			if len(paragraph) == 0 {
				return
			}
			paragraphs++
			for _, s := range sentencesOf(
				listItem.ReplaceAllString(strings.Join(paragraph, " "), ""),
			) {
				if n := words(s); n > maxSentence {
					t.Errorf("%s: a sentence of %d words above line %d, more than %d: %s",
						name, n, line, maxSentence, s)
				}
			}
			paragraph = nil
		}
		text = fence.ReplaceAllStringFunc(
			text,
			func(block string) string { return strings.Repeat("\n", strings.Count(block, "\n")) },
		)
		for i, line := range strings.Split(text, "\n") {
			number := i + 1
			if strings.HasPrefix(line, "|") {
				flush(number)
				for _, cell := range strings.Split(line, " | ") {
					if n := words(cell); n > maxCell {
						t.Errorf("%s:%d: a cell of %d words, more than %d: %.60s…",
							name, number, n, maxCell, cell)
					}
				}
				continue
			}
			if n := utf8.RuneCountInString(line); n > maxLine && !unbreakable(line) {
				t.Errorf("%s:%d: %d characters, more than %d", name, number, n, maxLine)
			}
			if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") ||
				listItem.MatchString(line) {
				flush(number)
			}
			if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#") {
				paragraph = append(paragraph, strings.TrimSpace(line))
			}
		}
		flush(strings.Count(text, "\n") + 1)
	}
	if paragraphs < 500 {
		t.Errorf("only %d paragraphs were understood", paragraphs)
	}
}
