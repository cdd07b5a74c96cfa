package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

const flagsDocHead = `# Flags of latchkey server

This page is made from the table in ` + "`cmd/latchkey`" + ` by ` + "`go test ./cmd/latchkey -run FlagsDoc -args -rewrite`" + `, and a test
fails when it is stale. All flags of etcd 3.7.3 are known. [operations.md](operations.md#settings) says how to give them in the
environment and in a file.
`

// TestFlagsDoc keeps docs/flags.md the same as the table.
func TestFlagsDoc(t *testing.T) {
	var doc bytes.Buffer
	doc.WriteString(flagsDocHead)
	code := func(s string) string {
		if s == "" {
			return ""
		}
		return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
	}
	for _, g := range flagGroups() {
		fmt.Fprintf(&doc, "\n## %s\n\n", g.title)
		if isInert(g) {
			doc.WriteString("| flag | because |\n|---|---|\n")
		} else {
			doc.WriteString("| flag | what it is | without it |\n|---|---|---|\n")
		}
		for _, f := range g.flags {
			if isInert(g) {
				fmt.Fprintf(&doc, "| %s | %s |\n", code("--"+f.name), f.usage)
			} else {
				fmt.Fprintf(&doc, "| %s | %s | %s |\n", code(f.usageName()), f.usage, code(f.fallback))
			}
		}
	}
	doc.WriteString("\n## Feature gates\n\n`--feature-gates` takes etcd's names. `InitialCorruptCheck` compares the data before serving; the others have no effect.\n\n")
	doc.WriteString("| gate | because |\n|---|---|\n")
	for _, g := range featureGates {
		if g.why != "" {
			fmt.Fprintf(&doc, "| `%s` | %s |\n", g.name, g.why)
		}
	}
	golden(t, filepath.Join("..", "..", "docs", "flags.md"), doc.Bytes())
}
