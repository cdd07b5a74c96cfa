package barriertest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/barrier"
)

// What a member waits for happens while it can not see it, and is compacted before it
// can: it looks again, and finds it. Be it that the last one has come, that one was lost,
// or that all have left.
func testCompacted(t *testing.T, h *harness) {
	l := clienttest.NewLink()
	p := h.processOn(client.Config{Dialer: l.Dial, SessionTTL: 30e9})
	dead := h.process()
	one, lost := h.enter(p, "job", 3), h.enter(dead, "job", 3)
	h.awaitKeys("job/g/m/", 2)
	_, err := p.c.GetOne(h.ctx, "job.gen") // it has its answer, as have those before this
	require.NoError(t, err)
	unseen := func(what func()) {
		restore := l.Down()
		what()
		h.forget()
		restore()
	}
	unseen(func() {})
	_, err = p.c.GetOne(h.ctx, "job.gen")
	require.NoError(t, err)
	one.stillWaits()
	unseen(dead.die)
	require.ErrorIs(t, one.failure(), barrier.ErrBroken)
	require.Error(t, lost.failure())

	q := h.process()
	two, first := h.enter(q, "job", 2, barrier.WithOnLoss(barrier.Wait)), h.enter(p, "job", 2, barrier.WithOnLoss(barrier.Wait))
	in, other := first.success(), two.success()
	waiting := h.leave(in)
	h.awaitKeys("job/g/a/", 1)
	unseen(func() { require.NoError(t, other.Leave(h.ctx)) })
	waiting.success()

	third := h.enter(p, "job", 2, barrier.WithOnLoss(barrier.Wait))
	h.awaitKeys("job/g/m/", 1)
	unseen(func() { other = h.enter(q, "job", 2, barrier.WithOnLoss(barrier.Wait)).success() })
	in = third.success()
	require.Equal(t, other.Token(), in.Token())

	unseen(func() {
		_, err := h.c.Delete(h.ctx, in.Key())
		require.NoError(t, err)
	})
	require.ErrorIs(t, h.ended(in.Context()), barrier.ErrDeleted)
}

// looksForKeys says that a call is the read of a process that has missed events, and looks
// which of its members' keys are there.
func looksForKeys(c *clienttest.Call) bool {
	r, ok := c.Req.(*pb.RangeRequest)
	return ok && r.KeysOnly
}

// A member's key is made and deleted, and that is compacted, all before the answer has come
// that it was made; the process looks which keys are there before it has that answer. The
// member is told.
func testCompactedBeforeKnown(t *testing.T, h *harness) {
	l := clienttest.NewLink()
	var w clienttest.Wire
	var once sync.Once
	created, looked, answer := make(chan struct{}), make(chan struct{}, 1), make(chan struct{})
	w.After = func(c *clienttest.Call, err error) {
		if err != nil {
			return
		}
		if looksForKeys(c) {
			select {
			case looked <- struct{}{}:
			default:
			}
		}
		if c.Puts() {
			once.Do(func() { close(created) })
			<-answer
		}
	}
	release := sync.OnceFunc(func() { close(answer) })
	defer release()
	cfg := w.Config()
	cfg.Dialer = l.Dial
	p := h.processOn(cfg)
	h.enter(h.process(), "job", 3, barrier.WithOnLoss(barrier.Wait))
	h.awaitKeys("job/g/m/", 1)
	one := h.enter(p, "job", 3, barrier.WithOnLoss(barrier.Wait))
	h.happened(created)
	restore := l.Down()
	_, err := h.c.Delete(h.ctx, "job/g/m/"+p.s.ID().String(), client.Prefix())
	require.NoError(t, err)
	h.forget()
	restore()
	h.happened(looked)
	one.stillWaits()
	release()
	require.ErrorIs(t, one.failure(), barrier.ErrDeleted)
}

// A process has missed events and looks which keys are there, and gets no answer for so
// long that a member can come meanwhile, whose key is deleted, and that compacted. The
// member is told, although nobody knew of it when the process began to look.
func testCompactedWhileLooking(t *testing.T, h *harness) {
	l := clienttest.NewLink()
	var w clienttest.Wire
	var once sync.Once
	var unheard atomic.Bool
	unheard.Store(true)
	looks := make(chan struct{})
	w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		if !looksForKeys(c) {
			return clienttest.Arrives
		}
		once.Do(func() { close(looks) })
		if unheard.Load() {
			return clienttest.RequestLost
		}
		return clienttest.Arrives
	})
	cfg := w.Config()
	cfg.Dialer = l.Dial
	p := h.processOn(cfg)
	first := h.joinCyclic(p, "job", 3, barrier.WithOnLoss(barrier.Wait))
	restore := l.Down()
	h.forget()
	h.forget() // beyond what the watch goes on from
	restore()
	h.happened(looks)
	second := h.joinCyclic(p, "job", 3, barrier.WithOnLoss(barrier.Wait))
	_, err := h.c.Delete(h.ctx, second.Key())
	require.NoError(t, err)
	h.forget()
	unheard.Store(false)
	require.ErrorIs(t, h.ended(second.Context()), barrier.ErrDeleted)
	require.NoError(t, first.Context().Err())
	require.ErrorIs(t, second.Leave(h.ctx), barrier.ErrDeleted)
	require.NoError(t, first.Leave(h.ctx))
}
