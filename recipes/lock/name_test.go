package lock

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "a/b": true, "/a": true, "read/a": true, "reads": true, "a.b": true, "ä/漢": true,
		"": false, "/": false, "a/": false, "a//b": false, "//": false,
		"read": false, "a/write": false, "a/g": false, "d": false,
	} {
		require.Equal(t, want, validName(name), "%q", name)
	}
}

func TestClassify(t *testing.T) {
	for rest, want := range map[string]struct {
		kind   kind
		recipe string
	}{
		"694d9a1c5f3b0a12": {contender, ""},
		"1":                {contender, ""},
		"b/694d9a1c":       {nested, ""},
		"b/c/d":            {nested, ""},
		"read/694d9a1c":    {foreign, "read-write lock"},
		"write/694d9a1c.3": {foreign, "read-write lock"},
		"g/1/m/694d9a1c":   {foreign, "barrier"},
		"d/x":              {foreign, "latch"},
		"694d9a1c.2":       {foreign, "semaphore"},
		"settings":         {foreign, "unknown"},
		"":                 {foreign, "unknown"},
	} {
		k, recipe := classify(rest)
		require.Equal(t, want.kind, k, "%q", rest)
		require.Equal(t, want.recipe, recipe, "%q", rest)
	}
}

func TestFirstSkipsWhatDoesNotCount(t *testing.T) {
	l := &Lock{name: "a"}
	kvs := []client.KV{
		{Key: "a/f3", CreateRevision: 9},
		{Key: "a/b/f2", CreateRevision: 8},
		{Key: "a/f1", CreateRevision: 7},
	}
	got, err := l.first(kvs, 9)
	require.NoError(t, err)
	require.Equal(t, "a/f1", got.Key)
	got, err = l.first(kvs, 7)
	require.NoError(t, err)
	require.Nil(t, got)
	_, err = l.first([]client.KV{{Key: "a/read/f1", CreateRevision: 3}}, 9)
	require.ErrorIs(t, err, ErrConflict)
	require.ErrorContains(t, err, "read-write lock")
}

// A value that some other client wrote is not an error.
func TestContenderOwner(t *testing.T) {
	require.Equal(t, "me", contenderOf(client.KV{Value: []byte(`{"owner":"me"}`)}).Owner)
	for _, value := range []string{"", "text", `{"owner":7}`, `[]`} {
		require.Empty(t, contenderOf(client.KV{Value: []byte(value)}).Owner, "%q", value)
	}
}
