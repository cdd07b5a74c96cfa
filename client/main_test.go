package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inBubble runs f with a cluster of n members and a client of it, on a clock of its own: hours take no time, and a
// moment is exact. At the end everything must have stopped, or synctest fails the test.
func inBubble(t *testing.T, n int, change func(cfg *Config), f func(ctx context.Context, fake *fakeCluster, c *Client)) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeCluster(n)
		defer fake.stop()
		cfg := fake.config()
		if change != nil {
			change(&cfg)
		}
		c, err := New(cfg)
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()) }()
		synctest.Wait() // all connections stand
		f(t.Context(), fake, c)
	})
}

// took returns how long f takes on the bubble's clock.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// pass lets time pass on the bubble's clock.
func pass(d time.Duration) { <-time.After(d) }
