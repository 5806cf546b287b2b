package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// notYetClean are the folders whose names still hold words that the glossary bans. The list only
// shrinks.
var notYetClean = []string{}

// foreign are banned words in names that others have given: an API, the wire of the contract.
var foreign = map[string]bool{}

// bannedWords are the words in code style in the column "not" of docs/glossary.md.
// Names of files stand apart.
func bannedWords(t *testing.T) (words, files []string) {
	t.Helper()
	inside := false
	for line := range strings.Lines(textOf(t, "docs/glossary.md")) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			inside = false
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		last := strings.TrimSpace(cells[len(cells)-1])
		if last == "not" {
			inside = true
		} else if inside {
			for _, word := range codeSpans(last) {
				if ext := filepath.Ext(word); ext == "" {
					words = append(words, strings.Join(wordsOf(word), " "))
				} else {
					files = append(files, word)
				}
			}
		}
	}
	if len(words) < 40 {
		t.Fatalf("docs/glossary.md bans only %d words: is its column \"not\" still there?",
			len(words))
	}
	return words, files
}

// wordsOf splits a name or a sentence into lower-case words.
func wordsOf(name string) []string {
	var words []string
	var word []rune
	runes := []rune(name)
	flush := func() {
		if len(word) > 0 {
			words = append(words, strings.ToLower(string(word)))
		}
		word = nil
	}
	for i, r := range runes {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			flush()
			continue
		case unicode.IsUpper(r) && i > 0 && unicode.IsLower(runes[i-1]),
			unicode.IsUpper(r) && i > 0 && i+1 < len(runes) && unicode.IsUpper(runes[i-1]) &&
				unicode.IsLower(runes[i+1]):
			flush()
		}
		word = append(word, r)
	}
	flush()
	return words
}

// banned returns the first of the words that a name or sentence holds, also in the plural; or "".
func banned(text string, words []string) string {
	if foreign[text] {
		return ""
	}
	have := " " + strings.Join(wordsOf(text), " ") + " "
	for _, word := range words {
		if strings.Contains(have, " "+word+" ") || strings.Contains(have, " "+word+"s ") {
			return word
		}
	}
	return ""
}

// sources calls do for each file that somebody wrote, with its path from the root of the
// repository.
func sources(t *testing.T, do func(name, path string)) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		name := filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator)))
		switch {
		case err != nil:
			return err
		case d.IsDir():
			hidden := strings.HasPrefix(d.Name(), ".") && d.Name() != ".."
			made := slices.Contains([]string{"node_modules", "dist", "bin", "testdata"}, d.Name())
			if hidden || made {
				return filepath.SkipDir
			}
			return nil
		}
		switch filepath.Ext(name) {
		case ".go", ".ts", ".mts", ".mjs", ".cjs", ".js":
			do(name, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func listed(list []string, name string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		return name == entry || strings.HasPrefix(name, entry+"/")
	})
}

// One term for one thing: a word that the glossary replaces does not come back as a name.
func TestNamesAreThoseOfTheGlossary(t *testing.T) {
	words, bannedFiles := bannedWords(t)
	files := 0
	sources(t, func(name, path string) {
		if listed(notYetClean, name) {
			return
		}
		files++
		base := filepath.Base(name)
		if slices.Contains(bannedFiles, base) {
			t.Errorf("%s: the glossary has another name for this file", name)
		} else if word := banned(strings.TrimSuffix(base, filepath.Ext(base)), words); word != "" {
			t.Errorf("%s: the glossary has another word for %q", name, word)
		}
		names := goNames
		if !strings.HasSuffix(name, ".go") {
			names = scriptNames
		}
		names(t, path, func(line int, text string) {
			if word := banned(text, words); word != "" {
				t.Errorf("%s:%d: %q: the glossary has another word for %q", name, line, text, word)
			}
		})
	})
	if files < 100 && len(notYetClean) == 0 {
		t.Errorf("only %d files were looked at", files)
	}
	for _, dir := range notYetClean {
		if _, err := os.Stat(filepath.Join("..", dir)); err != nil {
			t.Errorf("notYetClean names %s, which does not exist", dir)
		}
	}
}

// goNames calls do for each name that a file declares, and for the help texts and metrics in it.
func goNames(t *testing.T, path string, do func(line int, text string)) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	name := func(ids ...*ast.Ident) {
		for _, id := range ids {
			if id != nil {
				do(set.Position(id.Pos()).Line, id.Name)
			}
		}
	}
	short := func(list ...ast.Expr) {
		for _, e := range list {
			if id, ok := e.(*ast.Ident); ok {
				name(id)
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			name(n.Name)
		case *ast.TypeSpec:
			name(n.Name)
		case *ast.ValueSpec:
			name(n.Names...)
		case *ast.Field:
			name(n.Names...)
			if n.Tag != nil {
				helpOf(n.Tag, func(text string) { do(set.Position(n.Tag.Pos()).Line, text) })
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				short(n.Lhs...)
			}
		case *ast.RangeStmt:
			short(n.Key, n.Value)
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "NewDesc" {
				texts(n, func(line token.Pos, text string) { do(set.Position(line).Line, text) })
			}
		case *ast.KeyValueExpr:
			if id, ok := n.Key.(*ast.Ident); ok && (id.Name == "Help" || id.Name == "Name") {
				texts(
					n.Value,
					func(line token.Pos, text string) { do(set.Position(line).Line, text) },
				)
			}
		}
		return true
	})
}

// helpOf calls do with the help and the name of a flag.
func helpOf(tag *ast.BasicLit, do func(text string)) {
	text, err := strconv.Unquote(tag.Value)
	if err != nil {
		return
	}
	for _, key := range []string{"help", "name", "placeholder"} {
		if value, ok := reflect.StructTag(text).Lookup(key); ok {
			do(value)
		}
	}
}

// texts calls do with the string literals in an expression.
func texts(n ast.Node, do func(at token.Pos, text string)) {
	ast.Inspect(n, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil {
				do(lit.Pos(), text)
			}
		}
		return true
	})
}

var (
	// scriptText is what is no code in TypeScript and JavaScript: comments, strings, patterns.
	scriptText = regexp.MustCompile(
		`(?s)/\*.*?\*/|(?m://[^\n]*$)|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|` +
			"`(?:[^`\\\\]|\\\\.)*`" +
			`|(?:[=(,:!&|?]|return)\s*/(?:[^/\\\n\[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/`,
	)
	scriptWord = regexp.MustCompile(`[A-Za-z_$][\w$]*`)
)

// scriptNames calls do for each identifier of a file. Comments, strings and patterns become blanks.
func scriptNames(t *testing.T, path string, do func(line int, text string)) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := scriptText.ReplaceAllStringFunc(string(b), func(s string) string {
		return strings.Repeat("\n", strings.Count(s, "\n")) + " "
	})
	number := 0
	for line := range strings.Lines(text) {
		number++
		for _, word := range scriptWord.FindAllString(line, -1) {
			do(number, word)
		}
	}
}

func TestBannedWordsAreFoundInNames(t *testing.T) {
	words := []string{"open run", "carrier", "why"}
	for text, want := range map[string]string{
		"openRun": "open run", "OpenRun": "open run", "open_run": "open run",
		"anOpenRuns": "open run", "carriers": "carrier", "HTTPCarrier": "carrier",
		"CARRIER_LIMIT": "carrier", "--max-carriers": "carrier",
		"The carrier of a message.": "carrier", "why": "why",
		"opener": "", "openAndRun": "", "carry": "", "whyever": "",
	} {
		if got := banned(text, words); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
