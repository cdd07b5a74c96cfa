package cachetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/cache"
)

// persistent returns a key that is in the store, with the number 1.
func (h *harness) persistent(c *client.Client, opts ...cache.PersistentOption[int]) *cache.Persistent[int] {
	h.t.Helper()
	p, err := cache.NewPersistent(c, "n/p", 1, opts...)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { require.NoError(h.t, p.Close(context.WithoutCancel(h.ctx))) })
	require.NoError(h.t, p.Wait(h.ctx))
	return p
}

func (h *harness) session(c *client.Client) *client.Session {
	h.t.Helper()
	s, err := c.Session(h.ctx)
	require.NoError(h.t, err)
	return s
}

func (h *harness) key() client.Item[int] {
	h.t.Helper()
	item, err := client.NewTyped[int](h.c, "n/").Get(h.ctx, "p")
	require.NoError(h.t, err)
	return item
}

// await waits until the cache's key p is as wanted.
func (h *harness) await(ca *cache.Cache[int], want func(item client.Item[int], ok bool) bool) client.Item[int] {
	h.t.Helper()
	for _, err := range ca.Events(h.ctx) {
		require.NoError(h.t, err)
		if got, ok := ca.Get("p"); want(got, ok) {
			return got
		}
	}
	panic("not reached")
}

// The key is there until Close, with the value that was set last, and with the
// session's lease.
func testPersistentLife(t *testing.T, h *harness) {
	p := h.persistent(h.c)
	lease := h.session(h.c).ID()
	got := h.key()
	require.Equal(t, client.Item[int]{Key: "p", Value: 1, Revision: p.Rev(), CreateRevision: p.Rev(), Lease: lease}, got)
	first := p.Rev()
	require.NoError(t, p.Set(h.ctx, 2))
	got = h.key()
	require.Equal(t, client.Item[int]{Key: "p", Value: 2, Revision: p.Rev(), CreateRevision: first, Lease: lease}, got)
	require.NoError(t, p.Set(h.ctx, 2))
	require.Equal(t, got, h.key(), "nothing had to be written")

	require.NoError(t, p.Close(h.ctx))
	require.Zero(t, p.Rev())
	res, err := h.c.Get(h.ctx, "n/p")
	require.NoError(t, err)
	require.Empty(t, res.KVs)
	require.ErrorIs(t, p.Set(h.ctx, 3), cache.ErrClosed)
	require.ErrorIs(t, p.Wait(h.ctx), cache.ErrClosed)
	require.NoError(t, p.Close(h.ctx))
	_, err = cache.NewPersistent(h.c, "", 1)
	require.ErrorIs(t, err, client.ErrEmptyKey)
	_, err = cache.NewPersistent(h.c, "n/p", func() {})
	require.ErrorContains(t, err, "encode")
}

// A key that is deleted comes back, and so does one whose session is gone, with the
// next one.
func testPersistentHeals(t *testing.T, h *harness) {
	c := h.client(client.Config{SessionTTL: 2 * time.Second}) // the shortest that etcd grants; a third of it until a revocation shows
	ca := h.numbers(h.c)
	p := h.persistent(c)
	for range 3 {
		gone := h.delete("n/p")
		back := h.await(ca, func(i client.Item[int], ok bool) bool { return ok && i.CreateRevision > gone })
		require.Equal(t, 1, back.Value)
	}
	require.NoError(t, p.Set(h.ctx, 5))
	s := h.session(c)
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	back := h.await(ca, func(i client.Item[int], ok bool) bool { return ok && i.Lease != s.ID() })
	require.Equal(t, 5, back.Value)
	require.NoError(t, p.Wait(h.ctx))
	require.Equal(t, h.session(c).ID(), back.Lease)

	// The session is lost here, while its key still is in the store: it is taken over.
	s = h.session(c)
	require.NoError(t, p.Set(h.ctx, 6))
	before := h.key()
	require.Error(t, s.Close(canceled(h.ctx)), "nothing is revoked")
	moved := h.await(ca, func(i client.Item[int], ok bool) bool { return ok && i.Lease != s.ID() })
	require.Equal(t, 6, moved.Value)
	require.Equal(t, before.CreateRevision, moved.CreateRevision, "nobody has seen it missing")
	require.NoError(t, p.Close(h.ctx))
	h.await(ca, func(_ client.Item[int], ok bool) bool { return !ok })
}

func canceled(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

// A key of somebody else is neither overwritten nor deleted; when it goes, ours
// takes the place.
func testPersistentTaken(t *testing.T, h *harness) {
	theirs := h.put("n/p", 100)
	p, err := cache.NewPersistent(h.c, "n/p", 1)
	require.NoError(t, err)
	h.takenAway(p)
	err = p.Wait(canceled(h.ctx))
	require.ErrorIs(t, err, cache.ErrTaken)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, p.Rev())
	require.Equal(t, theirs, h.key().Revision)
	h.delete("n/p")
	require.NoError(t, p.Wait(h.ctx))
	require.Equal(t, 1, h.key().Value)

	// Somebody overwrites it: it is theirs now.
	theirs = h.put("n/p", 101)
	h.takenAway(p)
	require.NoError(t, p.Close(h.ctx))
	require.Equal(t, theirs, h.key().Revision)
}

// takenAway waits until the Persistent has noticed that its place is taken.
func (h *harness) takenAway(p *cache.Persistent[int]) {
	h.t.Helper()
	for s := range p.States(h.ctx) {
		if errors.Is(s.Err, cache.ErrTaken) {
			require.Zero(h.t, s.Rev)
			return
		}
	}
	h.t.Fatal("it was not noticed")
}

// A Persistent of a given session ends with it.
func testPersistentOfASession(t *testing.T, h *harness) {
	s, err := h.c.NewSession(h.ctx)
	require.NoError(t, err)
	p := h.persistent(h.c, cache.WithSession[int](s))
	require.Equal(t, s.ID(), h.key().Lease)
	require.NoError(t, s.Close(h.ctx))
	err = p.Set(h.ctx, 2)
	require.ErrorIs(t, err, client.ErrSessionClosed)
	require.Zero(t, p.Rev())
	require.NoError(t, p.Close(h.ctx))
	res, err := h.c.Get(h.ctx, "n/p")
	require.NoError(t, err)
	require.Empty(t, res.KVs)
}

// Each answer in turn is lost, and each request: the key is there once, has the
// value that it should have, and is gone at the end.
func testPersistentAnswersLost(t *testing.T, h *harness) {
	for _, what := range []fate{answerDropped, requestLost} {
		for k := 1; ; k++ {
			n, lost := 0, false
			w := &tap{lose: func(c *call) fate {
				if !c.isWrite() {
					return arrives
				}
				if n++; n == k {
					lost = true
					return what
				}
				return arrives
			}}
			c := h.client(w.config())
			p := h.persistent(c)
			require.Equal(t, 1, h.key().Value)
			require.NoError(t, p.Set(h.ctx, 2))
			require.Equal(t, 2, h.key().Value)
			require.Equal(t, h.key().Revision, p.Rev())
			require.NoError(t, p.Close(h.ctx))
			res, err := h.c.Get(h.ctx, "n/p")
			require.NoError(t, err)
			require.Empty(t, res.KVs)
			require.NoError(t, c.Close())
			if !lost {
				require.Greater(t, k, 3)
				break
			}
		}
	}
}

// A create arrives long after it was given up, when the key that its retry made is
// closed: it is deleted at once, not when the session ends.
func testPersistentLateCreate(t *testing.T, h *harness) {
	var late *call
	w := &tap{lose: func(c *call) fate {
		if late != nil || !c.isWrite() {
			return arrives
		}
		late = c
		return requestLost
	}}
	c := h.client(w.config())
	p := h.persistent(c)
	require.NoError(t, p.Close(h.ctx))
	ca := h.numbers(h.c)
	resp, err := late.deliver()
	require.NoError(t, err)
	txn := resp.(*pb.TxnResponse)
	require.True(t, txn.Succeeded, "the key was created late")
	h.reached(ca, client.Revision(txn.Header.Revision))
	h.await(ca, func(_ client.Item[int], ok bool) bool { return !ok })
}
