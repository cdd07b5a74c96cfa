package queuetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
)

// A worker whose session ends is found out: others have its jobs, its handlers see
// their contexts end, and what it commits afterwards is refused.
func testWorkerLost(t *testing.T, h *harness) {
	lost := h.client(client.Config{})
	q := h.openWith(lost)
	s, err := lost.Session(h.ctx)
	require.NoError(t, err)
	plain, inTx := h.enqueue(h.open(), "plain"), h.enqueue(h.open(), "tx")
	started := make(chan struct{}, 10)
	zombie, goOn := make(chan error, 10), make(chan struct{})
	first := h.work(q, 1, func(ctx context.Context, j *queue.Job[string]) error {
		started <- struct{}{}
		<-ctx.Done()
		zombie <- context.Cause(ctx)
		<-goOn
		if j.ID == inTx {
			j.Tx().Put("effect/zombie", []byte("1"))
		}
		return nil
	})
	wait(h, started)
	wait(h, started)
	again := newTally(2)
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	require.ErrorIs(t, wait(h, zombie), queue.ErrClaimLost)
	require.ErrorIs(t, wait(h, zombie), queue.ErrClaimLost)
	second := h.work(h.open(), 1, func(_ context.Context, j *queue.Job[string]) error {
		require.Equal(t, 1, j.Crashes)
		require.Equal(t, 2, j.Attempt)
		if j.ID == inTx {
			j.Tx().Put("effect/second", []byte("1"))
		}
		again.add(string(j.ID))
		return nil
	})
	require.ElementsMatch(t, []string{string(plain), string(inTx)}, again.wait(h))
	h.drained(q)
	first.stop() // or it would work on with a new session
	close(goOn)
	first.end()
	second.end()
	res, err := h.c.Get(h.ctx, "effect/", client.Prefix())
	require.NoError(t, err)
	require.Len(t, res.KVs, 1)
	require.Equal(t, "effect/second", res.KVs[0].Key)
}

// A job that kills its workers ends among the dead letters, after as many as may
// die; those that were claimed with it do not.
func testPoison(t *testing.T, h *harness) {
	const crashes, innocents = 3, 8
	q := h.open(queue.WithShards(1))
	poison := h.enqueue(q, "poison", queue.KeepResult(time.Minute))
	for i := range innocents {
		h.enqueue(q, fmt.Sprint(i))
	}
	var died atomic.Int64
	done := newTally(innocents)
	end := make(chan struct{})
	// Each of these dies with the poison, which is: its session ends, and nothing of
	// it is heard any more.
	live := func(h *harness) *crew {
		c := h.client(client.Config{})
		mine := h.openWith(c, queue.WithMaxCrashes(crashes))
		s, err := c.Session(h.ctx)
		require.NoError(t, err)
		ctx, stop := context.WithCancel(h.ctx)
		crew := &crew{h: h, stop: stop, done: make(chan error, 1), n: 1}
		go func() {
			crew.done <- mine.Run(ctx, func(ctx context.Context, j *queue.Job[string]) error {
				if j.ID == poison {
					died.Add(1)
					// What was done before must be known to be.
					if err := h.left(innocents + 1 - done.count()); err != nil {
						t.Error(err)
					}
					stop()
					if err := h.c.Revoke(h.ctx, s.ID()); err != nil {
						t.Error(err)
					}
					<-ctx.Done()
					return ctx.Err()
				}
				if j.Crashes > 1 {
					t.Errorf("%s has died %d times", j.Value, j.Crashes)
				}
				done.add(j.Value)
				return nil
			}, queue.WithConcurrency(1))
		}()
		return crew
	}
	go func() {
		defer close(end)
		_, err := q.Wait(h.ctx, poison)
		if err == nil || !strings.Contains(err.Error(), "3 workers") {
			t.Errorf("poison: %v", err)
		}
	}()
	var crews []*crew
	for range crashes {
		crews = append(crews, live(h))
		require.NoError(t, <-crews[len(crews)-1].done)
	}
	last := live(h)
	wait(h, end)
	done.wait(h)
	last.end()
	require.Equal(t, int64(crashes), died.Load())
	for v, n := range done.seen {
		require.Equal(t, 1, n, v)
	}
}

// Requests and answers are lost, some arrive much later, workers lose their
// sessions: every job has its effect once, and is in once.
func testAnswersLost(t *testing.T, h *harness) {
	var seen faultCounts
	h.storm(1, 60, &seen)
	seen.check(t, 1)
}

// History is compacted again and again, under readers and watches.
func testCompaction(t *testing.T, h *harness) {
	const jobs = 400
	q := h.open(queue.WithShards(2))
	for i := 0; i < jobs/2; i += 50 {
		var items []queue.Item[string]
		for j := range 50 {
			items = append(items, queue.Item[string]{Value: fmt.Sprint(i + j)})
		}
		_, err := q.EnqueueBatch(h.ctx, items...)
		require.NoError(t, err)
	}
	y := newTally(jobs)
	h.work(q, 2, func(_ context.Context, j *queue.Job[string]) error { y.add(j.Value); return nil })
	for i := jobs / 2; i < jobs; i++ {
		h.enqueue(q, fmt.Sprint(i))
		if i%10 == 0 {
			require.NoError(t, h.c.Compact(h.ctx, h.c.Seen()))
		}
		if i%50 == 0 {
			_, err := q.Stats(h.ctx)
			require.NoError(t, err)
		}
	}
	y.wait(h)
	require.Len(t, y.seen, jobs)
	h.purgeUnderCompactions(q)
}

// purgeUnderCompactions has history compacted each time that some jobs were deleted: counting and deleting come to
// their end all the same.
func (h *harness) purgeUnderCompactions(q *queue.Queue[string]) {
	const jobs = 360
	h.drained(q)
	var items []queue.Item[string]
	for range 60 {
		items = append(items, queue.Item[string]{Value: "later", Opts: []queue.EnqueueOption{queue.Delay(time.Hour)}})
	}
	for range jobs / len(items) {
		_, err := q.EnqueueBatch(h.ctx, items...)
		require.NoError(h.t, err)
	}
	other := h.openWith(h.client(client.Config{DialOptions: []grpc.DialOption{grpc.WithUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoke(ctx, method, req, reply, cc, opts...)
			if res, ok := reply.(*pb.TxnResponse); ok && err == nil {
				if err := h.c.Compact(ctx, client.Revision(res.Header.Revision)); err != nil && !errors.Is(err, client.ErrCompacted) {
					h.t.Error(err)
				}
			}
			return err
		})}}))
	n, err := other.Purge(h.ctx, queue.Filter{State: queue.Delayed, Limit: 100})
	require.NoError(h.t, err)
	require.Equal(h.t, 100, n)
	n, err = other.Purge(h.ctx, queue.Filter{})
	require.NoError(h.t, err)
	require.Equal(h.t, jobs-100, n)
}

// Many workers do not get in each other's way: almost no transaction fails.
func testNoHerd(t *testing.T, h *harness) {
	const jobs, workers = 1500, 16
	var txns, failed atomic.Int64
	count := grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := invoke(ctx, method, req, reply, cc, opts...)
		n, bad := outcomes(reply)
		txns.Add(n)
		failed.Add(bad)
		return err
	})
	q := h.openWith(h.client(client.Config{DialOptions: []grpc.DialOption{count}}), queue.WithShards(32))
	y := newTally(jobs)
	ready := newTally(workers)
	h.work(q, workers, func(_ context.Context, j *queue.Job[string]) error {
		if strings.HasPrefix(j.Value, "warm") {
			ready.add(j.Value)
			return nil
		}
		y.add(j.Value)
		return nil
	}, queue.WithConcurrency(2))
	for i := range workers {
		h.enqueue(q, fmt.Sprint("warm", i))
	}
	ready.wait(h)
	failed.Store(0)
	errs := make(chan error, jobs)
	for i := range 8 {
		go func() {
			for j := i; j < jobs; j += 8 {
				_, err := q.Enqueue(h.ctx, fmt.Sprint(j))
				errs <- err
			}
		}()
	}
	for range jobs {
		require.NoError(t, wait(h, errs))
	}
	y.wait(h)
	t.Logf("%d transactions, %d failed, for %d jobs", txns.Load(), failed.Load(), jobs)
	// If workers raced for jobs, most transactions of fifteen in sixteen would fail. A few tokens change hands, more of them on a
	// slow store; docs/performance.md has the figure of a quiet machine.
	require.Less(t, failed.Load(), int64(jobs/50))
}
