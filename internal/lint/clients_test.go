package lint

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// clientPoints is how many points docs/clients.md promises.
const clientPoints = 28

// TestClientPoints wants a test that exists for every point of docs/clients.md, and every test that the page names to exist.
func TestClientPoints(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "clients.md"))
	require.NoError(t, err)
	tests := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.syntax.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasSuffix(s.name, "_test.go") {
				tests[f.Name.Name] = true
			}
		}
	}
	named := regexp.MustCompile("`(Test[A-Za-z0-9_]+)`")
	points := map[string]int{}
	for line := range strings.Lines(string(text)) {
		names := named.FindAllStringSubmatch(line, -1)
		for _, name := range names {
			if !tests[name[1]] {
				t.Errorf("docs/clients.md names %s, which is no test", name[1])
			}
		}
		if cells := strings.Split(line, "|"); len(cells) > 1 {
			points[strings.TrimSpace(cells[1])] += len(names)
		}
	}
	for i := range clientPoints {
		if point := fmt.Sprintf("C%d", i+1); points[point] == 0 {
			t.Errorf("docs/clients.md names no test for %s", point)
		}
	}
}
