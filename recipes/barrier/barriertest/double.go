package barriertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/barrier"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// Several processes go through the barrier again and again: nobody begins before all
// have come, nobody goes on before all have finished, and all agree on who was there.
func testDoubleRounds(t *testing.T, h *harness) {
	const members, rounds = 5, 20
	var came, left [rounds]atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, members)
	arrivals := make([][]barrier.Arrival, members)
	for i := range members {
		p := h.process()
		wg.Go(func() {
			d := barrier.NewDouble(p.c, "job", members, barrier.WithMember(fmt.Sprint("m", i)))
			for round := range rounds {
				came[round].Add(1)
				in, err := d.Enter(h.ctx)
				if err == nil && came[round].Load() != members {
					err = errors.New("began too early")
				}
				if err == nil {
					arrivals[i] = append(arrivals[i], in.Arrival())
					left[round].Add(1)
					err = in.Leave(h.ctx)
				}
				if err == nil && left[round].Load() != members {
					err = errors.New("went on too early")
				}
				if err != nil {
					errs[i] = fmt.Errorf("member %d, round %d: %w", i, round, err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	for round := range rounds {
		seen := make(map[int]bool)
		first := arrivals[0][round]
		for i := range members {
			a := arrivals[i][round]
			require.Equal(t, fmt.Sprint("m", i), a.Members[a.Index])
			require.False(t, seen[a.Index])
			seen[a.Index] = true
			a.Index = first.Index
			require.Equal(t, first, a)
		}
		require.Equal(t, members, first.Parties)
		require.Equal(t, uint64(round), first.Generation)
		if round > 0 {
			require.Greater(t, first.Token, arrivals[0][round-1].Token)
		}
	}
	h.awaitKeys("job/", 0)
}

// More members than parties: etcd's barrier counted a waiter too many again and again
// until its stack was full, and Curator's let everybody in. Here each generation has as
// many as it should, and the others have theirs.
func testDoubleTooMany(t *testing.T, h *harness) {
	const parties, groups = 2, 4
	var mu sync.Mutex
	byGeneration := make(map[uint64]int)
	var wg sync.WaitGroup
	errs := make([]error, parties*groups)
	processes := []*process{h.process(), h.process(), h.process()}
	for i := range errs {
		d := barrier.NewDouble(processes[i%3].c, "job", parties)
		wg.Go(func() {
			in, err := d.Enter(h.ctx)
			if err == nil {
				mu.Lock()
				byGeneration[in.Arrival().Generation]++
				mu.Unlock()
				err = in.Leave(h.ctx)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Len(t, byGeneration, groups)
	for generation, n := range byGeneration {
		require.Equal(t, parties, n, "generation %d", generation)
	}
	h.awaitKeys("job/", 0)
}

// A fast member comes again while the others are still inside: it waits for them to
// leave and then for the next generation, and does them no harm. With etcd's recipe it
// got ErrTooManyClients, or was counted as one of the old round.
func testDoubleFastMember(t *testing.T, h *harness) {
	a, b := h.process(), h.process()
	fast, slow := h.enter(a, "job", 2), h.enter(b, "job", 2)
	in, slowIn := fast.success(), slow.success()
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	require.ErrorIs(t, in.Leave(ctx), context.Canceled)
	again := h.enter(a, "job", 2)
	h.await("job/g/a/", func(kvs []client.KV) bool { return len(kvs) == 1 })
	again.stillWaits()
	require.True(t, slowIn.Valid())
	require.NoError(t, slowIn.Leave(h.ctx))
	require.NoError(t, in.Leave(h.ctx))
	again.stillWaits()
	other := h.enter(b, "job", 2)
	first, second := again.success(), other.success()
	require.Equal(t, uint64(1), first.Arrival().Generation)
	require.Equal(t, first.Arrival().Members, second.Arrival().Members)
	h.leave(first)
	h.leave(second).success()
}

// Waiters whose connections break and come back are woken for nothing. Curator's then
// took one of them for all.
func testDoubleNeverEarly(t *testing.T, h *harness) {
	l := clienttest.NewLink()
	p := h.processOn(client.Config{Dialer: l.Dial})
	one, two := h.enter(p, "job", 3), h.enter(p, "job", 3)
	h.awaitKeys("job/g/m/", 2)
	cuts := 0
	for range 5 {
		cuts += l.Cut()
		_, err := p.c.GetOne(h.ctx, "job.gen")
		require.NoError(t, err)
		one.stillWaits()
		two.stillWaits()
	}
	require.GreaterOrEqual(t, cuts, 5)
	three := h.enter(h.process(), "job", 3)
	for _, a := range []*call[*barrier.Inside]{one, two, three} {
		h.leave(a.success())
	}
	h.awaitKeys("job/", 0)
}

// All members die inside. Nothing that they leave behind lets the next one pass: with
// Curator's recipe, its "ready" node does.
func testDoubleAllDie(t *testing.T, h *harness) {
	for _, policy := range policies {
		name := "job-" + policy.String()
		a, b := h.process(), h.process()
		one, two := h.enter(a, name, 2, barrier.WithOnLoss(policy)), h.enter(b, name, 2, barrier.WithOnLoss(policy))
		old := one.success().Arrival()
		two.success()
		a.die()
		b.die()
		next := h.enter(h.process(), name, 2, barrier.WithOnLoss(policy))
		h.awaitKeys(name+"/g/m/", 1)
		next.stillWaits()
		last := h.enter(h.process(), name, 2, barrier.WithOnLoss(policy))
		in := next.success()
		require.Greater(t, in.Arrival().Generation, old.Generation)
		require.Greater(t, in.Token(), old.Token)
		h.leave(in)
		h.leave(last.success()).success()
	}
}

// A member leaves, and does not wait for long: it gets its context's error, not an
// endless loop; it has left all the same, so the others need not wait for it; and it can
// go on waiting.
func testDoubleLeaveTimeout(t *testing.T, h *harness) {
	p := h.process()
	one, two := h.enter(p, "job", 2), h.enter(h.process(), "job", 2)
	in, other := one.success(), two.success()
	ctx, cancel := context.WithTimeout(h.ctx, 1)
	defer cancel()
	require.ErrorIs(t, in.Leave(ctx), context.DeadlineExceeded)
	require.ErrorIs(t, context.Cause(in.Context()), barrier.ErrLeft)
	waiting := h.leave(in)
	h.awaitKeys("job/g/a/", 1)
	waiting.stillWaits()
	require.NoError(t, other.Leave(h.ctx))
	waiting.success()
	require.NoError(t, in.Leave(h.ctx))
}

func testDoubleHandle(t *testing.T, h *harness) {
	type key struct{}
	p := h.process()
	d := barrier.NewDouble(p.c, "job", 1, barrier.WithMember("me"))
	ctx, cancel := context.WithCancel(context.WithValue(h.ctx, key{}, "value"))
	in, err := d.Enter(ctx)
	require.NoError(t, err)
	cancel()
	require.NoError(t, in.Context().Err(), "the context given to Enter bounds the waiting only")
	require.Equal(t, "value", in.Context().Value(key{}))
	token, ok := fence.FromContext(in.Context(), "job")
	require.True(t, ok)
	require.Equal(t, in.Token(), token)
	require.Equal(t, []string{"me"}, in.Arrival().Members)
	require.True(t, in.Valid())
	require.Equal(t, in.Key(), h.awaitKeys("job/g/m/", 1)[0].Key)

	res, err := in.Txn().If(client.Exists("nothing")).Then(client.OpPut("data", nil)).Commit(h.ctx)
	require.NoError(t, err)
	require.False(t, res.Succeeded, "a condition of one's own is a result")
	_, err = in.Txn().Then(client.OpPut("data", nil)).Commit(h.ctx)
	require.NoError(t, err)

	require.NoError(t, in.Leave(h.ctx))
	require.NoError(t, in.Leave(h.ctx))
	require.False(t, in.Valid())
	require.ErrorIs(t, context.Cause(in.Context()), barrier.ErrLeft)
	_, err = in.Txn().Then(client.OpPut("data", nil)).Commit(h.ctx)
	require.ErrorIs(t, err, barrier.ErrLost)
	h.awaitKeys("job/", 0)

	again, err := d.Enter(h.ctx)
	require.NoError(t, err)
	require.Greater(t, again.Token(), in.Token())
	require.NoError(t, again.Leave(h.ctx))
}

// A barrier of a thousand, which is far more than a transaction has room for.
func testDoubleThousand(t *testing.T, h *harness) {
	const members, perProcess = 1000, 250
	var calls []*call[*barrier.Inside]
	for range members / perProcess {
		p := h.process()
		for range perProcess {
			if len(calls) < members-1 {
				calls = append(calls, h.enter(p, "job", members))
			}
		}
	}
	h.awaitMany("job/g/m/", members-1)
	for _, a := range calls {
		a.stillWaits()
	}
	calls = append(calls, h.enter(h.process(), "job", members))
	indexes := make(map[int]bool)
	var leaving []*call[struct{}]
	for _, a := range calls {
		in := a.success()
		require.Equal(t, members, in.Arrival().Parties)
		require.Len(t, in.Arrival().Members, members)
		indexes[in.Arrival().Index] = true
		leaving = append(leaving, h.leave(in))
	}
	require.Len(t, indexes, members)
	for _, l := range leaving {
		l.success()
	}
	h.awaitKeys("job/", 0)
}

// awaitMany waits until there are n keys below a prefix, and does not read all of them
// each time.
func (h *harness) awaitMany(prefix string, n int64) {
	h.t.Helper()
	res, err := h.c.Get(h.ctx, prefix, client.Prefix(), client.CountOnly())
	require.NoError(h.t, err)
	have := res.Count
	if have == n {
		return
	}
	for ev, err := range h.c.Watch(h.ctx, prefix, client.Prefix(), client.FromRevision(res.Revision+1)) {
		require.NoError(h.t, err)
		switch {
		case ev.Created():
			have++
		case ev.Type == client.EventDelete:
			have--
		}
		if have == n {
			return
		}
	}
}
