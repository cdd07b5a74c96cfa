package contender

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "a/b": true, "/a": true, "read/a": true, "reads": true, "a.b": true, "ä/漢": true,
		"": false, "/": false, "a/": false, "a//b": false, "//": false,
		"read": false, "a/write": false, "a/g": false, "d": false,
	} {
		require.Equal(t, want, ValidName(name), "%q", name)
	}
}

func TestClassify(t *testing.T) {
	for rest, want := range map[string]struct {
		kind   Kind
		recipe string
	}{
		"694d9a1c5f3b0a12": {Place, ""},
		"1":                {Place, ""},
		"b/694d9a1c":       {Nested, ""},
		"b/c/d":            {Nested, ""},
		"read/694d9a1c":    {Foreign, "read-write lock"},
		"write/694d9a1c.3": {Foreign, "read-write lock"},
		"g/1/m/694d9a1c":   {Foreign, "barrier"},
		"d/x":              {Foreign, "latch"},
		"694d9a1c.2":       {Foreign, "semaphore"},
		"b.limit":          {Nested, ""},
		"c.delay":          {Nested, ""}, // though c is hexadecimal
		"c.2.limit":        {Nested, ""},
		"settings":         {Foreign, "unknown"},
		"":                 {Foreign, "unknown"},
	} {
		k, recipe := Classify(rest)
		require.Equal(t, want.kind, k, "%q", rest)
		require.Equal(t, want.recipe, recipe, "%q", rest)
	}
}
