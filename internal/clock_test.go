package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// wallClock says where the time of day counts, and why. Everywhere else times are those of
// time.Now, which carries the monotonic clock: somebody who sets a server's clock, or NTP, must not
// end connections, nor keep any from ending.
var wallClock = map[string]string{
	"internal/license/claims.go": "licenses begin and end at a time of day",
	"internal/license/issue.go":  "and say it",
	"internal/license/user.go":   "as do user tokens",
	"internal/relay/credentials.go": "credentials of the relay carry when they end, other " +
		"machines read it",
	"internal/ice/external.go": "the same, for relays elsewhere",
	"internal/certs/certs.go":  "certificates expire at a time of day",
	"internal/certs/source.go": "which the log and a metric say",
	"internal/cluster/identity/identity.go": "certificates of nodes begin and " +
		"end at a time of day",
	"internal/cluster/raftlog/raftlog.go":     "nodes tell each other whose clock is wrong",
	"internal/cluster/streamlog/streamlog.go": "the same, over NATS",
	"internal/cluster/streamlog/follow.go":    "numbers begin at when a stream was made",
	"internal/cluster/streamlog/save.go":      "a stream is named by when it was made",
	"internal/cluster/mismatch/mismatch.go":   "the same",
	"internal/protocol/answer.go":             "createdAt of a room is shown to people",
	"internal/transport/poller_linux.go":      "a deadline that is always past",
	"internal/store/database.go":              "a damaged file is named by when it was found",
	"cmd/ieum/license.go":                     "a license begins at a date",
}

// strips are methods of a time whose result has no monotonic reading; haveNo are functions of
// package time that make such times.
var (
	strips = []string{
		"Unix",
		"UnixMilli",
		"UnixMicro",
		"UnixNano",
		"UTC",
		"Local",
		"In",
		"Round",
		"Truncate",
	}
	haveNo = []string{"Unix", "UnixMilli", "UnixMicro", "Date", "Parse", "ParseInLocation"}
)

// A duration that is the difference of two times of day is wrong when the clock was set between
// them.
func TestDurationsAreOfTheMonotonicClock(t *testing.T) {
	used := map[string]bool{}
	for _, root := range []string{"../internal", "../cmd", "../web"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			name := strings.TrimPrefix(filepath.ToSlash(path), "../")
			switch {
			case err != nil:
				return err
			case d.IsDir() && name == "internal/bench": // measures, and serves nobody
				return filepath.SkipDir
			case d.IsDir() || !strings.HasSuffix(path, ".go") ||
				strings.HasSuffix(path, "_test.go"):
				return nil
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(
				file.Imports,
				func(i *ast.ImportSpec) bool { return i.Path.Value == `"time"` },
			) {
				return nil
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				f, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				names := strips
				if of, ok := f.X.(*ast.Ident); ok && of.Name == "time" {
					names = haveNo
				}
				if !slices.Contains(names, f.Sel.Name) {
					return true
				}
				if used[name] = true; wallClock[name] == "" {
					t.Errorf(
						"%s: %s takes the time of day; for durations keep a time.Time, or "+
							"time.Since of the start",
						set.Position(n.Pos()),
						f.Sel.Name,
					)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range wallClock {
		if !used[name] {
			t.Errorf("%s does not use the time of day any more: take it off the list", name)
		}
	}
}
