package lint

import (
	"go/ast"
	"go/token"
	"strings"
)

// checkComments wants a comment on every exported name: on functions, on
// methods of exported types, on types, and on constants and variables, where
// a comment over the group or behind the name will do. Programs export nothing.
func checkComments(s source) []Fault {
	if s.syntax.Name.Name == "main" {
		return nil
	}
	var faults []Fault
	missing := func(at token.Pos, name string) {
		faults = append(faults, s.fault(Undocumented, at, name, 0, "exported %s has no comment", name))
	}
	for _, decl := range s.syntax.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if isExported(d) && d.Doc == nil && !isKnownMethod(d) {
				missing(d.Pos(), declName(d))
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if name, ok := undocumented(d, spec); ok {
					missing(spec.Pos(), name)
				}
			}
		}
	}
	return faults
}

// undocumented returns the first exported name of spec that has no comment.
func undocumented(group *ast.GenDecl, spec ast.Spec) (string, bool) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		alone := !group.Lparen.IsValid()
		documented := spec.Doc != nil || spec.Comment != nil || alone && group.Doc != nil
		return spec.Name.Name, spec.Name.IsExported() && !documented
	case *ast.ValueSpec:
		if group.Doc != nil || spec.Doc != nil || spec.Comment != nil {
			return "", false
		}
		for _, name := range spec.Names {
			if name.IsExported() {
				return name.Name, true
			}
		}
	}
	return "", false
}

func isExported(f *ast.FuncDecl) bool {
	if !f.Name.IsExported() {
		return false
	}
	receiver := receiverName(f)
	return receiver == "" || ast.IsExported(receiver)
}

// isKnownMethod tells the methods whose whole promise is the standard
// library's: a comment on them would only repeat the name.
func isKnownMethod(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return false
	}
	switch f.Name.Name {
	case "Error", "String", "Unwrap", "Len", "Less", "Swap":
		return true
	}
	return false
}

// checkSleep finds what waits by the clock in a test: time.Sleep outside of a
// synctest bubble, where time is virtual, and testify's polling assertions. A
// helper that runs its argument in a bubble has a name that ends in Bubble.
func checkSleep(s source) []Fault {
	var faults []Fault
	visit := func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		switch pkg, name := callee(call); {
		case pkg == "synctest" && name == "Test", strings.HasSuffix(name, "Bubble"):
			return false // virtual time inside
		case pkg == "time" && name == "Sleep":
			faults = append(faults, s.fault(Sleep, call.Pos(), name, 0,
				"time.Sleep in a test: wait for a signal, or use testing/synctest"))
		case isPolling(pkg, name):
			faults = append(faults, s.fault(Sleep, call.Pos(), name, 0,
				"%s.%s polls: wait for a signal", pkg, name))
		}
		return true
	}
	ast.Inspect(s.syntax, visit)
	return faults
}

func isPolling(pkg, name string) bool {
	if pkg != "require" && pkg != "assert" {
		return false
	}
	switch name {
	case "Eventually", "Eventuallyf", "EventuallyWithT", "EventuallyWithTf", "Never", "Neverf":
		return true
	}
	return false
}

// callee names what is called: pkg.name or name; both are empty for a call of
// anything else.
func callee(call *ast.CallExpr) (pkg, name string) {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return "", f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name, f.Sel.Name
		}
	}
	return "", ""
}

// startsGoroutine says whether a file starts one: by a go statement, or by the
// Go method of a WaitGroup.
func startsGoroutine(s source) bool {
	found := false
	ast.Inspect(s.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = true
		case *ast.CallExpr:
			selector, ok := n.Fun.(*ast.SelectorExpr)
			found = found || ok && selector.Sel.Name == "Go" && len(n.Args) == 1
		}
		return !found
	})
	return found
}
