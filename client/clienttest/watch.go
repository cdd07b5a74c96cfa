package clienttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

func testWatchOrder(t *testing.T, h *harness) {
	r0 := h.put("a", "0")
	r1 := h.put("a", "1")
	txn, err := h.c.Txn().Then(client.OpPut("b", []byte("2")), client.OpDelete("a")).Commit(h.ctx)
	require.NoError(t, err)
	h.put("other", "")
	r3 := h.put("a", "3")
	var got []string
	var batches []client.WatchBatch
	for b, err := range h.c.WatchBatches(h.ctx, "", client.Range("c"), client.FromRevision(r0+1)) {
		require.NoError(t, err)
		batches = append(batches, b)
		for _, ev := range b.Events {
			got = append(got, fmt.Sprintf("%v %s=%s @%d new=%v", ev.Type, ev.KV.Key, ev.KV.Value, ev.KV.ModRevision, ev.Created()))
		}
		if b.Revision == r3 {
			break
		}
	}
	require.Equal(t, []string{
		fmt.Sprintf("put a=1 @%d new=false", r1),
		fmt.Sprintf("put b=2 @%d new=true", txn.Revision),
		fmt.Sprintf("delete a= @%d new=false", txn.Revision),
		fmt.Sprintf("put a=3 @%d new=true", r3),
	}, got)
	require.Equal(t, client.WatchBatch{Revision: r0, Created: true}, batches[0])
}

func testWatchFromRevision(t *testing.T, h *harness) {
	r := h.put("a", "1")
	// From now: what is written once the watch is established is seen.
	for b, err := range h.c.WatchBatches(h.ctx, "a") {
		require.NoError(t, err)
		if b.Created {
			require.GreaterOrEqual(t, b.Revision, r)
			h.put("a", "2")
			continue
		}
		require.Equal(t, "2", string(b.Events[0].KV.Value))
		break
	}
	// From the future: what comes before is not seen.
	for b, err := range h.c.WatchBatches(h.ctx, "a", client.FromRevision(r+4)) {
		require.NoError(t, err)
		if b.Created {
			h.put("a", "3")
			h.put("a", "4")
			h.put("a", "5")
			continue
		}
		require.Equal(t, "5", string(b.Events[0].KV.Value))
		break
	}
}

func testWatchOptions(t *testing.T, h *harness) {
	r := h.put("a", "1")
	h.put("a", "2")
	_, err := h.c.Delete(h.ctx, "a")
	require.NoError(t, err)
	end := h.put("end", "")
	collect := func(opts ...client.WatchOption) (out []string) {
		opts = append(opts, client.Prefix(), client.FromRevision(r))
		for ev, err := range h.c.Watch(h.ctx, "", opts...) {
			require.NoError(t, err)
			if ev.KV.ModRevision == end {
				break
			}
			prev := ""
			if ev.Prev != nil {
				prev = "<" + string(ev.Prev.Value)
			}
			out = append(out, ev.Type.String()+string(ev.KV.Value)+prev)
		}
		return out
	}
	require.Equal(t, []string{"put1", "put2", "delete"}, collect())
	require.Equal(t, []string{"put1", "put2<1", "delete<2"}, collect(client.PrevKV()))
	require.Equal(t, []string{"put1", "put2"}, collect(client.WithoutDeletes(), client.WithoutLeader()))
	for ev, err := range h.c.Watch(h.ctx, "a", client.FromRevision(r), client.WithoutPuts()) {
		require.NoError(t, err)
		require.Equal(t, client.EventDelete, ev.Type)
		break
	}
}

func testWatchCompacted(t *testing.T, h *harness) {
	r := h.put("a", "1")
	h.put("a", "2")
	last := h.put("a", "3")
	require.NoError(t, h.c.Compact(h.ctx, last))
	var failure error
	for _, err := range h.c.Watch(h.ctx, "a", client.FromRevision(r)) {
		require.Error(t, err)
		require.NoError(t, failure, "only one error")
		failure = err
	}
	require.ErrorIs(t, failure, client.ErrCompacted)
	var compacted *client.CompactedError
	require.ErrorAs(t, failure, &compacted)
	require.Equal(t, client.CompactedError{Wanted: r, Revision: last}, *compacted)
	for ev, err := range h.c.Watch(h.ctx, "a", client.FromRevision(last)) {
		require.NoError(t, err)
		require.Equal(t, "3", string(ev.KV.Value), "the revision of the compaction can be watched")
		break
	}
}

func testWatchMany(t *testing.T, h *harness) {
	const n = 200
	start := h.put("start", "")
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for i := range n {
		key := fmt.Sprintf("k%03d", i)
		wg.Go(func() {
			for ev, err := range h.c.Watch(h.ctx, key, client.FromRevision(start+1)) {
				if err == nil && ev.KV.Key != key {
					err = fmt.Errorf("watch of %s got %s", key, ev.KV.Key)
				}
				errs <- err
				return
			}
		})
	}
	for i := range n {
		h.put(fmt.Sprintf("k%03d", n-1-i), "")
	}
	wg.Wait()
	for range n {
		require.NoError(t, <-errs)
	}
}

// testWatchSlowLoop makes a loop stand still while more arrives than its queue takes, and counts that nothing is missing.
func testWatchSlowLoop(t *testing.T, h *harness) {
	const n, size = 150, 100_000 // 15 MB; the queue takes 4
	r := h.put("a", "start")
	value := make([]byte, size)
	seen := 0
	for ev, err := range h.c.Watch(h.ctx, "a", client.FromRevision(r)) {
		require.NoError(t, err)
		require.Equal(t, r+client.Revision(seen), ev.KV.ModRevision)
		if seen == 0 {
			for range n {
				_, err := h.c.Put(h.ctx, "a", value)
				require.NoError(t, err)
			}
		}
		if seen++; seen == n+1 {
			break
		}
	}
	require.Equal(t, n+1, seen)
}

func testWatchEnds(t *testing.T, h *harness) {
	stop := errors.New("enough")
	ctx, cancel := context.WithCancelCause(h.ctx)
	defer cancel(nil)
	var failure error
	for b, err := range h.c.WatchBatches(ctx, "a") {
		if failure = err; err == nil && b.Created {
			cancel(stop)
		}
	}
	require.ErrorIs(t, failure, context.Canceled)
	require.ErrorIs(t, failure, stop, "the cause stays visible")

	closing := h.client(client.Config{})
	for b, err := range closing.WatchBatches(h.ctx, "a") {
		if failure = err; err == nil && b.Created {
			require.NoError(t, closing.Close())
		}
	}
	require.ErrorIs(t, failure, client.ErrClosed)
	for _, err := range h.c.Watch(h.ctx, "") {
		failure = err
	}
	require.ErrorIs(t, failure, client.ErrEmptyKey)
	for _, err := range h.c.Watch(h.ctx, "b", client.Range("a")) {
		failure = err
	}
	require.ErrorIs(t, failure, client.ErrInvalid, "an empty range")
}

// testWatchReconnect cuts the client's connections again and again while events flow. The writer is at most two parts
// ahead of the last cut, so that of two cuts that follow each other one at least hits a connection.
func testWatchReconnect(t *testing.T, h *harness) {
	const n, cuts = 400, 8
	parts := make(chan struct{}, cuts+2)
	parts <- struct{}{}
	parts <- struct{}{}
	link, hits := NewLink(), 0
	watching := h.client(client.Config{Dialer: link.Dial})
	r := h.put("a", "start")
	done := make(chan error, 1)
	go func() {
		for i := range n {
			if i%(n/cuts) == 0 {
				<-parts
			}
			if _, err := h.c.Put(h.ctx, "a", []byte(fmt.Sprint(i))); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	seen := 0
	for ev, err := range watching.Watch(h.ctx, "a", client.FromRevision(r+1)) {
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(seen), string(ev.KV.Value))
		if seen++; seen == n {
			break
		}
		if seen%(n/cuts) == 0 {
			if link.Cut() > 0 {
				hits++
			}
			parts <- struct{}{}
		}
	}
	require.NoError(t, <-done)
	require.GreaterOrEqual(t, hits, cuts/2-1, "too few cuts hit a connection to prove anything")
}
