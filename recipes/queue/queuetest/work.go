package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
)

// Every job is done once, over several workers, and nothing stays in the store.
func testWorkAll(t *testing.T, h *harness) {
	const jobs = 300
	q := h.open()
	y := newTally(jobs)
	crew := h.work(q, 3, func(_ context.Context, j *queue.Job[string]) error {
		require.Equal(t, 1, j.Attempt)
		require.Equal(t, "jobs", j.Queue())
		y.add(j.Value)
		return nil
	})
	errs := make(chan error, jobs)
	for i := range jobs {
		go func() {
			_, err := q.Enqueue(h.ctx, fmt.Sprint(i), queue.Header("n", fmt.Sprint(i)))
			errs <- err
		}()
	}
	for range jobs {
		require.NoError(t, <-errs)
	}
	y.wait(h)
	require.Len(t, y.seen, jobs)
	crew.end()
	st, err := q.Stats(h.ctx)
	require.NoError(t, err)
	require.Equal(t, queue.Stats{Shards: 4, Priorities: 1}, st)
	res, err := h.c.Get(h.ctx, "q/jobs/", client.Prefix(), client.KeysOnly())
	require.NoError(t, err)
	for _, kv := range res.KVs {
		rest := strings.TrimPrefix(kv.Key, "q/jobs/")
		// What is left are settings, marks, and the producers' numbers, which end with
		// the session.
		require.Regexp(t, "^(m/config|w/.*|p/.*)$", rest)
	}
}

// A queue with one shard is first in, first out, whoever works.
func testOrder(t *testing.T, h *harness) {
	const jobs = 120
	q := h.open(queue.WithShards(1))
	var want []string
	for i := range jobs {
		want = append(want, fmt.Sprint(i))
		h.enqueue(q, fmt.Sprint(i))
	}
	y := newTally(jobs)
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error { y.add(j.Value); return nil }, queue.WithConcurrency(1))
	require.Equal(t, want, y.wait(h))
}

// Jobs of a higher priority are started first.
func testPriority(t *testing.T, h *harness) {
	q := h.open(queue.WithShards(1), queue.WithPriorities(3))
	for i := range 30 {
		h.enqueue(q, fmt.Sprint(2-i%3), queue.Priority(2-i%3))
	}
	_, err := q.Enqueue(h.ctx, "x", queue.Priority(3))
	require.ErrorIs(t, err, queue.ErrOption)
	y := newTally(30)
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error { y.add(j.Value); return nil },
		queue.WithConcurrency(1), queue.WithPrefetch(1))
	got := y.wait(h)
	require.True(t, slices.IsSorted(got), "%v", got)
	_, err = queue.Open[string](h.ctx, h.c, "jobs", queue.WithPriorities(2))
	require.ErrorIs(t, err, queue.ErrMismatch)
}

// With weights, each priority has its share of the starts, and none waits for ever.
func testWeights(t *testing.T, h *harness) {
	q := h.open(queue.WithShards(1), queue.WithPriorities(2))
	for i := range 80 {
		h.enqueue(q, fmt.Sprint(i%2), queue.Priority(i%2))
	}
	y := newTally(80)
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error { y.add(j.Value); return nil },
		queue.WithConcurrency(1), queue.WithPrefetch(1), queue.WithWeights(3, 1))
	got := y.wait(h)
	urgent := 0
	for _, v := range got[:40] {
		if v == "0" {
			urgent++
		}
	}
	require.InDelta(t, 30, urgent, 1, "%v", got)
	require.ErrorIs(t, q.Run(h.ctx, nil, queue.WithWeights(1, 0)), queue.ErrOption)
}

// A worker that stops lets what runs end, and gives back what it had claimed.
func testDrain(t *testing.T, h *harness) {
	q := h.open(queue.WithShards(1))
	for i := range 20 {
		h.enqueue(q, fmt.Sprint(i))
	}
	started, release := make(chan string, 20), make(chan struct{})
	first := h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error {
		started <- j.Value
		<-release
		return nil
	}, queue.WithConcurrency(1), queue.WithPrefetch(10))
	wait(h, started)
	first.stop()
	close(release)
	first.end()
	require.Empty(t, started, "nothing was started while it drained")
	y := newTally(19)
	second := h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error {
		require.Equal(t, 1, j.Attempt, "given back, not failed")
		y.add(j.Value)
		return nil
	})
	y.wait(h)

	// One that does not end in time sees its context end, and is given back.
	h.drained(q)
	second.end()
	h.enqueue(q, "long")
	long := make(chan struct{}, 2)
	h.work(q, 1, func(ctx context.Context, j *queue.Job[string]) error {
		long <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}, queue.WithDrainTimeout(time.Millisecond))
	wait(h, long)
}

// A worker starts no more jobs than its rate allows.
func testRate(t *testing.T, h *harness) {
	const jobs, perSecond = 20, 50
	q := h.open()
	for i := range jobs {
		h.enqueue(q, fmt.Sprint(i))
	}
	y := newTally(jobs)
	begin := time.Now()
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error { y.add(j.Value); return nil }, queue.WithRate(perSecond, 1))
	y.wait(h)
	require.Greater(t, time.Since(begin), (jobs-1)*time.Second/perSecond)
}

func testMiddleware(t *testing.T, h *harness) {
	q := h.open()
	y := newTally(5)
	note := func(name string) queue.Middleware {
		return func(next queue.RawHandler) queue.RawHandler {
			return func(ctx context.Context, j *queue.RawJob) error {
				y.add(name + " before " + j.Header["trace"])
				defer y.add(name + " after")
				return next(ctx, j)
			}
		}
	}
	h.enqueue(q, "a", queue.Header("trace", "17"))
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error { y.add(j.Value); return nil },
		queue.WithMiddleware(note("outer"), note("inner")))
	require.Equal(t, []string{"outer before 17", "inner before 17", "a", "inner after", "outer after"}, y.wait(h))
}

type letter struct{ To string }

func testMux(t *testing.T, h *harness) {
	q, err := queue.Open[queue.Task](h.ctx, h.c, "tasks", queue.WithShards(2), queue.WithBackoff(soon), queue.WithMaxAttempts(2))
	require.NoError(t, err)
	y := newTally(2)
	m := queue.NewMux()
	queue.Handle(m, "letter", func(_ context.Context, j *queue.Job[letter]) error { y.add("letter to " + j.Value.To); return nil })
	queue.Handle(m, "count", func(_ context.Context, j *queue.Job[int]) error { y.add(fmt.Sprint(j.Value + 1)); return nil })
	for kind, v := range map[string]any{"letter": letter{To: "ada"}, "count": 41, "unknown": 1} {
		task, err := queue.NewTask(kind, v)
		require.NoError(t, err)
		_, err = q.Enqueue(h.ctx, task, queue.KeepResult(time.Minute))
		require.NoError(t, err)
	}
	ctx, stop := context.WithCancel(h.ctx)
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx, m.Handler()) }()
	got := y.wait(h)
	slices.Sort(got)
	require.Equal(t, []string{"42", "letter to ada"}, got)
	stop()
	require.NoError(t, <-done)
}

var errBoom = errors.New("boom")

// A job that fails is tried again, as often as it may, and then is dead.
func testAttempts(t *testing.T, h *harness) {
	q := h.open(queue.WithMaxAttempts(3))
	h.enqueue(q, "works the third time")
	own := h.enqueue(q, "never works", queue.Attempts(2), queue.KeepResult(time.Minute))
	panics := h.enqueue(q, "panics", queue.KeepResult(time.Minute))
	y := newTally(8)
	h.work(q, 2, func(_ context.Context, j *queue.Job[string]) error {
		n := y.add(j.Value)
		require.Equal(t, n, j.Attempt)
		require.Zero(t, j.Crashes)
		if n > 1 {
			require.Contains(t, j.LastError, "boom")
		}
		switch {
		case j.Value == "panics":
			panic(errBoom)
		case j.Value == "never works" || n < 3:
			return errBoom
		}
		return nil
	})
	y.wait(h)
	for _, id := range []queue.ID{own, panics} {
		res, err := q.Wait(h.ctx, id)
		require.ErrorIs(t, err, queue.ErrDead)
		require.Contains(t, res.Error, "boom")
	}
	h.drained(q)
	dead := make(map[queue.ID]queue.Info)
	for in, err := range q.Dead().Items(h.ctx) {
		require.NoError(t, err)
		dead[in.ID] = in
	}
	require.Len(t, dead, 2)
	require.Contains(t, dead[own].LastError, "boom")
	require.Equal(t, queue.Dead, dead[own].State)
}

// Handlers decide by the error that they return.
func testVerdicts(t *testing.T, h *harness) {
	q := h.open(queue.WithMaxAttempts(2), queue.WithBackoff(func(int) time.Duration { return time.Hour }))
	snoozed := h.enqueue(q, "snooze", queue.KeepResult(time.Minute))
	discarded := h.enqueue(q, "discard", queue.KeepResult(time.Minute))
	retried := h.enqueue(q, "retry", queue.KeepResult(time.Minute))
	n := make(map[string]int)
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error {
		n[j.Value]++
		switch {
		case j.Value == "snooze" && n[j.Value] < 5:
			require.Equal(t, 1, j.Attempt, "a snooze is no failure")
			return queue.Snooze(time.Millisecond)
		case j.Value == "discard":
			return queue.Discard(errBoom)
		case j.Value == "retry" && n[j.Value] < 2:
			return queue.Retry(errBoom, time.Millisecond)
		}
		return nil
	}, queue.WithConcurrency(1))
	_, err := q.Wait(h.ctx, snoozed)
	require.NoError(t, err)
	_, err = q.Wait(h.ctx, discarded)
	require.ErrorIs(t, err, queue.ErrDead)
	_, err = q.Wait(h.ctx, retried)
	require.NoError(t, err)
}

// Dead letters come back when they are redriven, with their attempts before them.
func testRedrive(t *testing.T, h *harness) {
	q := h.open(queue.WithMaxAttempts(1))
	var ids []queue.ID
	for i := range 3 {
		ids = append(ids, h.enqueue(q, fmt.Sprint(i)))
	}
	y := newTally(3)
	crew := h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error { y.add(j.Value); return errBoom })
	y.wait(h)
	h.drained(q)
	crew.end()
	n, err := q.Dead().Purge(h.ctx, ids[0])
	require.NoError(t, err)
	require.Equal(t, 1, n)
	n, err = q.Dead().Redrive(h.ctx, ids[1], ids[0])
	require.NoError(t, err)
	require.Equal(t, 1, n)
	n, err = q.Dead().Redrive(h.ctx)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	in, err := q.Get(h.ctx, ids[1])
	require.NoError(t, err)
	require.Equal(t, ids[1], in.ID)
	again := newTally(2)
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error {
		require.Equal(t, 1, j.Attempt)
		again.add(string(j.ID))
		return nil
	})
	got := again.wait(h)
	require.ElementsMatch(t, []string{string(ids[1]), string(ids[2])}, got)
}

// Jobs of a group are done one after the other, also when some fail, by whatever
// worker.
func testGroups(t *testing.T, h *harness) {
	const groups, each = 5, 12
	q := h.open()
	for i := range each {
		for g := range groups {
			h.enqueue(q, fmt.Sprintf("%d %d", g, i), queue.Group(fmt.Sprint(g)))
		}
	}
	y := newTally(groups * each)
	fails := newTally(-1)
	h.work(q, 3, func(_ context.Context, j *queue.Job[string]) error {
		if strings.HasSuffix(j.Value, "3") && fails.add(j.Value) < 3 {
			return errBoom
		}
		y.add(j.Value)
		return nil
	}, queue.WithConcurrency(8))
	next := make(map[string]int)
	for _, v := range y.wait(h) {
		var g, i int
		_, err := fmt.Sscan(v, &g, &i)
		require.NoError(t, err)
		require.Equal(t, next[fmt.Sprint(g)], i, "group %d", g)
		next[fmt.Sprint(g)]++
	}
}

// With a limit, so many of a group run at once, and no more.
func testGroupLimit(t *testing.T, h *harness) {
	q := h.open(queue.WithShards(1))
	for i := range 12 {
		h.enqueue(q, fmt.Sprint(i), queue.Group("g"))
	}
	at, both := make(chan struct{}, 2), make(chan struct{}, 12)
	y := newTally(12)
	h.work(q, 1, func(ctx context.Context, j *queue.Job[string]) error {
		select {
		case at <- struct{}{}:
		default:
			t.Error("three at once")
		}
		if len(at) == 2 {
			both <- struct{}{}
		}
		y.add(j.Value)
		<-at
		return nil
	}, queue.WithGroupLimit(2), queue.WithConcurrency(6))
	y.wait(h)
}

func testDelay(t *testing.T, h *harness) {
	q := h.open()
	begin := time.Now()
	h.enqueue(q, "200", queue.Delay(200*time.Millisecond))
	h.enqueue(q, "100", queue.At(begin.Add(100*time.Millisecond)))
	h.enqueue(q, "0")
	h.enqueue(q, "hour", queue.Delay(time.Hour))
	y := newTally(3)
	crew := h.work(q, 2, func(_ context.Context, j *queue.Job[string]) error {
		d, err := time.ParseDuration(j.Value + "ms")
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(begin), d-time.Millisecond)
		y.add(j.Value)
		return nil
	})
	require.ElementsMatch(t, []string{"0", "100", "200"}, y.wait(h)) // a slow machine has them all due at once
	crew.end()
	var left []queue.Info
	for in, err := range q.Items(h.ctx, queue.Filter{State: queue.Delayed}) {
		require.NoError(t, err)
		left = append(left, in)
	}
	require.Len(t, left, 1)
	require.WithinDuration(t, begin.Add(time.Hour), left[0].Due, time.Minute)
}

// Each tick fires once, whoever is there to fire it.
func testCron(t *testing.T, h *harness) {
	q := h.open()
	ctx, stop := context.WithCancel(h.ctx)
	done := make(chan error, 3)
	for range 3 {
		go func() {
			done <- q.Cron(ctx, queue.Cron[string]{Name: "tick", Schedule: "@every 1s", Job: func(tick time.Time) string {
				return tick.UTC().Format(time.RFC3339)
			}})
		}()
	}
	y := newTally(3)
	h.work(q, 1, func(_ context.Context, j *queue.Job[string]) error {
		require.Equal(t, "tick", j.Header["cron"])
		require.Equal(t, j.Value, j.Header["tick"])
		y.add(j.Value)
		return nil
	})
	got := y.wait(h)
	slices.Sort(got) // ticks may be handled at once
	stop()
	for range 3 {
		require.NoError(t, <-done)
	}
	for i := 1; i < len(got); i++ {
		a, err := time.Parse(time.RFC3339, got[i-1])
		require.NoError(t, err)
		b, err := time.Parse(time.RFC3339, got[i])
		require.NoError(t, err)
		require.GreaterOrEqual(t, b.Sub(a), time.Second, "%v", got)
	}
	crons, err := q.Crons(h.ctx)
	require.NoError(t, err)
	require.Contains(t, crons, "tick")
	require.ErrorIs(t, q.Cron(h.ctx, queue.Cron[string]{Name: "a/b", Schedule: "@daily"}), queue.ErrOption)
}
