package locktest

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// The session of one that waits ends: it is told, and those behind it go on.
func testRWWaiterSession(t *testing.T, h *harness) {
	s := h.session(h.client(client.Config{}))
	first, err := h.rw().RLock(h.ctx)
	require.NoError(t, err)
	w := h.wlock(h.rw(lock.WithSession(s)), 2)
	r := h.rlock(h.rw(), 3)
	require.NoError(t, s.Close(h.ctx))
	require.ErrorIs(t, lostReason(t, w.failure()), client.ErrSessionClosed)
	gone(h, r.success())

	// The session of a reader who waits, and of a writer who has the lock.
	s = h.session(h.client(client.Config{}))
	gone(h, first)
	holder, err := h.rw(lock.WithSession(s)).Lock(h.ctx)
	require.NoError(t, err)
	waiting := h.session(h.client(client.Config{}))
	r1 := h.rlock(h.rw(lock.WithSession(waiting)), 2)
	r2 := h.rlock(h.rw(), 3)
	require.NoError(t, h.c.Revoke(h.ctx, waiting.ID()))
	require.ErrorIs(t, r1.failure(), lock.ErrLost)
	r2.stillWaits()
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	require.ErrorIs(t, h.ended(holder.Held), lock.ErrLost)
	gone(h, r2.success())
}

// One that waits gives up: those behind it go on, those before it do not care.
func testRWCancel(t *testing.T, h *harness) {
	first, err := h.rw().RLock(h.ctx)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(h.ctx)
	l := h.rw()
	w := begin(h, func() (*lock.WriteHeld, error) { return l.Lock(ctx) })
	h.awaitKeys("job/", 2)
	r := h.rlock(h.rw(), 3)
	w.cancelled(cancel)
	gone(h, r.success())
	require.True(t, first.Valid())
	gone(h, first)
	h.awaitKeys("job/", 0)
}

// The caller gives up at the k-th request, for every k.
func testRWCancelAnywhere(t *testing.T, h *harness) {
	for k := 1; ; k++ {
		reader, err := lock.NewRW(h.c, "job").RLock(h.ctx)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(h.ctx)
		reached := false
		w := wire{before: func(_ context.Context, c *call) fate {
			if c.n == k {
				reached = true
				cancel()
			}
			return arrives
		}}
		c := h.client(w.config())
		u := begin(h, func() (*lock.WriteHeld, error) { return lockInSteps(ctx, lock.NewRW(c, "job")) })
		select { // the reader leaves when it is waited for
		case <-u.done:
		case <-h.whenKeys("job/", 2):
		}
		gone(h, reader)
		held, err := u.wait()
		if err == nil {
			gone(h, held)
		} else {
			require.ErrorIs(t, err, context.Canceled)
		}
		h.awaitKeys("job/", 0)
		require.NoError(t, c.Close())
		cancel()
		if !reached {
			require.NoError(t, err)
			t.Logf("%d requests", k-1)
			require.Greater(t, k, 6)
			return
		}
	}
}

// lockInSteps becomes upgradeable, then a writer, a reader, and a writer anew.
func lockInSteps(ctx context.Context, l *lock.RWLock) (*lock.WriteHeld, error) {
	u, err := l.ULock(ctx)
	if err != nil {
		return nil, err
	}
	w, err := u.Upgrade(ctx)
	if err == nil {
		_, err = w.Downgrade(ctx)
	}
	err = errors.Join(err, u.Release(context.WithoutCancel(ctx)))
	if err != nil {
		return nil, err
	}
	return l.Lock(ctx)
}

// Every answer in turn is lost, and every request.
func testRWEveryAnswerDropped(t *testing.T, h *harness) {
	for _, f := range []fate{answerDropped, requestLost} {
		for k := 1; ; k++ {
			lost := false
			w := wire{before: func(_ context.Context, c *call) fate {
				if c.n != k {
					return arrives
				}
				lost = true
				return f
			}}
			c := h.client(w.config())
			h.everyKindOfRW(lock.NewRW(c, "job"))
			h.awaitKeys("job/", 0)
			require.NoError(t, c.Close())
			if !lost {
				t.Logf("%d requests", k-1)
				require.Greater(t, k, 12)
				break
			}
		}
	}
}

func (h *harness) everyKindOfRW(mine *lock.RWLock) {
	h.t.Helper()
	theirs := lock.NewRW(h.c, "job")
	reader, err := theirs.RLock(h.ctx)
	require.NoError(h.t, err)
	_, err = mine.TryLock(h.ctx)
	require.ErrorIs(h.t, err, lock.ErrHeld)
	r, err := mine.TryRLock(h.ctx)
	gone(h, got(h, r, err))

	u, err := mine.ULock(h.ctx)
	require.NoError(h.t, err)
	upgrade := begin(h, func() (*lock.WriteHeld, error) { return u.Upgrade(h.ctx) })
	h.awaitMode("job/", "upgraded")
	behind := h.rlock(theirs, 3)
	gone(h, reader)
	w := upgrade.success()
	behind.stillWaits()
	require.Equal(h.t, u.Token(), w.Token())
	_, err = w.Downgrade(h.ctx)
	require.NoError(h.t, err)
	reader = behind.success()
	gone(h, w)

	writer := h.wlock(mine, 2)
	gone(h, reader)
	w = writer.success()
	behind = h.rlock(theirs, 2)
	behind.stillWaits()
	gone(h, w)
	gone(h, behind.success())
}
