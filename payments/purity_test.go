package payments_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/bitcdn/bitcdn"

// pure are the packages that know no clock, no disk and no network, as far as
// they exist.
var pure = []string{"payments/money", "payments/wire", "payments/channel", "payments/market", "storage/shelf"}

// unclean is what they must not reach.
var unclean = []string{"net", "os", "database/sql", "github.com/anacrolix", "math/rand", "crypto/rand", "log"}

type goPackage struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

// packages lists the module's packages as they are built, without their tests.
func packages(t *testing.T) map[string]goPackage {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,GoFiles,Imports", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	all := make(map[string]goPackage)
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

func under(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// The packages that decide about money reach nothing that could surprise them,
// neither directly nor through another package of ours. The one exception is
// payments/bsv: the libraries behind it are why it exists.
func TestPurePackagesReachNothing(t *testing.T) {
	all := packages(t)
	for _, name := range pure {
		p, ok := all[module+"/"+name]
		if !ok {
			continue
		}
		seen := make(map[string]bool)
		var visit func(p goPackage, by string)
		visit = func(p goPackage, by string) {
			for _, path := range p.Imports {
				if slices.ContainsFunc(unclean, func(root string) bool { return under(path, root) }) {
					t.Errorf("%s reaches %s by way of %s", name, path, by)
				}
				ours, ok := all[path]
				if !ok || seen[path] || path == module+"/payments/bsv" {
					continue
				}
				seen[path] = true
				visit(ours, by+", "+strings.TrimPrefix(path, module+"/"))
			}
		}
		visit(p, name)
	}
	for _, name := range []string{"payments/money", "payments/wire", "payments/channel"} {
		if _, ok := all[module+"/"+name]; !ok {
			t.Errorf("there is no package %s", name)
		}
	}
}

// What a pure package does depends on what it is given: it never asks the
// clock, and neither does payments/bsv.
func TestPurePackagesAskNoClock(t *testing.T) {
	all := packages(t)
	for _, name := range append(slices.Clone(pure), "payments/bsv") {
		p, ok := all[module+"/"+name]
		if !ok {
			continue
		}
		for _, file := range p.GoFiles {
			tree, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(tree, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				from, ok := sel.X.(*ast.Ident)
				if ok && from.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}, sel.Sel.Name) {
					t.Errorf("%s/%s uses time.%s", name, file, sel.Sel.Name)
				}
				return true
			})
		}
	}
}

// Network bytes meet these libraries in one place only.
func TestLibrariesStandBehindOnePackage(t *testing.T) {
	for path, p := range packages(t) {
		for _, imported := range p.Imports {
			if under(imported, "github.com/libsv") && path != module+"/payments/bsv" {
				t.Errorf("%s imports %s", path, imported)
			}
			// What serves tests seeds with the stock client; no program imports it.
			forTests := slices.Contains(p.Imports, "testing")
			if imported == "github.com/anacrolix/torrent" && !under(path, module+"/appliance/fetch") && !forTests {
				t.Errorf("%s imports the client %s", path, imported)
			}
		}
	}
}

// go list leaves out what other systems build; the sources do not.
func TestNoSourceOfAPurePackageDependsOnTheSystem(t *testing.T) {
	for _, name := range pure {
		err := filepath.WalkDir(filepath.Join("..", name), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			tree, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
			if err != nil {
				return err
			}
			for _, group := range tree.Comments {
				for _, c := range group.List {
					if strings.HasPrefix(c.Text, "//go:build") {
						t.Errorf("%s: %s", path, c.Text)
					}
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}
