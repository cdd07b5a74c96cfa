package queuetest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
)

// Whoever breaks the loop gives back what he has not ended; what he has is in the
// store.
func testJobs(t *testing.T, h *harness) {
	q := h.open(queue.WithShards(1))
	for i := range 6 {
		h.enqueue(q, fmt.Sprint(i))
	}
	n := 0
	var open *queue.Delivery[string]
	for d, err := range q.Jobs(h.ctx, queue.WithConcurrency(2)) {
		require.NoError(t, err)
		require.NoError(t, d.Err)
		switch n++; n {
		case 1:
			require.NoError(t, d.Ack(h.ctx))
			require.ErrorIs(t, d.Ack(h.ctx), queue.ErrClosed)
		case 2:
			require.NoError(t, d.Nack(h.ctx, errBoom, time.Millisecond))
		case 3:
			d.Tx().Put("done", []byte(d.Value))
			require.NoError(t, d.Ack(h.ctx))
		case 4:
			require.NoError(t, d.Dead(h.ctx, errBoom))
		}
		if n == 5 {
			open = d
			break
		}
	}
	require.Error(t, open.Ack(h.ctx), "it was given back")
	_, err := h.c.GetOne(h.ctx, "done")
	require.NoError(t, err)
	y := newTally(3) // the failed one, the open one, and the last
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error {
		y.add(j.Value)
		if j.LastError == "" {
			require.Equal(t, 1, j.Attempt)
		} else {
			require.Equal(t, 2, j.Attempt)
		}
		return nil
	})
	y.wait(h)
	require.Len(t, y.seen, 3)
}

func testReceive(t *testing.T, h *harness) {
	q := h.open(queue.WithShards(1))
	for i := range 5 {
		h.enqueue(q, fmt.Sprint(i))
	}
	got, closer, err := q.Receive(h.ctx, 3)
	require.NoError(t, err)
	require.NotEmpty(t, got)
	require.LessOrEqual(t, len(got), 3)
	var wg sync.WaitGroup
	for _, d := range got[1:] {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := d.Ack(h.ctx); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	closer()
	require.Error(t, got[0].Ack(h.ctx), "it was given back")
	y := newTally(5 - len(got) + 1)
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error { y.add(j.Value); return nil })
	y.wait(h)
	ctx, cancel := context.WithTimeout(h.ctx, 50*time.Millisecond)
	defer cancel()
	h.drained(q)
	_, _, err = q.Receive(ctx, 1)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// Once Pause has returned nothing is claimed or started until Resume.
func testPause(t *testing.T, h *harness) {
	q := h.open()
	started := make(chan string, 20)
	h.work(q, 2, func(_ context.Context, j *queue.Job[string]) error { started <- j.Value; return nil })
	h.enqueue(q, "before")
	wait(h, started)
	h.drained(q)
	require.NoError(t, q.Pause(h.ctx))
	res, err := h.c.Get(h.ctx, "q/jobs/m/pause")
	require.NoError(t, err)
	for i := range 10 {
		h.enqueue(q, fmt.Sprint(i))
	}
	st, err := q.Stats(h.ctx)
	require.NoError(t, err)
	require.True(t, st.Paused)
	require.Equal(t, 10, st.Ready+st.Running)
	// No claim was committed after the pause.
	for _, kv := range h.journals() {
		require.LessOrEqual(t, kv.CreateRevision, res.Revision)
	}
	require.Empty(t, started)
	require.NoError(t, q.Resume(h.ctx))
	for range 10 {
		wait(h, started)
	}
}

// journals reads the claims of all workers.
func (h *harness) journals() []client.KV {
	res, err := h.c.Get(h.ctx, "q/jobs/j/", client.Prefix())
	require.NoError(h.t, err)
	return res.KVs
}

// A job that is cancelled is not run, and one that runs sees its context end.
func testCancel(t *testing.T, h *harness) {
	q := h.open()
	waiting := h.enqueue(q, "waiting", queue.Delay(time.Hour), queue.Unique("k"))
	runs := h.enqueue(q, "runs")
	commits := h.enqueue(q, "commits")
	started := make(chan string, 3)
	causes := make(chan error, 3)
	goOn := make(chan struct{})
	h.work(q, 1, func(ctx context.Context, j *queue.Job[string]) error {
		started <- j.Value
		if j.Value == "commits" {
			<-goOn
			j.Tx().Put("effect", []byte("1"))
			return nil
		}
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return ctx.Err()
	})
	wait(h, started)
	wait(h, started)
	require.NoError(t, q.Cancel(h.ctx, waiting))
	require.NoError(t, q.Cancel(h.ctx, runs))
	require.NoError(t, q.Cancel(h.ctx, commits))
	require.ErrorIs(t, wait(h, causes), queue.ErrCancelled)
	close(goOn)
	require.ErrorIs(t, q.Cancel(h.ctx, runs), queue.ErrNotFound)
	h.enqueue(q, "again", queue.Unique("k"), queue.Delay(time.Hour)) // its key is free
	st, err := q.Stats(h.ctx)
	require.NoError(t, err)
	require.Equal(t, 1, st.Ready+st.Delayed+st.Running)
	_, err = h.c.GetOne(h.ctx, "effect")
	require.ErrorIs(t, err, client.ErrNotFound, "a cancelled job commits nothing")
}

// Jobs are listed, counted, found and purged.
func testList(t *testing.T, h *harness) {
	const ready, delayed = 300, 20
	q := h.open(queue.WithShards(2))
	for i := 0; i < ready; i += 50 {
		var items []queue.Item[string]
		for j := range 50 {
			items = append(items, queue.Item[string]{Value: fmt.Sprint(i + j), Opts: []queue.EnqueueOption{queue.Group(fmt.Sprint(j % 5))}})
		}
		_, err := q.EnqueueBatch(h.ctx, items...)
		require.NoError(t, err)
	}
	var late queue.ID
	for range delayed {
		late = h.enqueue(q, "late", queue.Delay(time.Hour), queue.Header("h", "v"))
	}
	seen := make(map[queue.ID]bool)
	groups := make(map[string]int)
	for in, err := range q.Items(h.ctx, queue.Filter{State: queue.Ready}) {
		require.NoError(t, err)
		seen[in.ID] = true
		groups[in.Group]++
	}
	require.Len(t, seen, ready)
	require.Equal(t, map[string]int{"0": 60, "1": 60, "2": 60, "3": 60, "4": 60}, groups)
	st, err := q.Stats(h.ctx)
	require.NoError(t, err)
	require.Equal(t, ready, st.Ready)
	require.Equal(t, delayed, st.Delayed)
	require.False(t, st.Oldest.IsZero())
	in, err := q.Get(h.ctx, late)
	require.NoError(t, err)
	require.Equal(t, queue.Delayed, in.State)
	require.Equal(t, "v", in.Header["h"])
	n, err := q.Purge(h.ctx, queue.Filter{State: queue.Delayed})
	require.NoError(t, err)
	require.Equal(t, delayed, n)
	n, err = q.Purge(h.ctx, queue.Filter{Limit: 10})
	require.NoError(t, err)
	require.Equal(t, 10, n)
	n, err = q.Purge(h.ctx, queue.Filter{})
	require.NoError(t, err)
	require.Equal(t, ready-10, n)
	y := newTally(1)
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error { y.add(j.Value); return nil })
	h.enqueue(q, "last")
	require.Equal(t, []string{"last"}, y.wait(h))
}

// A queue that is full refuses, or lets wait.
func testLength(t *testing.T, h *harness) {
	q := h.open(queue.WithMaxLength(10))
	n := 0
	var err error
	for err == nil {
		require.LessOrEqual(t, n, 10)
		if _, err = q.Enqueue(h.ctx, fmt.Sprint(n)); err == nil {
			n++
		}
	}
	require.ErrorIs(t, err, queue.ErrFull)
	require.Equal(t, 10, n)
	require.ErrorIs(t, h.c.Update(h.ctx, func(tx *client.Tx) error {
		_, err := q.EnqueueTx(tx, "x")
		return err
	}), queue.ErrFull)
	done := make(chan error, 1)
	go func() {
		_, err := q.Enqueue(h.ctx, "waits", queue.WaitForRoom())
		done <- err
	}()
	y := newTally(11)
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error { y.add(j.Value); return nil })
	require.NoError(t, wait(h, done))
	y.wait(h)
}

// A queue is cut anew while it is used: nothing is lost, and groups keep their order.
func testReshard(t *testing.T, h *harness) {
	const groups, each = 4, 30
	q := h.open(queue.WithShards(2))
	other := h.openWith(h.client(client.Config{}))
	y := newTally(groups * each)
	h.work(q, 2, func(_ context.Context, j *queue.Job[string]) error {
		if strings.HasSuffix(j.Value, "5") && j.Attempt == 1 {
			return errBoom
		}
		y.add(j.Value)
		return nil
	})
	for i := range each {
		switch i {
		case 10:
			require.NoError(t, q.Reshard(h.ctx, 5))
		case 20:
			require.NoError(t, other.Reshard(h.ctx, 3))
		}
		for g := range groups {
			h.enqueue(other, fmt.Sprintf("%d %d", g, i), queue.Group(fmt.Sprint(g)))
		}
	}
	next := make(map[int]int)
	for _, v := range y.wait(h) {
		var g, i int
		_, err := fmt.Sscan(v, &g, &i)
		require.NoError(t, err)
		require.Equal(t, next[g], i, "group %d", g)
		next[g]++
	}
	st, err := q.Stats(h.ctx)
	require.NoError(t, err)
	require.Equal(t, 3, st.Shards)
}

// A store that is a Kubernetes's is refused unless allowed.
func testKubernetes(t *testing.T, h *harness) {
	s, err := h.c.Session(h.ctx)
	require.NoError(t, err)
	root := s.Client()
	const key = "/registry/queuetest"
	_, err = root.Put(h.ctx, key, []byte("pod"))
	require.NoError(t, err)
	defer func() {
		_, err := root.Delete(h.ctx, key)
		require.NoError(t, err)
	}()
	_, err = queue.Open[string](h.ctx, h.c, "jobs")
	require.ErrorIs(t, err, queue.ErrKubernetes)
	q := h.open(queue.AllowKubernetes())
	require.Equal(t, "jobs", q.Name())
	for _, name := range []string{"", "a/", "a//b", strings.Repeat("x", 300)} {
		_, err = queue.Open[string](h.ctx, h.c, name, queue.AllowKubernetes())
		require.ErrorIs(t, err, queue.ErrName)
	}
	_, err = queue.Open[string](h.ctx, h.c, "jobs", queue.AllowKubernetes(), queue.WithShards(5000))
	require.ErrorIs(t, err, queue.ErrOption)
}
