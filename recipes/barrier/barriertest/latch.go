package barriertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/barrier"
)

func (h *harness) countDown(l *barrier.Latch, id string) int {
	h.t.Helper()
	left, err := l.CountDown(h.ctx, id)
	require.NoError(h.t, err)
	return left
}

func testLatch(t *testing.T, h *harness) {
	l := barrier.NewLatch(h.c, "latch")
	_, err := l.CountDown(h.ctx, "a")
	require.ErrorIs(t, err, client.ErrNotFound)
	early := start(h, none(l.Wait, h.ctx))
	made, err := l.Init(h.ctx, 3)
	require.NoError(t, err)
	require.True(t, made)
	made, err = l.Init(h.ctx, 7)
	require.NoError(t, err)
	require.False(t, made)

	require.Equal(t, 2, h.countDown(l, "a"))
	require.Equal(t, 2, h.countDown(l, "a"), "an id counts once")
	require.Equal(t, 1, h.countDown(barrier.NewLatch(h.client(client.Config{}), "latch"), "b"))
	early.stillWaits()
	require.Equal(t, 1, h.countDown(l, "b"))
	require.Equal(t, 0, h.countDown(l, "c"))
	early.success()
	require.NoError(t, l.Wait(h.ctx), "it stays open")
	require.Equal(t, 0, h.countDown(l, "d"), "one more makes no difference")
	for _, id := range []string{"", "a/b", string(make([]byte, 600))} {
		_, err := l.CountDown(h.ctx, id)
		require.ErrorIs(t, err, barrier.ErrName)
	}
}

// A count is retried whenever its answer is lost, and the first request may be executed
// before, after or not at all: it counts once.
func testLatchLostAnswers(t *testing.T, h *harness) {
	for _, f := range []clienttest.Fate{clienttest.AnswerDropped, clienttest.RequestLost} {
		name := fmt.Sprintf("latch%d", f)
		plain := barrier.NewLatch(h.c, name)
		_, err := plain.Init(h.ctx, 4)
		require.NoError(t, err)
		var lost []*clienttest.Call
		var w clienttest.Wire
		w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
			if txn, ok := c.Req.(*pb.TxnRequest); ok && len(txn.Compare) > 0 && len(lost) < 3 {
				lost = append(lost, c)
				return f
			}
			return clienttest.Arrives
		})
		l := barrier.NewLatch(h.client(w.Config()), name)
		require.Equal(t, 3, h.countDown(l, "a"))
		require.Equal(t, 2, h.countDown(l, "b"))
		require.Len(t, lost, 3)
		for _, c := range lost {
			_, err := c.Deliver()
			require.NoError(t, err)
		}
		left, err := plain.Left(h.ctx)
		require.NoError(t, err)
		require.Equal(t, 2, left)
	}
}

func testLatchReset(t *testing.T, h *harness) {
	l := barrier.NewLatch(h.c, "latch")
	require.ErrorIs(t, l.Reset(h.ctx), client.ErrNotFound)
	_, err := l.Init(h.ctx, 2)
	require.NoError(t, err)
	h.countDown(l, "a")
	h.countDown(l, "b")
	require.NoError(t, l.Wait(h.ctx))

	// A count of before that arrives after the reset does not count any more.
	var late *clienttest.Call
	var w clienttest.Wire
	require.NoError(t, l.Reset(h.ctx))
	w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		if txn, ok := c.Req.(*pb.TxnRequest); ok && len(txn.Compare) > 0 && late == nil {
			late = c
			return clienttest.RequestLost
		}
		return clienttest.Arrives
	})
	require.Equal(t, 1, h.countDown(barrier.NewLatch(h.client(w.Config()), "latch"), "c"))
	require.NoError(t, l.Reset(h.ctx))
	_, err = late.Deliver()
	require.NoError(t, err)
	left, err := l.Left(h.ctx)
	require.NoError(t, err)
	require.Equal(t, 2, left)

	waiter := start(h, none(l.Wait, h.ctx))
	require.Equal(t, 1, h.countDown(l, "a"))
	waiter.stillWaits()
	require.Equal(t, 0, h.countDown(l, "b"))
	waiter.success()
}

// Many count at once, each of them twice: the latch opens exactly once, with the last.
func testLatchConcurrent(t *testing.T, h *harness) {
	const n = 40
	_, err := barrier.NewLatch(h.c, "latch").Init(h.ctx, n)
	require.NoError(t, err)
	waiter := start(h, none(barrier.NewLatch(h.c, "latch").Wait, h.ctx))
	clients := []*client.Client{h.c, h.client(client.Config{})}
	var wg sync.WaitGroup
	errs := make([]error, 2*n)
	zeros := make(chan int, 2*n)
	for i := range 2 * n {
		wg.Go(func() {
			var left int
			left, errs[i] = barrier.NewLatch(clients[i%2], "latch").CountDown(h.ctx, fmt.Sprint("id-", i/2))
			if left == 0 {
				zeros <- i
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.NotEmpty(t, zeros)
	waiter.success()
	require.Equal(t, int64(1), h.awaitKeys("latch.open", 1)[0].Version)
}
