package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ieum-rtc/ieum/"

// layers says which of our packages a package may import. Dependencies point one way: whoever
// carries messages does not know what they mean, whoever decides about rooms does not know sockets.
// A new package needs a row here, and a reason.
var layers = map[string][]string{
	"cmd/ieum": {"internal/node", "internal/config", "internal/license", "internal/relay"},
	"cmd/ieum-bench": {
		"internal/license",
		"internal/bench/adversary",
		"internal/bench/client",
		"internal/bench/mix",
		"internal/bench/pair",
		"internal/bench/turn",
	},
	"internal/node": {
		"internal/transport", "internal/transport/socketio", "internal/signaling",
		"internal/signaling/engine", "internal/relay", "internal/admin",
		"internal/allocationlog", "internal/certs", "internal/cluster", "internal/config",
		"internal/ice",
		"internal/revocation", "internal/store", "web",
	},
	"internal/config": {
		"internal/transport", "internal/signaling", "internal/license", "internal/relay",
		"internal/admin",
		"internal/certs", "internal/cluster/identity", "internal/ice", "internal/netaddr",
		"internal/revocation",
	},
	"internal/allocationlog": {"internal/relay"},
	"internal/admin":         {"internal/transport"},
	"internal/signaling": {
		"internal/protocol", "internal/license", "internal/limit", "internal/room",
		"internal/netaddr", "internal/signaling/engine", "internal/transport",
	},
	"internal/signaling/engine":     {},
	"internal/signaling/enginetest": {"internal/signaling/engine"},
	"internal/limit":                {},
	"internal/logtest":              {},
	"internal/netaddr":              {},
	"internal/transport":            {"internal/limit", "internal/netaddr"},
	"internal/transport/socketio":   {"internal/limit", "internal/netaddr", "internal/transport"},
	"internal/protocol":             {},
	"internal/license":              {},
	"internal/room":                 {},
	"internal/relay":                {"internal/limit", "internal/netaddr"},
	"internal/ice": {
		"internal/certs", "internal/netaddr", "internal/protocol", "internal/relay",
	},
	"internal/revocation": {"internal/license"},
	"internal/store":      {},
	"internal/cluster": {
		"internal/cluster/bus", "internal/cluster/directory", "internal/cluster/embedded",
		"internal/cluster/identity", "internal/cluster/raftlog", "internal/cluster/streamlog",
		"internal/signaling/engine",
	},
	"internal/cluster/bus":       {"internal/signaling/engine"},
	"internal/cluster/directory": {"internal/signaling/engine"},
	"internal/cluster/embedded":  {},
	"internal/cluster/identity":  {},
	"internal/cluster/lease":     {},
	"internal/cluster/mismatch":  {"internal/cluster/lease"},
	"internal/cluster/streamlog": {
		"internal/cluster/directory", "internal/cluster/lease", "internal/cluster/mismatch",
		"internal/signaling/engine",
	},
	"internal/cluster/raftlog": {
		"internal/cluster/directory", "internal/cluster/lease", "internal/cluster/mismatch",
		"internal/signaling/engine",
	},
	"internal/certs": {},
	"internal/bench/adversary": {
		"internal/bench/client", "internal/bench/proc", "internal/bench/report",
		"internal/protocol",
	},
	"internal/bench/client": {"internal/protocol"},
	"internal/bench/mix": {
		"internal/bench/adversary", "internal/bench/client", "internal/bench/schedule",
		"internal/bench/proc", "internal/bench/report", "internal/protocol",
	},
	"internal/bench/schedule": {"internal/bench/report"},
	"internal/bench/pair": {
		"internal/bench/client", "internal/bench/schedule", "internal/bench/proc",
		"internal/bench/report", "internal/protocol",
	},
	"internal/bench/proc":   {},
	"internal/bench/report": {},
	"internal/bench/turn": {
		"internal/bench/schedule", "internal/bench/proc", "internal/bench/report", "internal/relay",
	},
	"web":                {},
	"examples/chat":      {"examples/signaling"},
	"examples/echo":      {"examples/signaling"},
	"examples/signaling": {},
	"e2e/netlab":         {"e2e/netlab/link", "e2e/netlab/netns", "e2e/netlab/topo"},
	"e2e/netlab/link":    {},
	"e2e/threenodes":     {},
	"e2e/netlab/netns":   {},
	"e2e/netlab/topo":    {},
}

// benchOnly are modules that only the load generators need. The server's program is not to contain
// them.
var benchOnly = []string{"github.com/lxzan/gws"}

// importsByPackage are the imports of each of our packages, tests excluded. They are parsed and not
// listed by a tool: a cached test result would miss a change in another package.
func importsByPackage(t *testing.T) map[string]map[string]bool {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string]map[string]bool{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() &&
			(d.Name() == "node_modules" || (strings.HasPrefix(d.Name(), ".") && path != root)) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		if imports[pkg] == nil {
			imports[pkg] = map[string]bool{}
		}
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports[pkg][strings.TrimPrefix(name, module)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return imports
}

func TestImportsPointOneWay(t *testing.T) {
	imports := importsByPackage(t)
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		allowed, ok := layers[pkg]
		if !ok {
			t.Errorf("%s has no row in the table", pkg)
			continue
		}
		for dep := range imports[pkg] {
			if imports[dep] != nil && !slices.Contains(allowed, dep) {
				t.Errorf("%s imports %s, which the table does not allow", pkg, dep)
			}
		}
	}
	// a row that nothing uses any more is removed, so that the table stays the truth
	for _, pkg := range slices.Sorted(maps.Keys(layers)) {
		if imports[pkg] == nil {
			t.Errorf("the table has a row for %s, which does not exist", pkg)
		}
	}
}

func TestTheServerContainsNoLoadGenerator(t *testing.T) {
	imports := importsByPackage(t)
	for program, contains := range map[string]bool{"cmd/ieum": false, "cmd/ieum-bench": true} {
		reached := map[string]bool{}
		for next := []string{program}; len(next) > 0; {
			pkg := next[0]
			if next = next[1:]; !reached[pkg] {
				reached[pkg] = true
				next = slices.AppendSeq(next, maps.Keys(imports[pkg]))
			}
		}
		for _, name := range append([]string{"internal/bench"}, benchOnly...) {
			found := slices.ContainsFunc(slices.Collect(maps.Keys(reached)), func(pkg string) bool {
				return pkg == name || strings.HasPrefix(pkg, name+"/")
			})
			if found != contains {
				t.Errorf("%s contains %s: %t, want %t", program, name, found, contains)
			}
		}
	}
}
