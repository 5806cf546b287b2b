// Command typecheck type-checks all packages and their tests for the systems that are named, such
// as `darwin windows`. It reads dependencies from source without their function bodies, where
// `go vet` would compile all of them, for each system.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/tools/go/packages"
)

func main() {
	root, err := os.Getwd()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	failed := false
	for _, system := range os.Args[1:] {
		if err := check(root, system); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", system, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

// check returns the errors of the packages below root.
func check(root, system string) error {
	own := root + string(filepath.Separator)
	loaded, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedImports | packages.NeedDeps |
			packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo | packages.NeedModule,
		Dir:   root,
		Env:   append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0"),
		Tests: true,
		ParseFile: func(set *token.FileSet, name string, src []byte) (*ast.File, error) {
			file, err := parser.ParseFile(set, name, src, parser.SkipObjectResolution)
			// what go list generates for tests does not end in .go
			if file != nil && !strings.HasPrefix(name, own) && strings.HasSuffix(name, ".go") {
				dropBodies(file)
			}
			return file, err
		},
	}, "./...")
	if err != nil {
		return err
	}
	tests, errs := 0, []string{}
	for _, p := range loaded {
		if strings.HasSuffix(p.ID, ".test]") {
			tests++
		}
		for _, e := range p.Errors {
			errs = append(errs, e.Error())
		}
	}
	if len(loaded) == 0 || tests == 0 {
		return fmt.Errorf("%d packages and %d of their tests were found", len(loaded), tests)
	}
	if len(errs) > 0 {
		return fmt.Errorf("does not compile:\n%s", strings.Join(errs, "\n"))
	}
	fmt.Printf("%s: %d packages, %d of them with tests\n", system, len(loaded), tests)
	return nil
}

func dropBodies(file *ast.File) {
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			f.Body = nil
		}
	}
}
