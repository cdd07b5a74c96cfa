package contender

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

func TestFirstPlaceSkipsWhatDoesNotCount(t *testing.T) {
	kvs := []client.KV{
		{Key: "a/f3", CreateRevision: 9},
		{Key: "a/b/f2", CreateRevision: 8},
		{Key: "a/f1", CreateRevision: 7},
	}
	got, err := FirstPlace("a/", kvs, 9)
	require.NoError(t, err)
	require.Equal(t, "a/f1", got.Key)
	got, err = FirstPlace("a/", kvs, 7)
	require.NoError(t, err)
	require.Nil(t, got)
	_, err = FirstPlace("a/", []client.KV{{Key: "a/read/f1", CreateRevision: 3}}, 9)
	var foreign *ForeignError
	require.ErrorAs(t, err, &foreign)
	require.Equal(t, ForeignError{Key: "a/read/f1", Recipe: "read-write lock"}, *foreign)
}
