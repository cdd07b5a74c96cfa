package barriertest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/barrier"
)

func (h *harness) register(p *barrier.Phaser) *barrier.Registered {
	h.t.Helper()
	g, err := p.Register(h.ctx)
	require.NoError(h.t, err)
	return g
}

func (h *harness) arrive(g *barrier.Registered) uint64 {
	h.t.Helper()
	phase, err := g.Arrive(h.ctx)
	require.NoError(h.t, err)
	return phase
}

func (h *harness) advance(p *barrier.Phaser, phase uint64) *call[uint64] {
	return start(h, func() (uint64, error) { return p.AwaitAdvance(h.ctx, phase) })
}

func testPhaser(t *testing.T, h *harness) {
	p := barrier.NewPhaser(h.c, "job")
	q := barrier.NewPhaser(h.client(client.Config{}), "job")
	one, two := h.register(p), h.register(q)
	require.Equal(t, uint64(0), h.arrive(one))
	require.Equal(t, uint64(0), h.arrive(one), "twice is once")
	waiting := h.advance(p, 0)
	waiting.stillWaits()

	// One more comes in the middle of the phase, and is waited for as well.
	three := h.register(p)
	require.Equal(t, uint64(0), h.arrive(two))
	waiting.stillWaits()
	require.Equal(t, uint64(0), h.arrive(three))
	require.Equal(t, uint64(1), waiting.success())
	phase, err := q.Phase(h.ctx)
	require.NoError(t, err)
	require.Equal(t, uint64(1), phase)

	// One goes: the others are all that is waited for.
	waiting = h.advance(q, 1)
	h.arrive(one)
	h.arrive(two)
	waiting.stillWaits()
	require.NoError(t, three.ArriveAndDeregister(h.ctx))
	require.Equal(t, uint64(2), waiting.success())
	require.ErrorIs(t, context.Cause(three.Context()), barrier.ErrLeft)
	_, err = three.Arrive(h.ctx)
	require.ErrorIs(t, err, barrier.ErrLeft)

	// The last ones go, which ends a phase, and the next begins when somebody comes.
	waiting = h.advance(q, 2)
	require.NoError(t, one.ArriveAndDeregister(h.ctx))
	waiting.stillWaits()
	require.NoError(t, two.ArriveAndDeregister(h.ctx))
	require.Equal(t, uint64(3), waiting.success())
	h.awaitKeys("job/", 0)
	again := h.register(q)
	require.Equal(t, uint64(3), h.arrive(again))
	require.Equal(t, uint64(4), h.advance(p, 3).success())
	require.NoError(t, again.ArriveAndDeregister(h.ctx))
}

// Who is not registered can wait, and a lost member is dealt with as the policy says.
func testPhaserObserver(t *testing.T, h *harness) {
	for _, policy := range []barrier.LossPolicy{barrier.Break, barrier.Shrink} {
		name := "job-" + policy.String()
		a, b := h.process(), h.process()
		observer := barrier.NewPhaser(h.c, name, barrier.WithOnLoss(policy))
		one := h.register(barrier.NewPhaser(a.c, name, barrier.WithOnLoss(policy)))
		two := h.register(barrier.NewPhaser(b.c, name, barrier.WithOnLoss(policy)))
		waiting := h.advance(observer, 0)
		h.arrive(one)
		waiting.stillWaits()
		b.die()
		h.died(two.Context())
		switch policy {
		case barrier.Break:
			require.ErrorIs(t, waiting.failure(), barrier.ErrBroken)
			require.ErrorIs(t, h.ended(one.Context()), barrier.ErrBroken)
		case barrier.Shrink:
			require.Equal(t, uint64(1), waiting.success())
		case barrier.Wait:
		}
	}
	_, err := barrier.NewPhaser(h.c, "job", barrier.WithOnLoss(barrier.Wait)).Register(h.ctx)
	require.ErrorIs(t, err, barrier.ErrPolicy)
}
