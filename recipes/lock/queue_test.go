package lock

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

func TestFirstSkipsWhatDoesNotCount(t *testing.T) {
	kvs := []client.KV{
		{Key: "a/f3", CreateRevision: 9},
		{Key: "a/b/f2", CreateRevision: 8},
		{Key: "a/f1", CreateRevision: 7},
	}
	got, err := first("a", kvs, 9)
	require.NoError(t, err)
	require.Equal(t, "a/f1", got.Key)
	got, err = first("a", kvs, 7)
	require.NoError(t, err)
	require.Nil(t, got)
	_, err = first("a", []client.KV{{Key: "a/read/f1", CreateRevision: 3}}, 9)
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
