package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// TestKilledMemberCostsNoTime: the next call, whatever it is, goes to another member at once.
func TestKilledMemberCostsNoTime(t *testing.T) {
	inBubble(t, 3, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		_, err := c.Put(ctx, "a", []byte("1"))
		require.NoError(t, err)
		first := fake.using(c)
		first.stop()
		synctest.Wait() // the client has seen it; a request that is sent before is uncertain, and rightly so
		require.Less(t, took(func() {
			_, err := c.Put(ctx, "a", []byte("2"))
			require.NoError(t, err)
		}), 10*time.Millisecond)
		second := fake.using(c)
		require.NotSame(t, first, second)

		// With one member left, and none, and then one again.
		second.stop() // a read does not care
		_, err = c.Get(ctx, "a")
		require.NoError(t, err)
		fake.using(c).stop()
		time.AfterFunc(time.Second, first.start)
		waited := took(func() {
			kv, err := c.GetOne(ctx, "a")
			require.NoError(t, err)
			require.Equal(t, "2", string(kv.Value))
		})
		require.Greater(t, waited, time.Second)
		require.Less(t, waited, time.Second+2*redialDelayMax, "no back-off of seconds")
		require.Same(t, first, fake.using(c))
		require.Equal(t, 2, fake.total("Put"), "nothing was executed twice")
	})
}

// TestLostAnswers: a read whose answer is lost is repeated, a write is not.
func TestLostAnswers(t *testing.T) {
	inBubble(t, 3, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		m := fake.using(c)
		m.set(func(m *fakeMember) {
			m.drop = func(method string, n int) (error, error) {
				return nil, status.Error(codes.Unavailable, "answer lost")
			}
		})
		_, err := c.Put(ctx, "a", []byte("1"))
		require.ErrorIs(t, err, ErrUncertain)
		require.ErrorIs(t, err, ErrUnavailable)
		require.Equal(t, 1, fake.total("Put"))
		require.Equal(t, "1", fake.value("a"), "this time it was executed")
		_, err = c.Txn().Then(OpDelete("a")).Commit(ctx)
		require.ErrorIs(t, err, ErrUncertain)
		_, err = c.Delete(ctx, "b")
		require.ErrorIs(t, err, ErrUncertain)

		_, err = c.Get(ctx, "a")
		require.NoError(t, err)
		require.Equal(t, 1, m.called("Range"))
		require.Equal(t, 2, fake.total("Range"))
	})
}

// TestRepeatables: calls that may be executed twice resolve lost answers by themselves.
func TestRepeatables(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		lose := func(times int) {
			fake.using(c).set(func(m *fakeMember) {
				m.drop = func(method string, n int) (error, error) {
					if times--; times >= 0 {
						return nil, status.Error(codes.Unavailable, "answer lost")
					}
					return nil, nil
				}
			})
		}
		lose(2)
		lease, err := c.Grant(ctx, time.Minute)
		require.NoError(t, err)
		require.Equal(t, time.Minute, lease.TTL)
		require.Len(t, fake.store.leases, 1)
		require.Equal(t, 3, fake.total("LeaseGrant"))
		fake.put("a", "1")
		lose(2)
		require.NoError(t, c.Compact(ctx, 2))
		lose(2)
		require.NoError(t, c.Revoke(ctx, lease.ID))
		lose(0)
		require.ErrorIs(t, c.Revoke(ctx, lease.ID), ErrLeaseNotFound)
		require.ErrorIs(t, c.Compact(ctx, 2), ErrCompacted)

		// As long as no answer comes, it stays uncertain.
		lose(1 << 30)
		err = c.Revoke(ctx, 7)
		require.ErrorIs(t, err, ErrUncertain)
	})
}

// TestNoLeader: a member without a leader refuses at once, and another is asked; no write is uncertain for it.
func TestNoLeader(t *testing.T) {
	inBubble(t, 3, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		cut := fake.using(c)
		cut.set(func(m *fakeMember) { m.noLeader = true })
		_, err := c.Put(ctx, "a", []byte("1"))
		require.NoError(t, err)
		require.NotSame(t, cut, fake.using(c))

		// An election: nobody has a leader, for a while.
		for _, m := range fake.members {
			m.set(func(m *fakeMember) { m.noLeader = true })
		}
		_, err = c.Get(ctx, "a", Serializable())
		require.NoError(t, err, "a local read needs no leader")
		time.AfterFunc(300*time.Millisecond, func() {
			for _, m := range fake.members {
				m.set(func(m *fakeMember) { m.noLeader = false })
			}
		})
		waited := took(func() {
			_, err = c.Put(ctx, "a", []byte("2"))
			require.NoError(t, err)
		})
		require.Less(t, waited, 300*time.Millisecond+retryDelayMax+time.Millisecond)

		for _, m := range fake.members {
			m.set(func(m *fakeMember) { m.noLeader = true })
		}
		waited = took(func() { _, err = c.Put(ctx, "a", nil) })
		require.Equal(t, defaultRequestTimeout, waited)
		require.ErrorIs(t, err, ErrNoLeader)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, ErrUncertain)
	})
}

// TestHangingMember: a member that keeps its connections but answers nothing is noticed, and left.
func TestHangingMember(t *testing.T) {
	inBubble(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		m := fake.using(c)
		m.set(func(m *fakeMember) { m.hang = make(chan struct{}) })
		waited := took(func() {
			_, err := c.Get(ctx, "a")
			require.NoError(t, err)
		})
		require.LessOrEqual(t, waited, requestSilence+probeInterval+probeTimeout)
		require.NotSame(t, m, fake.using(c))

		m = fake.using(c)
		m.set(func(m *fakeMember) { m.hang = make(chan struct{}) })
		_, err := c.Put(ctx, "a", nil)
		require.ErrorIs(t, err, ErrUncertain)
		require.ErrorIs(t, err, ErrUnavailable)
	})
}

// TestSlowAnswersAreWaitedFor: slowness of one request is no reason to leave a member that is well.
func TestSlowAnswersAreWaitedFor(t *testing.T) {
	inBubble(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		m := fake.using(c)
		m.set(func(m *fakeMember) {
			m.slow = func(method string) time.Duration {
				if method == "Put" {
					return 4 * time.Second
				}
				return 0
			}
		})
		require.Equal(t, 4*time.Second, took(func() {
			_, err := c.Put(ctx, "a", nil)
			require.NoError(t, err)
		}))
		require.Same(t, m, fake.using(c))
	})
}

// TestNobodyThere: a call ends when its context does, says why nobody could be asked, and was certainly not executed.
func TestNobodyThere(t *testing.T) {
	inBubble(t, 2, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		for _, m := range fake.members {
			m.stop()
		}
		synctest.Wait()
		for _, call := range []func(ctx context.Context) error{
			func(ctx context.Context) error { _, err := c.Put(ctx, "a", nil); return err },
			func(ctx context.Context) error { _, err := c.Get(ctx, "a"); return err },
			func(ctx context.Context) error { _, err := c.Grant(ctx, time.Second); return err },
			func(ctx context.Context) error { _, err := c.KeepAliveOnce(ctx, 1); return err },
			func(ctx context.Context) error { _, err := c.Session(ctx); return err },
			func(ctx context.Context) error {
				return c.Update(ctx, func(tx *Tx) error { _, err := tx.Get("a"); return err })
			},
		} {
			var err error
			require.Equal(t, defaultRequestTimeout, took(func() { err = call(ctx) }))
			require.ErrorIs(t, err, ErrUnavailable)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, ErrUncertain)
			require.ErrorContains(t, err,
				"unavailable: context deadline exceeded (a: connection to a refused; b: connection to b refused)")

			stop := errors.New("stop")
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(stop) })
			require.Equal(t, time.Second, took(func() { err = call(ctx) }))
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, err, stop)
		}
	})
}

// TestDeadlineAfterSending: a write that was sent and not answered is uncertain, and its context's error stays visible.
func TestDeadlineAfterSending(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		fake.members["a"].set(func(m *fakeMember) {
			m.slow = func(string) time.Duration { return time.Minute }
		})
		ctx, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		defer cancel()
		_, err := c.Put(ctx, "a", nil)
		require.ErrorIs(t, err, ErrUncertain)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, err, "put at a: outcome is uncertain: context deadline exceeded")
		_, err = c.Put(ctx, "a", nil)
		require.NotErrorIs(t, err, ErrUncertain, "this one was not sent")
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// TestCloseEndsCalls: a call that waits ends with ErrClosed when the client is closed, and so does any after it.
func TestCloseEndsCalls(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		fake.members["a"].set(func(m *fakeMember) { m.hang = make(chan struct{}) })
		failed := make(chan error, 3)
		go func() { _, err := c.Get(ctx, "a"); failed <- err }()
		go func() { _, err := c.Put(ctx, "a", nil); failed <- err }()
		synctest.Wait()
		require.NoError(t, c.Close())
		require.NoError(t, c.Close())
		uncertain := 0
		for range 2 {
			err := <-failed
			require.ErrorIs(t, err, ErrClosed)
			if errors.Is(err, ErrUncertain) {
				uncertain++
			}
		}
		require.Equal(t, 1, uncertain, "the write may have been executed")
		_, err := c.Get(ctx, "a")
		require.ErrorIs(t, err, ErrClosed)
		_, err = c.NewSession(ctx)
		require.ErrorIs(t, err, ErrClosed)
		for _, err := range c.Watch(ctx, "a") {
			require.ErrorIs(t, err, ErrClosed)
		}
	})
}

// TestInterceptorsDecideToo: an interceptor of the user that fails a request before it is sent does not make it uncertain.
func TestInterceptorsDecideToo(t *testing.T) {
	refuse := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return rpctypes.ErrGRPCPermissionDenied
	}
	change := func(cfg *Config) { cfg.DialOptions = []grpc.DialOption{grpc.WithChainUnaryInterceptor(refuse)} }
	inBubble(t, 1, change, func(ctx context.Context, fake *fakeCluster, c *Client) {
		_, err := c.Put(ctx, "a", nil)
		require.ErrorIs(t, err, ErrPermissionDenied)
		require.NotErrorIs(t, err, ErrUncertain)
		require.Zero(t, fake.total("Put"))
	})
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "Config.Endpoints is empty"},
		{Config{Endpoints: make([]string, endpointsMax+1)}, "at most 64"},
		{Config{Endpoints: []string{""}}, "it is empty"},
		{Config{Endpoints: []string{"ftp://a"}}, `scheme "ftp"`},
		{Config{Endpoints: []string{"a:1"}, RequestTimeout: -1}, "Config.RequestTimeout is negative"},
		{Config{Endpoints: []string{"a:1"}, SessionTTL: -1}, "Config.SessionTTL is negative"},
	} {
		_, err := New(c.cfg)
		require.ErrorContains(t, err, c.want)
	}
}
