package barriertest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/barrier"
)

func testGate(t *testing.T, h *harness) {
	g := barrier.NewGate(h.c, "gate")
	require.NoError(t, g.Wait(h.ctx), "a gate that nobody holds is open")
	require.NoError(t, g.Open(h.ctx))
	require.NoError(t, g.Hold(h.ctx))
	first := h.awaitKeys("gate", 1)[0]
	require.NoError(t, g.Hold(h.ctx), "it is closed already")
	require.Equal(t, first.ModRevision, h.awaitKeys("gate", 1)[0].ModRevision, "and stays as it was")
	closed, err := g.Closed(h.ctx)
	require.NoError(t, err)
	require.True(t, closed)

	var waiters []*call[struct{}]
	for range 5 {
		waiters = append(waiters, start(h, none(barrier.NewGate(h.client(client.Config{}), "gate").Wait, h.ctx)))
	}
	ctx, cancel := context.WithCancel(h.ctx)
	gaveUp := start(h, none(g.Wait, ctx))
	cancel()
	require.ErrorIs(t, gaveUp.failure(), context.Canceled)
	for _, w := range waiters {
		w.stillWaits()
	}
	require.NoError(t, barrier.NewGate(h.client(client.Config{}), "gate").Open(h.ctx))
	for _, w := range waiters {
		w.success()
	}
	h.awaitKeys("gate", 0)
}

// A gate that is bound to a session opens with its end.
func testGateSession(t *testing.T, h *harness) {
	p := h.processOn(client.Config{SessionTTL: 2 * time.Second})
	g := barrier.NewGate(p.c, "gate", barrier.WithSession(p.s))
	require.NoError(t, g.Hold(h.ctx))
	w := start(h, none(barrier.NewGate(h.c, "gate").Wait, h.ctx))
	p.die()
	w.success()
	require.ErrorIs(t, h.ended(p.s.Context()), client.ErrSessionLost)
	require.ErrorIs(t, g.Hold(h.ctx), barrier.ErrLost)
}

// A hold and an opening whose answers are lost are repeated; the first ones, should they
// arrive late, neither close a gate that was opened since, nor open one that was closed.
func testGateLate(t *testing.T, h *harness) {
	for _, hold := range []bool{true, false} {
		var late *clienttest.Call
		var w clienttest.Wire
		g := barrier.NewGate(h.client(w.Config()), "gate")
		other := barrier.NewGate(h.c, "gate")
		if !hold {
			require.NoError(t, g.Hold(h.ctx))
		}
		w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
			if late == nil && (hold && c.Puts() || !hold && c.Deletes()) {
				late = c
				return clienttest.RequestLost
			}
			return clienttest.Arrives
		})
		if hold {
			require.NoError(t, g.Hold(h.ctx))
			require.NoError(t, other.Open(h.ctx))
		} else {
			require.NoError(t, g.Open(h.ctx))
			require.NoError(t, other.Hold(h.ctx))
		}
		resp, err := late.Deliver()
		require.NoError(t, err)
		require.False(t, resp.(*pb.TxnResponse).Succeeded)
		closed, err := other.Closed(h.ctx)
		require.NoError(t, err)
		require.Equal(t, !hold, closed)
		require.NoError(t, other.Open(h.ctx))
	}
}

// etcd's barrier watched from the revision of the key, not of the read, and so waited
// for an event that had passed: whatever else happens in between, a release is seen.
func testGateMissedEvent(t *testing.T, h *harness) {
	var w clienttest.Wire
	c := h.client(w.Config())
	g := barrier.NewGate(h.c, "gate")
	for _, others := range []int{0, 3} {
		require.NoError(t, g.Hold(h.ctx))
		for range others {
			_, err := h.c.Put(h.ctx, "other", nil)
			require.NoError(t, err)
		}
		opened := make(chan error, 1)
		w.After = func(c *clienttest.Call, _ error) {
			// The gate opens between the read and the watch of whoever waits.
			if _, read := c.Req.(*pb.RangeRequest); read {
				opened <- g.Open(h.ctx)
			}
		}
		require.NoError(t, barrier.NewGate(c, "gate").Wait(h.ctx))
		require.NoError(t, <-opened)
	}
}

// etcd's Wait returned without an error when its watch ended, be it by a compaction or
// because the client was closed.
func testGateCompacted(t *testing.T, h *harness) {
	l := clienttest.NewLink()
	c := h.client(client.Config{Dialer: l.Dial})
	g := barrier.NewGate(h.c, "gate")
	require.NoError(t, g.Hold(h.ctx))
	w := start(h, none(barrier.NewGate(c, "gate").Wait, h.ctx))
	restore := l.Down()
	h.forget()
	h.forget()
	restore()
	_, err := c.GetOne(h.ctx, "other")
	require.NoError(t, err)
	w.stillWaits()

	restore = l.Down()
	require.NoError(t, g.Open(h.ctx))
	h.forget()
	restore()
	w.success()

	require.NoError(t, g.Hold(h.ctx))
	other, err := client.New(client.Config{Endpoints: h.endpoints, Namespace: h.namespace})
	require.NoError(t, err)
	w = start(h, none(barrier.NewGate(other, "gate").Wait, h.ctx))
	require.NoError(t, other.Close())
	require.ErrorIs(t, w.failure(), client.ErrClosed)
	require.NoError(t, g.Open(h.ctx))
}
