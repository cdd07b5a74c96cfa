package lint

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each rule is shown to fail here, on small sources, because a rule that can
// not fail would let the checks of the repository pass for nothing.

func TestCheckImports(t *testing.T) {
	rules := map[string]Rule{
		"pure":      {Pure: true, External: []string{"example.org/tree"}},
		"store":     {Own: []string{"pure"}},
		"tools/...": {Own: []string{"recipes/...", "store"}},
	}
	standard := map[string]bool{"fmt": true, "time": true, "os/exec": true, "sync/atomic": true, "strings": true}
	tests := []struct {
		name    string
		path    string
		imports []string
		want    []string
	}{
		{"a clean package", "pure", []string{"fmt", "strings", "example.org/tree/v2"}, nil},
		{"not in the table", "extra", nil, []string{"extra: not in the table of internal/lint/imports.go; adding a package is a decision"}},
		{"the clock in a pure package", "pure", []string{"time"}, []string{"pure: may not import time"}},
		{"below a banned package", "pure", []string{"os/exec", "sync/atomic"}, []string{"pure: may not import os/exec", "pure: may not import sync/atomic"}},
		{"the clock elsewhere", "store", []string{"time"}, nil},
		{"cgo", "store", []string{"C"}, []string{"store: may not import C"}},
		{"the right direction", "store", []string{Module + "/pure"}, nil},
		{"the wrong direction", "pure", []string{Module + "/store"}, []string{"pure: may not import " + Module + "/store"}},
		{"below an allowed package", "store", []string{Module + "/pure/inner"}, []string{"store: may not import " + Module + "/pure/inner"}},
		{"the root package", "store", []string{Module}, []string{"store: may not import " + Module}},
		{"an external package", "store", []string{"example.org/tree"}, []string{"store: may not import example.org/tree"}},
		{"a name that only begins alike", "pure", []string{"example.org/treehouse"}, []string{"pure: may not import example.org/treehouse"}},
		{"a pattern", "tools/tour", []string{Module + "/recipes/lock", Module + "/store"}, nil},
		{"a pattern, wrong direction", "tools/tour", []string{Module + "/pure"}, []string{"tools/tour: may not import " + Module + "/pure"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := Package{ImportPath: Module + "/" + tt.path, Imports: tt.imports}
			require.Equal(t, tt.want, CheckImports(p, rules, func(path string) bool { return standard[path] }))
		})
	}
}

func TestCheckStyle(t *testing.T) {
	lines := func(n int) string { return strings.Repeat("\t_ = 0\n", n) }
	fields := func(n int) string { return strings.Repeat("\tm()\n", n) }
	tests := []struct {
		name string
		file string
		text string
		want []string // kind and name
	}{
		{"clean", "a.go", "package a\n\n// F does.\nfunc F() {}\n", nil},
		{"a function at the limit", "a.go", "package a\nfunc f() {\n" + lines(68) + "}\n", nil},
		{"a function over the limit", "a.go", "package a\nfunc f() {\n" + lines(69) + "}\n", []string{"function f"}},
		{"a method over the limit", "a.go", "package a\nfunc (t *t[K]) f() {\n" + lines(69) + "}\n", []string{"function t.f"}},
		{"code in a test", "a_test.go", "package a\nfunc f() {\n" + lines(69) + "}\n", []string{"function f"}},
		{"a table in a test", "a_test.go", "package a\nfunc f() {\n_ = []int{\n" + strings.Repeat("0,\n", 99) + "}\n}\n", nil},
		{"a table outside of tests", "a.go", "package a\nfunc f() {\n_ = []int{\n" + strings.Repeat("0,\n", 99) + "}\n}\n", []string{"function f"}},
		{"a long file", "a.go", "package a\n" + strings.Repeat("var _ = 0\n", 500), []string{"file "}},
		{"a long test", "a_test.go", "package a\n" + strings.Repeat("var _ = 0\n", 500), nil},
		{"a wide struct", "a.go", "package a\ntype s struct {\n" + strings.Repeat("\t_ int\n", 21) + "}\n", []string{"struct s"}},
		{"a narrow struct", "a.go", "package a\ntype s struct {\n" + strings.Repeat("\t_ int\n", 20) + "}\n", nil},
		{"a wide interface", "a.go", "package a\ntype i interface {\n" + fields(7) + "}\n", []string{"interface i"}},
		{"a narrow interface", "a.go", "package a\ntype i interface {\n" + fields(6) + "}\n", nil},
		{"init", "a.go", "package a\nfunc init() {}\n", []string{"init init"}},
		{"a method called init", "a.go", "package a\nfunc (t T) init() {}\n", nil},
		{"no comment on a function", "a.go", "package a\nfunc F() {}\n", []string{"comment F"}},
		{"no comment on a method", "a.go", "package a\nfunc (T) F() {}\n", []string{"comment T.F"}},
		{"a method of an unexported type", "a.go", "package a\nfunc (t) F() {}\n", nil},
		{"a method that everybody knows", "a.go", "package a\nfunc (T) String() string { return `` }\n", nil},
		{"a function of that name", "a.go", "package a\nfunc String() string { return `` }\n", []string{"comment String"}},
		{"no comment on a type", "a.go", "package a\ntype T int\n", []string{"comment T"}},
		{"no comment on a grouped type", "a.go", "package a\n// Types.\ntype (\n\tT int\n)\n", []string{"comment T"}},
		{"no comment on a constant", "a.go", "package a\nconst a, B = 1, 2\n", []string{"comment B"}},
		{"comments over and behind", "a.go", "package a\n// All.\nconst (\n\tA = 1\n)\nconst (\n\tB = 1 // one\n\t// C is.\n\tC = 2\n)\n", nil},
		{"a program", "main.go", "package main\nfunc F() {}\n", nil},
		{"generated", "a.go", "// Code generated by x. DO NOT EDIT.\n\npackage a\nfunc F() {}\nfunc init() {}\n", nil},
		{"sleep in a test", "a_test.go", "package a\nfunc f() { time.Sleep(1) }\n", []string{"sleep Sleep"}},
		{"sleep in a bubble", "a_test.go", "package a\nfunc f() { synctest.Test(t, func(t *testing.T) { time.Sleep(1) }) }\n", nil},
		{"sleep in a bubble of ours", "a_test.go", "package a\nfunc f() { inBubble(t, func() { time.Sleep(1) }) }\n", nil},
		{"sleep in a helper's closure", "a_test.go", "package a\nfunc f() { run(func() { time.Sleep(1) }) }\n", []string{"sleep Sleep"}},
		{"polling in a test", "a_test.go", "package a\nfunc f() { require.Eventually(t, nil, 1, 1) }\n", []string{"sleep Eventually"}},
		{"sleep in the product", "a.go", "package a\nfunc f() { time.Sleep(1) }\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := parse(tt.file, []byte(tt.text))
			require.NoError(t, err)
			var got []string
			for _, f := range checkStyle(s) {
				got = append(got, string(f.Kind)+" "+f.Name)
				require.Positive(t, f.Line)
			}
			require.Equal(t, tt.want, got)
		})
	}
}

func TestStartsGoroutine(t *testing.T) {
	for text, want := range map[string]bool{
		"func f() { go f() }":                      true,
		"func f() { g.Go(func() {}) }":             true,
		"func f() { x := func() { go f() }; x() }": true,
		"func f() { f() }":                         false,
		"func f() { g.Go() }":                      false,
	} {
		s, err := parse("a.go", []byte("package a\n"+text+"\n"))
		require.NoError(t, err)
		require.Equal(t, want, startsGoroutine(s), text)
	}
}

func TestExceptionsAreARatchet(t *testing.T) {
	fault := Fault{Kind: LongFunction, File: "a.go", Line: 3, Name: "f", Size: 80, Text: "f is long"}
	exception := Exception{Kind: LongFunction, File: "a.go", Name: "f", Size: 80, Why: "a table"}
	tests := []struct {
		name   string
		faults []Fault
		change func(*Exception)
		want   []string
	}{
		{"excused", []Fault{fault}, func(*Exception) {}, nil},
		{"another name", []Fault{fault}, func(e *Exception) { e.Name = "g" },
			[]string{"a.go: remove the exception of the function g: nothing needs it", "a.go:3: f is long"}},
		{"it grew", []Fault{fault}, func(e *Exception) { e.Size = 79 },
			[]string{"a.go: remove the exception of the function f: nothing needs it", "a.go:3: f is long"}},
		{"it shrank", []Fault{fault}, func(e *Exception) { e.Size = 90 },
			[]string{"a.go: lower the exception of the function f from 90 to 80"}},
		{"it is gone", nil, func(*Exception) {},
			[]string{"a.go: remove the exception of the function f: nothing needs it"}},
		{"without a reason", []Fault{fault}, func(e *Exception) { e.Why = " " },
			[]string{"a.go: the exception of the function f gives no reason"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := exception
			tt.change(&e)
			require.Equal(t, tt.want, applyExceptions(tt.faults, []Exception{e}))
		})
	}
}

// A rule without a size, such as a missing comment, can not be excused.
func TestExceptionsDoNotReachRulesWithoutSize(t *testing.T) {
	fault := Fault{Kind: Undocumented, File: "a.go", Line: 1, Name: "F", Text: "no comment"}
	got := applyExceptions([]Fault{fault}, []Exception{{Kind: Undocumented, File: "a.go", Name: "F", Why: "lazy"}})
	require.Contains(t, got, "a.go:1: no comment")
}
