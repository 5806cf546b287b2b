package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	metricName   = regexp.MustCompile(`\bieum_[a-z0-9_]*[a-z0-9]\b`)
	variableName = regexp.MustCompile(`\bIEUM_[A-Z0-9_]*[A-Z0-9]\b`)
	flagName     = regexp.MustCompile(`(?:^|[\s"'(\[|=])--([a-z][a-z0-9-]*[a-z0-9])`)
	codeBlock    = regexp.MustCompile("(?ms)^```.*?^```$")
)

// otherFlags are flags of other programs that the documents name, with the program.
var otherFlags = map[string]string{
	"test-name-pattern": "node --test",
	"ignore-scripts":    "npm ci",
	"cases":             "bench/call.mjs",
	"rounds":            "bench/*.mjs",
	"shapes":            "bench/relay.mjs",
}

// declared is what the programs have: settings and metrics.
type declared struct {
	flags     map[string]map[string]bool // by the folder of the program
	variables map[string]bool
	metrics   map[string]bool
}

// flag tells whether any program has a flag.
func (d *declared) flag(name string) bool {
	for _, flags := range d.flags {
		if flags[name] ||
			(strings.HasPrefix(name, "no-") && flags[strings.TrimPrefix(name, "no-")]) {
			return true
		}
	}
	return false
}

// readDeclared reads flags from the tags of fields in cmd, and variables and metrics from literals.
func readDeclared(t *testing.T) *declared {
	t.Helper()
	d := &declared{
		flags:     map[string]map[string]bool{},
		variables: map[string]bool{},
		metrics:   map[string]bool{},
	}
	sources(t, func(name, path string) {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		program := filepath.ToSlash(filepath.Dir(name))
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				if strings.HasPrefix(program, "cmd/") && n.Tag != nil {
					d.addFlags(program, n)
				}
			case *ast.BasicLit:
				if n.Kind != token.STRING {
					return true
				}
				text, err := strconv.Unquote(n.Value)
				if err != nil {
					return true
				}
				if metricName.FindString(text) == text && text != "" {
					d.metrics[text] = true
				}
				for _, v := range variableName.FindAllString(text, -1) {
					d.variables[v] = true
				}
			}
			return true
		})
	})
	for _, name := range scripts(t) {
		for _, v := range variableName.FindAllString(textOf(t, name), -1) {
			d.variables[v] = true
		}
	}
	for _, flags := range d.flags {
		flags["help"] = true
		for name := range flags {
			d.variables["IEUM_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = true
		}
	}
	return d
}

// scripts are the files that start tests and benchmarks, which have variables of their own.
func scripts(t *testing.T) []string {
	t.Helper()
	names := []string{"Makefile"}
	sources(t, func(name, _ string) {
		if strings.HasSuffix(name, ".mjs") ||
			strings.HasSuffix(name, "_test.go") && strings.HasPrefix(name, "e2e/") {
			names = append(names, name)
		}
	})
	return names
}

// addFlags adds the flag that a field with a tag of kong declares: help but no command or argument.
func (d *declared) addFlags(program string, f *ast.Field) {
	text, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		return
	}
	tag := reflect.StructTag(text)
	_, help := tag.Lookup("help")
	_, command := tag.Lookup("cmd")
	_, argument := tag.Lookup("arg")
	if !help || command || argument {
		return
	}
	if d.flags[program] == nil {
		d.flags[program] = map[string]bool{}
	}
	for _, id := range f.Names {
		name := tag.Get("name")
		if name == "" {
			name = strings.Join(wordsOf(id.Name), "-")
		}
		d.flags[program][name] = true
	}
}

// documents calls do for each document that describes the present state: the changelog and the
// table of renamed names describe the past.
func documents(t *testing.T, do func(name, text string)) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, f fs.DirEntry, err error) error {
		name := filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator)))
		switch {
		case err != nil:
			return err
		case f.IsDir() && (f.Name() == "node_modules" || strings.HasPrefix(f.Name(), ".") &&
			f.Name() != ".."):
			return filepath.SkipDir
		case f.IsDir() || filepath.Ext(name) != ".md" || name == "CHANGELOG.md":
			return nil
		}
		do(name, textOf(t, name))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// codeOf are the pieces of a document in code style: blocks and spans.
func codeOf(text string) []string {
	blocks := codeBlock.FindAllString(text, -1)
	return append(blocks, codeSpans(codeBlock.ReplaceAllString(text, ""))...)
}

func TestMetricsAreDocumented(t *testing.T) {
	d := readDeclared(t)
	if len(d.metrics) < 30 {
		t.Fatalf("only %d metrics were found", len(d.metrics))
	}
	page := textOf(t, "docs/operating/observe.md")
	for _, name := range slices.Sorted(maps.Keys(d.metrics)) {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/operating/observe.md has no row for %s", name)
		}
	}
}

func TestFlagsAreDocumented(t *testing.T) {
	d := readDeclared(t)
	all := ""
	documents(t, func(_, text string) { all += strings.Join(codeOf(text), "\n") + "\n" })
	for _, program := range slices.Sorted(maps.Keys(d.flags)) {
		if len(d.flags[program]) < 10 {
			t.Errorf("only %d flags of %s were found", len(d.flags[program]), program)
		}
		for _, name := range slices.Sorted(maps.Keys(d.flags[program])) {
			if !regexp.MustCompile(`--` + name + `\b([^-]|$)`).MatchString(all) {
				t.Errorf("no document names the flag --%s of %s", name, program)
			}
		}
	}
}

// A document that names a flag, a variable or a metric which is not there misleads.
func TestDocumentsNameWhatExists(t *testing.T) {
	d := readDeclared(t)
	documents(t, func(name, text string) {
		for _, metric := range metricName.FindAllString(text, -1) {
			series := strings.TrimSuffix(
				strings.TrimSuffix(strings.TrimSuffix(metric, "_bucket"), "_sum"),
				"_count",
			)
			if !d.metrics[metric] && !d.metrics[series] {
				t.Errorf("%s names the metric %s, which does not exist", name, metric)
			}
		}
		for _, v := range variableName.FindAllString(text, -1) {
			if !d.variables[v] {
				t.Errorf("%s names the variable %s, which does not exist", name, v)
			}
		}
		for _, code := range codeOf(text) {
			for line := range strings.Lines(code) {
				for _, flag := range flagsIn(line) {
					if !d.flag(flag) && otherFlags[flag] == "" {
						t.Errorf("%s names the flag --%s, which does not exist: %s",
							name, flag, line)
					}
				}
			}
		}
	})
}

// flagsIn are the flags that a line names. "--relay-…" stands for several.
func flagsIn(line string) (flags []string) {
	for _, at := range flagName.FindAllStringSubmatchIndex(line, -1) {
		if !strings.HasPrefix(line[at[3]:], "-") {
			flags = append(flags, line[at[2]:at[3]])
		}
	}
	return flags
}
