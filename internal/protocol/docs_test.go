package protocol

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const examples = "../../docs/protocol-examples.md"

// The document shows every golden file, word for word and under its name, so that what a reader
// copies is what the tests read. UPDATE_DOCS=1 writes it anew.
func TestDocumentShowsEveryGoldenFile(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	var want bytes.Buffer
	want.WriteString("# Messages of the wire, one example each\n\nWhat they mean is in " +
		"[protocol.md](protocol.md). " +
		"Each is a file of `internal/protocol/testdata` and is read by the tests of the server " +
		"and of the SDK.\n")
	part := ""
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		if p, _, _ := strings.Cut(name, "."); p != part {
			part = p
			want.WriteString("\n## " + part + "\n")
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		want.WriteString("\n" + name + "\n\n```json\n" + string(bytes.TrimSpace(text)) + "\n```\n")
	}
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(examples, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(examples)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/protocol-examples.md does not show the golden files as they are: " +
			"UPDATE_DOCS=1 go test ./internal/protocol")
	}
}

// Each message of the example session in protocol.md is a golden file, shortened where it says so.
func TestExampleSessionIsMadeOfGoldenFiles(t *testing.T) {
	text, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, session, _ := strings.Cut(string(text), "```session\n")
	session, _, found := strings.Cut(session, "```")
	if !found {
		t.Fatal("docs/protocol.md has no example session")
	}
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden []string
	for _, f := range files {
		message, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		golden = append(golden, strings.TrimSpace(string(message)))
	}
	messages := 0
	for line := range strings.Lines(session) {
		_, message, found := strings.Cut(strings.TrimSpace(line), "{")
		if !found {
			continue
		}
		messages++
		pieces := strings.Split("{"+message, "…")
		for i := range pieces {
			pieces[i] = regexp.QuoteMeta(pieces[i])
		}
		shape := regexp.MustCompile("^" + strings.Join(pieces, ".*") + "$")
		if !slices.ContainsFunc(golden, shape.MatchString) {
			t.Errorf("no golden file is %s", line)
		}
	}
	if messages < 10 {
		t.Errorf("only %d messages were understood", messages)
	}
}
