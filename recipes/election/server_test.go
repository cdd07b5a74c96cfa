package election_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/election"
	"github.com/latchkey-go/latchkey/recipes/election/electiontest"
	"github.com/latchkey-go/latchkey/server/servertest"
)

func TestElection(t *testing.T) {
	electiontest.Run(t, servertest.One(t).Endpoints())
}

// The member that leads the cluster is killed: whoever was elected goes on
// leading, who waits goes on waiting, and who observes sees nothing of it.
func TestLostMember(t *testing.T) {
	cluster := servertest.Three(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := cluster.Client()
	first, err := election.New[string](c, "job").Campaign(ctx, "first")
	require.NoError(t, err)
	observed := make(chan election.Leader[string])
	go func() {
		for leader, err := range election.New[string](c, "job").Observe(ctx) {
			if err != nil {
				return
			}
			select {
			case observed <- leader:
			case <-ctx.Done():
			}
		}
	}()
	require.Equal(t, "first", (<-observed).Value)
	other, err := client.New(client.Config{Endpoints: cluster.Endpoints()})
	require.NoError(t, err)
	defer other.Close()
	type result struct {
		l   *election.Leadership[string]
		err error
	}
	waits := make(chan result, 1)
	go func() {
		l, err := election.New[string](other, "job").Campaign(ctx, "second")
		waits <- result{l, err}
	}()
	for _, err := range c.Watch(ctx, "job/", client.Prefix(), client.FromRevision(client.Revision(first.Term())+1)) {
		require.NoError(t, err)
		break // it is in the line
	}

	cluster.Kill(cluster.Leader())
	require.NoError(t, first.Proclaim(ctx, "first still"))
	require.Equal(t, "first still", (<-observed).Value)
	require.True(t, first.Valid())
	require.Empty(t, waits)
	require.NoError(t, first.Resign(ctx))
	second := <-waits
	require.NoError(t, second.err)
	require.Equal(t, second.l.Term(), (<-observed).Term)
	require.NoError(t, second.l.Resign(ctx))
}
