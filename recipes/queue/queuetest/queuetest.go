// Package queuetest holds what package queue promises on top of any server that
// speaks the etcd v3 API. It is test support: the tests of Latchkey's server run it
// against their members, and the interop tests against etcd.
package queuetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
)

// caseTimeout bounds one case, so that what would wait for ever fails.
const caseTimeout = 2 * time.Minute

// Run runs all cases against the cluster at endpoints. Each case uses keys of its
// own, named after it, and leaves other keys alone; history is compacted on the way.
func Run(t *testing.T, endpoints []string) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, h *harness)
	}{
		{"Work/All", testWorkAll},
		{"Work/Order", testOrder},
		{"Work/Priority", testPriority},
		{"Work/Weights", testWeights},
		{"Work/Drain", testDrain},
		{"Work/Rate", testRate},
		{"Work/Middleware", testMiddleware},
		{"Work/Mux", testMux},
		{"Fail/Attempts", testAttempts},
		{"Fail/Verdicts", testVerdicts},
		{"Fail/Redrive", testRedrive},
		{"Group/StrictOverRetries", testGroups},
		{"Group/Limit", testGroupLimit},
		{"Time/Delay", testDelay},
		{"Time/Cron", testCron},
		{"Unique/Until", testUnique},
		{"Batch/Atomic", testBatch},
		{"Batch/Producer", testProducer},
		{"Batch/ProducerFails", testProducerFails},
		{"Batch/Sequence", testSequence},
		{"Tx/Enqueue", testEnqueueTx},
		{"Tx/Ack", testAckTx},
		{"Tx/Packed", testAckTxPacked},
		{"Pull/Jobs", testJobs},
		{"Pull/Receive", testReceive},
		{"Manage/Pause", testPause},
		{"Manage/Cancel", testCancel},
		{"Manage/List", testList},
		{"Manage/Length", testLength},
		{"Manage/Reshard", testReshard},
		{"Manage/Kubernetes", testKubernetes},
		{"Result/Wait", testResult},
		{"Loss/Worker", testWorkerLost},
		{"Loss/Poison", testPoison},
		{"Loss/Answers", testAnswersLost},
		{"Loss/Compaction", testCompaction},
		{"Load/NoHerd", testNoHerd},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The key of the one, and what the other compacts, all others would see.
			if c.name != "Manage/Kubernetes" && c.name != "Loss/Compaction" {
				t.Parallel()
			}
			c.run(t, newHarness(t, endpoints))
		})
	}
}

// harness is what a case works with.
type harness struct {
	t         *testing.T
	ctx       context.Context
	endpoints []string
	c         *client.Client // with the case's own namespace
}

func newHarness(t *testing.T, endpoints []string) *harness {
	ctx, cancel := context.WithTimeout(t.Context(), caseTimeout)
	t.Cleanup(cancel)
	h := &harness{t: t, ctx: ctx, endpoints: endpoints}
	h.c = h.client(client.Config{})
	_, err := h.c.Delete(ctx, "", client.Prefix())
	require.NoError(t, err)
	return h
}

// client returns another client of the cluster, in the case's namespace.
func (h *harness) client(cfg client.Config) *client.Client {
	cfg.Endpoints = h.endpoints
	cfg.Namespace = "queuetest/" + strings.TrimPrefix(h.t.Name(), "Test") + "/"
	c, err := client.New(cfg)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// soon lets failed jobs run again at once.
func soon(int) time.Duration { return time.Millisecond }

// open opens the case's queue, small and impatient.
func (h *harness) open(opts ...queue.Option) *queue.Queue[string] { return h.openWith(h.c, opts...) }

func (h *harness) openWith(c *client.Client, opts ...queue.Option) *queue.Queue[string] {
	h.t.Helper()
	opts = append([]queue.Option{queue.WithShards(4), queue.WithBackoff(soon)}, opts...)
	q, err := queue.Open[string](h.ctx, c, "jobs", opts...)
	require.NoError(h.t, err)
	return q
}

func (h *harness) enqueue(q *queue.Queue[string], v string, opts ...queue.EnqueueOption) queue.ID {
	h.t.Helper()
	id, err := q.Enqueue(h.ctx, v, opts...)
	require.NoError(h.t, err)
	return id
}

// crew is some workers of a case.
type crew struct {
	h    *harness
	stop context.CancelFunc
	done chan error
	n    int
}

// work lets n workers work on a queue until stopped.
func (h *harness) work(q *queue.Queue[string], n int, handler queue.Handler[string], opts ...queue.RunOption) *crew {
	ctx, stop := context.WithCancel(h.ctx)
	c := &crew{h: h, stop: stop, done: make(chan error, n), n: n}
	for range n {
		go func() { c.done <- q.Run(ctx, handler, opts...) }()
	}
	h.t.Cleanup(c.end)
	return c
}

// end stops the workers and waits for them.
func (c *crew) end() {
	c.stop()
	for ; c.n > 0; c.n-- {
		require.NoError(c.h.t, <-c.done)
	}
}

// tally counts what handlers have seen, and tells when there was enough.
type tally struct {
	mu   sync.Mutex // protects what follows
	seen map[string]int
	list []string
	want int
	full chan struct{}
}

// newTally returns a tally that is full with so many entries.
func newTally(want int) *tally {
	return &tally{seen: make(map[string]int), want: want, full: make(chan struct{})}
}

func (y *tally) add(v string) int {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.seen[v]++
	y.list = append(y.list, v)
	if len(y.list) == y.want {
		close(y.full)
	}
	return y.seen[v]
}

// count returns how many different entries it has.
func (y *tally) count() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return len(y.seen)
}

// wait waits until it is full and returns the entries in order.
func (y *tally) wait(h *harness) []string {
	h.t.Helper()
	select {
	case <-y.full:
	case <-h.ctx.Done():
		h.dump()
		y.mu.Lock()
		defer y.mu.Unlock()
		h.t.Fatalf("%d of %d entries", len(y.list), y.want)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	return append([]string(nil), y.list...)
}

// drained waits until nothing is left in the queue.
func (h *harness) drained(*queue.Queue[string]) {
	h.t.Helper()
	require.NoError(h.t, h.left(0))
}

// left waits until no more than n jobs are left in the queue. It may be called from any goroutine.
func (h *harness) left(n int) error {
	prefix := "q/jobs/i/"
	for {
		res, err := h.c.Get(h.ctx, prefix, client.Prefix(), client.KeysOnly())
		if err != nil {
			return err
		}
		if len(res.KVs) <= n {
			return nil
		}
		for _, err := range h.c.Watch(h.ctx, prefix, client.Prefix(), client.FromRevision(res.Revision+1), client.WithoutPuts()) {
			if err != nil && !errors.Is(err, client.ErrCompacted) {
				return err
			}
			break
		}
	}
}

// dump logs the queue's keys, for a case that has failed.
func (h *harness) dump() {
	res, err := h.c.Get(context.Background(), "q/", client.Prefix())
	if err != nil {
		return
	}
	for _, kv := range res.KVs {
		h.t.Logf("%s (%d, %d): %.80q", kv.Key, kv.CreateRevision, kv.ModRevision, kv.Value)
	}
}

func wait[T any](h *harness, ch <-chan T) T {
	h.t.Helper()
	select {
	case v := <-ch:
		return v
	case <-h.ctx.Done():
		h.dump()
		h.t.Fatal("waited too long")
	}
	panic("unreachable")
}
