package electiontest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/election"
)

// The highest priority leads next, whatever the line, and equals keep it.
func testPriority(t *testing.T, h *harness) {
	last := h.campaign(h.node(), "first")
	wanted := make([]*task[*leadership], 5)
	for i, c := range []struct{ priority, rank int }{{1, 3}, {5, 0}, {3, 1}, {3, 2}, {-1, 4}} {
		wanted[c.rank] = h.stand(h.ctx, h.node(election.WithPriority(c.priority)), "x", i+2)
	}
	for i, a := range wanted {
		a.stillWaits()
		h.resign(last)
		l := a.success()
		require.Greater(t, l.Term(), last.Term())
		h.awaitKeys("job/", len(wanted)-i)
		last = l
	}
	h.resign(last)
	h.nothingLeft()
}

// A candidate of higher priority has the leader step down, in its own time.
func testPreempt(t *testing.T, h *harness) {
	a := h.run(h.ctx, h.node(election.WithPriority(1)), "a")
	now := a.lead()
	for _, e := range []*elections{
		h.node(election.WithPriority(9)),                         // does not preempt
		h.node(election.WithPriority(1), election.WithPreempt()), // is not higher
	} {
		ctx, cancel := context.WithCancel(h.ctx)
		waiter := h.stand(ctx, e, "waiter", 2)
		cancel()
		require.ErrorIs(t, waiter.failure(), context.Canceled)
		h.awaitKeys("job/", 1)
	}
	// Those were seen before this one: events come in order.
	b := h.stand(h.ctx, h.node(election.WithPriority(2), election.WithPreempt(), election.WithIdentity("b")), "b", 2)
	var why *election.StepDown
	require.ErrorAs(t, h.stopped(now), &why)
	require.Equal(t, election.StepDown{Kind: election.ErrPreempted, Reason: "candidate b"}, *why)
	b.stillWaits()
	now.result <- nil
	l := b.success()
	h.awaitKeys("job/", 2)
	h.resign(l)
	a.lead().result <- election.ErrStop
	a.success()
	h.nothingLeft()
}

// Who was named by the last leader is not preempted, not even by that one.
func testNamedIsNotPreempted(t *testing.T, h *harness) {
	strong := h.node(election.WithPriority(5), election.WithPreempt(), election.WithIdentity("strong"))
	l := h.campaign(strong, "strong")
	weak := h.stand(h.ctx, h.node(election.WithIdentity("weak")), "weak", 2)
	require.NoError(t, l.HandOver(h.ctx, "weak"))
	named := weak.success()
	again := h.stand(h.ctx, strong, "strong again", 2)
	asks := h.request(h.ctx, "please")
	require.Equal(t, election.ErrAsked, h.asked(named).Kind, "what comes first")
	h.resign(named)
	asks.success()
	h.resign(again.success())
	h.nothingLeft()
}

// An observer does not see those lead who pass their turns on.
func testPriorityObserved(t *testing.T, h *harness) {
	o := h.observe(h.ctx, h.node())
	o.vacant()
	first := h.campaign(h.node(), "first")
	o.leads(first, "first")
	a := h.stand(h.ctx, h.node(), "a", 2)
	b := h.stand(h.ctx, h.node(election.WithPriority(1)), "b", 3)
	c := h.stand(h.ctx, h.node(election.WithPriority(2)), "c", 4)
	h.resign(first)
	l := c.success()
	o.vacant()
	o.leads(l, "c")
	h.awaitKeys("job/", 3)
	h.resign(l)
	l = b.success()
	for step := o.next(); step.Term != l.Term(); step = o.next() {
		require.True(t, step.Vacant) // if a had come before b
	}
	h.awaitKeys("job/", 2)
	h.resign(l)
	l = a.success()
	o.leads(l, "a")
	h.resign(l)
	o.vacant()
}

// Who is not healthy does not stand, leaves the line, and is asked to step down.
func testHealth(t *testing.T, h *harness) {
	var sick atomic.Bool
	checks := make(chan struct{}, 1000)
	checked := election.WithHealth(func(context.Context) error {
		select {
		case checks <- struct{}{}:
		default:
		}
		if sick.Load() {
			return errors.New("disk is full")
		}
		return nil
	}, 10*time.Millisecond)
	sick.Store(true)
	e := h.node(checked)
	waiter := start(h, func() (*leadership, error) { return e.Campaign(h.ctx, "me") })
	for range 3 {
		<-checks
	}
	waiter.stillWaits()
	h.awaitKeys("job", 0)
	first := h.campaign(h.node(), "first")

	sick.Store(false)
	h.awaitKeys("job/", 2)
	sick.Store(true)
	h.awaitKeys("job/", 1)
	waiter.stillWaits()
	sick.Store(false)
	h.awaitKeys("job/", 2)
	h.resign(first)
	l := waiter.success()
	sick.Store(true)
	s := h.asked(l)
	require.Equal(t, election.StepDown{Kind: election.ErrUnhealthy, Reason: "disk is full"}, *s)
	require.ErrorIs(t, s, election.ErrUnhealthy)
	h.resign(l)

	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	_, err := e.Campaign(ctx, "me")
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, election.ErrUnhealthy, "what it waited for")
	h.nothingLeft()
}

// A leader dies and is started again long before its lease ends: it leads at
// once, with a new term, though others wait.
func testRestart(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	c := h.client(client.Config{Dialer: link.Dial, SessionTTL: 10 * caseTimeout})
	former := h.campaign(election.New[string](c, "job", election.WithIdentity("a")), "former")
	b := h.stand(h.ctx, h.node(election.WithIdentity("b")), "b", 2)
	o := h.observe(h.ctx, h.node())
	o.leads(former, "former")

	restore := link.Down()
	l := h.campaign(h.node(election.WithIdentity("a")), "restarted")
	require.Greater(t, l.Term(), former.Term())
	o.vacant()
	o.leads(l, "restarted")
	b.stillWaits()
	h.awaitKeys("job/", 2)
	restore()
	require.Equal(t, election.ErrDeleted, h.lostReason(h.ended(former)), "should it live after all")
	h.resign(l)
	h.resign(b.success())
	h.nothingLeft()
}

// Two processes that have the same identity by mistake do not replace each other
// for ever.
func testIdentityTwice(t *testing.T, h *harness) {
	one, two := h.node(election.WithIdentity("a")), h.node(election.WithIdentity("a"))
	first := h.campaign(one, "one")
	second := h.campaign(two, "two")
	require.Equal(t, election.ErrDeleted, h.lostReason(h.ended(first)))
	again := h.stand(h.ctx, one, "one again", 2)
	h.awaitKeys("job/", 2)
	again.stillWaits()
	require.True(t, second.Valid())
	h.resign(second)
	h.resign(again.success())
	h.nothingLeft()
}
