package barriertest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/barrier"
)

// One of three dies while the second waits for the third.
func testLossGathering(t *testing.T, h *harness) {
	for _, policy := range policies {
		name, opt := "job-"+policy.String(), barrier.WithOnLoss(policy)
		dead := h.process()
		one := h.enter(h.process(), name, 3, opt)
		lost := h.enter(dead, name, 3, opt)
		h.awaitKeys(name+"/g/m/", 2)
		one.stillWaits()
		dead.die()
		require.Error(t, lost.failure())
		inside := []*call[*barrier.Inside]{one}
		switch policy {
		case barrier.Break:
			require.ErrorIs(t, one.failure(), barrier.ErrBroken)
			inside = nil // all over again
			for range 3 {
				inside = append(inside, h.enter(h.process(), name, 3, opt))
			}
		case barrier.Wait:
			two := h.enter(h.process(), name, 3, opt)
			h.awaitKeys(name+"/g/m/", 2)
			one.stillWaits()
			inside = append(inside, two, h.enter(h.process(), name, 3, opt))
		case barrier.Shrink:
			h.awaitKeys(name+"/g/m/", 1)
			one.stillWaits()
			inside = append(inside, h.enter(h.process(), name, 3, opt))
		}
		var leaving []*call[struct{}]
		for _, a := range inside {
			in := a.success()
			require.Equal(t, len(inside), in.Arrival().Parties)
			leaving = append(leaving, h.leave(in))
		}
		for _, l := range leaving {
			l.success()
		}
		h.awaitKeys(name+"/", 0)
	}
}

// One of three dies inside, while the second waits for it to leave, and the third works.
func testLossInside(t *testing.T, h *harness) {
	for _, policy := range policies {
		name, opt := "job-"+policy.String(), barrier.WithOnLoss(policy)
		dead := h.process()
		a, b, c := h.enter(h.process(), name, 3, opt), h.enter(h.process(), name, 3, opt), h.enter(dead, name, 3, opt)
		one, two, lost := a.success(), b.success(), c.success()
		waiting := h.leave(one)
		h.awaitKeys(name+"/g/a/", 1)
		dead.die()
		h.died(lost.Context())
		require.Error(t, lost.Leave(h.ctx))
		if policy == barrier.Break {
			require.ErrorIs(t, waiting.failure(), barrier.ErrBroken)
			require.ErrorIs(t, h.ended(two.Context()), barrier.ErrBroken)
			require.ErrorIs(t, two.Leave(h.ctx), barrier.ErrBroken)
		} else {
			waiting.stillWaits()
			require.True(t, two.Valid())
			require.NoError(t, two.Leave(h.ctx))
			waiting.success()
			h.awaitKeys(name+"/", 0)
		}
		for range 3 {
			h.enter(h.process(), name, 3, opt)
		}
		h.awaitKeys(name+"/g/m/", 3)
	}
}

// One of three dies in the middle of its round, where it is not waiting at all.
func testLossBetweenRounds(t *testing.T, h *harness) {
	for _, policy := range policies {
		name, opt := "job-"+policy.String(), barrier.WithOnLoss(policy)
		dead := h.process()
		one, two := h.joinCyclic(h.process(), name, 3, opt), h.joinCyclic(h.process(), name, 3, opt)
		three := h.joinCyclic(dead, name, 3, opt)
		first := []*call[barrier.Arrival]{h.awaitTrip(one), h.awaitTrip(two), h.awaitTrip(three)}
		for _, a := range first {
			require.Equal(t, 3, a.success().Parties)
		}
		a := h.awaitTrip(one)
		h.awaitKeys(name+"/g/a/", 1)
		dead.die()
		h.died(three.Context())
		switch policy {
		case barrier.Break:
			require.ErrorIs(t, a.failure(), barrier.ErrBroken)
			require.ErrorIs(t, h.ended(two.Context()), barrier.ErrBroken)
			require.ErrorIs(t, two.Leave(h.ctx), barrier.ErrBroken)
			require.ErrorIs(t, one.Leave(h.ctx), barrier.ErrBroken)
			h.awaitKeys(name+"/", 0)
			one, two = h.joinCyclic(h.process(), name, 3, opt), h.joinCyclic(h.process(), name, 3, opt)
			a = h.awaitTrip(one)
			fallthrough
		case barrier.Wait:
			b := h.awaitTrip(two)
			h.awaitKeys(name+"/g/a/", 2)
			a.stillWaits()
			got, err := h.joinCyclic(h.process(), name, 3, opt).Await(h.ctx)
			require.NoError(t, err)
			require.Equal(t, 3, got.Parties)
			a.success()
			b.success()
		case barrier.Shrink:
			got, err := two.Await(h.ctx)
			require.NoError(t, err)
			require.Equal(t, 2, got.Parties)
			a.success()
		}
	}
}

// A member's key is deleted by hand: it is told, whatever it does at that moment, and
// what it writes is refused.
func testLossOwnKey(t *testing.T, h *harness) {
	opt := barrier.WithOnLoss(barrier.Wait)
	p := h.process()
	waiting := h.enter(p, "job", 2, opt)
	kvs := h.awaitKeys("job/g/m/", 1)
	_, err := h.c.Delete(h.ctx, kvs[0].Key)
	require.NoError(t, err)
	err = waiting.failure()
	require.ErrorIs(t, err, barrier.ErrLost)
	require.ErrorIs(t, err, barrier.ErrDeleted)

	a, b := h.enter(p, "job", 2, opt), h.enter(h.process(), "job", 2, opt)
	in, other := a.success(), b.success()
	_, err = h.c.Delete(h.ctx, in.Key())
	require.NoError(t, err)
	require.ErrorIs(t, h.ended(in.Context()), barrier.ErrDeleted)
	_, err = in.Txn().Then(client.OpPut("data", nil)).Commit(h.ctx)
	require.ErrorIs(t, err, barrier.ErrLost)
	require.ErrorIs(t, in.Leave(h.ctx), barrier.ErrDeleted)
	require.NoError(t, other.Leave(h.ctx))

	one, two := h.joinCyclic(p, "rounds", 2, opt), h.joinCyclic(h.process(), "rounds", 2, opt)
	c := h.awaitTrip(one)
	h.awaitKeys("rounds/g/a/", 1)
	_, err = h.c.Delete(h.ctx, one.Key())
	require.NoError(t, err)
	require.ErrorIs(t, c.failure(), barrier.ErrDeleted)
	require.ErrorIs(t, one.Leave(h.ctx), barrier.ErrDeleted)
	require.NoError(t, two.Leave(h.ctx))
}

// A record that somebody deletes is a barrier that somebody has reset.
func testRecordDeleted(t *testing.T, h *harness) {
	p := h.process()
	waiting := h.enter(p, "job", 2)
	h.awaitKeys("job/g/m/", 1)
	_, err := h.c.Delete(h.ctx, "job.gen")
	require.NoError(t, err)
	require.ErrorIs(t, waiting.failure(), barrier.ErrBroken)
	h.awaitKeys("job/g/m/", 0)
	a, b := h.enter(p, "job", 2), h.enter(h.process(), "job", 2)
	h.leave(a.success())
	h.leave(b.success()).success()
	h.awaitKeys("job/", 0)
}

// Those who do not agree on what the barrier is do not meet; once all are gone, others
// may have other terms.
func testConflict(t *testing.T, h *harness) {
	one := h.enter(h.process(), "job", 2)
	h.awaitKeys("job/g/m/", 1)
	p := h.process()
	err := h.enter(p, "job", 3).failure()
	require.ErrorIs(t, err, barrier.ErrConflict)
	var conflict *barrier.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Contains(t, conflict.Theirs, "2 parties")
	require.Contains(t, conflict.Ours, "3 parties")
	require.ErrorIs(t, h.enter(p, "job", 2, barrier.WithOnLoss(barrier.Wait)).failure(), barrier.ErrConflict)
	_, err = barrier.NewCyclic(p.c, "job", 2).Join(h.ctx)
	require.ErrorIs(t, err, barrier.ErrConflict)
	_, err = barrier.NewPhaser(p.c, "job").Register(h.ctx)
	require.ErrorIs(t, err, barrier.ErrConflict)
	one.stillWaits()

	two := h.enter(p, "job", 2)
	h.leave(one.success())
	h.leave(two.success()).success()
	in := h.enter(p, "job", 1).success()
	require.NotZero(t, in.Arrival().Generation)
	require.NoError(t, in.Leave(h.ctx))
	_, err = h.c.Put(h.ctx, "other.gen", []byte("7"))
	require.NoError(t, err)
	require.ErrorIs(t, h.enter(p, "other", 1).failure(), barrier.ErrConflict)
}

func testInvalid(t *testing.T, h *harness) {
	for _, name := range []string{"", "a/", "a//b", "g", "a/d", "a/read"} {
		_, err := barrier.NewDouble(h.c, name, 1).Enter(h.ctx)
		require.ErrorIs(t, err, barrier.ErrName, "%q", name)
		require.ErrorIs(t, barrier.NewGate(h.c, name).Hold(h.ctx), barrier.ErrName)
		_, err = barrier.NewLatch(h.c, name).Init(h.ctx, 1)
		require.ErrorIs(t, err, barrier.ErrName)
	}
	for _, n := range []int{-1, 0, 4097} {
		_, err := barrier.NewCyclic(h.c, "job", n).Join(h.ctx)
		require.ErrorIs(t, err, barrier.ErrParties, "%d", n)
	}
}

// testLossEveryStep lets one of three die at each of its requests in turn, just before it
// is executed or just after, in a whole round; as the last to come, who ends the phase, or
// as whichever it happens to be. Whatever the step, nobody is let in early, and nobody
// waits for ever.
func testLossEveryStep(t *testing.T, h *harness) {
	others := [3]*process{h.process(), h.process(), h.process()}
	for _, policy := range policies {
		for _, last := range []bool{true, false} {
			k := 1
			for h.dieAt(others, policy, k, false, last) && h.dieAt(others, policy, k, true, last) {
				k++
			}
			require.Greater(t, k, 2)
			t.Logf("%s, last %t: %d requests", policy, last, k-1)
		}
	}
}

// dieAt returns false when the member did not send so many requests. The last one of the
// others takes its place if it did.
func (h *harness) dieAt(others [3]*process, policy barrier.LossPolicy, k int, executed, last bool) bool {
	h.t.Helper()
	name := fmt.Sprintf("job-%s-%d-%t-%t", policy, k, executed, last)
	mortal, died := h.mortal(k, executed)
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	var through atomic.Int64
	survivor := func(p *process) *call[int] {
		return h.rounds(ctx, p, name, 3, policy, func() {
			if through.Add(1) == 2 {
				cancel()
			}
		})
	}
	one, two := survivor(others[0]), survivor(others[1])
	if last {
		h.awaitKeys(name+"/g/m/", 2)
	}
	three := h.round(mortal, name, 3, policy)
	select {
	case <-died:
	case <-three.done:
		three.success()
		one.success()
		two.success()
		require.NoError(h.t, mortal.c.Close()) // or what it still sends is the k-th request after all
		return false
	}
	// If it died before it came, nobody knows of it, and another one has to come. If it had
	// been counted, that one may be too many, and goes when the others are through.
	substitute := h.rounds(ctx, others[2], name, 3, policy, func() {})
	sizes := []int{3}
	if policy == barrier.Shrink {
		sizes = []int{2, 3}
	}
	require.Contains(h.t, sizes, one.success())
	require.Contains(h.t, sizes, two.success())
	require.Contains(h.t, append(sizes, 0), substitute.success())
	require.NoError(h.t, mortal.c.Close())
	_, _ = three.wait() // what it is told is nothing to anybody: but it is told
	h.awaitKeys(name+"/g/m/", 0)
	return true
}

// rounds goes through a double barrier again and again until ctx ends, and calls through
// after the first time. Its result is how many were inside then, or 0.
//
// Once is not enough where one is lost: it may have broken a generation in which not all
// others were yet, or have made one complete without them, by shrinking it. Those who come
// late need as many companions as any.
func (h *harness) rounds(ctx context.Context, p *process, name string, parties int, policy barrier.LossPolicy, through func()) *call[int] {
	d := barrier.NewDouble(p.c, name, parties, barrier.WithOnLoss(policy), barrier.WithSession(p.s))
	return start(h, func() (first int, err error) {
		for {
			n, err := h.goThrough(ctx, d)
			switch {
			case errors.Is(err, context.Canceled):
				return first, nil
			case policy == barrier.Break && errors.Is(err, barrier.ErrBroken):
			case err != nil:
				return first, err
			case first == 0:
				first = n
				through()
			}
		}
	})
}
