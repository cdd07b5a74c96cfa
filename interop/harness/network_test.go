package harness_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// A leader that is cut off is followed by another, hears nothing of what that one does, and catches up when it is not cut off any more.
func TestCutOff(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := harness.Start(ctx, harness.Config{Kind: harness.Latchkey, Members: 3, Network: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	old, err := c.Leader(ctx)
	require.NoError(t, err)
	alone, err := c.Client(c.Members[old].ClientURL)
	require.NoError(t, err)
	defer alone.Close()
	others, err := c.Client(slices.Delete(c.Endpoints(), old, old+1)...)
	require.NoError(t, err)
	defer others.Close()

	restore := c.Members[old].CutOff()
	for {
		if _, err = others.Put(ctx, "k", "v"); err == nil {
			break
		}
		require.NoError(t, ctx.Err(), err) // until there is another leader
	}
	got, err := alone.Get(ctx, "k", clientv3.WithSerializable())
	require.NoError(t, err)
	require.Empty(t, got.Kvs)
	restore()
	for {
		if got, err = alone.Get(ctx, "k"); err == nil {
			break
		}
		require.NoError(t, ctx.Err(), err) // until it has a leader again
	}
	require.Len(t, got.Kvs, 1)
}
