package locktest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// A context that carries the lock gets another handle of the same acquisition,
// without a request; the lock is given back with the last one.
func testReentrant(t *testing.T, h *harness) {
	var w wire
	c := h.client(w.config())
	l := lock.New(c, "job", lock.WithReentrant())
	outer := h.acquire(l)
	before := w.calls()
	inner, err := lock.New(c, "job", lock.WithReentrant()).Acquire(outer.Context())
	require.NoError(t, err)
	third, err := l.TryAcquire(context.WithoutCancel(inner.Context()))
	require.NoError(t, err)
	require.Equal(t, before, w.calls(), "nobody had to be asked")
	require.Equal(t, outer.Token(), inner.Token())
	require.Equal(t, outer.Key(), third.Key())

	h.release(outer)
	h.release(outer)
	require.False(t, outer.Valid())
	require.ErrorIs(t, context.Cause(outer.Context()), lock.ErrReleased)
	require.True(t, inner.Valid())
	require.True(t, third.Valid())
	h.release(third)
	h.awaitKeys("job/", 1)
	h.release(inner)
	h.awaitKeys("job/", 0)

	// One that has ended is not carried on.
	again, err := l.Acquire(context.WithoutCancel(inner.Context()))
	require.NoError(t, err)
	require.Greater(t, again.Token(), inner.Token())
	h.release(again)

	require.NoError(t, l.Do(h.ctx, func(ctx context.Context, _ *lock.Held) error {
		return l.Do(ctx, func(ctx context.Context, h *lock.Held) error { return h.Check(ctx) })
	}))
	h.awaitKeys("job/", 0)
}

// Without the context, the lock is not shared: two goroutines of a session exclude
// each other (etcd 11360: both hold it), and so do other sessions and names.
func testReentrantOnlyByContext(t *testing.T, h *harness) {
	l := lock.New(h.c, "job", lock.WithReentrant())
	outer := h.acquire(l)
	_, err := l.TryAcquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrHeld)
	_, err = lock.New(h.c, "job").TryAcquire(outer.Context())
	require.ErrorIs(t, err, lock.ErrHeld, "this one does not share")
	_, err = lock.New(h.client(client.Config{}), "job", lock.WithReentrant()).TryAcquire(outer.Context())
	require.ErrorIs(t, err, lock.ErrHeld, "another session")
	other, err := lock.New(h.c, "other", lock.WithReentrant()).TryAcquire(outer.Context())
	require.NoError(t, err)
	h.release(other)
	require.True(t, outer.Valid())
	h.release(outer)
}

// All handles learn of the loss.
func testReentrantLoss(t *testing.T, h *harness) {
	l := lock.New(h.c, "job", lock.WithReentrant())
	outer := h.acquire(l)
	inner, err := l.Acquire(outer.Context())
	require.NoError(t, err)
	_, err = h.c.Delete(h.ctx, outer.Key())
	require.NoError(t, err)
	require.Equal(t, lock.ErrDeleted, lostReason(t, h.ended(outer)))
	require.Equal(t, lock.ErrDeleted, lostReason(t, h.ended(inner)))
	require.ErrorIs(t, outer.Release(h.ctx), lock.ErrLost)
	require.ErrorIs(t, inner.Release(h.ctx), lock.ErrLost)
	h.release(h.acquire(l))
}
