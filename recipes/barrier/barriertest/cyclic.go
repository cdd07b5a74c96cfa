package barriertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/barrier"
)

// The same members meet again and again. The order in which they come differs, what they
// see does not.
func testCyclicGenerations(t *testing.T, h *harness) {
	const members, rounds = 4, 30
	var mu sync.Mutex
	rosters := make(map[uint64][]string)
	var wg sync.WaitGroup
	errs := make([]error, members)
	for i := range members {
		party := h.joinCyclic(h.process(), "job", members, barrier.WithMember(fmt.Sprint("m", i)))
		wg.Go(func() {
			for round := range rounds {
				a, err := party.Await(h.ctx)
				if err != nil {
					errs[i] = err
					return
				}
				mu.Lock()
				if rosters[a.Generation] == nil {
					rosters[a.Generation] = a.Members
				}
				if a.Generation != uint64(round) || a.Members[a.Index] != fmt.Sprint("m", i) ||
					fmt.Sprint(rosters[a.Generation]) != fmt.Sprint(a.Members) {
					errs[i] = fmt.Errorf("member %d, round %d: %+v, others saw %v", i, round, a, rosters[a.Generation])
				}
				mu.Unlock()
			}
			errs[i] = errors.Join(errs[i], party.Leave(h.ctx))
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Len(t, rosters, rounds)
	h.awaitKeys("job/", 0)
}

// A caller stops waiting: the member has arrived all the same, and the next call goes on
// with the same generation, before its end or after.
func testCyclicAwaitGoesOn(t *testing.T, h *harness) {
	one, two := h.joinCyclic(h.process(), "job", 2), h.joinCyclic(h.process(), "job", 2)
	impatient := func() {
		ctx, cancel := context.WithCancel(h.ctx)
		a := start(h, func() (barrier.Arrival, error) { return one.Await(ctx) })
		h.awaitKeys("job/g/a/", 1)
		cancel()
		require.ErrorIs(t, a.failure(), context.Canceled)
	}
	impatient()
	a := h.awaitTrip(one)
	a.stillWaits()
	b, err := two.Await(h.ctx)
	require.NoError(t, err)
	require.Equal(t, b.Generation, a.success().Generation)

	impatient()
	b, err = two.Await(h.ctx)
	require.NoError(t, err)
	got, err := one.Await(h.ctx)
	require.NoError(t, err)
	require.Equal(t, b.Generation, got.Generation)
	require.Equal(t, uint64(1), got.Generation)
}

// One member is at the barrier once, however many goroutines have its handle.
func testCyclicBusy(t *testing.T, h *harness) {
	one := h.joinCyclic(h.process(), "job", 2)
	a := h.awaitTrip(one)
	h.awaitKeys("job/g/a/", 1)
	_, err := one.Await(h.ctx)
	require.ErrorIs(t, err, barrier.ErrBusy)
	a.stillWaits()
	two := h.joinCyclic(h.process(), "job", 2)
	_, err = two.Await(h.ctx)
	require.NoError(t, err)
	a.success()
}

// There are as many members as parties; one more waits until somebody leaves.
func testCyclicFull(t *testing.T, h *harness) {
	one, two := h.joinCyclic(h.process(), "job", 2), h.joinCyclic(h.process(), "job", 2)
	p := h.process()
	b := barrier.NewCyclic(p.c, "job", 2)
	ctx, cancel := context.WithCancel(h.ctx)
	join := start(h, func() (*barrier.Party, error) { return b.Join(ctx) })
	// It has been in and out, so it knows.
	h.await("job/g/c/", func(kvs []client.KV) bool {
		return len(kvs) == 2 && kvs[0].Version == 3 && kvs[1].Version == 1
	})
	join.stillWaits()
	cancel()
	require.ErrorIs(t, join.failure(), context.Canceled)

	join = start(h, func() (*barrier.Party, error) { return b.Join(h.ctx) })
	a := h.awaitTrip(one)
	require.NoError(t, two.Leave(h.ctx))
	three := join.success()
	got, err := three.Await(h.ctx)
	require.NoError(t, err)
	require.Equal(t, 2, got.Parties)
	a.success()
}

func testCyclicReset(t *testing.T, h *harness) {
	p, q := h.process(), h.process()
	one, two := h.joinCyclic(p, "job", 2), h.joinCyclic(q, "job", 2)
	a := h.awaitTrip(one)
	h.awaitKeys("job/g/a/", 1)
	b := barrier.NewCyclic(h.c, "job", 2)
	require.NoError(t, b.Reset(h.ctx))
	err := a.failure()
	require.ErrorIs(t, err, barrier.ErrBroken)
	var broken *barrier.BrokenError
	require.ErrorAs(t, err, &broken)
	require.Equal(t, uint64(0), broken.Generation)
	require.ErrorIs(t, h.ended(two.Context()), barrier.ErrBroken)
	_, err = two.Await(h.ctx)
	require.ErrorIs(t, err, barrier.ErrBroken)
	require.ErrorIs(t, two.Leave(h.ctx), barrier.ErrBroken)

	one, two = h.joinCyclic(p, "job", 2), h.joinCyclic(q, "job", 2)
	a = h.awaitTrip(one)
	got, err := two.Await(h.ctx)
	require.NoError(t, err)
	require.NotZero(t, got.Generation)
	a.success()
	require.NoError(t, barrier.NewCyclic(h.c, "never", 2).Reset(h.ctx))
}

// The last member of all is lost, and nobody is there to see to what it leaves behind.
// The next that comes does, before it is a member: it is not told of a loss among people
// with whom it never was. The first requests by which it does that get lost.
func testCyclicLastOneLost(t *testing.T, h *harness) {
	for _, policy := range policies {
		name := "job-" + policy.String()
		first := h.process()
		party, err := barrier.NewCyclic(first.c, name, 2, barrier.WithOnLoss(policy)).Join(h.ctx)
		require.NoError(t, err)
		require.NoError(t, party.Leave(h.ctx))
		h.awaitKeys(name+"/g/", 0)
		require.NoError(t, first.c.Close())
		_, err = h.c.Put(h.ctx, name+"/g/c/came", nil)
		require.NoError(t, err)

		var w clienttest.Wire
		lost := 0
		w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
			if c.Deletes() && lost < 3 {
				lost++
				return clienttest.RequestLost
			}
			return clienttest.Arrives
		})
		party, err = barrier.NewCyclic(h.processOn(w.Config()).c, name, 2, barrier.WithOnLoss(policy)).Join(h.ctx)
		require.NoError(t, err)
		require.NoError(t, party.Context().Err())
		require.Equal(t, 3, lost)
		w.Before(nil)
		require.NoError(t, party.Leave(h.ctx))
		h.awaitKeys(name+"/g/", 0)
	}
}
