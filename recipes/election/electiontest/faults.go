package electiontest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/election"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// Every answer in turn is lost, and every request: all works the same, and
// nothing stays behind.
func testEveryAnswerDropped(t *testing.T, h *harness) {
	for _, f := range []clienttest.Fate{clienttest.AnswerDropped, clienttest.RequestLost} {
		for k := 1; ; k++ {
			lost := false
			var w clienttest.Wire
			w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
				if c.N != k {
					return clienttest.Arrives
				}
				lost = true
				return f
			})
			c := h.client(w.Config())
			h.everyKindOfCall(c)
			h.nothingLeft()
			require.NoError(t, c.Close())
			if !lost {
				require.Less(t, w.Calls(), k)
				t.Logf("%d requests", k-1)
				require.Greater(t, k, 12)
				break
			}
		}
	}
}

// everyKindOfCall waits in line and passes its turn, leads, proclaims, looks,
// is asked to step down by itself, and hands over.
func (h *harness) everyKindOfCall(c *client.Client) {
	h.t.Helper()
	t, e := h.t, election.New[string](c, "job")
	first := h.campaign(election.New[string](h.c, "job"), "first")
	mine := h.stand(h.ctx, e, "mine", 2)
	strong := h.stand(h.ctx, h.node(election.WithPriority(1), election.WithIdentity("strong")), "strong", 3)
	h.resign(first)
	l := strong.success()
	h.awaitKeys("job/", 2)
	mine.stillWaits()
	h.resign(l)
	l = mine.success()

	require.NoError(t, l.Proclaim(h.ctx, "mine still"))
	now, err := e.Leader(h.ctx)
	require.NoError(t, err)
	require.Equal(t, "mine still", now.Value)
	require.Equal(t, l.Term(), now.Term)
	next := h.stand(h.ctx, h.node(election.WithIdentity("next")), "next", 2)
	asks := start(h, func() (any, error) { return nil, e.RequestStepDown(h.ctx, "enough") })
	require.Equal(t, "enough", h.asked(l).Reason)
	require.NoError(t, l.HandOver(h.ctx, "next"))
	asks.success()
	h.resign(next.success())

	reborn := election.New[string](c, "job", election.WithIdentity("me"))
	former := h.campaign(h.node(election.WithIdentity("me")), "former")
	l = h.campaign(reborn, "reborn")
	require.ErrorIs(t, h.ended(former), election.ErrLost)
	h.resign(l)
}

// A create arrives long after it was given up, when the leadership that its
// retry got is over: nobody stands for it for long.
func testCreateLate(t *testing.T, h *harness) {
	for _, abandon := range []bool{false, true} {
		var late *clienttest.Call
		var w clienttest.Wire
		ctx, cancel := context.WithCancel(h.ctx)
		w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
			if late != nil || !c.Puts() {
				return clienttest.Arrives
			}
			late = c
			if abandon {
				cancel()
			}
			return clienttest.RequestLost
		})
		c := h.client(w.Config())
		e := election.New[string](c, "job")
		l, err := e.Campaign(ctx, "me")
		if abandon {
			require.ErrorIs(t, err, context.Canceled)
			// The background gives the slot back after it has made sure.
			h.resign(h.campaign(e, "me"))
		} else {
			require.NoError(t, err)
			h.resign(l)
		}
		cancel()
		resp, err := late.Deliver()
		require.NoError(t, err)
		require.True(t, resp.(*pb.TxnResponse).Succeeded, "the keys were created late")
		h.nothingLeft()
		h.resign(h.campaign(h.node(), "other"))
		h.resign(h.campaign(e, "me"))
		require.NoError(t, c.Close())
	}
}

// A resignation arrives once more, late, when the session leads again: it names
// the term, and deletes nothing.
func testResignLate(t *testing.T, h *harness) {
	var late *clienttest.Call
	var w clienttest.Wire
	w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		if late != nil || !c.Deletes() {
			return clienttest.Arrives
		}
		late = c
		return clienttest.RequestLost
	})
	e := election.New[string](h.client(w.Config()), "job")
	old := h.campaign(e, "old")
	h.resign(old)
	l := h.campaign(e, "new")
	require.Equal(t, old.Key(), l.Key())
	resp, err := late.Deliver()
	require.NoError(t, err)
	require.False(t, resp.(*pb.TxnResponse).Succeeded)
	require.True(t, l.Valid())
	kvs := h.awaitKeys("job/", 1)
	require.Equal(t, l.Term(), fence.Token(kvs[0].CreateRevision))
	h.resign(l)
}

// History is compacted while one leads, others wait and watch: they look again,
// and nobody takes a compaction for an event.
func testCompacted(t *testing.T, h *harness) {
	l := h.campaign(h.node(), "first")
	waiter := h.stand(h.ctx, h.node(), "waiter", 2)
	o := h.observe(h.ctx, h.node())
	o.leads(l, "first")
	for range 5 {
		h.compact()
	}
	waiter.stillWaits()
	require.True(t, l.Valid())
	h.resign(l)
	l = waiter.success()
	o.leads(l, "waiter")
	_, err := h.c.Delete(h.ctx, l.Key())
	require.NoError(t, err)
	require.Equal(t, election.ErrDeleted, h.lostReason(h.ended(l)))
	o.vacant()
}

func testInvalidNames(t *testing.T, h *harness) {
	for _, name := range []string{"", "a/", "a//b", "a/read", "write", "g", "a/d"} {
		e := election.New[string](h.c, name)
		require.Equal(t, name, e.Name())
		_, err := e.Campaign(h.ctx, "x")
		require.ErrorIs(t, err, election.ErrName, "%q", name)
		_, err = e.Leader(h.ctx)
		require.ErrorIs(t, err, election.ErrName)
		_, err = e.Candidates(h.ctx)
		require.ErrorIs(t, err, election.ErrName)
		require.ErrorIs(t, e.RequestStepDown(h.ctx, ""), election.ErrName)
		require.ErrorIs(t, e.Run(h.ctx, "x", nil), election.ErrName)
		for _, err := range e.Observe(h.ctx) {
			require.ErrorIs(t, err, election.ErrName)
		}
	}
}

// Elections below one's name, and beside it, are others.
func testNested(t *testing.T, h *harness) {
	below := h.campaign(election.New[string](h.c, "job/eu"), "below")
	beside := h.campaign(election.New[string](h.c, "job.eu"), "beside")
	o := h.observe(h.ctx, h.node())
	o.vacant()
	for i := range 50 { // more than are read at first
		_, err := h.c.Put(h.ctx, "job/eu/x/"+string(rune('a'+i)), nil)
		require.NoError(t, err)
	}
	l := h.campaign(h.node(), "me")
	o.leads(l, "me")
	line, err := h.node().Candidates(h.ctx)
	require.NoError(t, err)
	require.Len(t, line, 1)
	h.resign(l)
	o.vacant()
	h.resign(below)
	h.resign(beside)
}

func testConflicts(t *testing.T, h *harness) {
	for key, recipe := range map[string]string{
		"job/read/1": "read-write lock", "job/g/1/m/1": "barrier", "job/1f.0": "semaphore", "job/xyz": "unknown",
	} {
		_, err := h.c.Put(h.ctx, key, nil)
		require.NoError(t, err)
		_, err = h.node().Campaign(h.ctx, "me")
		require.ErrorIs(t, err, election.ErrConflict, key)
		var conflict *election.ConflictError
		require.ErrorAs(t, err, &conflict)
		require.Equal(t, key, conflict.Key)
		require.Equal(t, recipe, conflict.Recipe)
		_, err = h.c.Delete(h.ctx, key)
		require.NoError(t, err)
		h.nothingLeft()
	}
}
