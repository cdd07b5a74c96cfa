package locktest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

func receive(t *testing.T, h *harness, ch <-chan lock.Request) lock.Request {
	t.Helper()
	select {
	case r := <-ch:
		return r
	case <-h.ctx.Done():
		t.Fatal("no request came")
	}
	panic("unreachable")
}

// The holder is asked, others see the request, and nothing is taken from it: not
// its place, its token, nor what it said about itself.
func testRequestRelease(t *testing.T, h *harness) {
	operator := h.client(client.Config{})
	require.ErrorIs(t, lock.RequestRelease(h.ctx, operator, "job", lock.Request{}), lock.ErrNotHeld)
	held := h.acquire(lock.New(h.c, "job", lock.WithOwner("holder"), lock.WithInfo("nightly")))
	waiter := h.start(h.ctx, lock.New(h.client(client.Config{}), "job"))
	h.awaitKeys("job/", 2)
	want := lock.Request{By: "operator", Reason: "upgrade"}
	require.NoError(t, lock.RequestRelease(h.ctx, operator, "job", want))
	require.Equal(t, want, receive(t, h, held.ReleaseRequested()))
	info, err := lock.Inspect(h.ctx, operator, "job")
	require.NoError(t, err)
	require.Equal(t, lock.Contender{
		Key: held.Key(), Lease: info.Holders[0].Lease, Token: held.Token(), Owner: "holder", Info: "nightly", Request: &want,
	}, info.Holders[0])
	require.NoError(t, held.Check(h.ctx))
	waiter.stillWaits()

	// Only the latest counts, and by default it tells who asks.
	require.NoError(t, lock.RequestRelease(h.ctx, operator, "job", lock.Request{Reason: strings.Repeat("x", 1000)}))
	last := receive(t, h, held.ReleaseRequested())
	require.NotEmpty(t, last.By)
	require.Len(t, last.Reason, 256)
	h.release(held)
	next := waiter.success()
	require.Empty(t, next.ReleaseRequested(), "the request was not for it")
	h.release(next)
}

// A holder that is broken learns by whom; the next one has the lock at once.
func testBreak(t *testing.T, h *harness) {
	operator := h.client(client.Config{})
	held := h.acquire(lock.New(h.c, "job"))
	middle := h.start(h.ctx, lock.New(h.client(client.Config{}), "job"))
	kvs := h.awaitKeys("job/", 2)
	last := h.start(h.ctx, lock.New(h.client(client.Config{}), "job"))
	h.awaitKeys("job/", 3)

	info, err := lock.Inspect(h.ctx, operator, "job")
	require.NoError(t, err)
	require.Equal(t, kvs[1].Key, info.Waiters[0].Key)
	require.NoError(t, lock.Break(h.ctx, operator, "job", info.Waiters[0].Token))
	err = middle.failure()
	require.ErrorIs(t, err, lock.ErrLost)
	require.True(t, held.Valid())
	last.stillWaits()

	require.NoError(t, lock.Break(h.ctx, operator, "job", held.Token()))
	cause := h.ended(held)
	require.ErrorIs(t, cause, lock.ErrLost)
	require.ErrorIs(t, cause, lock.ErrBroken)
	require.ErrorContains(t, cause, "by ")
	next := last.success()
	require.Greater(t, next.Token(), held.Token())
	require.ErrorIs(t, held.Release(h.ctx), lock.ErrBroken)
	require.ErrorIs(t, lock.Break(h.ctx, operator, "job", held.Token()), lock.ErrNotHeld)
	require.True(t, next.Valid(), "a token is broken, not whoever holds the lock")
	h.release(next)
	require.ErrorIs(t, lock.Break(h.ctx, operator, "a/", 1), lock.ErrName)
}

// Every answer to an operator in turn is lost: the holder is asked, and loses the
// lock, all the same, and nobody else does.
func testOperateAnswersLost(t *testing.T, h *harness) {
	l := lock.New(h.c, "job")
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
			operator := h.client(w.config())
			held := h.acquire(l)
			require.NoError(t, lock.RequestRelease(h.ctx, operator, "job", lock.Request{By: "me"}))
			require.Equal(t, "me", receive(t, h, held.ReleaseRequested()).By)
			require.NoError(t, lock.Break(h.ctx, operator, "job", held.Token()))
			next := h.acquire(l)
			require.ErrorIs(t, h.ended(held), lock.ErrBroken)
			h.release(next)
			require.NoError(t, operator.Close())
			if !lost {
				require.Greater(t, k, 6)
				break
			}
		}
	}
}

// Clients of etcd can be broken, but not asked.
func testOperateOnForeignKey(t *testing.T, h *harness) {
	lease, err := h.c.Grant(h.ctx, time.Minute)
	require.NoError(t, err)
	_, err = h.c.Put(h.ctx, "job/"+lease.ID.String(), nil, client.WithLease(lease.ID))
	require.NoError(t, err)
	require.ErrorIs(t, lock.RequestRelease(h.ctx, h.c, "job", lock.Request{}), lock.ErrUnreachable)
	kvs := h.awaitKeys("job/", 1)
	require.Empty(t, kvs[0].Value)
	info, err := lock.Inspect(h.ctx, h.c, "job")
	require.NoError(t, err)
	require.NoError(t, lock.Break(h.ctx, h.c, "job", info.Holders[0].Token))
	h.awaitKeys("job/", 0)
	require.NoError(t, h.c.Revoke(h.ctx, lease.ID))
}

// Somebody takes the key off its lease: it would outlive the session. The holder
// learns of it, and the key goes.
func testDetached(t *testing.T, h *harness) {
	held := h.acquire(lock.New(h.c, "job"))
	_, err := h.c.Put(h.ctx, held.Key(), []byte("mine"))
	require.NoError(t, err)
	require.Equal(t, lock.ErrDetached, lostReason(t, h.ended(held)))
	h.awaitKeys("job/", 0)
}

func testWatchInfo(t *testing.T, h *harness) {
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	infos := make(chan lock.Info)
	go func() {
		defer close(infos)
		for info, err := range lock.Watch(ctx, h.client(client.Config{}), "job") {
			if err != nil {
				return
			}
			infos <- info
		}
	}()
	until := func(ok func(lock.Info) bool) lock.Info {
		t.Helper()
		for info := range infos {
			if ok(info) {
				return info
			}
		}
		t.Fatal("the watch ended")
		panic("unreachable")
	}
	until(func(i lock.Info) bool { return len(i.Holders) == 0 })
	first := h.acquire(lock.New(h.c, "job"))
	until(func(i lock.Info) bool { return len(i.Holders) == 1 && i.Holders[0].Key == first.Key() })
	waiter := h.start(h.ctx, lock.New(h.client(client.Config{}), "job"))
	info := until(func(i lock.Info) bool { return len(i.Waiters) == 1 })
	res, err := h.c.Put(h.ctx, "other", nil)
	require.NoError(t, err)
	require.NoError(t, h.c.Compact(h.ctx, res.Revision))
	require.NoError(t, lock.RequestRelease(h.ctx, h.c, "job", lock.Request{By: "me"}))
	until(func(i lock.Info) bool { return i.Holders[0].Request != nil })
	h.release(first)
	until(func(i lock.Info) bool {
		return len(i.Holders) == 1 && i.Holders[0].Token == info.Waiters[0].Token && len(i.Waiters) == 0
	})
	h.release(waiter.success())
	until(func(i lock.Info) bool { return len(i.Holders) == 0 })
	cancel()
	for range infos { // until the loop has ended
	}
	for _, err := range lock.Watch(h.ctx, h.c, "a/") {
		require.ErrorIs(t, err, lock.ErrName)
	}
}

func testList(t *testing.T, h *harness) {
	other := h.client(client.Config{})
	set, err := lock.AcquireAll(h.ctx, h.c, []string{"x/a", "x/a/b", "x/c", "y"})
	require.NoError(t, err)
	_, err = h.c.Put(h.ctx, "x/c/settings", []byte("1"))
	require.NoError(t, err)
	_, err = h.c.Put(h.ctx, "x/77", []byte("hexadecimal, without a lease"))
	require.NoError(t, err)
	waiter := h.start(h.ctx, lock.New(other, "x/a"))
	h.awaitKeys("x/a/", 3)
	var names []string
	for info, err := range lock.List(h.ctx, other, "x/") {
		require.NoError(t, err)
		names = append(names, info.Name)
		require.Len(t, info.Holders, 1)
		require.Equal(t, set.Token(), info.Holders[0].Token)
		if info.Name == "x/a" {
			require.Len(t, info.Waiters, 1)
		}
	}
	require.Equal(t, []string{"x/a", "x/a/b", "x/c"}, names)
	n := 0
	for range lock.List(h.ctx, other, "") {
		n++
	}
	require.Equal(t, 4, n)
	require.NoError(t, set.Release(h.ctx))
	h.release(waiter.success())
}
