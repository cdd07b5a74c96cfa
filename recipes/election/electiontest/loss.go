package electiontest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/election"
)

const (
	// noticedWithin is how soon a loss that the server tells of must be known. It
	// leaves room for a busy machine; a quiet one needs a few milliseconds.
	noticedWithin = 2 * time.Second
	// shortTTL is the shortest that etcd grants.
	shortTTL = 2 * time.Second
	// expiryWithin is how late a server may end a lease, on a busy machine.
	expiryWithin = 5 * time.Second
)

// A key that somebody deletes ends the leadership at once, not when the session
// does.
func testKeyDeleted(t *testing.T, h *harness) {
	e := h.node()
	l := h.campaign(e, "me")
	begin := time.Now()
	_, err := h.c.Delete(h.ctx, l.Key())
	require.NoError(t, err)
	cause := h.ended(l)
	took := time.Since(begin)
	t.Logf("noticed after %v", took)
	require.Less(t, took, noticedWithin)
	require.Equal(t, election.ErrDeleted, h.lostReason(cause))
	var lost *election.LostError
	require.ErrorAs(t, cause, &lost)
	require.Equal(t, l.Term(), lost.Term)
	require.Equal(t, "job", lost.Name)
	require.WithinRange(t, lost.At, begin, time.Now())
	require.False(t, l.Valid())

	// It can lead again, before the old handle is let go.
	again := h.campaign(e, "me")
	require.ErrorIs(t, l.Resign(h.ctx), election.ErrLost)
	require.True(t, again.Valid())
	h.resign(again)
	h.nothingLeft()
}

// The record belongs to the candidacy: who loses it does not stand on.
func testRecordDeleted(t *testing.T, h *harness) {
	l := h.campaign(h.node(), "me")
	res, err := h.c.Delete(h.ctx, "job.prio/", client.Prefix())
	require.NoError(t, err)
	require.EqualValues(t, 1, res.Deleted)
	require.Equal(t, election.ErrDeleted, h.lostReason(h.ended(l)))
	h.nothingLeft()
}

func testSessionClosed(t *testing.T, h *harness) {
	c := h.client(client.Config{})
	s := h.session(c)
	e := election.New[string](c, "job", election.WithSession(s))
	l := h.campaign(e, "me")
	next := h.stand(h.ctx, h.node(), "next", 2)
	require.NoError(t, s.Close(h.ctx))
	require.ErrorIs(t, h.lostReason(h.ended(l)), client.ErrSessionClosed)
	require.ErrorIs(t, l.Resign(h.ctx), client.ErrSessionClosed)
	h.resign(next.success())
	_, err := e.Campaign(h.ctx, "me")
	require.ErrorIs(t, err, election.ErrLost)
	require.ErrorIs(t, err, client.ErrSessionClosed)
}

// The process of the leader dies: the next one leads when the lease has ended,
// and the leader, should it live, has ceased to believe in itself before.
func testProcessDies(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	c := h.client(client.Config{Dialer: link.Dial, SessionTTL: shortTTL})
	dead := h.campaign(election.New[string](c, "job"), "dead")
	next := h.stand(h.ctx, h.node(), "next", 2)
	begin := time.Now()
	restore := link.Down()
	l := next.success()
	took := time.Since(begin)
	require.False(t, dead.Valid(), "two leaders at once")
	t.Logf("the next one led after %v; the TTL is %v", took, shortTTL)
	require.Less(t, took, shortTTL+expiryWithin)
	require.ErrorIs(t, h.lostReason(h.ended(dead)), client.ErrSessionLost)
	require.Greater(t, l.Term(), dead.Term())
	restore()
	_, err := dead.Txn().Then(client.OpPut("state", nil)).Commit(h.ctx)
	require.ErrorIs(t, err, election.ErrLost)
	h.resign(l)
}

// A candidate whose session has ended while it waited must not be found the
// leader when the one before it leaves: it was, and for twelve hours two
// replicas of one database were primaries.
func testPhantom(t *testing.T, h *harness) {
	first := h.campaign(h.node(), "first")
	c := h.client(client.Config{})
	s := h.session(c)
	zombie := h.stand(h.ctx, election.New[string](c, "job", election.WithSession(s)), "zombie", 2)
	behind := h.stand(h.ctx, h.node(), "behind", 3)
	local := start(h, func() (*leadership, error) {
		return election.New[string](c, "job", election.WithSession(s)).Campaign(h.ctx, "local")
	})
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	require.ErrorIs(t, zombie.failure(), election.ErrLost)
	require.ErrorIs(t, local.failure(), election.ErrLost, "one that waited for its turn in that process")
	behind.stillWaits()
	h.resign(first)
	h.resign(behind.success())
	h.nothingLeft()
}

// The key of a candidate that waits is deleted: it is told, and can stand again.
func testLostWhileCampaigning(t *testing.T, h *harness) {
	first := h.campaign(h.node(), "first")
	e := h.node()
	waiter := h.stand(h.ctx, e, "waiter", 2)
	kvs := h.awaitKeys("job/", 2)
	_, err := h.c.Delete(h.ctx, kvs[1].Key)
	require.NoError(t, err)
	require.Equal(t, election.ErrDeleted, h.lostReason(waiter.failure()))
	again := h.stand(h.ctx, e, "again", 2)
	h.resign(first)
	h.resign(again.success())
}

// A key under our name that is not ours, such as one from a session that is
// about to end, is not taken for ours.
func testForeignKey(t *testing.T, h *harness) {
	c := h.client(client.Config{})
	s := h.session(c)
	other := h.session(h.c)
	_, err := h.c.Put(h.ctx, "job/"+s.ID().String(), nil, client.WithLease(other.ID()))
	require.NoError(t, err)
	_, err = election.New[string](c, "job", election.WithSession(s)).Campaign(h.ctx, "me")
	require.ErrorIs(t, err, election.ErrConflict)
}

// The key of a waiter and the one before it are gone at the same time, and the
// waiter learns of the latter first: it must not think that its turn has come.
func testBothGoneUnseen(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	created := make(chan struct{}, 1)
	returned := make(chan struct{})
	w := clienttest.Wire{After: func(c *clienttest.Call, err error) {
		if c.Puts() && err == nil {
			created <- struct{}{}
		}
		if r, ok := c.Req.(*pb.RangeRequest); ok && len(r.RangeEnd) == 0 {
			<-returned // what the guard of its own key learns comes late
		}
	}}
	cfg := w.Config()
	cfg.Dialer = link.Dial
	c := h.client(cfg)
	_, err := c.Session(h.ctx)
	require.NoError(t, err)
	first := h.campaign(h.node(), "first")
	waiter := start(h, func() (*leadership, error) {
		return election.New[string](c, "job").Campaign(h.ctx, "waiter")
	})
	<-created
	restore := link.Down()
	_, err = h.c.Delete(h.ctx, "job", client.Prefix())
	require.NoError(t, err)
	h.compact()
	restore()
	err = waiter.failure()
	close(returned)
	require.Equal(t, election.ErrDeleted, h.lostReason(err))
	require.ErrorIs(t, h.ended(first), election.ErrLost)
}

// The caller gives up at the k-th request, whatever that is, for every k until
// none is left to give up at: nobody stands for it afterwards.
func testCancelAnywhere(t *testing.T, h *harness) {
	for k := 1; ; k++ {
		name := fmt.Sprintf("job%d", k)
		first := h.campaign(election.New[string](h.c, name), "first")
		ctx, cancel := context.WithCancel(h.ctx)
		reached := false
		var w clienttest.Wire
		w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
			if c.N == k {
				reached = true
				cancel()
			}
			return clienttest.Arrives
		})
		c := h.client(w.Config())
		waiter := start(h, func() (*leadership, error) { return election.New[string](c, name).Campaign(ctx, "waiter") })
		waiter.inLineOrDone(name+"/", 2)
		h.resign(first)
		l, err := waiter.wait()
		if err == nil {
			h.resign(l)
		} else {
			require.ErrorIs(t, err, context.Canceled)
		}
		h.awaitKeys(name, 0)
		require.NoError(t, c.Close())
		cancel()
		if !reached {
			require.NoError(t, err)
			t.Logf("%d requests", k-1)
			require.Greater(t, k, 3)
			return
		}
	}
}

// inLineOrDone waits until there are n keys below a prefix, or the call has
// returned.
func (a *task[T]) inLineOrDone(prefix string, n int) {
	ctx, cancel := context.WithCancel(a.h.ctx)
	defer cancel()
	go func() {
		select {
		case <-a.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		res, err := a.h.c.Get(a.h.ctx, prefix, client.Prefix())
		require.NoError(a.h.t, err)
		if len(res.KVs) == n {
			return
		}
		for range a.h.c.Watch(ctx, prefix, client.Prefix(), client.FromRevision(res.Revision+1)) {
			break
		}
	}
}

// The caller gives up while the create is under way: before it has reached the
// server, and after it was executed but before the answer came.
func testCancelInFlight(t *testing.T, h *harness) {
	const rounds = 50
	var cancel context.CancelFunc
	round, created := 0, 0
	// One round at a time: the slot is given back before the next one begins.
	w := clienttest.Wire{After: func(c *clienttest.Call, err error) {
		if c.Puts() && err == nil {
			created++
			cancel()
		}
	}}
	w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		if c.Puts() && round%2 == 0 {
			cancel()
		}
		return clienttest.Arrives
	})
	c := h.client(w.Config())
	_, err := c.Session(h.ctx)
	require.NoError(t, err)
	e := election.New[string](c, "job")
	for round = range rounds {
		var ctx context.Context
		ctx, cancel = context.WithCancel(h.ctx)
		_, err := e.Campaign(ctx, "me")
		cancel()
		require.ErrorIs(t, err, context.Canceled)
		h.nothingLeft()
		// This waits until the round's claim is undone: the slot is in use until then.
		h.resign(h.campaign(e, "me"))
	}
	require.Equal(t, 2*rounds, created, "every create was executed")
}

// One resigns while another goroutine campaigns on the same Election, and all
// that can be called is called: nothing races, nothing hangs.
func testResignWhileCampaigning(t *testing.T, h *harness) {
	e := h.node()
	for range 10 {
		l := h.campaign(e, "me")
		next := start(h, func() (*leadership, error) { return e.Campaign(h.ctx, "next") })
		looks := start(h, func() (leader, error) { return e.Leader(h.ctx) })
		proclaims := start(h, func() (any, error) { return nil, l.Proclaim(h.ctx, "still me") })
		resigns := start(h, func() (any, error) { return nil, l.Resign(h.ctx) })
		h.resign(l)
		resigns.success()
		h.resign(next.success())
		if _, err := proclaims.wait(); err != nil {
			require.ErrorIs(t, err, election.ErrLost)
		}
		if _, err := looks.wait(); err != nil {
			require.ErrorIs(t, err, election.ErrNoLeader)
		}
	}
	h.nothingLeft()
}
