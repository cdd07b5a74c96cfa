package countertest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/counter"
)

func (h *harness) add(n *counter.Int64, d int64) int64 {
	h.t.Helper()
	v, err := n.Add(h.ctx, d)
	require.NoError(h.t, err)
	return v
}

func testOperations(t *testing.T, h *harness) {
	n := counter.NewInt64(h.c, "n")
	v, rev, err := n.Get(h.ctx)
	require.NoError(t, err)
	require.Zero(t, v)
	require.Zero(t, rev)
	require.Equal(t, int64(5), h.add(n, 5))
	require.Equal(t, int64(-2), h.add(counter.NewInt64(h.client(client.Config{}), "n"), -7))
	require.Equal(t, int64(-2), h.add(n, 0))
	require.Equal(t, "-2", h.value("n"))
	_, rev, err = n.Get(h.ctx)
	require.NoError(t, err)
	require.NotZero(t, rev)

	swapped, err := n.CompareAndSwap(h.ctx, 7, 1)
	require.NoError(t, err)
	require.False(t, swapped)
	swapped, err = n.CompareAndSwap(h.ctx, -2, 40)
	require.NoError(t, err)
	require.True(t, swapped)
	v, err = n.Update(h.ctx, func(v int64) (int64, error) { return v / 2, nil })
	require.NoError(t, err)
	require.Equal(t, int64(20), v)
	why := errors.New("no")
	_, err = n.Update(h.ctx, func(int64) (int64, error) { return 0, why })
	require.ErrorIs(t, err, why)
	require.Equal(t, "20", h.value("n"))
	swapped, err = counter.NewInt64(h.c, "new").CompareAndSwap(h.ctx, 0, 3)
	require.NoError(t, err)
	require.True(t, swapped, "a counter that does not exist is 0")
	_, err = counter.NewInt64(h.c, "").Add(h.ctx, 1)
	require.ErrorIs(t, err, counter.ErrName)
}

func testOverflow(t *testing.T, h *harness) {
	n := counter.NewInt64(h.c, "n")
	h.add(n, math.MaxInt64-1)
	h.add(n, 1)
	_, err := n.Add(h.ctx, 1)
	require.ErrorIs(t, err, counter.ErrOverflow)
	require.Equal(t, fmt.Sprint(math.MaxInt64), h.value("n"))
	_, err = n.CompareAndSwap(h.ctx, math.MaxInt64, math.MinInt64)
	require.NoError(t, err)
	_, err = n.Add(h.ctx, -1)
	require.ErrorIs(t, err, counter.ErrOverflow)
	require.Equal(t, int64(-1), h.add(n, math.MaxInt64))
}

func testNotNumber(t *testing.T, h *harness) {
	h.put("n", "seven")
	n := counter.NewInt64(h.c, "n")
	_, _, err := n.Get(h.ctx)
	require.ErrorIs(t, err, counter.ErrNotNumber)
	_, err = n.Add(h.ctx, 1)
	require.ErrorIs(t, err, counter.ErrNotNumber)
	var wrong *counter.ValueError
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "seven", string(wrong.Value))
	require.Equal(t, "seven", h.value("n"))
}

// Several processes add at once: the sum is right, and no two see the same.
func testConcurrent(t *testing.T, h *harness) {
	const clients, callers, each = 3, 4, 10
	var mu sync.Mutex
	seen := make(map[int64]bool)
	var wg sync.WaitGroup
	errs := make([]error, clients*callers)
	for i := range clients {
		n := counter.NewInt64(h.client(client.Config{}), "n")
		for j := range callers {
			wg.Go(func() {
				for range each {
					v, err := n.Add(h.ctx, 1)
					errs[i*callers+j] = errors.Join(errs[i*callers+j], err)
					mu.Lock()
					seen[v] = true
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Len(t, seen, clients*callers*each)
	require.Equal(t, fmt.Sprint(clients*callers*each), h.value("n"))
}

// What a counter has seen last is out of date: nothing is decided by it.
func testStaleGuess(t *testing.T, h *harness) {
	n := counter.NewInt64(h.c, "n")
	h.add(n, 1)
	h.put("n", "2")
	swapped, err := n.CompareAndSwap(h.ctx, 2, 3)
	require.NoError(t, err)
	require.True(t, swapped)
	h.put("n", "5")
	swapped, err = n.CompareAndSwap(h.ctx, 3, 4)
	require.NoError(t, err)
	require.False(t, swapped)
	_, err = h.c.Delete(h.ctx, "n")
	require.NoError(t, err)
	require.Equal(t, int64(1), h.add(n, 1))
}

// Every request and every answer in turn is lost.
func testEveryAnswerDropped(t *testing.T, h *harness) {
	for _, f := range []clienttest.Fate{clienttest.AnswerDropped, clienttest.RequestLost} {
		for k := 1; ; k++ {
			lost := false
			var w clienttest.Wire
			w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
				if c.N != k {
					return clienttest.Arrives
				}
				lost = true
				return f
			})
			n := counter.NewInt64(h.client(w.Config()), fmt.Sprintf("n%d-%d", f, k))
			require.Equal(t, int64(3), h.add(n, 3))
			swapped, err := n.CompareAndSwap(h.ctx, 3, 8)
			require.NoError(t, err)
			require.True(t, swapped, "that it was this call which swapped is known")
			require.Equal(t, int64(7), h.add(n, -1))
			require.Equal(t, "7", h.value(n.Name()))
			if !lost {
				require.Greater(t, k, 3)
				break
			}
		}
	}
}

// A third of all answers is lost: of some the request was executed before, of some it is
// executed later, at any time, and of some never. Several processes add random numbers
// all the while, and a plain sum says what must come out.
func testExactSum(t *testing.T, h *harness) {
	const clients, each = 3, 40
	var wg sync.WaitGroup
	var mu sync.Mutex
	sum, dropped := int64(0), 0
	var late []*clienttest.Call
	errs := make([]error, clients)
	for i := range clients {
		r := rand.New(rand.NewPCG(28, uint64(i)))
		var w clienttest.Wire
		w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
			txn, ok := c.Req.(*pb.TxnRequest)
			if !ok || len(txn.Compare) == 0 || r.IntN(3) > 0 {
				return clienttest.Arrives
			}
			mu.Lock()
			defer mu.Unlock()
			dropped++
			if r.IntN(2) == 0 {
				return clienttest.AnswerDropped
			}
			late = append(late, c)
			return clienttest.RequestLost
		})
		n := counter.NewInt64(h.client(w.Config()), "n")
		numbers := rand.New(rand.NewPCG(82, uint64(i)))
		wg.Go(func() {
			for range each {
				d := numbers.Int64N(1000) - 500
				if _, err := n.Add(h.ctx, d); err != nil {
					errs[i] = err
					return
				}
				mu.Lock()
				sum += d
				var c *clienttest.Call
				if len(late) > 0 && d%2 == 0 {
					c, late = late[0], late[1:]
				}
				mu.Unlock()
				if c != nil {
					_, _ = c.Deliver() // that it has no effect is seen in the sum
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	for _, c := range late {
		_, err := c.Deliver()
		require.NoError(t, err)
	}
	require.Greater(t, dropped, clients*each/10)
	require.Equal(t, fmt.Sprint(sum), h.value("n"))
	t.Logf("%d additions, %d answers lost", clients*each, dropped)
}

// An addition is lost and made again; then the counter is deleted, so it is as it was when
// the first request left. That one arrives now, and has no effect.
func testLateAddition(t *testing.T, h *harness) {
	var late *clienttest.Call
	var w clienttest.Wire
	w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		if late == nil && c.Puts() {
			late = c
			return clienttest.RequestLost
		}
		return clienttest.Arrives
	})
	n := counter.NewInt64(h.client(w.Config()), "n")
	require.Equal(t, int64(4), h.add(n, 4))
	_, err := h.c.Delete(h.ctx, "n")
	require.NoError(t, err)
	resp, err := late.Deliver()
	require.NoError(t, err)
	require.False(t, resp.(*pb.TxnResponse).Succeeded)
	require.Empty(t, h.value("n"))
}

// The caller gives up before it is known what became of his addition, and is told so.
func testGivenUp(t *testing.T, h *harness) {
	ctx, cancel := context.WithCancel(h.ctx)
	var w clienttest.Wire
	w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		if ctx.Err() == nil && c.Puts() {
			return clienttest.AnswerDropped
		}
		return clienttest.Arrives
	})
	w.After = func(c *clienttest.Call, _ error) {
		if c.Puts() {
			cancel()
		}
	}
	n := counter.NewInt64(h.client(w.Config()), "n")
	_, err := n.Add(ctx, 1)
	require.ErrorIs(t, err, client.ErrUncertain)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, int64(11), h.add(n, 10))
}

// next pulls one element of a stream.
func next[T any](h *harness, pull func() (T, error, bool)) T {
	h.t.Helper()
	v, err, ok := pull()
	require.NoError(h.t, err)
	require.True(h.t, ok)
	return v
}

func testWatch(t *testing.T, h *harness) {
	n := counter.NewInt64(h.c, "n")
	ctx, cancel := context.WithCancel(h.ctx)
	pull, stop := iter.Pull2(counter.NewInt64(h.client(client.Config{}), "n").Watch(ctx))
	defer stop()
	require.Equal(t, int64(0), next(h, pull))
	for v := int64(1); v < 20; v++ {
		h.add(n, 1)
		require.Equal(t, v, next(h, pull))
	}
	h.put("n", "many")
	_, err, ok := pull()
	require.True(t, ok)
	require.ErrorIs(t, err, counter.ErrNotNumber)
	_, err = h.c.Delete(h.ctx, "n")
	require.NoError(t, err)
	require.Equal(t, int64(0), next(h, pull))
	cancel()
	_, err, ok = pull()
	require.True(t, ok)
	require.ErrorIs(t, err, context.Canceled)
	_, _, ok = pull()
	require.False(t, ok)
}

// What happens while nobody can see it is compacted: the newest value is yielded, and
// nothing twice.
func testWatchCompacted(t *testing.T, h *harness) {
	l := clienttest.NewLink()
	c := h.client(client.Config{Dialer: l.Dial, SessionTTL: time.Minute})
	n := counter.NewInt64(h.c, "n")
	h.add(n, 1)
	pull, stop := iter.Pull2(counter.NewInt64(c, "n").Watch(h.ctx))
	defer stop()
	require.Equal(t, int64(1), next(h, pull))
	unseen := func(what func()) {
		restore := l.Down()
		what()
		require.NoError(t, h.c.Compact(h.ctx, h.put("other", "")))
		restore()
	}
	unseen(func() { h.add(n, 1); h.add(n, 1) })
	require.Equal(t, int64(3), next(h, pull))
	unseen(func() {})
	h.add(n, 1)
	require.Equal(t, int64(4), next(h, pull))
}
