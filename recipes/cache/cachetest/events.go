package cachetest

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/cache"
)

// What is read after WaitRev of a write's revision has the write, for any number of
// writers at once.
func testReadYourWrites(t *testing.T, h *harness) {
	const writers, rounds = 8, 25
	ca := h.numbers(h.c)
	var group sync.WaitGroup
	errs := make(chan error, writers)
	for w := range writers {
		key := fmt.Sprintf("k%d", w)
		group.Go(func() {
			for i := range rounds {
				res, err := h.c.Put(h.ctx, "n/"+key, []byte(fmt.Sprint(i)))
				if err == nil {
					err = ca.WaitRev(h.ctx, res.Revision)
				}
				if err != nil {
					errs <- err
					return
				}
				if got, _ := ca.Get(key); got.Value != i || got.Revision != res.Revision {
					errs <- fmt.Errorf("%s is %+v after %d was written at %d", key, got, i, res.Revision)
					return
				}
			}
		})
	}
	group.Wait()
	close(errs)
	require.NoError(t, <-errs)
	require.Equal(t, writers, ca.Len())
}

// A revision that changed nothing under the prefix is reached soon all the same, and
// Sync covers what others have written.
func testQuietPrefix(t *testing.T, h *harness) {
	a := h.put("n/a", 1)
	ca := h.numbers(h.c)
	start := time.Now()
	for i := range 10 {
		h.reached(ca, h.put("elsewhere", i))
	}
	require.Less(t, time.Since(start), 20*time.Second, "below what one unasked report takes")
	require.Less(t, ca.Stale(), 30*time.Second)
	got, _ := ca.Get("a")
	require.Equal(t, item("a", 1, a, a), got)

	other := h.client(client.Config{})
	for i := range 10 {
		res, err := other.Put(h.ctx, "n/a", []byte(fmt.Sprint(i)))
		require.NoError(t, err)
		require.NoError(t, ca.Sync(h.ctx))
		got, _ := ca.Get("a")
		require.Equal(t, i, got.Value)
		require.GreaterOrEqual(t, ca.Rev(), res.Revision)
	}

	// A revision of the future is waited for.
	future := make(chan error, 1)
	rev := ca.Rev() + 2
	go func() { future <- ca.WaitRev(h.ctx, rev) }()
	h.put("elsewhere", 0)
	h.put("elsewhere", 0)
	require.NoError(t, <-future)
}

// A watch of the same client that begins right behind the newest revision does not
// keep a cache from learning that it is up to date, though nothing is written any
// more that would move either of them. Nor does one that was compacted away.
func testWatchAtTheEnd(t *testing.T, h *harness) {
	ca := h.numbers(h.c)
	last := h.raw("elsewhere", "")
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	established := make(chan struct{})
	watch.Go(func() {
		for batch, err := range h.c.WatchBatches(ctx, "elsewhere", client.FromRevision(last+1)) {
			if err == nil && batch.Created {
				close(established)
			}
		}
	})
	<-established
	require.NoError(t, ca.Sync(h.ctx))
	require.Equal(t, last, ca.Rev())

	require.NoError(t, h.c.Compact(h.ctx, last))
	for _, err := range h.c.Watch(h.ctx, "elsewhere", client.FromRevision(last-1)) {
		require.ErrorIs(t, err, client.ErrCompacted)
	}
	h.reached(ca, h.raw("elsewhere", ""))
}

// A loop sees the content first, then each change with the item before and after.
func testEvents(t *testing.T, h *harness) {
	a1 := h.put("n/a", 1)
	ca := h.numbers(h.c)
	next, stop := iter.Pull2(ca.Events(h.ctx))
	defer stop()
	take := func() cache.Event[int] {
		t.Helper()
		ev, err, ok := next()
		require.True(t, ok)
		require.NoError(t, err)
		return ev
	}
	first := take()
	require.GreaterOrEqual(t, first.Rev, a1)
	one := item("a", 1, a1, a1)
	require.Equal(t, cache.Event[int]{Type: cache.Resynced, Rev: first.Rev, Diff: []cache.Event[int]{
		{Type: cache.Added, Key: "a", New: one, Rev: a1},
	}}, first)

	b1 := h.put("n/b", 7)
	require.Equal(t, cache.Event[int]{Type: cache.Added, Key: "b", New: item("b", 7, b1, b1), Rev: b1}, take())
	a2 := h.put("n/a", 2)
	two := item("a", 2, a2, a1)
	require.Equal(t, cache.Event[int]{Type: cache.Modified, Key: "a", Old: one, New: two, Rev: a2}, take())
	h.put("m/a", 3)
	gone := h.delete("n/a")
	require.Equal(t, cache.Event[int]{Type: cache.Deleted, Key: "a", Old: two, Rev: gone}, take())
	a3 := h.put("n/a", 4)
	require.Equal(t, cache.Event[int]{Type: cache.Added, Key: "a", New: item("a", 4, a3, a3), Rev: a3}, take())
	require.Equal(t, "resynced added modified deleted rejected", fmt.Sprint(
		cache.Resynced, " ", cache.Added, " ", cache.Modified, " ", cache.Deleted, " ", cache.Rejected))
}

// A loop that stands still while more happens than is kept gets the difference at
// once, and nobody waited for it.
func testSlowLoop(t *testing.T, h *harness) {
	const perTxn, txns = 100, 15 // more than 1,024
	h.put("n/gone", 1)
	h.put("n/stays", 1)
	h.put("n/changes", 1)
	ca := h.numbers(h.c)
	slow, fast := newMirror(h), newMirror(h)
	next, stop := iter.Pull2(ca.Events(h.ctx))
	defer stop()
	pull := func() {
		t.Helper()
		ev, err, ok := next()
		require.True(t, ok)
		require.NoError(t, err)
		slow.take(ev)
	}
	pull()
	require.Len(t, slow.items, 3)

	// The other loop keeps pace: it says when it has seen each transaction.
	seen := make(chan client.Revision)
	done := make(chan error, 1)
	listening, end := context.WithCancel(h.ctx)
	defer end()
	go func() {
		for ev, err := range ca.Events(listening) {
			if err != nil {
				done <- err
				return
			}
			fast.take(ev)
			if ev.Type == cache.Resynced || ev.Key == "marker" {
				seen <- ev.Rev
			}
		}
	}()
	<-seen
	h.delete("n/gone")
	for i := range txns {
		ops := []client.Op{client.OpPut("n/changes", []byte(fmt.Sprint(i)))}
		for j := range perTxn {
			ops = append(ops, client.OpPut(fmt.Sprintf("n/%d", j), []byte(fmt.Sprint(i))))
		}
		h.txn(ops...)
		rev := h.put("n/marker", i)
		require.Equal(t, rev, <-seen)
	}
	require.Equal(t, 1, fast.resync)
	require.Equal(t, 1+txns*(perTxn+2), fast.events)
	pull()
	require.Equal(t, 2, slow.resync)
	require.Zero(t, slow.events)
	require.Equal(t, fast.items, slow.items)
	require.Equal(t, ca.Len(), len(slow.items))
	// From here on it goes on as before.
	h.put("n/a", 1)
	pull()
	require.Equal(t, 1, slow.events)
	end()
	require.ErrorIs(t, <-done, context.Canceled)
}

// Many loops that come and go, with writes all the time, all end with the same.
func testManyLoops(t *testing.T, h *harness) {
	const loops, writes = 12, 400
	ca := h.numbers(h.c)
	var group sync.WaitGroup
	errs := make(chan error, loops)
	mirrors := make([]*mirror, loops)
	listen := func(i int) {
		mirrors[i] = newMirror(h)
		group.Go(func() { errs <- mirrors[i].listen(ca) })
	}
	for i := range writes {
		if i%(writes/loops) == 0 && i/(writes/loops) < loops {
			listen(i / (writes / loops))
		}
		key := fmt.Sprintf("n/%d", i%17)
		if i%5 == 4 {
			h.delete(key)
		} else {
			h.put(key, i)
		}
		if i%50 == 0 { // one that does not stay
			for _, err := range ca.Events(h.ctx) {
				require.NoError(t, err)
				break
			}
		}
	}
	end := h.put("n/end", 0)
	group.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	h.reached(ca, end)
	require.True(t, h.equalsStore(ca.View()))
	for _, m := range mirrors {
		require.Len(t, m.items, ca.Len())
		for key, item := range ca.All() {
			require.Equal(t, item, m.items[key])
		}
	}
}
