package electiontest

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/election"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// term is one call of the function that Run was given.
type term struct {
	ctx    context.Context
	l      *leadership
	result chan error // what the function returns
}

// runner is a Run whose terms the case ends one by one.
type runner struct {
	*task[any]
	terms chan term
}

func (h *harness) run(ctx context.Context, e *elections, value string) *runner {
	r := &runner{terms: make(chan term)}
	r.task = start(h, func() (any, error) {
		return nil, e.Run(ctx, value, func(ctx context.Context, l *leadership) error {
			now := term{ctx: ctx, l: l, result: make(chan error)}
			select {
			case r.terms <- now:
				return <-now.result
			case <-h.ctx.Done():
				return h.ctx.Err()
			}
		})
	})
	return r
}

// lead waits until the runner leads.
func (r *runner) lead() term {
	r.h.t.Helper()
	select {
	case now := <-r.terms:
		return now
	case <-r.done:
		r.h.t.Fatalf("Run returned: %v", r.err)
	case <-r.h.ctx.Done():
		r.h.t.Fatal("nobody leads")
	}
	return term{}
}

// stopped waits until the function is told to stop, and returns why.
func (h *harness) stopped(now term) error {
	h.t.Helper()
	select {
	case <-now.ctx.Done():
	case <-h.ctx.Done():
		h.t.Fatal("the function was not told to stop")
	}
	return context.Cause(now.ctx)
}

// Who returns nil stands again, behind the others; ErrStop ends.
func testRunRequeue(t *testing.T, h *harness) {
	a := h.run(h.ctx, h.node(), "a")
	now := a.lead()
	require.True(t, now.l.Valid())
	carried, ok := fence.FromContext(now.ctx, "job")
	require.True(t, ok)
	require.Equal(t, now.l.Term(), carried)
	b := h.run(h.ctx, h.node(), "b")
	h.awaitKeys("job/", 2)
	for range 3 {
		now.result <- nil
		other := b.lead()
		require.Greater(t, other.l.Term(), now.l.Term())
		require.Equal(t, election.ErrResigned, h.ended(now.l))
		h.awaitKeys("job/", 2)
		other.result <- nil
		now = a.lead()
		h.awaitKeys("job/", 2)
	}
	now.result <- election.ErrStop
	a.success()
	now = b.lead()
	now.result <- errors.Join(errors.New("enough"), election.ErrStop)
	b.success()
	h.nothingLeft()
}

// The function runs on after its context has ended: the leadership is not given
// up, and nobody else leads, until it has returned.
func testRunWaits(t *testing.T, h *harness) {
	ctx, cancel := context.WithCancel(h.ctx)
	a := h.run(ctx, h.node(), "a")
	now := a.lead()
	b := h.stand(h.ctx, h.node(), "b", 2)
	cancel()
	require.ErrorIs(t, h.stopped(now), context.Canceled)
	res, err := now.l.Txn().Then(client.OpPut("state", []byte("tidied up"))).Commit(h.ctx)
	require.NoError(t, err)
	require.True(t, res.Succeeded)
	require.True(t, now.l.Valid())
	b.stillWaits()
	a.stillWaits()
	h.awaitKeys("job/", 2)
	now.result <- nil
	require.ErrorIs(t, a.failure(), context.Canceled)
	l := b.success()
	require.Greater(t, l.Term(), now.l.Term())
	h.resign(l)
	h.nothingLeft()
}

func testRunResults(t *testing.T, h *harness) {
	failed := errors.New("work failed")
	for _, c := range []struct {
		returns error
		ended   bool
		wanted  error
	}{
		{election.ErrStop, false, nil},
		{election.ErrStop, true, nil},
		{failed, false, failed},
		{failed, true, failed},
		{nil, true, context.Canceled},
	} {
		ctx, cancel := context.WithCancel(h.ctx)
		a := h.run(ctx, h.node(), "a")
		now := a.lead()
		if c.ended {
			cancel()
		}
		now.result <- c.returns
		_, err := a.wait()
		if c.wanted == nil {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, c.wanted)
		}
		h.nothingLeft()
		cancel()
	}
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	require.ErrorIs(t, h.run(ctx, h.node(), "a").failure(), context.Canceled)
}

// Whoever loses the leadership is told why, and stands again; what it returns is
// a consequence.
func testRunLoss(t *testing.T, h *harness) {
	a := h.run(h.ctx, h.node(), "a")
	first := a.lead()
	_, err := h.c.Delete(h.ctx, first.l.Key())
	require.NoError(t, err)
	require.Equal(t, election.ErrDeleted, h.lostReason(h.stopped(first)))
	first.result <- errors.New("write refused")
	second := a.lead()
	require.Greater(t, second.l.Term(), first.l.Term())
	second.result <- election.ErrStop
	a.success()
	h.nothingLeft()
}

// A session that is lost is replaced by the next, unless it was given.
func testRunSession(t *testing.T, h *harness) {
	c := h.client(client.Config{})
	a := h.run(h.ctx, election.New[string](c, "job"), "a")
	first := a.lead()
	s, err := c.Session(h.ctx)
	require.NoError(t, err)
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	require.ErrorIs(t, h.stopped(first), election.ErrLost)
	first.result <- nil
	second := a.lead()
	require.NotEqual(t, first.l.Key(), second.l.Key())
	second.result <- election.ErrStop
	a.success()

	given := h.session(c)
	b := h.run(h.ctx, election.New[string](c, "job", election.WithSession(given)), "b")
	now := b.lead()
	require.NoError(t, given.Close(h.ctx))
	require.ErrorIs(t, h.stopped(now), client.ErrSessionClosed)
	now.result <- nil
	err = b.failure()
	require.ErrorIs(t, err, election.ErrLost)
	require.ErrorIs(t, err, client.ErrSessionClosed)
	h.nothingLeft()
}

func testRunPanic(t *testing.T, h *harness) {
	require.PanicsWithValue(t, "out of paper", func() {
		_ = h.node().Run(h.ctx, "a", func(context.Context, *leadership) error { panic("out of paper") })
	})
	h.nothingLeft()
}
