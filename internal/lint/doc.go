// Package lint holds the project's own rules and checks them as tests, so
// that `go test ./...` alone says whether a change keeps them:
//
//   - imports.go: who may import whom. A package that the table does not name
//     fails, so that a new package is always a decision.
//   - style.go: limits on the length of functions, files, structs and
//     interfaces, comments on exported names, no init functions, and no
//     sleeping or polling in tests.
//
// The limits work as a ratchet. What breaks one today may be listed as an
// exception with its present size; the exception fails as soon as it is no
// longer needed, so the list can only shrink.
//
// The package ships no code that others use: nothing imports it.
package lint
