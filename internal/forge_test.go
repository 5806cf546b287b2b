package internal_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// The forge reads the files of .github, and says nothing when one of them names what is not there.

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func exists(path string) bool {
	_, err := os.Stat(filepath.Join("..", filepath.FromSlash(path)))
	return err == nil
}

func TestCodeOwnersNameExistingPaths(t *testing.T) {
	lines := 0
	for line := range strings.Lines(readFile(t, ".github/CODEOWNERS")) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] == "#" {
			continue
		}
		lines++
		if fields[0] != "*" && !exists(fields[0]) {
			t.Errorf("%s does not exist", fields[0])
		}
		if len(fields) < 2 {
			t.Errorf("%s has no owner", fields[0])
		}
		for _, owner := range fields[1:] {
			if !strings.HasPrefix(owner, "@ieum-rtc/") {
				t.Errorf("%s: %s is not a team of the organisation", fields[0], owner)
			}
		}
	}
	if lines < 5 {
		t.Errorf("only %d lines were understood", lines)
	}
}

func TestDependencyUpdatesCoverEveryManifest(t *testing.T) {
	var config struct {
		Updates []struct {
			Ecosystem   string `yaml:"package-ecosystem"`
			Directory   string
			Directories []string
		}
	}
	if err := yaml.Unmarshal([]byte(readFile(t, ".github/dependabot.yml")), &config); err != nil {
		t.Fatal(err)
	}
	manifests := map[string]string{
		"gomod":          "go.mod",
		"npm":            "package-lock.json",
		"github-actions": ".github/workflows",
	}
	covered := map[string]bool{}
	for _, u := range config.Updates {
		manifest, ok := manifests[u.Ecosystem]
		if !ok {
			t.Errorf("no manifest is known for %s", u.Ecosystem)
		}
		dirs := u.Directories
		if u.Directory != "" {
			dirs = append(dirs, u.Directory)
		}
		for _, dir := range dirs {
			path := strings.TrimPrefix(dir+"/"+manifest, "/")
			path = strings.TrimPrefix(path, "/")
			if !exists(path) {
				t.Errorf("%s: there is no %s", u.Ecosystem, path)
			}
			covered[path] = true
		}
	}
	if err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		skip := d.Name() == "node_modules" || d.Name() == "bin" || strings.HasPrefix(d.Name(), ".")
		if d.IsDir() && skip && path != ".." {
			return filepath.SkipDir
		}
		if d.Name() != "go.mod" && d.Name() != "package-lock.json" {
			return nil
		}
		rel, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		if !covered[filepath.ToSlash(rel)] {
			t.Errorf(".github/dependabot.yml does not cover %s", rel)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

var (
	usedAction = regexp.MustCompile(`(?m)^\s*(?:- )?uses: (\S+)(.*)$`)
	pinned     = regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40}$`)
	madeTarget = regexp.MustCompile(`(?m)^\s*(?:- )?run: make ([a-z0-9 -]+)`)
)

// A tag can be moved to other code after a review, a commit cannot.
func TestWorkflowsPinActionsAndRunExistingTargets(t *testing.T) {
	files, err := filepath.Glob("../.github/workflows/*.yml")
	if err != nil {
		t.Fatal(err)
	}
	makefile := readFile(t, "Makefile")
	actions, targets := 0, 0
	for _, file := range files {
		text := readFile(t, ".github/workflows/"+filepath.Base(file))
		var workflow struct {
			Permissions map[string]string
			Jobs        map[string]struct {
				Permissions map[string]string
				Timeout     int `yaml:"timeout-minutes"`
			}
		}
		if err := yaml.Unmarshal([]byte(text), &workflow); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(workflow.Permissions) != 1 || workflow.Permissions["contents"] != "read" {
			t.Errorf("%s: permissions %v, want contents: read alone", file, workflow.Permissions)
		}
		for name, job := range workflow.Jobs {
			if job.Permissions != nil || job.Timeout == 0 {
				t.Errorf("%s: job %s has permissions of its own or no timeout", file, name)
			}
		}
		for _, m := range usedAction.FindAllStringSubmatch(text, -1) {
			actions++
			if !pinned.MatchString(m[1]) || !strings.HasPrefix(m[2], " # v") {
				t.Errorf("%s: %s is not pinned to a commit with its version behind it", file, m[1])
			}
		}
		for _, m := range madeTarget.FindAllStringSubmatch(text, -1) {
			for _, target := range strings.Fields(m[1]) {
				targets++
				if !strings.Contains(makefile, "\n"+target+":") {
					t.Errorf("%s: the Makefile has no target %s", file, target)
				}
			}
		}
	}
	if len(files) < 2 || actions < 5 || targets < 2 {
		t.Errorf("only %d workflows with %d actions and %d make targets were understood",
			len(files), actions, targets)
	}
}
