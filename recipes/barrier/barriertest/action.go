package barriertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/barrier"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// The action runs once for each generation, when all have arrived and before anybody
// goes on.
func testActionOnce(t *testing.T, h *harness) {
	const members, rounds = 3, 10
	var mu sync.Mutex
	runs := make(map[uint64]int)
	var tokens []fence.Token
	act := func(ctx context.Context, tr *barrier.Trip) error {
		token, _ := fence.FromContext(ctx, "job")
		mu.Lock()
		defer mu.Unlock()
		runs[tr.Generation]++
		tokens = append(tokens, tr.Token)
		if token != tr.Token || tr.Parties != members || len(tr.Members) != members {
			return fmt.Errorf("wrong trip: %+v, token %d", tr.Arrival, token)
		}
		_, err := tr.Txn().Then(client.OpPut(fmt.Sprint("round", tr.Generation), nil)).Commit(ctx)
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, members)
	for i := range members {
		party := h.joinCyclic(h.process(), "job", members, barrier.WithAction(act))
		wg.Go(func() {
			for range rounds {
				a, err := party.Await(h.ctx)
				mu.Lock()
				if err == nil && runs[a.Generation] != 1 {
					err = fmt.Errorf("generation %d: went on after %d runs", a.Generation, runs[a.Generation])
				}
				mu.Unlock()
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Len(t, runs, rounds)
	for i := 1; i < len(tokens); i++ {
		require.Greater(t, tokens[i], tokens[i-1])
	}
	h.awaitKeys("round", rounds)
}

// The process that runs the action dies: another one runs it again, with a larger token,
// and the first run can do no harm any more.
func testActionActorDies(t *testing.T, h *harness) {
	type run struct {
		who  int
		ctx  context.Context
		trip *barrier.Trip
	}
	running := make(chan run, 3)
	proceed := make(chan struct{})
	processes := make([]*process, 3)
	awaits := make([]*call[barrier.Arrival], 3)
	for i := range processes {
		processes[i] = h.process()
		act := func(ctx context.Context, tr *barrier.Trip) error {
			running <- run{i, ctx, tr}
			<-proceed
			return context.Cause(ctx)
		}
		awaits[i] = h.awaitTrip(h.joinCyclic(processes[i], "job", 3, barrier.WithAction(act), barrier.WithOnLoss(barrier.Shrink)))
	}
	first := <-running
	for _, a := range awaits {
		a.stillWaits()
	}
	processes[first.who].die()
	second := <-running
	require.NotEqual(t, first.who, second.who)
	require.Greater(t, second.trip.Token, first.trip.Token)
	require.Equal(t, first.trip.Members, second.trip.Members)
	require.Error(t, h.ended(first.ctx))
	_, err := first.trip.Txn().Then(client.OpPut("by-the-dead", nil)).Commit(h.ctx)
	require.ErrorIs(t, err, barrier.ErrLost)
	_, err = second.trip.Txn().Then(client.OpPut("by-the-living", nil)).Commit(h.ctx)
	require.NoError(t, err)
	close(proceed)
	for i, a := range awaits {
		if i == first.who {
			require.ErrorIs(t, a.failure(), barrier.ErrLost)
			continue
		}
		require.Equal(t, 3, a.success().Parties, "who was there when the action began has been there")
	}
	h.awaitKeys("by-", 1)
}

// An action that fails breaks the generation, for all.
func testActionFails(t *testing.T, h *harness) {
	act := func(context.Context, *barrier.Trip) error { return errors.New("no paper") }
	var awaits []*call[barrier.Arrival]
	var parties []*barrier.Party
	for range 2 {
		party := h.joinCyclic(h.process(), "job", 2, barrier.WithAction(act), barrier.WithOnLoss(barrier.Wait))
		parties = append(parties, party)
		awaits = append(awaits, h.awaitTrip(party))
	}
	for _, a := range awaits {
		err := a.failure()
		require.ErrorIs(t, err, barrier.ErrBroken)
		require.ErrorIs(t, err, barrier.ErrAction)
		require.ErrorContains(t, err, "no paper")
	}
	for _, p := range parties {
		require.ErrorIs(t, p.Leave(h.ctx), barrier.ErrAction)
	}
	h.joinCyclic(h.process(), "job", 2, barrier.WithAction(act), barrier.WithOnLoss(barrier.Wait))
}
