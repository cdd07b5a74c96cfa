package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// root is the repository, from this package's folder.
const root = "../.."

// TestImports holds every package of the module against the table of imports.
//
// The test cache notices changes of the files that TestStyle opens, in the
// same process, and so runs `go list` again when any of them changes.
func TestImports(t *testing.T) {
	packages := listPackages(t, "./...")
	require.NotEmpty(t, packages)
	standard := standardLibrary(t)
	for _, p := range packages {
		for _, fault := range CheckImports(p, Rules, standard) {
			t.Error(fault)
		}
	}
}

// TestStyle holds every source file, those of the other modules in this
// repository too, against the style rules.
func TestStyle(t *testing.T) {
	var faults []Fault
	documented := map[string]bool{} // folders, by whether a file has a package comment
	for _, s := range sources(t) {
		faults = append(faults, checkStyle(s)...)
		if dir := filepath.Dir(s.name); !s.isTest() && dir != "." {
			documented[dir] = documented[dir] || s.syntax.Doc != nil
		}
	}
	require.NotEmpty(t, documented)
	for _, fault := range applyExceptions(faults, Exceptions) {
		t.Error(fault)
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: the package has no comment", dir)
		}
	}
}

// TestLedger wants every file of the product that starts a goroutine in the
// ledger of ARCHITECTURE.md, and no others in it.
func TestLedger(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	require.NoError(t, err)
	_, ledger, ok := strings.Cut(string(text), "## Goroutine ledger")
	require.True(t, ok)
	for _, s := range sources(t) {
		if s.isTestSupport() || !startsGoroutine(s) || !inProduct(s.name) {
			continue
		}
		if !strings.Contains(ledger, "`"+s.name+"`") {
			t.Errorf("%s starts a goroutine that the ledger in ARCHITECTURE.md does not name", s.name)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+\\.go)`").FindAllStringSubmatch(ledger, -1) {
		if _, err := os.Stat(filepath.Join(root, row[1])); err != nil {
			t.Errorf("the ledger in ARCHITECTURE.md names %s, which does not exist", row[1])
		}
	}
}

func inProduct(name string) bool {
	return slices.ContainsFunc([]string{"client/", "cmd/", "recipes/", "server/"}, func(folder string) bool {
		return strings.HasPrefix(name, folder)
	})
}

// TestReadmeProgram keeps the program of the README one that compiles.
func TestReadmeProgram(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(readme), "```go\n")
	shown, _, ok := strings.Cut(rest, "```")
	require.True(t, ok)
	text, err := os.ReadFile(filepath.Join(root, "examples", "lock", "main.go"))
	require.NoError(t, err)
	_, program, ok := strings.Cut(string(text), "package main\n")
	require.True(t, ok)
	require.Equal(t, "package main\n"+program, shown)
}

// TestDependencies wants a reason in writing for every direct dependency.
func TestDependencies(t *testing.T) {
	const record = "docs/decisions/0001-dependencies.md"
	text, err := os.ReadFile(filepath.Join(root, record))
	require.NoError(t, err)
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	require.NoError(t, json.Unmarshal(goCommand(t, "mod", "edit", "-json"), &mod))
	require.NotEmpty(t, mod.Require)
	for _, m := range mod.Require {
		if !m.Indirect && !strings.Contains(string(text), "`"+m.Path+"`") {
			t.Errorf("go.mod requires %s, but %s does not say why", m.Path, record)
		}
	}
}

// sources parses every file below root, in a fixed order.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			hidden := strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata"
			if path != root && hidden {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		s, err := parse(filepath.ToSlash(relative), text)
		if err != nil {
			return err
		}
		all = append(all, s)
		return nil
	})
	require.NoError(t, err)
	return all
}

func parse(name string, text []byte) (source, error) {
	fset := token.NewFileSet()
	syntax, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	return source{name: name, fset: fset, syntax: syntax}, err
}

// listPackages asks the go command, so that build constraints are respected.
func listPackages(t *testing.T, patterns ...string) []Package {
	t.Helper()
	output := goCommand(t, append([]string{"list", "-pgo=off", "-json=ImportPath,Imports"}, patterns...)...)
	var packages []Package
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var p Package
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func standardLibrary(t *testing.T) func(string) bool {
	t.Helper()
	names := strings.Fields(string(goCommand(t, "list", "std")))
	slices.Sort(names)
	return func(path string) bool {
		_, found := slices.BinarySearch(names, path)
		return found || path == "unsafe"
	}
}

func goCommand(t *testing.T, args ...string) []byte {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", args...)
	command.Dir = root
	var stderr bytes.Buffer
	command.Stderr = &stderr
	output, err := command.Output()
	require.NoErrorf(t, err, "go %s: %s", strings.Join(args, " "), stderr.String())
	return output
}
