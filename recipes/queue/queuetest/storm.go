package queuetest

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
)

// faultCounts is what storms have done.
type faultCounts struct {
	jobs, lost, txns, zombies, reruns atomic.Int64
}

func (c *faultCounts) check(t *testing.T, storms int) {
	t.Logf("%d storms: %d jobs, %d of %d transactions lost, late or doubled, %d sessions taken, %d runs were not the first of their job",
		storms, c.jobs.Load(), c.lost.Load(), c.txns.Load(), c.zombies.Load(), c.reruns.Load())
	require.Greater(t, c.lost.Load(), c.txns.Load()/40)
	require.GreaterOrEqual(t, c.zombies.Load(), int64(storms))
	require.Greater(t, c.reruns.Load(), c.jobs.Load()/20)
}

// Storm runs a small fleet on a bad network, once for each seed: transactions are
// lost, late and doubled, workers lose their sessions and go on as zombies. Nothing
// may be lost, happen twice, or be out of order in its group. between is called
// between two seeds, to do something to the cluster.
func Storm(t *testing.T, endpoints []string, seeds int, between func(seed int)) {
	var seen faultCounts
	for seed := range seeds {
		if between != nil {
			between(seed)
		}
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			newHarness(t, endpoints).storm(uint64(seed), 40, &seen)
		})
		if t.Failed() {
			return
		}
	}
	seen.check(t, seeds)
}

const stormGroups = 3

// storm is one of them.
func (h *harness) storm(seed uint64, jobs int, seen *faultCounts) {
	t := h.t
	ctx, stop := context.WithCancel(h.ctx)
	defer stop()
	done := make(chan error, 2)
	var wires []*wire
	for i := range cap(done) {
		w := newWire(2*seed+uint64(i), 0.12)
		wires = append(wires, w)
		go func() { done <- h.haunt(ctx, w, seen) }()
	}
	w := newWire(seed+1000, 0.12)
	wires = append(wires, w)
	q := h.openWith(h.client(w.config()))
	h.flood(q, jobs)
	h.drained(q)
	stop()
	for range cap(done) {
		require.NoError(t, <-done)
	}
	for _, w := range wires {
		lost, txns := w.calm()
		seen.lost.Add(int64(lost))
		seen.txns.Add(int64(txns))
	}
	seen.jobs.Add(int64(jobs))
	h.judge(q, jobs)
}

// flood enqueues jobs in all ways there are.
func (h *harness) flood(q *queue.Queue[string], jobs int) {
	p, err := q.Producer(queue.WithPack(5))
	require.NoError(h.t, err)
	errs := make(chan error, jobs)
	for g := range stormGroups {
		go func() { // one after the other, so that there is an order to keep
			for i := g; i < jobs; i += 3 * stormGroups {
				_, err := q.Enqueue(h.ctx, fmt.Sprint(i), queue.Group(fmt.Sprint(g)), queue.Unique(fmt.Sprint(i)))
				errs <- err
			}
		}()
	}
	for i := range jobs {
		v := fmt.Sprint(i)
		switch n := i % (3 * stormGroups); {
		case n < stormGroups: // those of groups
		case n == stormGroups:
			go func() {
				_, err := q.Enqueue(h.ctx, v, queue.Delay(time.Duration(i)*time.Millisecond))
				errs <- err
			}()
		case n == stormGroups+1:
			go func() {
				_, err := q.Enqueue(h.ctx, v)
				errs <- err
			}()
		default:
			go func() {
				d, err := p.Send(h.ctx, v)
				if err == nil {
					_, err = d.Wait(h.ctx)
				}
				errs <- err
			}()
		}
	}
	for range jobs {
		require.NoError(h.t, wait(h, errs))
	}
	require.NoError(h.t, p.Close(h.ctx))
}

// haunt is a process whose workers lose their sessions again and again.
func (h *harness) haunt(ctx context.Context, w *wire, seen *faultCounts) error {
	n := 0
	for ctx.Err() == nil {
		c := h.client(w.config())
		s, err := c.NewSession(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		q, err := queue.Open[string](ctx, c, "jobs", queue.WithShards(4), queue.WithBackoff(soon), queue.WithSession(s),
			queue.WithMaxAttempts(1000), queue.WithMaxCrashes(1000))
		if err == nil {
			err = q.Run(ctx, func(_ context.Context, j *queue.Job[string]) error {
				if j.Attempt > 1 {
					seen.reruns.Add(1)
				}
				if n++; n%17 == 0 {
					seen.zombies.Add(1)
					if err := h.c.Revoke(h.ctx, s.ID()); err != nil && !errors.Is(err, client.ErrLeaseNotFound) {
						return err
					}
				}
				return act(j)
			}, queue.WithConcurrency(1), queue.WithDrainTimeout(0))
		}
		_ = s.Close(h.ctx) // it may be gone
		if err != nil && ctx.Err() == nil && !errors.Is(err, client.ErrSessionLost) && !errors.Is(err, client.ErrUncertain) {
			return err
		}
	}
	return nil
}

// act is what a job does: some fail first, and all leave a trace with their end.
func act(j *queue.Job[string]) error {
	n, err := strconv.Atoi(j.Value)
	if err != nil {
		return err
	}
	if n%7 == 0 && j.LastError == "" {
		return errBoom
	}
	tx := j.Tx()
	tx.Put("done/"+j.Value, []byte(j.ID))
	if j.Group != "" {
		kv, err := tx.Get("group/" + j.Group)
		if err != nil && !errors.Is(err, client.ErrNotFound) {
			return err
		}
		tx.Put("group/"+j.Group, append(kv.Value, " "+j.Value...))
	}
	return nil
}

// judge looks at the traces.
func (h *harness) judge(q *queue.Queue[string], jobs int) {
	res, err := h.c.Get(h.ctx, "done/", client.Prefix())
	require.NoError(h.t, err)
	require.Len(h.t, res.KVs, jobs)
	for _, kv := range res.KVs {
		require.Equal(h.t, int64(1), kv.Version, "%s was done more than once", kv.Key)
	}
	groups, err := h.c.Get(h.ctx, "group/", client.Prefix())
	require.NoError(h.t, err)
	require.Len(h.t, groups.KVs, stormGroups)
	for _, kv := range groups.KVs {
		var order []int
		for f := range strings.FieldsSeq(string(kv.Value)) {
			n, err := strconv.Atoi(f)
			require.NoError(h.t, err)
			order = append(order, n)
		}
		require.True(h.t, sort.IntsAreSorted(order), "group %s: %v", kv.Key, order)
	}
	st, err := q.Stats(h.ctx)
	require.NoError(h.t, err)
	require.Zero(h.t, st.Dead)
}
