package lint

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// TestTroubles wants what the members say, by the table of what to do then, to
// be said in the code.
func TestTroubles(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	require.NoError(t, err)
	_, section, _ := strings.Cut(string(text), "\n## When something is wrong\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var code strings.Builder
	for _, dir := range boundFolders(t) {
		names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		require.NoError(t, err)
		for _, name := range names {
			content, err := os.ReadFile(name)
			require.NoError(t, err)
			if !strings.HasSuffix(name, "_test.go") {
				code.Write(content)
			}
		}
	}
	said := regexp.MustCompile(`(?m)^\| ([^|-][^|]*) \| [^|]+ \| [^|]+ \|$`).FindAllStringSubmatch(section, -1)
	require.Greater(t, len(said), 10)
	for _, row := range said[1:] {
		if !strings.Contains(code.String(), row[1]) {
			t.Errorf("docs/operations.md: nothing says %q", row[1])
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

// unlisted are constants that are called a maximum and are no bound that a user
// could meet, and why.
var unlisted = map[string]string{
	"auth.CostMax":                   "bcrypt's own",
	"client.ackTimeoutMax":           "a part of the session's own time",
	"client.trustMarginMax":          "a part of the session's own time",
	"client.updateDelayMax":          "between the runs of updateRunsMax",
	"disk.maxIdleImages":             "of the disk for tests",
	"front.codesMax":                 "gRPC's own",
	"front.maxStreamID":              "HTTP/2's own",
	"front.streamsMax":               "the server sets another, --max-concurrent-streams",
	"front.maxWindow":                "HTTP/2's own",
	"latchkey.bumpMax":               "listed as --bump-revision",
	"latchkey.ttlMax":                "what a duration can be",
	"queue.backoffMax":               "a default of an option",
	"queue.resendMax":                "between tries, as those of the client",
	"replica.DefaultMaxLogBytes":     "for tests; the server sets catchUpBytes",
	"server.defaultMaxLearners":      "listed as --max-learners",
	"server.requestBytesMax":         "listed with --max-request-bytes",
	"watch.DefaultStreamWatchersMax": "listed as --max-watches-per-stream",
	"watch.DefaultWatchersMax":       "listed as --max-watches",
}

// TestBoundsAreListed wants every constant that is called a maximum in the
// limits, so that a new bound comes with a row.
func TestBoundsAreListed(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	require.NoError(t, err)
	listed := make(map[string]bool)
	for _, row := range boundRows(string(text)) {
		pkg := ""
		for _, name := range row {
			if before, _, ok := strings.Cut(name, "."); ok {
				pkg = before
			} else {
				name = pkg + "." + name
			}
			listed[name] = true
		}
	}
	maximum := regexp.MustCompile("Max$|^max[A-Z]|^DefaultMax|^defaultMax")
	for _, dir := range boundFolders(t) {
		_, files := packageFiles(t, dir)
		for name := range constants(files) {
			full := filepath.Base(dir) + "." + name
			switch {
			case !maximum.MatchString(name):
			case !listed[full] && unlisted[full] == "":
				t.Errorf("docs/operations.md does not list the bound %s", full)
			case listed[full] && unlisted[full] != "":
				t.Errorf("%s is listed, and needs no reason why not", full)
			}
		}
	}
}

// boundFolders are the packages whose bounds users meet.
func boundFolders(t *testing.T) []string {
	t.Helper()
	folders := []string{"server", "cmd/latchkey", "client"}
	for _, parent := range []string{"server/internal", "recipes", "recipes/internal", "recipes/queue/internal"} {
		inner, err := os.ReadDir(filepath.Join(root, filepath.FromSlash(parent)))
		require.NoError(t, err)
		for _, entry := range inner {
			if entry.IsDir() && entry.Name() != "sim" && entry.Name() != "internal" {
				folders = append(folders, parent+"/"+entry.Name())
			}
		}
	}
	return folders
}

// constants returns the names of the constants that a package declares.
func constants(files []*ast.File) map[string]bool {
	names := make(map[string]bool)
	for _, f := range files {
		for _, d := range f.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.CONST {
				continue
			}
			for _, spec := range decl.Specs {
				for _, id := range spec.(*ast.ValueSpec).Names {
					names[id.Name] = true
				}
			}
		}
	}
	return names
}

// declared returns the constants, variables and fields of a package.
func declared(t *testing.T, name string) map[string]bool {
	t.Helper()
	folders := boundFolders(t)
	i := slices.IndexFunc(folders, func(dir string) bool { return filepath.Base(dir) == name })
	require.GreaterOrEqual(t, i, 0, name)
	_, files := packageFiles(t, folders[i])
	names := constants(files)
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if field, ok := n.(*ast.Field); ok {
				for _, id := range field.Names {
					names[id.Name] = true
				}
			}
			_, function := n.(*ast.FuncDecl)
			return !function
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
