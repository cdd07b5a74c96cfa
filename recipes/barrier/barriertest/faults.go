package barriertest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/barrier"
)

// mortal returns a process that dies at its k-th request after its session was made,
// before the server executes that or after, and a channel that is closed then.
func (h *harness) mortal(k int, executed bool) (*process, <-chan struct{}) {
	died := make(chan struct{})
	var p *process
	var w clienttest.Wire
	first := 0
	p = h.processOn(w.Config())
	first = w.Calls()
	w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		_, closing := c.Req.(*pb.LeaseRevokeRequest) // the end of the test is no request of the dead
		switch {
		case c.N-first < k || closing:
			return clienttest.Arrives
		case c.N-first == k:
			if executed {
				if _, err := c.Deliver(); err != nil && h.ctx.Err() == nil {
					h.t.Error(err)
				}
			}
			if err := h.c.Revoke(h.ctx, p.s.ID()); err != nil && h.ctx.Err() == nil {
				h.t.Error(err)
			}
			close(died)
		}
		return clienttest.RequestLost
	})
	return p, died
}

// round is one round of a double barrier; its result is how many were inside.
func (h *harness) round(p *process, name string, n int, policy barrier.LossPolicy) *call[int] {
	d := barrier.NewDouble(p.c, name, n, barrier.WithOnLoss(policy), barrier.WithSession(p.s))
	return start(h, func() (int, error) { return h.goThrough(h.ctx, d) })
}

func (h *harness) goThrough(ctx context.Context, d *barrier.Double) (int, error) {
	in, err := d.Enter(ctx)
	if err != nil {
		return 0, err
	}
	return in.Arrival().Parties, in.Leave(h.ctx)
}

// substitute takes the place of a member that may not be there. When the others are
// through without it, it goes, and its result is 0.
func (h *harness) substitute(name string, n int, policy barrier.LossPolicy, others ...*call[int]) *call[int] {
	ctx, cancel := context.WithCancel(h.ctx)
	d := barrier.NewDouble(h.c, name, n, barrier.WithOnLoss(policy))
	go func() {
		defer cancel()
		for _, o := range others {
			<-o.done
		}
	}()
	return start(h, func() (int, error) {
		n, err := h.goThrough(ctx, d)
		if errors.Is(err, context.Canceled) {
			return 0, nil
		}
		return n, err
	})
}

// leaveAll lets all that were let in leave, at once, and waits until they have.
func (h *harness) leaveAll(entered ...*call[*barrier.Inside]) {
	h.t.Helper()
	var leaving []*call[struct{}]
	for _, a := range entered {
		leaving = append(leaving, h.leave(a.success()))
	}
	for _, l := range leaving {
		l.success()
	}
}

// The caller gives up while he waits. No key is left, and for the others it is as if he
// had died.
func testCancelEnter(t *testing.T, h *harness) {
	for _, policy := range policies {
		name, opt := "job-"+policy.String(), barrier.WithOnLoss(policy)
		p := h.process()
		ctx, cancel := context.WithCancelCause(h.ctx)
		one := h.enter(h.process(), name, 3, opt)
		gone := start(h, func() (*barrier.Inside, error) { return barrier.NewDouble(p.c, name, 3, opt).Enter(ctx) })
		h.awaitKeys(name+"/g/m/", 2)
		why := errors.New("had enough")
		cancel(why)
		err := gone.failure()
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, why)
		switch policy {
		case barrier.Break:
			require.ErrorIs(t, one.failure(), barrier.ErrBroken)
			h.awaitKeys(name+"/", 0)
			continue
		case barrier.Wait:
			h.awaitKeys(name+"/g/m/", 1)
			h.enter(p, name, 3, opt)
		case barrier.Shrink:
			h.awaitKeys(name+"/g/m/", 1)
		}
		two := h.enter(p, name, 3, opt)
		require.Equal(t, one.success().Arrival().Members, two.success().Arrival().Members)
	}
}

// The caller gives up at the k-th request, whatever that is, for every k until none is
// left to give up at. Another member is waiting, and must not be let in by somebody who
// is not there.
func testCancelAnywhere(t *testing.T, h *harness) {
	for k := 1; ; k++ {
		name, opt := fmt.Sprintf("job%d", k), barrier.WithOnLoss(barrier.Wait)
		other := h.round(h.process(), name, 2, barrier.Wait)
		h.awaitKeys(name+"/g/m/", 1)
		ctx, cancel := context.WithCancel(h.ctx)
		var w clienttest.Wire
		reached := make(chan struct{})
		p := h.processOn(w.Config())
		first := w.Calls()
		w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
			if c.N-first == k {
				close(reached)
				cancel()
			}
			return clienttest.Arrives
		})
		_, err := h.goThrough(ctx, barrier.NewDouble(p.c, name, 2, opt))
		if err != nil {
			// Either it is gone without a trace, or it had been let in, and has left.
			require.ErrorIs(t, err, context.Canceled)
			h.substitute(name, 2, barrier.Wait, other).success()
		}
		require.Equal(t, 2, other.success())
		h.awaitKeys(name+"/", 0)
		cancel()
		select {
		case <-reached:
		default:
			require.NoError(t, err)
			require.Greater(t, k, 2)
			t.Logf("%d requests", k-1)
			return
		}
	}
}

// Every answer in turn is lost, and every request: rounds go on all the same, each
// member is counted once, and nothing stays behind.
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
			p := h.processOn(w.Config())
			h.everyKindOfCall(p)
			h.awaitKeys("job/", 0)
			h.awaitKeys("rounds/", 0)
			require.NoError(t, p.c.Close())
			if !lost {
				t.Logf("%d requests", k-1)
				require.Greater(t, k, 10)
				break
			}
		}
	}
}

// everyKindOfCall goes through a double barrier and two rounds of a cyclic one.
func (h *harness) everyKindOfCall(p *process) {
	h.t.Helper()
	ours := &process{h: h, c: h.c}
	ours.s, _ = h.c.Session(h.ctx)
	a, b := h.enter(ours, "job", 2), h.enter(p, "job", 2)
	one, two := a.success(), b.success()
	require.Equal(h.t, one.Arrival().Members, two.Arrival().Members)
	l := h.leave(one)
	require.NoError(h.t, two.Leave(h.ctx))
	l.success()

	runs := 0 // the barrier protects it
	act := barrier.WithAction(func(context.Context, *barrier.Trip) error { runs++; return nil })
	mine, theirs := h.joinCyclic(ours, "rounds", 2, act), h.joinCyclic(p, "rounds", 2, act)
	for range 2 {
		c := h.awaitTrip(mine)
		got, err := theirs.Await(h.ctx)
		require.NoError(h.t, err)
		require.Equal(h.t, 2, got.Parties)
		c.success()
	}
	require.Equal(h.t, 2, runs)
	require.NoError(h.t, errors.Join(mine.Leave(h.ctx), theirs.Leave(h.ctx)))
}

// The request that makes a member is lost, and its caller gives up; it arrives when
// nobody knows of it any more. It must not make a member that does not exist.
func testEnterLate(t *testing.T, h *harness) {
	for _, abandon := range []bool{true, false} {
		name, opt := fmt.Sprintf("job-%t", abandon), barrier.WithOnLoss(barrier.Wait)
		other := h.enter(h.process(), name, 2, opt)
		h.awaitKeys(name+"/g/m/", 1)
		ctx, cancel := context.WithCancel(h.ctx)
		var late *clienttest.Call
		var w clienttest.Wire
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
		p := h.processOn(w.Config())
		in, err := barrier.NewDouble(p.c, name, 2, opt).Enter(ctx)
		if abandon {
			require.ErrorIs(t, err, context.Canceled)
			h.awaitKeys("latchkey.tx/"+p.s.ID().String(), 1) // it was found out what became of it
		} else {
			require.NoError(t, err)
			l := h.leave(in)
			h.leaveAll(other)
			l.success()
		}
		resp, err := late.Deliver()
		require.NoError(t, err)
		require.False(t, resp.(*pb.TxnResponse).Succeeded)
		cancel()
		if abandon {
			other.stillWaits()
			last := h.enter(h.process(), name, 2, opt)
			h.leaveAll(other, last)
		}
		h.awaitKeys(name+"/", 0)
	}
}

// The answer to the arrival of the last one to leave is lost; when the request is repeated,
// somebody else has seen that all have left, and the member's key is gone with the
// generation: it has left, and was not lost.
func testLeaveAnswerLost(t *testing.T, h *harness) {
	l := clienttest.NewLink()
	var w clienttest.Wire
	cfg := w.Config()
	cfg.Dialer = l.Dial
	p, q, next := h.processOn(cfg), h.process(), h.process()
	a, b := h.enter(p, "job", 2), h.enter(q, "job", 2)
	in, other := a.success(), b.success()
	left := h.leave(other)
	h.awaitKeys("job/g/a/", 1)
	lost := false
	ctx, cancel := context.WithCancel(h.ctx)
	var early *call[*barrier.Inside]
	w.Before(func(_ context.Context, c *clienttest.Call) clienttest.Fate {
		if lost || !c.Puts() {
			return clienttest.Arrives
		}
		lost = true
		if _, err := c.Deliver(); err != nil {
			t.Error(err)
		}
		restore := l.Down() // so that the watch is not the first to tell
		early = start(h, func() (*barrier.Inside, error) { return barrier.NewDouble(next.c, "job", 2).Enter(ctx) })
		<-left.done
		restore()
		return clienttest.RequestLost
	})
	require.NoError(t, in.Leave(h.ctx))
	left.success()
	require.True(t, lost)
	cancel()
	require.ErrorIs(t, early.failure(), context.Canceled)
	h.awaitKeys("job/", 0)
}

// The network breaks again and again in the middle of rounds: nothing is lost as long as
// the sessions live.
func testNetworkCut(t *testing.T, h *harness) {
	const members, rounds = 3, 8
	l := clienttest.NewLink()
	cuts := 0
	var parties []*barrier.Party
	for range members {
		parties = append(parties, h.joinCyclic(h.processOn(client.Config{Dialer: l.Dial}), "job", members))
	}
	for round := range rounds {
		var awaits []*call[barrier.Arrival]
		for i, p := range parties {
			awaits = append(awaits, h.awaitTrip(p))
			if i == round%members {
				cuts += l.Cut()
			}
		}
		cuts += l.Cut()
		for _, a := range awaits {
			got := a.success()
			require.Equal(t, uint64(round), got.Generation)
			require.Equal(t, members, got.Parties)
		}
	}
	require.Greater(t, cuts, rounds, "connections that were cut")
}
