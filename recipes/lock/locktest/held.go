package locktest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

func testDo(t *testing.T, h *harness) {
	l := lock.New(h.c, "job")
	var token fence.Token
	require.NoError(t, l.Do(h.ctx, func(ctx context.Context, held *lock.Held) error {
		token = held.Token()
		carried, ok := fence.FromContext(ctx, "job")
		require.True(t, ok)
		require.Equal(t, token, carried)
		return ctx.Err()
	}))
	h.awaitKeys("job/", 0)

	failed := errors.New("work failed")
	err := l.Do(h.ctx, func(context.Context, *lock.Held) error { return failed })
	require.Equal(t, failed, err, "the error comes back as it was")
	h.awaitKeys("job/", 0)

	// The caller's context reaches the work, and the lock is released all the same.
	ctx, cancel := context.WithCancel(h.ctx)
	err = l.Do(ctx, func(work context.Context, _ *lock.Held) error {
		cancel()
		<-work.Done()
		return work.Err()
	})
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, lock.ErrLost)
	h.awaitKeys("job/", 0)

	err = l.Do(ctx, func(context.Context, *lock.Held) error { panic("must not be called") })
	require.ErrorIs(t, err, context.Canceled)
}

func testDoLoss(t *testing.T, h *harness) {
	failed := errors.New("interrupted")
	err := lock.New(h.c, "job").Do(h.ctx, func(ctx context.Context, held *lock.Held) error {
		if _, err := h.c.Delete(h.ctx, held.Key()); err != nil {
			return err
		}
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), lock.ErrLost)
		return failed
	})
	require.ErrorIs(t, err, failed)
	require.ErrorIs(t, err, lock.ErrLost)
	require.ErrorIs(t, err, lock.ErrDeleted)
}

func testDoPanic(t *testing.T, h *harness) {
	require.PanicsWithValue(t, "boom", func() {
		_ = lock.New(h.c, "job").Do(h.ctx, func(context.Context, *lock.Held) error { panic("boom") })
	})
	h.awaitKeys("job/", 0)
}

func testHandle(t *testing.T, h *harness) {
	s := h.session(h.c, client.SessionTTL(20*time.Second))
	held := h.acquire(lock.New(h.c, "job", lock.WithSession(s)))
	require.Equal(t, "job", held.Name())
	require.Equal(t, "job/"+s.ID().String(), held.Key())
	kv, err := h.c.GetOne(h.ctx, held.Key())
	require.NoError(t, err)
	require.Equal(t, fence.Token(kv.CreateRevision), held.Token())
	require.Equal(t, s.ID(), kv.Lease)
	require.Greater(t, held.Remaining(), 10*time.Second)
	require.LessOrEqual(t, held.Remaining(), 20*time.Second)
	token, ok := fence.FromContext(held.Context(), "job")
	require.True(t, ok)
	require.Equal(t, held.Token(), token)

	h.release(held)
	require.False(t, held.Valid())
	require.Zero(t, held.Remaining())
	require.ErrorIs(t, context.Cause(held.Context()), lock.ErrReleased)
	require.NotErrorIs(t, context.Cause(held.Context()), lock.ErrLost)
	require.NoError(t, s.Err(), "the session is not the lock's to end")
	require.NoError(t, s.Close(h.ctx))
}

type valueKey struct{}

// The context of Acquire bounds the waiting, and nothing else.
func testOutlivesAcquire(t *testing.T, h *harness) {
	ctx, cancel := context.WithCancel(context.WithValue(h.ctx, valueKey{}, "value"))
	held, err := lock.New(h.c, "job").Acquire(ctx)
	require.NoError(t, err)
	cancel()
	require.True(t, held.Valid())
	require.NoError(t, held.Context().Err())
	require.Equal(t, "value", held.Context().Value(valueKey{}))
	_, err = held.Txn().Then(client.OpPut("x", nil)).Commit(h.ctx)
	require.NoError(t, err)
	h.release(held)
}

func testGuarded(t *testing.T, h *harness) {
	held := h.acquire(lock.New(h.c, "job"))
	res, err := held.Txn().If(client.Missing("x")).Then(client.OpPut("x", []byte("1"))).Commit(h.ctx)
	require.NoError(t, err)
	require.True(t, res.Succeeded)
	res, err = held.Txn().If(client.Missing("x")).Then(client.OpPut("x", []byte("2"))).Else(client.OpGet("x")).Commit(h.ctx)
	require.NoError(t, err, "the caller's own condition is not the lock's")
	require.False(t, res.Succeeded)
	require.Equal(t, "1", string(res.Results[0].Get.KVs[0].Value))

	// The optimistic transaction takes the guard as well.
	gone := errors.New("no longer mine")
	write := func(tx *client.Tx) error {
		tx.Require(gone, held.Guard())
		tx.Put("y", []byte("1"))
		return nil
	}
	require.NoError(t, h.c.Update(h.ctx, write))

	late := held.Txn().Then(client.OpPut("x", []byte("late")))
	h.release(held)
	for _, txn := range []*client.GuardedTxn{late, held.Txn().Then(client.OpPut("x", []byte("later")))} {
		_, err = txn.Commit(h.ctx)
		require.ErrorIs(t, err, lock.ErrLost)
		require.ErrorIs(t, err, client.ErrGuardFailed)
	}
	require.ErrorIs(t, err, lock.ErrReleased)
	require.ErrorIs(t, h.c.Update(h.ctx, write), gone)
	kv, err := h.c.GetOne(h.ctx, "x")
	require.NoError(t, err)
	require.Equal(t, "1", string(kv.Value))
}

// A holder that does not learn of its loss, as if it were suspended, is stopped
// by the token: in the store by the guard, elsewhere by a gate. What it writes
// without either gets through, which is what tokens are for.
func testStaleHolder(t *testing.T, h *harness) {
	other := h.client(client.Config{})
	s := h.session(other)
	old := h.acquire(lock.New(other, "job", lock.WithSession(s)))
	next := h.start(h.ctx, lock.New(h.c, "job"))
	h.awaitKeys("job/", 2)
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()), "what the server does when renewals stay out")
	held := next.success()
	require.Greater(t, held.Token(), old.Token())

	var gate fence.Gate
	require.NoError(t, gate.Admit("file", held.Token()))
	require.ErrorIs(t, gate.Admit("file", old.Token()), fence.ErrStale)
	_, err := old.Txn().Then(client.OpPut("file", []byte("old"))).Commit(h.ctx)
	require.ErrorIs(t, err, lock.ErrLost)
	_, err = held.Txn().Then(client.OpPut("file", []byte("new"))).Commit(h.ctx)
	require.NoError(t, err)
	_, err = other.Put(h.ctx, "file", []byte("old"))
	require.NoError(t, err, "without a token nobody stops it")
	h.release(held)
}

func testReleaseTwice(t *testing.T, h *harness) {
	l := lock.New(h.c, "job")
	old := h.acquire(l)
	done := make(chan error, 2)
	for range 2 {
		go func() { done <- old.Release(h.ctx) }()
	}
	require.NoError(t, <-done)
	require.NoError(t, <-done)
	held := h.acquire(l)
	require.Equal(t, old.Key(), held.Key(), "a session has one key a name")
	require.Greater(t, held.Token(), old.Token())
	require.NoError(t, old.Release(h.ctx))
	require.True(t, held.Valid())
	_, err := held.Txn().Then(client.OpPut("x", nil)).Commit(h.ctx)
	require.NoError(t, err, "an old handle releases nothing but its own")
	h.release(held)
}
