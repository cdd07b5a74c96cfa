package harness_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// A member that was killed comes back with what it had acknowledged, another
// one takes the lead meanwhile, and Close leaves neither process nor data.
func TestClusterLifeCycle(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := harness.Start(ctx, harness.Config{Kind: harness.Etcd, Members: 3})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })

	cli, err := c.Client()
	require.NoError(t, err)
	defer cli.Close()
	_, err = cli.Put(ctx, "k", "v")
	require.NoError(t, err)

	before, each, err := c.Usage()
	require.NoError(t, err)
	require.Len(t, each, 3)
	require.Positive(t, before.CPU)
	require.Positive(t, before.RSS)

	old, err := c.Leader(ctx)
	require.NoError(t, err)
	require.NoError(t, c.Members[old].Kill())
	require.False(t, c.Members[old].Running())
	next, err := c.Leader(ctx)
	require.NoError(t, err)
	require.NotEqual(t, old, next)
	after, _, err := c.Usage()
	require.NoError(t, err)
	require.GreaterOrEqual(t, after.CPU, before.CPU, "a dead member's CPU time still counts")

	require.NoError(t, c.Members[old].Start(ctx))
	one, err := c.Client(c.Members[old].ClientURL)
	require.NoError(t, err)
	defer one.Close()
	got, err := one.Get(ctx, "k")
	require.NoError(t, err)
	require.Len(t, got.Kvs, 1)
	require.Equal(t, "v", string(got.Kvs[0].Value))

	require.NoError(t, c.Members[0].Terminate(ctx))
	pid, err := c.Members[1].PID()
	require.NoError(t, err)
	require.NoError(t, c.Close())
	_, err = os.FindProcess(pid)
	require.NoError(t, err)
	_, err = os.Stat(c.Members[0].DataDir)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestStartReportsWhatTheServerSaid(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := harness.Start(ctx, harness.Config{Kind: harness.Etcd, Flags: []string{"--no-such-flag"}})
	require.ErrorContains(t, err, "no-such-flag")
}
