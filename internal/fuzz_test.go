package internal_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var fuzzTarget = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(f \*testing\.F\)`)

// Fuzzing starts from testdata/fuzz, and go test runs those inputs. Under a target's old name
// nothing would.
func TestFuzzTargetsHaveCommittedInputs(t *testing.T) {
	targets := map[string]bool{} // directory of the inputs
	if err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "node_modules" {
			return filepath.SkipDir
		}
		if d.IsDir() && filepath.Base(filepath.Dir(path)) == "fuzz" {
			if _, known := targets[path]; !known {
				targets[path] = false
			}
			return nil
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range fuzzTarget.FindAllSubmatch(source, -1) {
			targets[filepath.Join(filepath.Dir(path), "testdata", "fuzz", string(m[1]))] = true
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for dir, there := range targets {
		inputs, err := os.ReadDir(dir)
		switch {
		case !there:
			t.Errorf("%s belongs to no fuzz target", dir)
		case err != nil || len(inputs) == 0:
			t.Errorf("%s has no inputs: take some of what fuzzing finds interesting", dir)
		case len(inputs) > 60:
			t.Errorf("%s has %d inputs: each of them runs with every test", dir, len(inputs))
		}
	}
	if len(targets) < 10 {
		t.Errorf("only %d fuzz targets were found", len(targets))
	}
}
