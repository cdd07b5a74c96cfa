package lint

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// unread are fields of server.Config that no code reads by name, and why.
var unread = map[string]string{}

// TestSettings wants every exported field of server.Config, and of the structs
// in it, to be read by the server: a setting that is checked and then forgotten
// would do nothing, and say nothing.
func TestSettings(t *testing.T) {
	fset, files := packageFiles(t, "server")
	fields, read := settings(t, fset, files)
	require.Greater(t, len(fields), 50)
	for _, name := range fields {
		reason := unread[name]
		switch {
		case !read[name] && reason == "":
			t.Errorf("server.%s is a setting that nothing reads", name)
		case read[name] && reason != "":
			t.Errorf("server.%s is read, and can be taken off the list", name)
		}
	}
}

// TestSettingsCanFail shows what counts: neither a default nor a check.
func TestSettingsCanFail(t *testing.T) {
	fset := token.NewFileSet()
	s, err := parser.ParseFile(fset, "a.go", `package server
type Config struct { Read, Checked, Defaulted int; TLS TLS }
type TLS struct { File, Lost string }
func (c Config) withDefaults() Config { c.Defaulted = 1; if c.Defaulted == 0 { c.Defaulted = 2 }; return c }
func (c Config) Validate() bool { return c.Checked > 0 }
func use(c Config) { unknown.Call(c.Read, c.TLS.File); c.TLS.Lost = "" }
`, parser.SkipObjectResolution)
	require.NoError(t, err)
	fields, read := settings(t, fset, []*ast.File{s})
	require.Equal(t, []string{"Config.Read", "Config.Checked", "Config.Defaulted", "TLS.File", "TLS.Lost"}, fields)
	require.Equal(t, map[string]bool{"Config.Read": true, "TLS.File": true}, read)
}

// settings returns the exported fields of Config, and those that are read
// outside of what fills in defaults and validates. Imports are not needed for
// that, so they are not resolved, and what depends on them has no type.
func settings(t *testing.T, fset *token.FileSet, files []*ast.File) (fields []string, read map[string]bool) {
	t.Helper()
	info := &types.Info{Selections: make(map[*ast.SelectorExpr]*types.Selection)}
	config := types.Config{Importer: noImports{}, Error: func(error) {}}
	pkg, _ := config.Check("server", fset, files, info)
	root := pkg.Scope().Lookup("Config")
	require.NotNil(t, root)
	names := make(map[types.Object]string)
	var walk func(n *types.Named)
	walk = func(n *types.Named) {
		for field := range n.Underlying().(*types.Struct).Fields() {
			inner, ok := field.Type().(*types.Named)
			switch {
			case !field.Exported():
			case ok && inner.Obj().Pkg() == pkg:
				walk(inner)
			default:
				names[field] = n.Obj().Name() + "." + field.Name()
				fields = append(fields, names[field])
			}
		}
	}
	walk(root.Type().(*types.Named))
	read = make(map[string]bool)
	for _, f := range files {
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); !ok || onlyChecks(fn.Name.Name) {
				continue
			}
			written := make(map[ast.Expr]bool)
			ast.Inspect(decl, func(n ast.Node) bool {
				if assign, ok := n.(*ast.AssignStmt); ok && assign.Tok == token.ASSIGN {
					for _, left := range assign.Lhs {
						written[left] = true
					}
				}
				if s, ok := n.(*ast.SelectorExpr); ok && !written[s] && info.Selections[s] != nil {
					if name := names[info.Selections[s].Obj()]; name != "" {
						read[name] = true
					}
				}
				return true
			})
		}
	}
	return fields, read
}

// onlyChecks tells functions that fill in defaults or validate.
func onlyChecks(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasSuffix(lower, "defaults") || strings.HasPrefix(lower, "validate") || strings.HasPrefix(lower, "check")
}

type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, errors.New("not needed") }

// packageFiles parses a package of this module without its tests.
func packageFiles(t *testing.T, dir string) (*token.FileSet, []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	require.NoError(t, err)
	var files []*ast.File
	fset := token.NewFileSet()
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		files = append(files, f)
	}
	require.NotEmpty(t, files, dir)
	return fset, files
}
