package locktest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// All keys come into being in one transaction, and go in one. In between, each of
// the locks is taken for those who want it alone.
func testAllTogether(t *testing.T, h *harness) {
	names := []string{"b", "a", "c", "a"}
	set, err := lock.AcquireAll(h.ctx, h.c, names, lock.WithInfo("three"))
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "c"}, set.Names())
	kvs := h.awaitKeys("", 3)
	for i, name := range set.Names() {
		require.Equal(t, set.Key(name), kvs[i].Key)
		require.Equal(t, set.Token(), fence.Token(kvs[i].CreateRevision))
		token, ok := fence.FromContext(set.Context(), name)
		require.True(t, ok)
		require.Equal(t, set.Token(), token)
	}
	require.Empty(t, set.Key("d"))
	require.True(t, set.Valid())
	require.NoError(t, set.Check(h.ctx))
	require.Len(t, set.Guard(), 3)

	other := h.client(client.Config{})
	_, err = lock.New(other, "b").TryAcquire(h.ctx)
	var held *lock.HeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, "three", held.Holder.Info)
	_, err = lock.New(h.c, "b").TryAcquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrHeld, "the same session")
	waiter := h.start(h.ctx, lock.New(other, "c"))
	h.awaitKeys("c/", 2)
	local := h.start(h.ctx, lock.New(h.c, "a"))
	require.NoError(t, set.Release(h.ctx))
	next := waiter.success()
	require.Greater(t, next.Token(), set.Token())
	h.release(next)
	h.release(local.success())
	h.awaitKeys("", 0)

	for _, names := range [][]string{nil, {"a", "b/"}, make([]string, 0, 3), tooMany()} {
		_, err = lock.AcquireAll(h.ctx, h.c, names)
		require.ErrorIs(t, err, lock.ErrName)
	}
	set, err = lock.TryAcquireAll(h.ctx, h.c, tooMany()[:40], lock.WithDelay(1))
	require.NoError(t, err, "as many as are allowed")
	require.NoError(t, set.Release(h.ctx))
}

func tooMany() []string {
	names := make([]string, 41)
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i)
	}
	return names
}

// One lock that is not free keeps all of them from being taken, and leaves no
// trace. Jobs that ask for several locks one by one, as Curator's
// InterProcessMultiLock does, are left with a part of them.
func testAllOrNone(t *testing.T, h *harness) {
	other := h.client(client.Config{})
	holder := h.acquire(lock.New(other, "b"))
	_, err := lock.TryAcquireAll(h.ctx, h.c, []string{"a", "b", "c"})
	var held *lock.HeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, "b", held.Name)
	require.Equal(t, holder.Key(), held.Holder.Key)
	h.awaitKeys("", 1)

	ctx, cancel := context.WithCancel(h.ctx)
	gaveUp := make(chan error, 1)
	go func() {
		_, err := lock.AcquireAll(ctx, h.c, []string{"a", "b", "c"})
		gaveUp <- err
	}()
	h.awaitKeys("", 4)
	cancel()
	require.ErrorIs(t, <-gaveUp, context.Canceled)
	h.awaitKeys("", 1)
	h.release(holder)
	require.NoError(t, lock.DoAll(h.ctx, h.c, []string{"a", "b", "c"}, func(ctx context.Context, s *lock.HeldSet) error {
		_, ok := fence.FromContext(ctx, "c")
		require.True(t, ok)
		return s.Check(ctx)
	}))
	h.awaitKeys("", 0)
}

// One lost, all lost: the others are given back without being asked to.
func testAllLost(t *testing.T, h *harness) {
	set, err := lock.AcquireAll(h.ctx, h.c, []string{"a", "b", "c"})
	require.NoError(t, err)
	_, err = h.c.Delete(h.ctx, set.Key("b"))
	require.NoError(t, err)
	<-set.Context().Done()
	cause := context.Cause(set.Context())
	require.Equal(t, lock.ErrDeleted, lostReason(t, cause))
	require.ErrorContains(t, cause, "a, b, c")
	h.awaitKeys("", 0)
	require.ErrorIs(t, set.Release(h.ctx), lock.ErrLost)
	_, err = set.Txn().Then(client.OpPut("x", nil)).Commit(h.ctx)
	require.ErrorIs(t, err, lock.ErrLost)
}

// Many take random sets, in random order, and single locks in between. Nobody
// waits for ever, as nobody stands before another in one queue and behind him in
// the next; Curator's semaphore and multi-lock, which take one after the other,
// stand still here.
func testAllRandom(t *testing.T, h *harness) {
	const clients, rounds, locks = 4, 30, 5
	names := []string{"k", "l", "m", "n", "o"}
	witnesses := make([]witness, locks)
	var wg sync.WaitGroup
	errs := make(chan error, clients*2)
	total := make([]int, locks)
	for i := range clients {
		c := h.client(client.Config{})
		for j := range 2 { // two goroutines share a session
			r := rand.New(rand.NewPCG(uint64(i), uint64(j)))
			var plan [][]int
			for range rounds {
				set := r.Perm(locks)[:1+r.IntN(3)]
				plan = append(plan, set)
				for _, k := range set {
					total[k]++
				}
			}
			wg.Go(func() {
				for _, set := range plan {
					if err := takeSet(h.ctx, c, names, set, witnesses); err != nil {
						errs <- err
						return
					}
				}
			})
		}
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	for k := range witnesses {
		witnesses[k].check(t, total[k])
	}
	h.awaitKeys("", 0)
}

func takeSet(ctx context.Context, c *client.Client, names []string, set []int, witnesses []witness) error {
	var wanted []string
	for _, k := range set {
		wanted = append(wanted, names[k])
	}
	return lock.DoAll(ctx, c, wanted, func(_ context.Context, s *lock.HeldSet) error {
		work := func() error { return nil }
		for _, k := range set {
			inner := work
			work = func() error { return witnesses[k].holdToken(s.Token(), inner) }
		}
		return work()
	})
}

// Every answer in turn is lost, and every request: the locks are got and given
// back all the same, and nothing stays behind.
func testAllAnswersDropped(t *testing.T, h *harness) {
	for _, f := range []fate{answerDropped, requestLost} {
		for k := 1; ; k++ {
			lost := false
			var w wire
			w.before = func(_ context.Context, c *call) fate {
				if c.n != k {
					return arrives
				}
				lost = true
				return f
			}
			c := h.client(w.config())
			names := []string{"a", "b"}
			set, err := lock.AcquireAll(h.ctx, c, names)
			require.NoError(t, err)
			_, err = lock.TryAcquireAll(h.ctx, h.c, names)
			require.ErrorIs(t, err, lock.ErrHeld)
			require.NoError(t, set.Release(h.ctx))
			set, err = lock.TryAcquireAll(h.ctx, c, names)
			require.NoError(t, err)
			require.NoError(t, set.Release(h.ctx))
			h.awaitKeys("", 0)
			require.NoError(t, c.Close())
			if !lost {
				t.Logf("%d requests", k-1)
				require.Greater(t, k, 4)
				break
			}
		}
	}
}
