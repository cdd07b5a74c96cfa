package lint

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const limitsHeading = "## Limits"

// TestBounds finds every name in the last column of the limits in
// docs/operations.md in the code: a flag, or a constant or field of a package.
func TestBounds(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	require.NoError(t, err)
	rows := boundRows(string(text))
	require.Greater(t, len(rows), 100)
	names := make(map[string]map[string]bool) // declared, by the package's name
	flags := flagNames(t)
	for _, row := range rows {
		pkg := "latchkey" // of cmd/latchkey
		for _, name := range row {
			if flag, ok := strings.CutPrefix(name, "--"); ok {
				if !flags[flag] {
					t.Errorf("docs/operations.md: there is no flag %s", name)
				}
				continue
			}
			parts := strings.Split(name, ".")
			if len(parts) > 1 {
				pkg = parts[0]
			}
			if names[pkg] == nil {
				names[pkg] = declared(t, pkg)
			}
			if !names[pkg][parts[len(parts)-1]] {
				t.Errorf("docs/operations.md: package %s declares no %s", pkg, name)
			}
		}
	}
}

// boundRows returns the names between backticks in the last column of each row.
func boundRows(text string) [][]string {
	_, text, _ = strings.Cut(text, "\n"+limitsHeading+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	quoted := regexp.MustCompile("`([^`]+)`")
	var rows [][]string
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 5 || strings.Contains(cells[1], "---") {
			continue
		}
		var row []string
		for _, match := range quoted.FindAllStringSubmatch(cells[3], -1) {
			row = append(row, match[1])
		}
		if row != nil {
			rows = append(rows, row)
		}
	}
	return rows
}

func TestBoundRows(t *testing.T) {
	const text = "| a | 1 | `--before` |\n\n## Limits\n\n| what | bound | where |\n|---|---|---|\n" +
		"| a `b` | 1 | `--c`, `d.e`, `f` |\n| g | 2 | none |\n\n## Next\n\n| a | 1 | `--after` |\n"
	require.Equal(t, [][]string{{"--c", "d.e", "f"}}, boundRows(text))
}

// declared returns the constants, variables and fields of a package, and where
// there is none of that name, of the one under cmd/.
func declared(t *testing.T, name string) map[string]bool {
	t.Helper()
	dir := "server/internal/" + name
	switch name {
	case "server":
		dir = name
	case "latchkey":
		dir = "cmd/latchkey"
	}
	names := make(map[string]bool)
	_, files := packageFiles(t, dir)
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				return false
			case *ast.ValueSpec:
				for _, id := range n.Names {
					names[id.Name] = true
				}
			case *ast.Field:
				for _, id := range n.Names {
					names[id.Name] = true
				}
			}
			return true
		})
	}
	return names
}

// flagNames returns the first text of each row of the tables of flags, and of
// the calls that declare flags of commands.
func flagNames(t *testing.T) map[string]bool {
	t.Helper()
	flags := make(map[string]bool)
	_, files := packageFiles(t, "cmd/latchkey")
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok {
				flags[strings.Trim(lit.Value, `"`)] = true
			}
			return true
		})
	}
	return flags
}
