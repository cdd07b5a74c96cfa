package discoverytest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/discovery"
)

// The caller gives up while the creation is under way, before or after it was
// executed: etcd's recipes leave a key behind that lives as long as the session.
func testCancelInFlight(t *testing.T, h *harness) {
	const rounds = 100
	var cancel context.CancelFunc
	executed := make(chan struct{}, 1)
	var w clienttest.Wire
	round := 0 // the background has made its request when the next one begins
	w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		if c.Puts() && round%2 == 0 {
			cancel()
		}
		return clienttest.Arrives
	})
	w.After = func(c *clienttest.Call, err error) {
		if c.Puts() && err == nil {
			cancel()
			executed <- struct{}{}
		}
	}
	c := h.client(w.Config())
	_, err := c.Session(h.ctx)
	require.NoError(t, err)
	for round = range rounds {
		var ctx context.Context
		ctx, cancel = context.WithCancel(h.ctx)
		r, err := discovery.Register(ctx, c, at("a", "h:1"))
		<-executed
		cancel()
		if err == nil { // the answer was faster than the news of the end
			h.close(r)
			<-executed // its goodbye
		} else {
			require.ErrorIs(t, err, context.Canceled)
		}
		h.awaitKeys("api/", 0)
	}
}

// The answer to the creation is lost, or the creation itself: the retry finds or
// makes the one key.
func testCreateDropped(t *testing.T, h *harness) {
	for _, fate := range []clienttest.Fate{clienttest.AnswerDropped, clienttest.RequestLost} {
		creates := 0
		var w clienttest.Wire
		w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
			if !c.Puts() {
				return clienttest.Arrives
			}
			if creates++; creates == 1 {
				return fate
			}
			return clienttest.Arrives
		})
		c := h.client(w.Config())
		r, err := discovery.Register(h.ctx, c, at("a", "h:1"))
		require.NoError(t, err)
		require.Equal(t, 2, creates)
		require.Equal(t, r.Key(), h.awaitKeys("api/", 1)[0].Key)
		h.close(r)
		h.awaitKeys("api/", 0)
		require.NoError(t, c.Close())
	}
}

// A creation arrives long after it was given up, when its registration is closed:
// the key is removed at once, not when the session ends.
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
		r, err := discovery.Register(ctx, c, at("a", "h:1"))
		if abandon {
			require.ErrorIs(t, err, context.Canceled)
		} else {
			require.NoError(t, err)
			h.close(r)
		}
		cancel()
		h.awaitKeys("api/", 0)
		resp, err := late.Deliver()
		require.NoError(t, err)
		require.True(t, resp.(*pb.TxnResponse).Succeeded, "the key was created late")
		h.awaitKeys("api/", 0)
		require.NoError(t, c.Close())
	}
}

// The deletion of a registration that was closed arrives once more, late, when
// another one has the id: it deletes nothing. (etcd's Unlock does.)
func testCloseLate(t *testing.T, h *harness) {
	var late *clienttest.Call
	var w clienttest.Wire
	w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		if late != nil || !c.Deletes() {
			return clienttest.Arrives
		}
		late = c
		return clienttest.RequestLost
	})
	c := h.client(w.Config())
	h.close(h.register(c, at("a", "h:1")))
	again := h.register(c, at("a", "h:1"))
	resp, err := late.Deliver()
	require.NoError(t, err)
	require.False(t, resp.(*pb.TxnResponse).Succeeded)
	require.Equal(t, "a", h.ids())
	require.True(t, again.Registered())
	h.close(again)
}

// Every answer in turn is lost, and every request: all is as if nothing had been.
func testEveryAnswerDropped(t *testing.T, h *harness) {
	for _, fate := range []clienttest.Fate{clienttest.AnswerDropped, clienttest.RequestLost} {
		for k := 1; ; k++ {
			lost := false
			var w clienttest.Wire
			w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
				if c.N != k {
					return clienttest.Arrives
				}
				lost = true
				return fate
			})
			c := h.client(w.Config())
			r := h.register(c, at("a", "h:1"), discovery.WithDrainTimeout(0))
			for range 3 {
				require.NoError(t, r.Update(h.ctx, func(in *instance) error { in.Weight++; return nil }))
			}
			s, err := discovery.List[tags](h.ctx, c, "api")
			require.NoError(t, err)
			require.EqualValues(t, 4, s.Instances[0].Weight, "each update once")
			require.NoError(t, r.Drain(h.ctx))
			h.close(r)
			h.awaitKeys("api/", 0)
			require.NoError(t, c.Close())
			if !lost {
				t.Logf("%d requests", k-1)
				require.Greater(t, k, 7)
				break
			}
		}
	}
}
