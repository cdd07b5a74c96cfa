package electiontest

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/election"
)

// request asks the leader to step down, on a goroutine of its own.
func (h *harness) request(ctx context.Context, reason string) *task[any] {
	e := h.node()
	return start(h, func() (any, error) { return nil, e.RequestStepDown(ctx, reason) })
}

// asked waits until the leader is asked to step down.
func (h *harness) asked(l *leadership) *election.StepDown {
	h.t.Helper()
	select {
	case s := <-l.StepDownRequested():
		return s
	case <-h.ctx.Done():
		h.t.Fatal("the leader was not asked")
		return nil
	}
}

// A leader in Run finishes, and the next in line leads; who asked waits for that.
func testStepDown(t *testing.T, h *harness) {
	a := h.run(h.ctx, h.node(election.WithPriority(5)), "a")
	now := a.lead()
	b := h.stand(h.ctx, h.node(), "b", 2)
	asks := h.request(h.ctx, "upgrade")
	var why *election.StepDown
	require.ErrorAs(t, h.stopped(now), &why)
	require.Equal(t, election.StepDown{Kind: election.ErrAsked, Reason: "upgrade"}, *why)
	require.ErrorIs(t, why, election.ErrAsked)
	require.True(t, now.l.Valid(), "it leads until its function has returned")
	asks.stillWaits()
	now.result <- context.Cause(now.ctx)
	asks.success()
	l := b.success()
	h.awaitKeys("job/", 2) // the first one stands again, with the higher priority
	require.True(t, l.Valid())
	h.resign(l)
	a.lead().result <- election.ErrStop
	a.success()
	h.nothingLeft()
}

// Who asks and gives up takes the request back. A leader by Campaign may do as it
// likes.
func testStepDownWithdrawn(t *testing.T, h *harness) {
	l := h.campaign(h.node(), "me")
	ctx, cancel := context.WithCancel(h.ctx)
	asks := h.request(ctx, "please")
	require.Equal(t, election.StepDown{Kind: election.ErrAsked, Reason: "please"}, *h.asked(l))
	h.awaitKeys("job.req/", 1)
	cancel()
	require.ErrorIs(t, asks.failure(), context.Canceled)
	h.awaitKeys("job.req/", 0)
	require.True(t, l.Valid())

	// Only the first request of a term is told; every one is answered.
	asks = h.request(h.ctx, "once more")
	h.awaitKeys("job.req/", 1)
	h.resign(l)
	asks.success()
	h.nothingLeft()
}

func testStepDownNotHeard(t *testing.T, h *harness) {
	e := h.node()
	require.ErrorIs(t, e.RequestStepDown(h.ctx, ""), election.ErrNoLeader)
	s := h.session(h.c)
	_, err := h.c.Put(h.ctx, "job/"+s.ID().String(), nil, client.WithLease(s.ID()))
	require.NoError(t, err)
	require.ErrorIs(t, e.RequestStepDown(h.ctx, ""), election.ErrUnheard)
	require.ErrorIs(t, e.RequestHandOver(h.ctx, "nobody", ""), election.ErrNoCandidate)
	h.awaitKeys("job.", 0)
}

// A request to a leader of old does not hit its successor.
func testStepDownLaterTerm(t *testing.T, h *harness) {
	first := h.campaign(h.node(), "first")
	old := fmt.Sprintf("job.req/%d/old", first.Term())
	next := h.stand(h.ctx, h.node(), "next", 2)
	h.resign(first)
	l := next.success()
	_, err := h.c.Put(h.ctx, old, []byte(`{"reason":"late"}`))
	require.NoError(t, err)
	asks := h.request(h.ctx, "in time")
	require.Equal(t, "in time", h.asked(l).Reason)
	h.resign(l)
	asks.success()
	_, err = h.c.Delete(h.ctx, old)
	require.NoError(t, err)
	h.nothingLeft()
}

// The request comes while the leader can not see it, and is compacted before it
// can: it looks again, and finds it.
func testStepDownCompacted(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	e := election.New[string](h.client(client.Config{Dialer: link.Dial}), "job")
	l := h.campaign(e, "me")
	restore := link.Down()
	asks := h.request(h.ctx, "please")
	h.awaitKeys("job.req/", 1)
	h.compact()
	restore()
	require.Equal(t, "please", h.asked(l).Reason)
	h.resign(l)
	asks.success()
	h.nothingLeft()
}

// id returns the ID of the n-th in line.
func (h *harness) id(n int) string {
	h.t.Helper()
	line, err := h.node().Candidates(h.ctx)
	require.NoError(h.t, err)
	return line[n].ID
}

// The one that is named leads next, before those who came earlier and those who
// have a higher priority; then the line goes on.
func testHandOver(t *testing.T, h *harness) {
	o := h.observe(h.ctx, h.node())
	o.vacant()
	a := h.campaign(h.node(), "a")
	o.leads(a, "a")
	b := h.stand(h.ctx, h.node(election.WithPriority(7)), "b", 2)
	c := h.stand(h.ctx, h.node(), "c", 3)
	d := h.stand(h.ctx, h.node(election.WithIdentity("node-d")), "d", 4)
	require.NoError(t, a.HandOver(h.ctx, "node-d"))
	require.Equal(t, election.ErrResigned, h.ended(a))
	l := d.success()
	o.vacant()
	o.leads(l, "d")
	b.stillWaits()
	c.stillWaits()
	require.NoError(t, a.HandOver(h.ctx, "node-d"), "it is over, and stays so")
	h.awaitKeys("job/", 3)
	h.resign(l)
	h.resign(b.success())
	h.resign(c.success())
	h.nothingLeft()
}

func testHandOverRequest(t *testing.T, h *harness) {
	a := h.run(h.ctx, h.node(), "a")
	now := a.lead()
	b := h.stand(h.ctx, h.node(election.WithIdentity("b")), "b", 2)
	c := h.stand(h.ctx, h.node(), "c", 3)
	id := h.id(2)
	e := h.node()
	asks := start(h, func() (any, error) { return nil, e.RequestHandOver(h.ctx, id, "drain") })
	var why *election.StepDown
	require.ErrorAs(t, h.stopped(now), &why)
	require.Equal(t, election.StepDown{Kind: election.ErrAsked, Reason: "drain", To: id}, *why)
	now.result <- nil
	asks.success()
	l := c.success()
	h.awaitKeys("job/", 3)
	// Both others stand behind it now: one stands again, one has passed its turn.
	ids := []string{h.id(1), h.id(2)}
	require.NotContains(t, ids, id)
	require.NoError(t, l.HandOver(h.ctx, "b"))
	h.resign(b.success())
	a.lead().result <- election.ErrStop
	a.success()
	h.nothingLeft()
}

// One that does not stand can not be named; one that leaves is passed over.
func testHandOverGone(t *testing.T, h *harness) {
	a := h.campaign(h.node(election.WithIdentity("a")), "a")
	require.ErrorIs(t, a.HandOver(h.ctx, "nobody"), election.ErrNoCandidate)
	require.ErrorIs(t, a.HandOver(h.ctx, "a"), election.ErrNoCandidate, "not itself")
	require.True(t, a.Valid())

	b := h.stand(h.ctx, h.node(), "b", 2)
	ctx, cancel := context.WithCancel(h.ctx)
	c := h.stand(ctx, h.node(election.WithIdentity("c")), "c", 3)
	kvs := h.awaitKeys("job/", 3)
	require.NoError(t, a.HandOver(h.ctx, "c"))
	cancel()
	if l, err := c.wait(); err == nil { // it may have been faster
		h.resign(l)
	}
	h.resign(b.success())
	h.await("job/", func(left []client.KV) bool { return len(left) == 0 || left[0].Key != kvs[2].Key })
	h.nothingLeft()
}
