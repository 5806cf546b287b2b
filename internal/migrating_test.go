package internal_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ieum-rtc/ieum/internal/protocol"
)

// The pages for those who move here promise what each method does. Their truth is
// testdata/migrating.json: for each method what is claimed, and the tests that show it. It is made
// by hand, from the public surface of the original; what follows from it is checked.

// claims are the words of the second column.
var claims = map[string]map[string]string{
	"docs/migrating.md": {
		"same":     "same",
		"better":   "better",
		"stricter": "stricter",
		"new":      "new",
		"missing":  "missing",
	},
	"docs/migrating.ko.md": {
		"같음":    "same",
		"더 나음":  "better",
		"더 엄격함": "stricter",
		"새로움":   "new",
		"미지원":   "missing",
	},
}

// truth of a method: what is claimed of it, and by which tests of which files; missing methods have
// none.
type truth struct {
	Claims []string
	Proof  map[string][]string
}

func readMigrating(t *testing.T) map[string]truth {
	t.Helper()
	raw, err := os.ReadFile("testdata/migrating.json")
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Methods map[string]truth }
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all.Methods
}

func textOf(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// pageOf is a page without its blocks of code.
func pageOf(t *testing.T, name string) string {
	t.Helper()
	return regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(textOf(t, name), "")
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

func codeSpans(text string) []string {
	var all []string
	for _, m := range codeSpan.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// tablesOf are the rows of a page's tables, headings left out.
func tablesOf(page string) (tables [][][]string) {
	inside := false
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			inside = false
			continue
		}
		if !inside {
			tables, inside = append(tables, nil), true
		}
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		for i := range cells {
			cells[i] = strings.Trim(cells[i], " |")
		}
		if last := len(tables) - 1; !strings.HasPrefix(line, "|---") {
			tables[last] = append(tables[last], cells)
		}
	}
	for i := range tables {
		tables[i] = tables[i][1:]
	}
	return tables
}

// methodsOf are the claims of a page's first table.
func methodsOf(t *testing.T, name string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, row := range tablesOf(pageOf(t, name))[0] {
		var said []string
		for _, word := range strings.Split(row[1], ", ") {
			claim, ok := claims[name][word]
			if !ok {
				t.Errorf("%s: %s: %q is no word of the page", name, row[0], word)
			}
			said = append(said, claim)
		}
		for _, method := range codeSpans(row[0]) {
			if _, twice := found[method]; twice {
				t.Errorf("%s: %s stands in two rows", name, method)
			}
			found[method] = said
		}
	}
	return found
}

func TestMigratingSaysOfEachMethodWhatIsTrue(t *testing.T) {
	methods := readMigrating(t)
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		found := methodsOf(t, name)
		for method, said := range found {
			if want := methods[method].Claims; !slices.Equal(said, want) {
				t.Errorf("%s: %s is said to be %v, want %v", name, method, said, want)
			}
		}
		for method := range methods {
			if _, ok := found[method]; !ok {
				t.Errorf("%s says nothing of %s", name, method)
			}
		}
	}
}

// titleOf finds a test by a part of its title, or of its function's name in Go.
func titleOf(source, title string) bool {
	at := regexp.MustCompile(
		`(?m)^\s*(?:(?:test|it|describe)\(|func |export function ).*` + regexp.QuoteMeta(title),
	)
	return at.MatchString(source)
}

func TestWhatMigratingSaysIsTested(t *testing.T) {
	sources := map[string]string{}
	for method, m := range readMigrating(t) {
		shown := 0
		for file, titles := range m.Proof {
			if _, read := sources[file]; !read {
				sources[file] = textOf(t, file)
			}
			for _, title := range titles {
				if !titleOf(sources[file], title) {
					t.Errorf("%s: %s has no test %q", method, file, title)
				}
				shown++
			}
			name := strings.NewReplacer("new Knowledgetalk({ ", "", " })", "").Replace(method)
			// What is missing is tested by this list itself.
			if !strings.Contains(sources[file], name) &&
				!strings.Contains(sources[file], "migrating.json") {
				t.Errorf("%s: %s does not use it", method, file)
			}
		}
		if shown == 0 {
			t.Errorf("no test shows what is said of %s", method)
		}
	}
}

func TestMigratingListsTheMethodsOfTheSDK(t *testing.T) {
	types := textOf(t, "sdk/types/knowledgetalk.d.ts")
	at := func(text string) int { return strings.Index(types, text) }
	begin, end := at("export class Knowledgetalk"), at("export { Knowledgetalk as KnowledgeTalk }")
	class := types[begin:end]
	declared := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  (\w+)\(`).FindAllStringSubmatch(class, -1) {
		if name := m[1]; name != "constructor" && !strings.HasSuffix(name, "EventListener") {
			declared[name] = true
		}
	}
	options := types[at("export interface Options"):begin]
	for _, m := range regexp.MustCompile(`(?m)^  (\w+)\?:`).FindAllStringSubmatch(options, -1) {
		declared["new Knowledgetalk({ "+m[1]+" })"] = true
	}
	methods := readMigrating(t)
	for name := range methods {
		if !declared[name] {
			t.Errorf("%s is not declared", name)
		}
	}
	for name := range declared {
		if _, ok := methods[name]; !ok {
			t.Errorf("%s is declared and not listed", name)
		}
	}
	if len(declared) < 40 {
		t.Errorf("only %d declarations were understood", len(declared))
	}
}

// Both languages promise the same: as many rows, and in each the same names, codes and numbers.
func TestMigratingIsTheSameInBothLanguages(t *testing.T) {
	en, ko := tablesOf(pageOf(t, "docs/migrating.md")), tablesOf(pageOf(t, "docs/migrating.ko.md"))
	if len(en) != len(ko) || len(en) != 3 {
		t.Fatalf("%d and %d tables, want 3", len(en), len(ko))
	}
	number := regexp.MustCompile(`\d\d+|[2-9]`) // one is a word in English
	facts := func(row []string) []string {
		text := strings.Join(row, " ")
		all := append(
			codeSpans(text),
			number.FindAllString(codeSpan.ReplaceAllString(text, ""), -1)...)
		slices.Sort(all)
		return slices.Compact(all)
	}
	for i := range en {
		if len(en[i]) != len(ko[i]) {
			t.Errorf("table %d has %d and %d rows", i+1, len(en[i]), len(ko[i]))
			continue
		}
		for j := range en[i] {
			if a, b := facts(en[i][j]), facts(ko[i][j]); !slices.Equal(a, b) {
				t.Errorf("%s: %v, and in Korean %v", en[i][j][0], a, b)
			}
		}
	}
}

func TestMigratingListsEveryEvent(t *testing.T) {
	types := textOf(t, "sdk/types/knowledgetalk.d.ts")
	var declared []string
	event := regexp.MustCompile(`(?m)extends PresenceBase \{(?:\n)?\s*type: '(\w+)'`)
	for _, m := range event.FindAllStringSubmatch(types, -1) {
		declared = append(declared, m[1])
	}
	if len(declared) < 18 {
		t.Fatalf("only %v were understood", declared)
	}
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		var said []string
		for _, list := range codeSpans(pageOf(t, name)) {
			if words := strings.Fields(list); len(words) > 1 &&
				!strings.ContainsAny(list, "<({-.=:'/") {
				said = append(said, words...)
			}
		}
		for _, event := range declared {
			if !slices.Contains(said, event) {
				t.Errorf("%s does not list the event %s", name, event)
			}
		}
	}
}

// "Never sent" is a promise about code: none of these is a constant of ours, so none can be sent by
// mistake.
func TestCodesThatAreNeverSent(t *testing.T) {
	never := regexp.MustCompile("`((?:\\d{3} ){3,}\\d{3})`")
	source := textOf(t, "internal/protocol/protocol.go")
	if !strings.Contains(source, `"`+string(protocol.OK)+`"`) {
		t.Fatal("the codes are declared elsewhere")
	}
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		m := never.FindStringSubmatch(pageOf(t, name))
		if m == nil {
			t.Errorf("%s lists no codes", name)
			continue
		}
		for _, code := range strings.Fields(m[1]) {
			if strings.Contains(source, `"`+code+`"`) {
				t.Errorf("%s: %s is one of ours", name, code)
			}
		}
	}
}
