package locktest

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// delayOver ends the delay as its end would, so that no test waits for it.
func (h *harness) delayOver(name string) {
	h.t.Helper()
	kv, err := h.c.GetOne(h.ctx, name+".delay")
	require.NoError(h.t, err)
	require.NoError(h.t, h.c.Revoke(h.ctx, kv.Lease))
}

// A holder that ends without a release keeps the lock from all others for the
// delay, by the server's clock.
func testDelayUnclean(t *testing.T, h *harness) {
	const delay = 30 * time.Second
	c := h.client(client.Config{})
	s := h.session(c)
	held := h.acquire(lock.New(c, "job", lock.WithDelay(delay), lock.WithSession(s)))
	kv, err := h.c.GetOne(h.ctx, "job.delay")
	require.NoError(t, err)
	var mark struct{ Token fence.Token }
	require.NoError(t, json.Unmarshal(kv.Value, &mark))
	require.Equal(t, held.Token(), mark.Token)
	info, err := h.c.TimeToLive(h.ctx, kv.Lease)
	require.NoError(t, err)
	require.Greater(t, info.Granted, s.TTL()+delay, "even if the session was renewed later than the mark")
	require.LessOrEqual(t, info.Granted, 2*s.TTL()+delay)

	l := lock.New(h.c, "job", lock.WithDelay(delay))
	waiter := h.start(h.ctx, l)
	h.awaitKeys("job/", 2)
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()), "as if the process had died")
	h.awaitKeys("job/", 1)
	require.ErrorIs(t, h.ended(held), lock.ErrLost)
	require.ErrorIs(t, held.Release(h.ctx), lock.ErrLost)
	_, err = lock.New(h.client(client.Config{}), "job", lock.WithDelay(delay)).TryAcquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrHeld)
	waiter.stillWaits()
	h.delayOver("job")
	h.release(waiter.success())
	h.awaitKeys("job.", 0)
	h.release(h.acquire(lock.New(h.c, "job")))
}

// Nobody waits any more: it is the server that keeps the lock from the next one.
func testDelayTry(t *testing.T, h *harness) {
	l := lock.New(h.c, "job", lock.WithDelay(30*time.Second))
	held, err := l.TryAcquire(h.ctx)
	require.NoError(t, err)
	require.NoError(t, lock.Break(h.ctx, h.c, "job", held.Token()))
	require.ErrorIs(t, h.ended(held), lock.ErrBroken)
	require.ErrorIs(t, held.Release(h.ctx), lock.ErrBroken)
	_, err = l.TryAcquire(h.ctx)
	var refused *lock.HeldError
	require.ErrorAs(t, err, &refused)
	require.True(t, refused.Delayed)
	require.Equal(t, "job", refused.Name)
	h.awaitKeys("job/", 0)
	_, err = h.c.Put(h.ctx, "job/nested/f1", nil)
	require.NoError(t, err)
	_, err = l.TryAcquire(h.ctx)
	require.ErrorAs(t, err, &refused)
	require.True(t, refused.Delayed)
	h.delayOver("job")
	held, err = l.TryAcquire(h.ctx)
	require.NoError(t, err)
	h.release(held)
	h.awaitKeys("job", 1)
}

// The caller gives up at the k-th request, for every k: it leaves neither key nor
// mark behind.
func testDelayCancelAnywhere(t *testing.T, h *harness) {
	for k := 1; ; k++ {
		ctx, cancel := context.WithCancel(h.ctx)
		reached := false
		var w wire
		w.before = func(_ context.Context, c *call) fate {
			if c.n == k {
				reached = true
				cancel()
			}
			return arrives
		}
		c := h.client(w.config())
		held, err := lock.New(c, "job", lock.WithDelay(30*time.Second)).Acquire(ctx)
		if err == nil {
			h.release(held)
		} else {
			require.ErrorIs(t, err, context.Canceled)
		}
		h.awaitKeys("job", 0)
		require.NoError(t, c.Close())
		cancel()
		if !reached {
			require.NoError(t, err)
			t.Logf("%d requests", k-1)
			require.Greater(t, k, 5)
			return
		}
	}
}

// After a release there is no delay, and neither mark nor lease is left, however
// many answers get lost.
func testDelayClean(t *testing.T, h *harness) {
	for k := 0; ; k++ {
		before, err := h.c.Leases(h.ctx)
		require.NoError(t, err)
		lost := false
		var w wire
		w.before = func(_ context.Context, c *call) fate {
			if c.n != k {
				return arrives
			}
			lost = true
			return answerDropped
		}
		c := h.client(w.config())
		l := lock.New(c, "job", lock.WithDelay(30*time.Second))
		held := h.acquire(l)
		h.awaitKeys("job.delay", 1)
		h.release(held)
		h.awaitKeys("job", 0)
		held, err = l.TryAcquire(h.ctx)
		require.NoError(t, err)
		h.release(held)
		h.awaitKeys("job", 0)
		require.NoError(t, c.Close())
		if k == 0 {
			after, err := h.c.Leases(h.ctx)
			require.NoError(t, err)
			require.LessOrEqual(t, len(after), len(before)+3, "the session's, and at most two whose end was cut off")
		}
		if k > 0 && !lost {
			t.Logf("%d requests", k-1)
			require.Greater(t, k, 8)
			return
		}
	}
}

// A waiter that leaves does not take the mark of a holder along.
func testDelayWaiterLeaves(t *testing.T, h *harness) {
	l := lock.New(h.c, "job", lock.WithDelay(30*time.Second))
	held := h.acquire(l)
	ctx, cancel := context.WithCancel(h.ctx)
	waiter := h.start(ctx, lock.New(h.client(client.Config{}), "job", lock.WithDelay(30*time.Second)))
	h.awaitKeys("job/", 2)
	cancel()
	require.ErrorIs(t, waiter.failure(), context.Canceled)
	h.awaitKeys("job/", 1)
	h.awaitKeys("job.delay", 1)
	h.release(held)
}

// Who says who he is does not wait for himself, once his earlier life's lease is
// gone. (Consul 430: a restarted holder waits like everybody else.)
func testDelaySameOwner(t *testing.T, h *harness) {
	const delay = 30 * time.Second
	start := func(owner string) (*client.Session, *lock.Lock) {
		s := h.session(h.c)
		return s, lock.New(h.c, "job", lock.WithDelay(delay), lock.WithOwner(owner), lock.WithSession(s))
	}
	session, first := start("worker-7")
	held := h.acquire(first)
	require.NoError(t, lock.Break(h.ctx, h.c, "job", held.Token()))
	require.ErrorIs(t, h.ended(held), lock.ErrBroken)
	_, again := start("worker-7")
	_, err := again.TryAcquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrHeld, "the lease lives, so the earlier life may")
	require.NoError(t, h.c.Revoke(h.ctx, session.ID()))
	_, other := start("worker-8")
	_, err = other.TryAcquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrHeld)
	held, err = again.TryAcquire(h.ctx)
	require.NoError(t, err)
	h.release(held)
	h.awaitKeys("job", 0)
}
