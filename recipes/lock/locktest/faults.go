package locktest

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// The caller gives up while the create is under way: before it has reached the
// server, and after it was executed but before the answer came. No key is left.
func testCancelInFlight(t *testing.T, h *harness) {
	const rounds = 200
	var cancel context.CancelFunc
	var w wire
	round, created := 0, 0
	// One round at a time: the slot is given back before the next one begins.
	w.before = func(_ context.Context, c *call) fate {
		if c.isCreate() && round%2 == 0 {
			cancel()
		}
		return arrives
	}
	w.after = func(c *call, err error) {
		if c.isCreate() && err == nil {
			created++
			cancel()
		}
	}
	c := h.client(w.config())
	_, err := c.Session(h.ctx)
	require.NoError(t, err)
	for round = range rounds {
		var ctx context.Context
		ctx, cancel = context.WithCancel(h.ctx)
		enter := lock.New(c, "job").Acquire
		if round%4 > 1 {
			enter = lock.New(c, "job").TryAcquire
		}
		_, err := enter(ctx)
		cancel()
		require.ErrorIs(t, err, context.Canceled)
		h.awaitKeys("job/", 0)
		// This waits until the round's claim is undone: the slot is in use until then.
		h.release(h.acquire(lock.New(c, "job")))
	}
	require.Equal(t, 2*rounds, created, "every create was executed")
}

// The caller gives up at the k-th request, whatever that is, for every k until
// none is left to give up at.
func testCancelAnywhere(t *testing.T, h *harness) {
	for k := 1; ; k++ {
		name := fmt.Sprintf("job%d", k)
		holder := h.acquire(lock.New(h.c, name))
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
		a := h.start(ctx, lock.New(c, name))
		a.queuedOrDone(name+"/", 2)
		h.release(holder)
		held, err := a.wait()
		if err == nil {
			h.release(held)
		} else {
			require.ErrorIs(t, err, context.Canceled)
		}
		h.awaitKeys(name+"/", 0)
		require.NoError(t, c.Close())
		cancel()
		if !reached {
			require.NoError(t, err)
			t.Logf("%d requests", k-1)
			require.Greater(t, k, 3)
			return
		}
	}
}

// The answer to the create is lost, or the create itself: the retry finds or
// makes the one key, and the handle has its token.
func testCreateDropped(t *testing.T, h *harness) {
	for _, f := range []fate{answerDropped, requestLost} {
		for _, try := range []bool{false, true} {
			creates := 0
			var w wire
			w.before = func(_ context.Context, c *call) fate {
				if !c.isCreate() {
					return arrives
				}
				if creates++; creates == 1 {
					return f
				}
				return arrives
			}
			c := h.client(w.config())
			enter := lock.New(c, "job").Acquire
			if try {
				enter = lock.New(c, "job").TryAcquire
			}
			held, err := enter(h.ctx)
			require.NoError(t, err)
			require.Equal(t, 2, creates)
			kvs := h.awaitKeys("job/", 1)
			require.Equal(t, held.Key(), kvs[0].Key)
			require.Equal(t, held.Token(), fence.Token(kvs[0].CreateRevision))
			h.release(held)
			h.awaitKeys("job/", 0)
		}
	}
}

// The create is executed, its answer is lost, and the caller gives up: the key
// that nobody knows of is swept away.
func testCreateAbandoned(t *testing.T, h *harness) {
	for _, try := range []bool{false, true} {
		ctx, cancel := context.WithCancel(h.ctx)
		creates := 0
		var w wire
		w.before = func(_ context.Context, c *call) fate {
			if !c.isCreate() {
				return arrives
			}
			creates++
			return answerDropped
		}
		w.after = func(c *call, _ error) {
			if c.isCreate() {
				cancel()
			}
		}
		c := h.client(w.config())
		enter := lock.New(c, "job").Acquire
		if try {
			enter = lock.New(c, "job").TryAcquire
		}
		_, err := enter(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 1, creates)
		h.awaitKeys("job/", 0)
		h.release(h.acquire(lock.New(h.c, "job")))
		require.NoError(t, c.Close())
	}
}

// A create arrives long after it was given up, when the lock that its retry got
// has been released again: the key is swept away at once, not when the session
// ends.
func testCreateLate(t *testing.T, h *harness) {
	for _, abandon := range []bool{false, true} {
		var late *call
		var w wire
		ctx, cancel := context.WithCancel(h.ctx)
		w.before = func(_ context.Context, c *call) fate {
			if late != nil || !c.isCreate() {
				return arrives
			}
			late = c
			if abandon {
				cancel()
			}
			return requestLost
		}
		c := h.client(w.config())
		held, err := lock.New(c, "job").Acquire(ctx)
		if abandon {
			require.ErrorIs(t, err, context.Canceled)
			// The background gives the slot back after it has made sure.
			h.release(h.acquire(lock.New(c, "job")))
		} else {
			require.NoError(t, err)
			h.release(held)
		}
		cancel()
		resp, err := late.deliver()
		require.NoError(t, err)
		txn := resp.(*pb.TxnResponse)
		require.True(t, txn.Succeeded, "the key was created late")
		h.awaitKeys("job/", 0)
		h.release(h.acquire(lock.New(h.c, "job")))
		h.release(h.acquire(lock.New(c, "job")))
		require.NoError(t, c.Close())
	}
}

// The answers to a release are lost, and its caller gives up. The release goes
// on, the lock can be had again afterwards, and calling Release once more does
// it no harm.
func testReleaseDropped(t *testing.T, h *harness) {
	var w wire
	c := h.client(w.config())
	l := lock.New(c, "job")
	old := h.acquire(l)

	ctx, cancel := context.WithCancel(h.ctx)
	dropped := 0
	w.set(func(_ context.Context, c *call) fate {
		if !c.isDelete() {
			return arrives
		}
		dropped++
		if dropped > 2 {
			cancel()
		}
		if dropped > 3 {
			return arrives
		}
		return answerDropped
	})
	err := old.Release(ctx)
	if err != nil { // the caller may have given up, or the background been faster
		require.ErrorIs(t, err, client.ErrUncertain)
		require.ErrorIs(t, err, context.Canceled)
	}
	held := h.acquire(l)
	require.Greater(t, held.Token(), old.Token())
	require.NoError(t, old.Release(h.ctx))
	require.True(t, held.Valid())
	kvs := h.awaitKeys("job/", 1)
	require.Equal(t, held.Token(), fence.Token(kvs[0].CreateRevision))
	h.release(held)
}

// A release arrives once more, late, when the session has the lock again: it
// names the key by its create revision, and deletes nothing.
func testReleaseLate(t *testing.T, h *harness) {
	var late *call
	var w wire
	w.before = func(_ context.Context, c *call) fate {
		if late != nil || !c.isDelete() {
			return arrives
		}
		late = c
		return requestLost
	}
	c := h.client(w.config())
	l := lock.New(c, "job")
	old := h.acquire(l)
	h.release(old)
	held := h.acquire(l)
	require.Equal(t, old.Key(), held.Key())
	resp, err := late.deliver()
	require.NoError(t, err)
	require.False(t, resp.(*pb.TxnResponse).Succeeded)
	require.True(t, held.Valid())
	kvs := h.awaitKeys("job/", 1)
	require.Equal(t, held.Token(), fence.Token(kvs[0].CreateRevision))
	h.release(held)
}

// Every answer in turn is lost, and every request: the lock is got and given
// back all the same, and nothing stays behind.
func testEveryAnswerDropped(t *testing.T, h *harness) {
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
			h.everyKindOfCall(c)
			h.awaitKeys("job/", 0)
			require.NoError(t, c.Close())
			if !lost {
				require.Equal(t, k-1, w.calls())
				t.Logf("%d requests", k-1)
				require.Greater(t, k, 6)
				break
			}
		}
	}
}

// everyKindOfCall waits for a lock, has it, tries and inspects it.
func (h *harness) everyKindOfCall(c *client.Client) {
	h.t.Helper()
	mine := lock.New(c, "job")
	holder := h.acquire(lock.New(h.c, "job"))
	_, err := mine.TryAcquire(h.ctx)
	require.ErrorIs(h.t, err, lock.ErrHeld)
	a := h.start(h.ctx, mine)
	h.awaitKeys("job/", 2)
	h.release(holder)
	held := a.success()
	require.Greater(h.t, held.Token(), holder.Token())
	_, err = lock.New(h.c, "job").TryAcquire(h.ctx)
	require.ErrorIs(h.t, err, lock.ErrHeld)
	h.release(held)
	again, err := mine.TryAcquire(h.ctx)
	require.NoError(h.t, err)
	require.Greater(h.t, again.Token(), held.Token())
	h.release(again)
}

// The network breaks again and again while some hold and others wait: nothing
// is lost as long as the sessions live, and the order is kept.
func testNetworkCut(t *testing.T, h *harness) {
	const waiters = 4
	l := clienttest.NewLink()
	var w witness
	holder := h.acquire(lock.New(h.client(client.Config{Dialer: l.Dial}), "job"))
	var attempts []*attempt
	for i := range waiters {
		attempts = append(attempts, h.start(h.ctx, lock.New(h.client(client.Config{Dialer: l.Dial}), "job")))
		h.awaitKeys("job/", i+2)
	}
	cuts := 0
	for _, a := range attempts {
		cuts += l.Cut()
		require.True(t, holder.Valid())
		a.stillWaits()
		require.NoError(t, w.hold(holder, func() error { return nil }))
		h.release(holder)
		holder = a.success()
	}
	cuts += l.Cut()
	require.NoError(t, w.hold(holder, func() error { return nil }))
	h.release(holder)
	w.check(t, waiters+1)
	require.Greater(t, cuts, waiters, "connections that were cut")
}
