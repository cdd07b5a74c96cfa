package queuetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
)

// A unique key is taken until its job is done, or started, or for a time.
func testUnique(t *testing.T, h *harness) {
	q := h.open()
	first := h.enqueue(q, "a", queue.Unique("k"))
	_, err := q.Enqueue(h.ctx, "b", queue.Unique("k"))
	require.ErrorIs(t, err, queue.ErrDuplicate)
	var dup *queue.DuplicateError
	require.ErrorAs(t, err, &dup)
	require.Equal(t, []queue.ID{first}, dup.Jobs)
	err = h.c.Update(h.ctx, func(tx *client.Tx) error {
		_, err := q.EnqueueTx(tx, "c", queue.Unique("k"))
		return err
	})
	require.ErrorIs(t, err, queue.ErrDuplicate)
	h.enqueue(q, "start", queue.Unique("s", queue.Start()))
	h.enqueue(q, "window", queue.Unique("w", queue.Window(time.Hour)))

	started, release := make(chan string, 3), make(chan struct{})
	crew := h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error {
		started <- j.Value
		<-release
		return nil
	})
	for range 3 {
		wait(h, started)
	}
	h.enqueue(q, "started again", queue.Unique("s", queue.Start()))
	_, err = q.Enqueue(h.ctx, "b", queue.Unique("k"))
	require.ErrorIs(t, err, queue.ErrDuplicate, "it still runs")
	close(release)
	h.drained(q)
	h.enqueue(q, "done", queue.Unique("k"))
	_, err = q.Enqueue(h.ctx, "b", queue.Unique("w", queue.Window(time.Hour)))
	require.ErrorIs(t, err, queue.ErrDuplicate, "its time is not over")
	h.drained(q)
	crew.end()
}

// A batch is put in as a whole or not at all.
func testBatch(t *testing.T, h *harness) {
	q := h.open()
	holder := h.enqueue(q, "x", queue.Unique("k"))
	items := []queue.Item[string]{
		{Value: "a"}, {Value: "b", Opts: []queue.EnqueueOption{queue.Unique("free")}},
		{Value: "c", Opts: []queue.EnqueueOption{queue.Unique("k")}},
	}
	_, err := q.EnqueueBatch(h.ctx, items...)
	var dup *queue.DuplicateError
	require.ErrorAs(t, err, &dup)
	require.Equal(t, []queue.ID{"", holder}, dup.Jobs)
	st, err := q.Stats(h.ctx)
	require.NoError(t, err)
	require.Equal(t, 1, st.Ready)
	ids, err := q.EnqueueBatch(h.ctx, items[:2]...)
	require.NoError(t, err)
	require.Len(t, ids, 2)
	var many []queue.Item[string]
	for i := range 91 {
		many = append(many, queue.Item[string]{Value: fmt.Sprint(i)})
	}
	_, err = q.EnqueueBatch(h.ctx, many...)
	require.ErrorIs(t, err, queue.ErrTooLarge)
	_, err = q.EnqueueBatch(h.ctx, many[:90]...)
	require.NoError(t, err)
	y := newTally(93)
	h.work(q, 2, func(_ context.Context, j *queue.Job[string]) error { y.add(j.Value); return nil })
	y.wait(h)
	ids, err = q.EnqueueBatch(h.ctx)
	require.NoError(t, err)
	require.Empty(t, ids)
}

// Jobs of a producer share keys, and each is done once.
func testProducer(t *testing.T, h *harness) {
	const jobs = 1000
	q := h.open()
	p, err := q.Producer()
	require.NoError(t, err)
	var pending []*queue.Pending
	for i := range jobs {
		d, err := p.Send(h.ctx, fmt.Sprint(i))
		require.NoError(t, err)
		pending = append(pending, d)
	}
	require.NoError(t, p.Close(h.ctx))
	ids := make(map[queue.ID]bool)
	for _, d := range pending {
		id, err := d.Wait(h.ctx)
		require.NoError(t, err)
		ids[id] = true
	}
	require.Len(t, ids, jobs)
	res, err := h.c.Get(h.ctx, "q/jobs/i/", client.Prefix(), client.CountOnly())
	require.NoError(t, err)
	require.LessOrEqual(t, res.Count, int64(jobs/8), "they share keys")
	_, err = p.Send(h.ctx, "late")
	require.ErrorIs(t, err, queue.ErrClosed)
	y := newTally(jobs)
	h.work(q, 2, func(_ context.Context, j *queue.Job[string]) error {
		if !ids[j.ID] {
			t.Errorf("job %s was not sent", j.ID)
		}
		y.add(j.Value)
		return nil
	})
	y.wait(h)
	require.Len(t, y.seen, jobs)
	h.drained(q)
}

// A sequence of jobs is packed on its way, in order, and with what some of them
// ask for.
func testSequence(t *testing.T, h *harness) {
	const jobs = 500
	q := h.open(queue.WithShards(2))
	items := func(yield func(queue.Item[string]) bool) {
		for i := range jobs {
			it := queue.Item[string]{Value: fmt.Sprint(i)}
			if i%100 == 50 {
				it.Opts = []queue.EnqueueOption{queue.Group("g")}
			}
			if !yield(it) {
				return
			}
		}
	}
	var ids []queue.ID
	for id, err := range q.EnqueueSeq(h.ctx, items, queue.WithPending(128)) {
		require.NoError(t, err)
		ids = append(ids, id)
	}
	require.Len(t, ids, jobs)
	res, err := h.c.Get(h.ctx, "q/jobs/i/", client.Prefix(), client.CountOnly())
	require.NoError(t, err)
	require.LessOrEqual(t, res.Count, int64(jobs/4), "they share keys")
	y := newTally(jobs)
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error {
		if n, err := strconv.Atoi(j.Value); err != nil || ids[n] != j.ID {
			t.Errorf("job %s has the value %s", j.ID, j.Value)
		}
		y.add(j.Value)
		return nil
	})
	y.wait(h)
	require.Len(t, y.seen, jobs)
}

// Jobs that share a key fail, and die, each for itself.
func testProducerFails(t *testing.T, h *harness) {
	const jobs = 60
	q := h.open(queue.WithMaxAttempts(3))
	p, err := q.Producer(queue.WithPack(20), queue.WithLinger(time.Hour))
	require.NoError(t, err)
	for i := range jobs {
		_, err := p.Send(h.ctx, fmt.Sprint(i))
		require.NoError(t, err)
	}
	require.NoError(t, p.Close(h.ctx))
	ends := newTally(jobs - jobs/10)
	h.work(q, 2, func(_ context.Context, j *queue.Job[string]) error {
		n, err := strconv.Atoi(j.Value)
		require.NoError(t, err)
		switch {
		case n%10 == 0:
			return errBoom
		case n%5 == 0 && j.Attempt < 3:
			return errBoom
		}
		ends.add(j.Value)
		return nil
	})
	ends.wait(h)
	h.drained(q)
	dead := 0
	for in, err := range q.Dead().Items(h.ctx) {
		require.NoError(t, err)
		require.Equal(t, 1, in.Messages)
		dead++
	}
	require.Equal(t, jobs/10, dead)
	for v, n := range ends.seen {
		require.Equal(t, 1, n, v)
	}
}

// A job that is enqueued in a transaction is there if that commits.
func testEnqueueTx(t *testing.T, h *harness) {
	q := h.open()
	boom := h.c.Update(h.ctx, func(tx *client.Tx) error {
		tx.Put("order", []byte("1"))
		_, err := q.EnqueueTx(tx, "no")
		require.NoError(t, err)
		return errBoom
	})
	require.ErrorIs(t, boom, errBoom)
	var id queue.ID
	runs := 0
	require.NoError(t, h.c.Update(h.ctx, func(tx *client.Tx) error {
		if _, err := tx.Get("stock"); err != nil && !errors.Is(err, client.ErrNotFound) {
			return err
		}
		if runs++; runs == 1 { // somebody else is faster
			_, err := h.c.Put(h.ctx, "stock", []byte("1"))
			require.NoError(t, err)
		}
		tx.Put("order", []byte("1"))
		var err error
		id, err = q.EnqueueTx(tx, "yes")
		return err
	}))
	require.Equal(t, 2, runs)
	var all []queue.ID
	for in, err := range q.Items(h.ctx, queue.Filter{}) {
		require.NoError(t, err)
		all = append(all, in.ID)
	}
	require.Equal(t, []queue.ID{id}, all)
	y := newTally(1)
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error { y.add(j.Value); return nil })
	require.Equal(t, []string{"yes"}, y.wait(h))
}

// What a job's transaction writes, and the job's end, happen together and once.
func testAckTx(t *testing.T, h *harness) {
	const jobs = 40
	q := h.open(queue.WithMaxAttempts(100))
	next, err := queue.Open[string](h.ctx, h.c, "next", queue.WithShards(2))
	require.NoError(t, err)
	for i := range jobs {
		h.enqueue(q, fmt.Sprint(i))
	}
	_, err = h.c.Put(h.ctx, "sum", []byte("0"))
	require.NoError(t, err)
	var conflicts, failed atomic.Int64
	h.work(q, 2, func(_ context.Context, j *queue.Job[string]) error {
		if j.LastError == "" {
			require.Equal(t, 1, j.Attempt, "a conflict is no attempt")
		}
		tx := j.Tx()
		kv, err := tx.Get("sum")
		if err != nil {
			return err
		}
		sum, err := strconv.Atoi(string(kv.Value))
		require.NoError(t, err)
		tx.Put("sum", []byte(strconv.Itoa(sum+1)))
		if _, err := next.EnqueueTx(tx, j.Value); err != nil {
			return err
		}
		conflicts.Add(1)
		if j.Value == "3" && j.LastError == "" {
			failed.Add(1)
			return errBoom // and nothing of it happens
		}
		return nil
	}, queue.WithConcurrency(4))
	h.drained(q)
	kv, err := h.c.GetOne(h.ctx, "sum")
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(jobs), string(kv.Value))
	require.Greater(t, conflicts.Load(), int64(jobs), "some met")
	st, err := next.Stats(h.ctx)
	require.NoError(t, err)
	require.Equal(t, jobs, st.Ready)
}

// The same for jobs that share a key.
func testAckTxPacked(t *testing.T, h *harness) {
	const jobs = 40
	q := h.open()
	p, err := q.Producer(queue.WithPack(10), queue.WithLinger(time.Hour))
	require.NoError(t, err)
	for i := range jobs {
		_, err := p.Send(h.ctx, fmt.Sprint(i))
		require.NoError(t, err)
	}
	require.NoError(t, p.Close(h.ctx))
	h.work(q, 2, func(_ context.Context, j *queue.Job[string]) error {
		n, err := strconv.Atoi(j.Value)
		require.NoError(t, err)
		if n%2 == 0 {
			j.Tx().Put("did/"+j.Value+"/"+fmt.Sprint(j.Attempt), []byte("1"))
		}
		if n%5 == 0 && j.Attempt == 1 {
			return errBoom
		}
		return nil
	})
	h.drained(q)
	res, err := h.c.Get(h.ctx, "did/", client.Prefix())
	require.NoError(t, err)
	require.Len(t, res.KVs, jobs/2)
	for _, kv := range res.KVs {
		require.Equal(t, int64(1), kv.Version)
	}
}

// The result of a job is there for who waits for it.
func testResult(t *testing.T, h *harness) {
	q := h.open()
	early := h.enqueue(q, "early", queue.KeepResult(time.Minute))
	results := make(chan error, 1)
	go func() {
		res, err := q.Wait(h.ctx, early)
		if err == nil && string(res.Value) != `{"length":5}` {
			err = fmt.Errorf("result %s", res.Value)
		}
		results <- err
	}()
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error {
		if j.Value == "tx" {
			j.Tx().Put("done", []byte("1"))
		}
		return j.SetResult(map[string]int{"length": len(j.Value)})
	})
	require.NoError(t, wait(h, results))
	inTx := h.enqueue(q, "tx", queue.KeepResult(time.Minute))
	res, err := q.Wait(h.ctx, inTx)
	require.NoError(t, err)
	require.JSONEq(t, `{"length":2}`, string(res.Value))
	_, err = q.Wait(h.ctx, "nonsense")
	require.ErrorIs(t, err, queue.ErrNotFound)
}
