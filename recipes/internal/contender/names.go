package contender

import (
	"strconv"
	"strings"
)

// recipes are the names that recipes give to the level below theirs. No other
// recipe's name can end in one of them, so keys below tell the recipe.
var recipes = map[string]string{
	"read":  "read-write lock",
	"write": "read-write lock",
	"g":     "barrier",
	"d":     "latch",
}

// ValidName says whether a recipe can have the name: an empty last segment would
// make its keys look like those below another name, and one of recipes would
// make them look like another recipe's.
func ValidName(name string) bool {
	last := name[strings.LastIndexByte(name, '/')+1:]
	_, reserved := recipes[last]
	return last != "" && !strings.Contains(name, "//") && !reserved
}

// Kind is what a key below a name is to the recipe of that name.
type Kind uint8

// The kinds of keys.
const (
	Place   Kind = iota // a place in the queue, as locks and elections have it
	Nested              // something of another name, below this one
	Foreign             // a sign of another recipe under this very name
)

// Classify judges a key by what follows "<name>/", and names the recipe of a
// foreign one. A place's key ends there with its lease in hexadecimal; only such
// keys take part, so that locks on "a" and "a/b" have nothing to do with each
// other. "b.limit" and the like stand beside the queue of "a/b"; those of a
// semaphore on "a" itself have a number behind the lease.
func Classify(rest string) (k Kind, recipe string) {
	if first, _, below := strings.Cut(rest, "/"); below {
		if recipe, ok := recipes[first]; ok {
			return Foreign, recipe
		}
		return Nested, ""
	}
	if _, err := strconv.ParseUint(rest, 16, 64); err == nil {
		return Place, ""
	}
	lease, number, ok := strings.Cut(rest, ".")
	if !ok {
		return Foreign, "unknown"
	}
	_, err := strconv.ParseUint(lease, 16, 64)
	if _, nerr := strconv.ParseUint(number, 10, 64); err == nil && nerr == nil {
		return Foreign, "semaphore"
	}
	return Nested, ""
}
