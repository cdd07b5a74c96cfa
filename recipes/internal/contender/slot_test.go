package contender

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeSession is a lifetime without a server.
type fakeSession struct {
	ctx context.Context
	end context.CancelCauseFunc
}

func newFakeSession(t *testing.T) *fakeSession {
	s := &fakeSession{}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	t.Cleanup(func() { s.end(context.Canceled) })
	return s
}

func (s *fakeSession) Context() context.Context { return s.ctx }
func (s *fakeSession) Err() error               { return context.Cause(s.ctx) }

func newTable() *slotTable { return &slotTable{slots: make(map[slotID]*slot)} }

func mustTry(t *testing.T, table *slotTable, id slotID) *turn {
	t.Helper()
	mine, err := table.try(t.Context(), []slotID{id})
	require.NoError(t, err)
	require.NotNil(t, mine)
	return mine
}

// Waiters get their turn in the order in which they came, one at a time, and
// nothing is left in the table.
func TestSlotIsFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const waiters = 50
		table, id := newTable(), slotID{newFakeSession(t), "a"}
		first := mustTry(t, table, id)
		var order []int
		for i := range waiters {
			go func() {
				mine, err := table.take(t.Context(), []slotID{id}, false)
				if err == nil {
					order = append(order, i) // the turn protects it
					mine.give()
				}
			}()
			synctest.Wait() // it waits in the queue before the next one comes
		}
		none, err := table.try(t.Context(), []slotID{id})
		require.NoError(t, err)
		require.Nil(t, none, "somebody has the turn")
		require.Empty(t, first.give())
		first.give() // no effect
		synctest.Wait()
		require.Len(t, order, waiters)
		for i, got := range order {
			require.Equal(t, i, got)
		}
		require.Empty(t, table.slots)
	})
}

// A waiter that gives up is passed over; one whose turn comes in the very
// moment hands it on.
func TestSlotWaiterGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, id := newTable(), slotID{newFakeSession(t), "a"}
		first := mustTry(t, table, id)
		why := errors.New("had enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := table.take(ctx, []slotID{id}, false)
			failed <- err
		}()
		synctest.Wait()
		served := make(chan *turn, 1)
		go func() {
			mine, _ := table.take(t.Context(), []slotID{id}, false)
			served <- mine
		}()
		synctest.Wait()
		// Both at once: which one the waiter sees first is open, the result not.
		first.give()
		cancel(why)
		synctest.Wait()
		select {
		case err := <-failed:
			if err != nil {
				require.ErrorIs(t, err, context.Canceled)
				require.ErrorIs(t, err, why)
				(<-served).give()
			}
		default:
			t.Fatal("the waiter neither had its turn nor gave up")
		}
	})
}

func TestSlotEndsWithTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, session := newTable(), newFakeSession(t)
		id := slotID{session, "a"}
		first := mustTry(t, table, id)
		lost := errors.New("session is over")
		failed := make(chan error, 1)
		go func() {
			_, err := table.take(t.Context(), []slotID{id}, false)
			failed <- err
		}()
		synctest.Wait()
		session.end(lost)
		require.ErrorIs(t, <-failed, lost)
		first.give()
		require.Empty(t, table.slots)
	})
}

// After a create without an answer, exactly one sweeper is asked for, and it
// is let go when no such create can arrive any more.
func TestSlotAsksForASweeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, id := newTable(), slotID{newFakeSession(t), "a"}
		mine := mustTry(t, table, id)
		mine.suspect()
		require.Equal(t, []slotID{id}, mine.give())
		again := mustTry(t, table, id)
		require.Empty(t, again.give(), "one sweeper runs already")

		until, ok := table.sweepUntil(id)
		require.True(t, ok)
		require.Equal(t, suspectFor, time.Until(until))
		time.Sleep(suspectFor)
		_, ok = table.sweepUntil(id)
		require.False(t, ok)
		require.Empty(t, table.slots)
	})
}

// A sweeper that looks at the key is waited for, and not taken for a holder.
func TestTryWaitsForASweeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, id := newTable(), slotID{newFakeSession(t), "a"}
		holder := mustTry(t, table, id)
		sweeps := make(chan *turn, 1)
		go func() {
			sweeper, _ := table.take(t.Context(), []slotID{id}, true)
			sweeps <- sweeper
		}()
		synctest.Wait()
		holder.give()
		sweeper := <-sweeps
		got := make(chan *turn, 1)
		go func() { got <- mustTry(t, table, id) }()
		synctest.Wait()
		require.Empty(t, got)
		none, err := table.try(t.Context(), []slotID{id})
		require.NoError(t, err)
		require.Nil(t, none, "somebody waits for the turn")
		sweeper.give()
		mine := <-got
		none, err = table.try(t.Context(), []slotID{id})
		require.NoError(t, err)
		require.Nil(t, none, "the sweeper's mark is gone")
		mine.give()
		require.Empty(t, table.slots)
	})
}

func TestSweeperEndsWithTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, session := newTable(), newFakeSession(t)
		id := slotID{session, "a"}
		mine := mustTry(t, table, id)
		mine.suspect()
		require.Equal(t, []slotID{id}, mine.give())
		session.end(context.Canceled)
		_, ok := table.sweepUntil(id)
		require.False(t, ok)
		require.Empty(t, table.slots)
	})
}

// Turns for several slots come when all of them are free, in the order of the
// calls in each slot, and never block each other for ever.
func TestTurnsForSeveralSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, session := newTable(), newFakeSession(t)
		a, b, c := slotID{session, "a"}, slotID{session, "b"}, slotID{session, "c"}
		var order []string
		turns := make(map[string]*turn)
		start := func(name string, ids ...slotID) {
			go func() {
				mine, err := table.take(t.Context(), ids, false)
				if err == nil {
					order = append(order, name)
					turns[name] = mine
				}
			}()
			synctest.Wait()
		}
		end := func(name string) {
			turns[name].give()
			synctest.Wait()
		}
		start("ab", a, b)
		start("bc", b, c)
		start("ca", c, a)
		start("c", c)
		require.Equal(t, []string{"ab"}, order)
		end("ab")
		require.Equal(t, []string{"ab", "bc"}, order)
		none, err := table.try(t.Context(), []slotID{a})
		require.NoError(t, err)
		require.Nil(t, none, "somebody waits for it")
		end("bc")
		require.Equal(t, []string{"ab", "bc", "ca"}, order)
		end("ca")
		end("c")
		require.Equal(t, []string{"ab", "bc", "ca", "c"}, order)
		require.Empty(t, table.slots)
	})
}

// One who waits for several slots and gives up is in nobody's way.
func TestTurnForSeveralSlotsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, session := newTable(), newFakeSession(t)
		a, b := slotID{session, "a"}, slotID{session, "b"}
		holder := mustTry(t, table, a)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _, _ = table.take(ctx, []slotID{a, b}, false) }()
		synctest.Wait()
		behind := make(chan *turn, 1)
		go func() {
			mine, _ := table.take(t.Context(), []slotID{b}, false)
			behind <- mine
		}()
		synctest.Wait()
		require.Empty(t, behind)
		cancel()
		synctest.Wait()
		(<-behind).give()
		holder.give()
		require.Empty(t, table.slots)
	})
}
