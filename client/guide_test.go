package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// guided is a client of three members with pipes, one of which leads and is not the one in use.
func guided(t *testing.T, f func(ctx context.Context, fake *fakeCluster, c *Client, using, leader *fakeMember)) {
	onPipes(t, 3, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		using := fake.using(c)
		leader := fake.other(using)
		fake.lead(leader)
		write(ctx, t, c, guideWritesMin)
		synctest.Wait()
		require.Equal(t, guideWritesMin, using.called("Put"), "it takes some writes until the leader is looked for")
		f(ctx, fake, c, using, leader)
	})
}

// other returns one that is none of these members.
func (f *fakeCluster) other(than ...*fakeMember) *fakeMember {
	for _, name := range f.config().Endpoints {
		m := f.members[name]
		found := true
		for _, x := range than {
			found = found && x != m
		}
		if found {
			return m
		}
	}
	return nil
}

func write(ctx context.Context, t *testing.T, c *Client, n int) {
	t.Helper()
	for range n {
		_, err := c.Put(ctx, "k", nil)
		require.NoError(t, err)
	}
}

// TestWritesGoToTheLeader: and reads do not; a new leader is found, and one that is gone costs nothing.
func TestWritesGoToTheLeader(t *testing.T) {
	guided(t, func(ctx context.Context, fake *fakeCluster, c *Client, using, leader *fakeMember) {
		write(ctx, t, c, 10)
		require.Equal(t, 10, leader.called("Put"))
		_, err := c.Txn().Then(OpPut("k", nil)).Commit(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, leader.called("Txn"))
		_, err = c.Txn().Then(OpGet("k")).Commit(ctx)
		require.NoError(t, err)
		_, err = c.Get(ctx, "k")
		require.NoError(t, err)
		require.Equal(t, 1, using.called("Range"))
		require.Equal(t, 1, using.called("Txn"))

		next := fake.other(using, leader)
		fake.lead(next)
		write(ctx, t, c, 1) // its answer tells the term
		require.Equal(t, 11, leader.called("Put"))
		write(ctx, t, c, guideWritesMin)
		synctest.Wait()
		require.Equal(t, 2*guideWritesMin, using.called("Put"))
		write(ctx, t, c, 10)
		require.Equal(t, 10, next.called("Put"))

		next.stop()
		synctest.Wait()
		require.Zero(t, took(func() { write(ctx, t, c, 1) }))
		require.Equal(t, 2*guideWritesMin+1, using.called("Put"))
	})
}

// TestHungLeaderIsLeft: as soon as another one is known, and not before.
func TestHungLeaderIsLeft(t *testing.T) {
	guided(t, func(ctx context.Context, fake *fakeCluster, c *Client, using, leader *fakeMember) {
		write(ctx, t, c, 1)
		require.Equal(t, 1, leader.called("Put"))
		asked := fake.total("Status")
		leader.set(func(m *fakeMember) { m.hang = make(chan struct{}) })
		result := make(chan error, 1)
		go func() { _, err := c.Put(ctx, "k", nil); result <- err }()
		pass(leaderSilence * 3)
		synctest.Wait()
		require.Greater(t, fake.total("Status"), asked)
		require.Empty(t, result, "the others know no other leader")
		fake.lead(fake.other(using, leader))
		require.LessOrEqual(t, took(func() { require.ErrorIs(t, <-result, ErrUncertain) }), leaderSilence)
		require.Less(t, took(func() { write(ctx, t, c, 1) }), time.Millisecond)
		require.Equal(t, 1, leader.called("Put"))
		leader.stop() // which lets it go on
	})
}

// TestLeaderIsElsewhere: it is looked for less and less often if it is not among the endpoints.
func TestLeaderIsElsewhere(t *testing.T) {
	onPipes(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		fake.lead(&fakeMember{name: "z"})
		write(ctx, t, c, guideWritesMin)
		synctest.Wait()
		require.Equal(t, 2, fake.total("Status"))
		write(ctx, t, c, 2*guideWritesMin-1)
		synctest.Wait()
		require.Equal(t, 2, fake.total("Status"))
		write(ctx, t, c, 1)
		synctest.Wait()
		require.Equal(t, 4, fake.total("Status"))
	})
}
