package peer

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRemovedMemberIsTold removes a connected member: its connections end, and when it comes again it hears why.
func TestRemovedMemberIsTold(t *testing.T) {
	told := make(chan uint64, 1<<10)
	a, b := pair(t, withConfig(func(c *Config) { c.Standing.Expelled = func(by uint64) { offer(told, by) } }))
	a.SetRemoved([]uint64{b.id})
	a.SetPeers(nil)
	require.Equal(t, a.id, wait(t, told))
}

func TestInquire(t *testing.T) {
	n := start(t, 1, "", withConfig(func(c *Config) {
		c.Standing.Describe = func(context.Context) ([]byte, error) { return []byte("we"), nil }
	}))
	cluster, body, err := Inquire(t.Context(), n.url[0], Secure{})
	require.NoError(t, err)
	require.EqualValues(t, testCluster, cluster)
	require.Equal(t, "we", string(body))
	require.Zero(t, n.Stats().Rejected)

	for _, describe := range []func(context.Context) ([]byte, error){
		nil,
		func(context.Context) ([]byte, error) { return nil, errors.New("not now") },
		func(context.Context) ([]byte, error) { return make([]byte, maxCallBytes+1), nil },
	} {
		n := start(t, 2, "", withConfig(func(c *Config) { c.Standing.Describe = describe }))
		_, _, err := Inquire(t.Context(), n.url[0], Secure{})
		require.ErrorIs(t, err, errRefused)
	}
	_, _, err = Inquire(t.Context(), "https://127.0.0.1:1", Secure{})
	require.Error(t, err)
}
