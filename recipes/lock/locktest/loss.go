package locktest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// noticedWithin is how soon a loss that the server tells of must be known. It
// leaves room for a busy machine; a quiet one needs a few milliseconds.
const noticedWithin = 2 * time.Second

// A key that somebody deletes ends the hold at once, not when the session does.
func testKeyDeleted(t *testing.T, h *harness) {
	l := lock.New(h.c, "job")
	held := h.acquire(l)
	start := time.Now()
	_, err := h.c.Delete(h.ctx, held.Key())
	require.NoError(t, err)
	cause := h.ended(held)
	took := time.Since(start)
	t.Logf("noticed after %v", took)
	require.Less(t, took, noticedWithin)
	require.Equal(t, lock.ErrDeleted, lostReason(t, cause))
	var lost *lock.LostError
	require.ErrorAs(t, cause, &lost)
	require.Equal(t, held.Token(), lost.Token)
	require.Equal(t, "job", lost.Name)
	require.WithinRange(t, lost.At, start, time.Now())
	require.False(t, held.Valid())

	// The lock can be had again, in this process too, before the old handle is let go.
	again := h.acquire(l)
	require.ErrorIs(t, held.Release(h.ctx), lock.ErrLost)
	require.True(t, again.Valid())
	h.release(again)
}

func testSessionClosed(t *testing.T, h *harness) {
	s := h.session(h.c)
	held := h.acquire(lock.New(h.c, "job", lock.WithSession(s)))
	next := h.start(h.ctx, lock.New(h.client(client.Config{}), "job"))
	h.awaitKeys("job/", 2)
	require.NoError(t, s.Close(h.ctx))
	require.ErrorIs(t, lostReason(t, h.ended(held)), client.ErrSessionClosed)
	require.ErrorIs(t, held.Release(h.ctx), client.ErrSessionClosed)
	h.release(next.success())
	_, err := lock.New(h.c, "job", lock.WithSession(s)).Acquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrLost)
	require.ErrorIs(t, err, client.ErrSessionClosed)
}

// The server ends the lease, as it does when renewals stay out.
func testLeaseRevoked(t *testing.T, h *harness) {
	s := h.session(h.c)
	l := lock.New(h.c, "job", lock.WithSession(s))
	held := h.acquire(l)
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	require.ErrorIs(t, h.ended(held), lock.ErrLost)
	_, err := l.Acquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrLost)
	require.ErrorIs(t, err, client.ErrSessionLost)
	h.release(h.acquire(lock.New(h.c, "job")))
}

// A waiter whose session ends is told at once, and not found the holder later.
func testWaiterSession(t *testing.T, h *harness) {
	holder := h.acquire(lock.New(h.c, "job"))
	c := h.client(client.Config{})
	s := h.session(c)
	dead := h.start(h.ctx, lock.New(c, "job", lock.WithSession(s)))
	h.awaitKeys("job/", 2)
	behind := h.start(h.ctx, lock.New(h.client(client.Config{}), "job"))
	h.awaitKeys("job/", 3)
	local := h.start(h.ctx, lock.New(c, "job", lock.WithSession(s)))

	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	require.ErrorIs(t, dead.failure(), lock.ErrLost)
	require.ErrorIs(t, local.failure(), lock.ErrLost, "one that waited for it in its own process")
	behind.stillWaits()
	h.release(holder)
	h.release(behind.success())
}

func testWaiterKeyDeleted(t *testing.T, h *harness) {
	holder := h.acquire(lock.New(h.c, "job"))
	waiter := h.start(h.ctx, lock.New(h.client(client.Config{}), "job"))
	kvs := h.awaitKeys("job/", 2)
	_, err := h.c.Delete(h.ctx, kvs[1].Key)
	require.NoError(t, err)
	require.Equal(t, lock.ErrDeleted, lostReason(t, waiter.failure()))
	h.release(holder)
}

// A waiter in the middle of the queue leaves: the one behind must not take that
// for its turn.
func testPredecessorLeaves(t *testing.T, h *harness) {
	holder := h.acquire(lock.New(h.c, "job"))
	ctx, cancel := context.WithCancel(h.ctx)
	middle := h.start(ctx, lock.New(h.client(client.Config{}), "job"))
	h.awaitKeys("job/", 2)
	last := h.start(h.ctx, lock.New(h.client(client.Config{}), "job"))
	h.awaitKeys("job/", 3)
	cancel()
	require.ErrorIs(t, middle.failure(), context.Canceled)
	h.awaitKeys("job/", 2)
	_, err := lock.New(h.client(client.Config{}), "job").TryAcquire(h.ctx)
	require.ErrorIs(t, err, lock.ErrHeld)
	last.stillWaits()
	h.release(holder)
	h.release(last.success())
}

func testCancelWaiting(t *testing.T, h *harness) {
	holder := h.acquire(lock.New(h.c, "job"))
	c := h.client(client.Config{})
	ctx, cancel := context.WithCancelCause(h.ctx)
	waiter := h.start(ctx, lock.New(c, "job"))
	h.awaitKeys("job/", 2)
	local := h.start(ctx, lock.New(c, "job"))
	why := context.DeadlineExceeded
	cancel(why)
	for _, a := range []*attempt{waiter, local} {
		err := a.failure()
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, why)
		require.NotErrorIs(t, err, lock.ErrLost)
	}
	h.awaitKeys("job/", 1)
	h.release(holder)
	h.release(h.acquire(lock.New(c, "job")))
	h.awaitKeys("job/", 0)
}

// History is compacted while one holds and others wait: they look again, and
// nobody takes a compaction for an event.
func testCompacted(t *testing.T, h *harness) {
	holder := h.acquire(lock.New(h.c, "job"))
	waiter := h.start(h.ctx, lock.New(h.client(client.Config{}), "job"))
	h.awaitKeys("job/", 2)
	for range 5 {
		res, err := h.c.Put(h.ctx, "other", nil)
		require.NoError(t, err)
		require.NoError(t, h.c.Compact(h.ctx, res.Revision))
	}
	waiter.stillWaits()
	require.True(t, holder.Valid())
	h.release(holder)
	held := waiter.success()
	_, err := h.c.Delete(h.ctx, held.Key())
	require.NoError(t, err)
	require.Equal(t, lock.ErrDeleted, lostReason(t, h.ended(held)))
}

// What a holder and a waiter wait for happens while they can not see it, and is
// compacted before they can: they look again, and find it.
func testCompactedUnseen(t *testing.T, h *harness) {
	l := clienttest.NewLink()
	created := make(chan struct{}, 1)
	w := wire{after: func(c *call, err error) {
		if c.isCreate() && err == nil {
			created <- struct{}{}
		}
	}}
	cfg := w.config()
	cfg.Dialer = l.Dial
	c := h.client(cfg)
	// queue waits for the answer as well: without it, the create would be
	// repeated, and the key that is there then would be another one.
	queue := func() (*attempt, []client.KV) {
		t.Helper()
		a := h.start(h.ctx, lock.New(c, "job"))
		<-created
		return a, h.awaitKeys("job/", 2)
	}
	unseen := func(deleted string) {
		t.Helper()
		restore := l.Down()
		_, err := h.c.Delete(h.ctx, deleted)
		require.NoError(t, err)
		res, err := h.c.Put(h.ctx, "other", nil)
		require.NoError(t, err)
		require.NoError(t, h.c.Compact(h.ctx, res.Revision))
		restore()
	}
	first := h.acquire(lock.New(h.c, "job"))
	waiter, _ := queue()
	unseen(first.Key())
	held := waiter.success()

	// Nothing was deleted, but what was seen last is compacted all the same.
	unseen("nothing")
	_, err := c.GetOne(h.ctx, held.Key())
	require.NoError(t, err)
	require.True(t, held.Valid())

	unseen(held.Key())
	require.Equal(t, lock.ErrDeleted, lostReason(t, h.ended(held)))

	behind := h.acquire(lock.New(h.c, "job"))
	waiter, kvs := queue()
	unseen(kvs[1].Key)
	require.Equal(t, lock.ErrDeleted, lostReason(t, waiter.failure()))
	h.release(behind)
}

// The key of a waiter and the one before it are gone at the same time, and the
// waiter learns of the latter first: it must not think that its turn has come.
func testBothGoneUnseen(t *testing.T, h *harness) {
	l := clienttest.NewLink()
	created := make(chan struct{}, 1)
	returned := make(chan struct{})
	w := wire{after: func(c *call, err error) {
		if c.isCreate() && err == nil {
			created <- struct{}{}
		}
		if c.isGet() {
			<-returned // what the guard of its own key learns comes late
		}
	}}
	cfg := w.config()
	cfg.Dialer = l.Dial
	c := h.client(cfg)
	_, err := c.Session(h.ctx)
	require.NoError(t, err)
	holder := h.acquire(lock.New(h.c, "job"))
	waiter := h.start(h.ctx, lock.New(c, "job"))
	<-created
	restore := l.Down()
	_, err = h.c.Delete(h.ctx, "job/", client.Prefix())
	require.NoError(t, err)
	res, err := h.c.Put(h.ctx, "other", nil)
	require.NoError(t, err)
	require.NoError(t, h.c.Compact(h.ctx, res.Revision))
	restore()
	err = waiter.failure()
	close(returned)
	require.Equal(t, lock.ErrDeleted, lostReason(t, err))
	require.ErrorIs(t, h.ended(holder), lock.ErrLost)
}
