package server

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server/internal/rpc"
)

// A member that applies too slowly refuses what is new, at once and for certain,
// and takes it again once it has caught up. What it took before is done.
func TestTooMuchToApply(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	m, err := Start(ctx, Config{
		DataDir:          t.TempDir(),
		ListenClientURLs: []string{"http://127.0.0.1:0"}, ListenPeerURLs: []string{"http://127.0.0.1:0"},
	})
	require.NoError(t, err)
	defer m.Kill()
	<-m.Ready()
	m.loop.owner.Lock()
	m.loop.gapMax = 3
	m.loop.owner.Unlock()

	m.applier.busy.Lock() // nothing is applied
	taken := make(chan error)
	n, refused := 0, error(nil)
	for ; refused == nil; n++ {
		require.Less(t, n, 100, "everything is taken")
		key := fmt.Sprint("key", n)
		go func() { taken <- putOn(ctx, m, key, "v") }()
		select {
		case refused = <-taken:
		case <-time.After(20 * time.Millisecond):
		}
	}
	require.ErrorIs(t, refused, rpc.ErrTooManyRequests)
	m.applier.busy.Unlock()
	for range n - 1 {
		require.NoError(t, <-taken)
	}
	require.NoError(t, putOn(ctx, m, "later", "v"))
	require.NoError(t, m.confirm(ctx))
	require.Nil(t, m.store.view().Get(fmt.Sprint("key", n-1)), "what was refused has no effect")
}
