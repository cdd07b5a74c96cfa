package locktest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// Locks on "a" and "a/b" have nothing to do with each other.
func testNested(t *testing.T, h *harness) {
	other := h.client(client.Config{})
	below := h.acquire(lock.New(other, "a/b"))
	above := h.acquire(lock.New(h.c, "a"))
	_, err := lock.New(other, "a").TryAcquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrHeld)
	waiter := h.start(h.ctx, lock.New(other, "a"))
	h.awaitKeys("a/", 3)
	deeper := h.acquire(lock.New(other, "a/b/c"))
	h.release(below)
	waiter.stillWaits()
	h.release(above)
	h.release(waiter.success())

	held, err := lock.New(h.c, "a").TryAcquire(h.ctx)
	require.NoError(t, err, "free, whatever is held below")
	h.release(held)
	h.release(deeper)
}

// Nested keys that fill more than one page, before and behind the contenders.
func testManyNested(t *testing.T, h *harness) {
	fill := func(n int) {
		t.Helper()
		for i := range n {
			_, err := h.c.Put(h.ctx, fmt.Sprintf("a/b%d/f%d", i, i), nil)
			require.NoError(t, err)
		}
		_, err := h.c.Delete(h.ctx, "a/b0/f0")
		require.NoError(t, err)
		_, err = h.c.Put(h.ctx, "a/b0/f0", nil)
		require.NoError(t, err)
	}
	fill(40)
	first, err := lock.New(h.c, "a").TryAcquire(h.ctx)
	require.NoError(t, err)
	fill(50)
	other := h.client(client.Config{})
	_, err = lock.New(other, "a").TryAcquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrHeld)
	second := h.start(h.ctx, lock.New(other, "a"))
	h.await("a/", func([]client.KV) bool {
		info, err := lock.Inspect(h.ctx, h.c, "a")
		require.NoError(t, err)
		return len(info.Waiters) == 1
	})
	second.stillWaits()
	h.release(first)
	h.release(second.success())
	h.release(h.acquire(lock.New(h.c, "a")))
}

// TryAcquire sees that all keys are nested, and somebody takes the lock before it
// does.
func testNestedRace(t *testing.T, h *harness) {
	_, err := h.c.Put(h.ctx, "a/b/f1", nil)
	require.NoError(t, err)
	var rival *lock.Held
	creates := 0
	var w wire
	w.before = func(_ context.Context, c *call) fate {
		if c.isCreate() {
			if creates++; creates == 2 {
				rival = h.acquire(lock.New(h.c, "a"))
			}
		}
		return arrives
	}
	_, err = lock.New(h.client(w.config()), "a").TryAcquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrHeld)
	require.Equal(t, 2, creates)
	h.release(rival)
}

func testInvalidNames(t *testing.T, h *harness) {
	for _, name := range []string{"", "/", "a/", "a//b", "a/read", "write", "x/g", "d"} {
		l := lock.New(h.c, name)
		_, err := l.Acquire(h.ctx)
		require.ErrorIs(t, err, lock.ErrName, "%q", name)
		_, err = l.TryAcquire(h.ctx)
		require.ErrorIs(t, err, lock.ErrName, "%q", name)
		_, err = lock.Inspect(h.ctx, h.c, name)
		require.ErrorIs(t, err, lock.ErrName, "%q", name)
	}
}

// A name that another recipe uses is refused, and nothing is left under it.
func testConflicts(t *testing.T, h *harness) {
	for i, c := range []struct{ key, recipe string }{
		{"read/694d9a1c", "read-write lock"},
		{"write/694d9a1c", "read-write lock"},
		{"694d9a1c.1", "semaphore"},
		{"g/1/m/694d9a1c", "barrier"},
		{"d/worker-7", "latch"},
		{"settings", "unknown"},
	} {
		name := fmt.Sprintf("job%d", i)
		_, err := h.c.Put(h.ctx, name+"/"+c.key, nil)
		require.NoError(t, err)
		for what, err := range map[string]error{
			"Acquire":    second(lock.New(h.c, name).Acquire(h.ctx)),
			"TryAcquire": second(lock.New(h.c, name).TryAcquire(h.ctx)),
			"Inspect":    second(lock.Inspect(h.ctx, h.c, name)),
		} {
			require.ErrorIs(t, err, lock.ErrConflict, "%s with %s", what, c.key)
			require.ErrorContains(t, err, c.recipe)
		}
		h.awaitKeys(name+"/", 1)
	}
	// Somebody has put our very key, without our lease.
	s := h.session(h.c)
	_, err := h.c.Put(h.ctx, "mine/"+s.ID().String(), nil)
	require.NoError(t, err)
	_, err = lock.New(h.c, "mine", lock.WithSession(s)).Acquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrConflict)
	h.awaitKeys("mine/", 1)
}

func second[T any](_ T, err error) error { return err }

func testInspect(t *testing.T, h *harness) {
	info, err := lock.Inspect(h.ctx, h.c, "job")
	require.NoError(t, err)
	require.Empty(t, info.Holders)
	require.Empty(t, info.Waiters)

	held := h.acquire(lock.New(h.c, "job", lock.WithOwner("holder")))
	waiter := h.start(h.ctx, lock.New(h.client(client.Config{}), "job", lock.WithOwner("waiter")))
	kvs := h.awaitKeys("job/", 2)
	info, err = lock.Inspect(h.ctx, h.c, "job")
	require.NoError(t, err)
	require.Equal(t, "job", info.Name)
	require.GreaterOrEqual(t, info.Revision, kvs[1].ModRevision)
	require.False(t, info.More)
	contender := func(kv client.KV, owner string) []lock.Contender {
		return []lock.Contender{{Key: kv.Key, Lease: kv.Lease, Token: fence.Token(kv.CreateRevision), Owner: owner}}
	}
	require.Equal(t, contender(kvs[0], "holder"), info.Holders)
	require.Equal(t, contender(kvs[1], "waiter"), info.Waiters)
	h.release(held)
	h.release(waiter.success())
}

// A key as etcd's clients make it takes part like ours.
func testForeignKey(t *testing.T, h *harness) {
	lease, err := h.c.Grant(h.ctx, time.Minute)
	require.NoError(t, err)
	_, err = h.c.Put(h.ctx, "job/"+lease.ID.String(), nil, client.WithLease(lease.ID))
	require.NoError(t, err)
	_, err = lock.New(h.c, "job").TryAcquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrHeld)
	info, err := lock.Inspect(h.ctx, h.c, "job")
	require.NoError(t, err)
	require.Equal(t, lease.ID, info.Holders[0].Lease)
	require.Empty(t, info.Holders[0].Owner)
	waiter := h.start(h.ctx, lock.New(h.c, "job"))
	h.awaitKeys("job/", 2)
	waiter.stillWaits()
	require.NoError(t, h.c.Revoke(h.ctx, lease.ID))
	h.release(waiter.success())
}
