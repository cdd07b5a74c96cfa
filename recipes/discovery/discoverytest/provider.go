package discoverytest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/discovery"
)

// awaitPickable waits until the provider has these instances.
func (h *harness) awaitPickable(p *discovery.Provider[tags], ids string, stale bool) {
	h.t.Helper()
	require.NoError(h.t, p.Wait(h.ctx, func(instances []instance, old bool) bool {
		return idsOf(instances) == ids && old == stale
	}))
}

func (h *harness) pick(p *discovery.Provider[tags]) string {
	h.t.Helper()
	in, done, err := p.Pick(h.ctx)
	require.NoError(h.t, err)
	done(nil)
	return in.ID
}

func testBalances(t *testing.T, h *harness) {
	p := discovery.NewProvider(h.client(client.Config{}), "api", discovery.RoundRobin[tags]())
	defer p.Close()
	_, _, err := p.Pick(h.ctx)
	require.ErrorIs(t, err, discovery.ErrNoInstance)
	a, b := h.register(h.c, at("a", "h:1")), h.register(h.c, instance{Service: "api", ID: "b", Addr: "h:2", Weight: 3})
	h.awaitPickable(p, "a b", false)
	count := make(map[string]int)
	for range 400 {
		count[h.pick(p)]++
	}
	require.Equal(t, map[string]int{"a": 100, "b": 300}, count)
	require.NoError(t, discovery.Drain(h.ctx, h.c, "api", "b"))
	h.awaitPickable(p, "a", false)
	h.close(a)
	h.awaitPickable(p, "b", false) // draining, and better than nothing
	h.close(b)
	h.awaitPickable(p, "", false) // all have said goodbye
	_, _, err = p.Pick(h.ctx)
	require.ErrorIs(t, err, discovery.ErrNoInstance)

	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	never := func([]instance, bool) bool { return false }
	require.ErrorIs(t, p.Wait(ctx, never), context.Canceled)
	p.Close()
	require.ErrorIs(t, p.Wait(h.ctx, never), discovery.ErrClosed)
}

// The cluster can not be reached: what was known is used.
func testUnreachable(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	c := h.client(client.Config{Dialer: link.Dial})
	r := h.register(h.c, at("a", "h:1"))
	p := discovery.NewProvider(c, "api", discovery.LeastLoaded[tags]())
	defer p.Close()
	require.Equal(t, "a", h.pick(p))
	restore := link.Down()
	for range 10 {
		require.Equal(t, "a", h.pick(p))
	}
	restore()
	other := h.register(h.c, at("b", "h:2"))
	h.awaitPickable(p, "a b", false)
	h.close(other)
	h.close(r)

	// Nothing was known yet: whoever picks waits, within his time.
	restore = link.Down()
	defer restore()
	late := discovery.NewProvider(c, "api", discovery.LeastLoaded[tags]())
	defer late.Close()
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	_, _, err := late.Pick(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// All instances lose their sessions at once: they are used until one is back.
func testAllLost(t *testing.T, h *harness) {
	c := h.client(client.Config{})
	s, err := c.NewSession(h.ctx)
	require.NoError(t, err)
	h.register(c, at("a", "h:1"), discovery.WithSession(s))
	h.register(c, at("b", "h:2"), discovery.WithSession(s))
	p := discovery.NewProvider(h.c, "api", discovery.RoundRobin[tags]())
	defer p.Close()
	h.pick(p)
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	h.awaitPickable(p, "a b", true)
	seen := make(map[string]bool)
	for range 10 {
		seen[h.pick(p)] = true
	}
	require.Equal(t, map[string]bool{"a": true, "b": true}, seen)
	r := h.register(h.c, at("c", "h:3"))
	h.awaitPickable(p, "c", false)
	h.close(r)
	h.awaitPickable(p, "a b", true) // they never said goodbye
}

func testProviderClosed(t *testing.T, h *harness) {
	p := discovery.NewProvider(h.c, "api", discovery.RoundRobin[tags]())
	p.Close()
	_, _, err := p.Pick(h.ctx)
	require.ErrorIs(t, err, discovery.ErrClosed)
	p.Close()
}
