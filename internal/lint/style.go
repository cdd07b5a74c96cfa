package lint

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"strings"
)

// The limits of the style rules.
const (
	FunctionLinesMax    = 70  // from the word func to the closing brace
	FileLinesMax        = 500 // tests excepted
	StructFieldsMax     = 20
	InterfaceMethodsMax = 6
)

// Kind names a style rule in an exception.
type Kind string

// The rules that have a size, and so can have an exception.
const (
	LongFunction Kind = "function"
	LongFile     Kind = "file"
	WideStruct   Kind = "struct"
	WideAPI      Kind = "interface"
)

// The rules that have no exception.
const (
	Undocumented Kind = "comment"
	InitFunction Kind = "init"
	Sleep        Kind = "sleep"
)

// Fault is one place where a file breaks a rule.
type Fault struct {
	Kind Kind
	File string // relative to the root of the repository, with slashes
	Line int
	Name string // the declaration at fault; empty when it is the file
	Size int    // the measured size, for the rules that have a limit
	Text string // a sentence that says what is wrong
}

func (f Fault) String() string {
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Text)
}

// source is one parsed file.
type source struct {
	name   string // as in Fault.File
	fset   *token.FileSet
	syntax *ast.File
}

func (s source) isTest() bool { return strings.HasSuffix(s.name, "_test.go") }

// isTestSupport says whether the file is for tests only, its own or others':
// packages for that are called after what they test.
func (s source) isTestSupport() bool {
	dir := path.Base(path.Dir(s.name))
	return s.isTest() || strings.HasSuffix(dir, "test") || dir == "sim"
}

func (s source) line(p token.Pos) int { return s.fset.Position(p).Line }

func (s source) fault(kind Kind, at token.Pos, name string, size int, format string, args ...any) Fault {
	return Fault{Kind: kind, File: s.name, Line: s.line(at), Name: name, Size: size, Text: fmt.Sprintf(format, args...)}
}

// checkStyle returns what one file does wrong, rule by rule. Generated files
// answer for nothing.
func checkStyle(s source) []Fault {
	if ast.IsGenerated(s.syntax) {
		return nil
	}
	var faults []Fault
	faults = append(faults, checkSizes(s)...)
	faults = append(faults, checkInit(s)...)
	if s.isTest() {
		return append(faults, checkSleep(s)...)
	}
	return append(faults, checkComments(s)...)
}

func checkSizes(s source) []Fault {
	var faults []Fault
	if lines := s.line(s.syntax.FileEnd); !s.isTest() && lines > FileLinesMax {
		faults = append(faults, s.fault(LongFile, s.syntax.Package, "", lines,
			"the file has %d lines, more than %d: split it by type", lines, FileLinesMax))
	}
	ast.Inspect(s.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if lines := functionLines(s, n); lines > FunctionLinesMax {
				faults = append(faults, s.fault(LongFunction, n.Pos(), declName(n), lines,
					"%s has %d lines, more than %d", declName(n), lines, FunctionLinesMax))
			}
		case *ast.TypeSpec:
			faults = append(faults, checkWidth(s, n)...)
		}
		return true
	})
	return faults
}

func checkWidth(s source, spec *ast.TypeSpec) []Fault {
	switch t := spec.Type.(type) {
	case *ast.StructType:
		if fields := t.Fields.NumFields(); fields > StructFieldsMax {
			return []Fault{s.fault(WideStruct, spec.Pos(), spec.Name.Name, fields,
				"%s has %d fields, more than %d: a type is missing", spec.Name.Name, fields, StructFieldsMax)}
		}
	case *ast.InterfaceType:
		if methods := t.Methods.NumFields(); methods > InterfaceMethodsMax {
			return []Fault{s.fault(WideAPI, spec.Pos(), spec.Name.Name, methods,
				"%s has %d methods, more than %d", spec.Name.Name, methods, InterfaceMethodsMax)}
		}
	}
	return nil
}

// functionLines counts the lines of a function. A table of test cases is data,
// not code: in tests the lines inside of composite literals do not count.
func functionLines(s source, f *ast.FuncDecl) int {
	lines := s.line(f.End()) - s.line(f.Pos()) + 1
	if !s.isTest() || f.Body == nil {
		return lines
	}
	ast.Inspect(f.Body, func(n ast.Node) bool {
		literal, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		lines -= s.line(literal.End()) - s.line(literal.Pos())
		return false // what nests in it is subtracted already
	})
	return lines
}

func checkInit(s source) []Fault {
	var faults []Fault
	for _, decl := range s.syntax.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			faults = append(faults, s.fault(InitFunction, f.Pos(), "init", 0,
				"init runs for everybody who imports the package: call it where it is needed"))
		}
	}
	return faults
}

// declName is Name, or Type.Name for a method.
func declName(f *ast.FuncDecl) string {
	if receiver := receiverName(f); receiver != "" {
		return receiver + "." + f.Name.Name
	}
	return f.Name.Name
}

// receiverName is the name of a method's type, without pointer and type
// parameters; empty for a function.
func receiverName(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return ""
	}
	t := f.Recv.List[0].Type
	for {
		switch u := t.(type) {
		case *ast.StarExpr:
			t = u.X
		case *ast.IndexExpr:
			t = u.X
		case *ast.IndexListExpr:
			t = u.X
		case *ast.Ident:
			return u.Name
		default:
			return ""
		}
	}
}
