package locktest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// Programs that disagree about the limit hear of it, until somebody sets it.
func testLimitConflict(t *testing.T, h *harness) {
	_, err := h.sem(0).Acquire(h.ctx, 1)
	require.ErrorIs(t, err, lock.ErrLimitConflict, "nobody has said what it is")
	require.ErrorContains(t, err, "no limit yet")
	p := h.permits(h.sem(2), 1)
	for what, err := range map[string]error{
		"Acquire":    second(h.sem(3).Acquire(h.ctx, 1)),
		"TryAcquire": second(h.sem(3).TryAcquire(h.ctx, 1)),
		"barging":    second(h.sem(3, lock.WithBarging()).Acquire(h.ctx, 1)),
	} {
		require.ErrorIs(t, err, lock.ErrLimitConflict, what)
		var limit *lock.LimitError
		require.ErrorAs(t, err, &limit, what)
		require.Equal(t, lock.LimitError{Name: "job", Wanted: 3, Stored: 2}, *limit, what)
	}
	h.awaitKeys("job/", 1)
	gone(h, h.permits(h.sem(0), 1), p)

	// Nobody is there any more, and neither is the limit.
	h.awaitKeys("job", 0)
	gone(h, h.permits(h.sem(3), 3))

	// A limit that was set stays.
	require.NoError(t, h.sem(0).SetLimit(h.ctx, 4))
	p = h.permits(h.sem(2), 1)
	q, err := h.sem(3).TryAcquire(h.ctx, 3)
	require.NoError(t, err)
	_, err = h.sem(2).TryAcquire(h.ctx, 1)
	require.ErrorIs(t, err, lock.ErrHeld)
	gone(h, p, q)
	h.awaitKeys("job", 1)
	gone(h, h.permits(h.sem(0), 4))
}

// A limit below what is out takes nothing away, and nobody else gets in until
// enough is back.
func testLimitLowered(t *testing.T, h *harness) {
	s := h.sem(3)
	held := []*lock.Permit{h.permits(s, 1), h.permits(s, 1), h.permits(h.sem(3), 1)}
	require.NoError(t, s.SetLimit(h.ctx, 1))
	w := h.want(h.sem(3), 1, 1)
	next := h.want(h.sem(3), 1, 2)
	for i, p := range held {
		require.NoError(t, p.Check(h.ctx))
		require.True(t, p.Valid())
		info, err := s.Inspect(h.ctx)
		require.NoError(t, err)
		require.Equal(t, int64(1), info.Limit)
		require.Equal(t, int64(len(held)-i), info.Used)
		w.stillWaits()
		gone(h, p)
	}
	p := w.success()
	next.stillWaits()
	gone(h, p)
	gone(h, next.success())
}

// A larger limit lets those in who wait, in order.
func testLimitRaised(t *testing.T, h *harness) {
	s := h.sem(1)
	p := h.permits(s, 1)
	var waiters []*pending[*lock.Permit]
	for i := range 3 {
		waiters = append(waiters, h.want(h.sem(1), 1, i+1))
	}
	require.NoError(t, s.SetLimit(h.ctx, 3))
	first, second := waiters[0].success(), waiters[1].success()
	h.awaitWaiters(1)
	waiters[2].stillWaits()
	h.permitsOut(3)
	gone(h, first, second, p)
	gone(h, waiters[2].success())
}

func testLimitPauses(t *testing.T, h *harness) {
	s := h.sem(2)
	p := h.permits(s, 1)
	require.NoError(t, s.SetLimit(h.ctx, 0))
	w := h.want(h.sem(2), 2, 1)
	_, err := s.TryAcquire(h.ctx, 1)
	require.ErrorIs(t, err, lock.ErrHeld)
	require.True(t, p.Valid())
	gone(h, p)
	h.permitsOut(0)
	w.stillWaits()
	require.NoError(t, s.SetLimit(h.ctx, 2))
	gone(h, w.success())

	// The limit is lowered below what somebody waits for, who would wait for ever.
	p = h.permits(s, 2)
	w = h.want(h.sem(2), 2, 1)
	require.NoError(t, s.SetLimit(h.ctx, 1))
	require.ErrorIs(t, w.failure(), lock.ErrPermits)
	gone(h, p)
	h.awaitKeys("job/", 0)
}

func testNumbers(t *testing.T, h *harness) {
	s := h.sem(2)
	for _, n := range []int64{0, -1, 3, 1 << 41} {
		_, err := s.Acquire(h.ctx, n)
		require.ErrorIs(t, err, lock.ErrPermits, "%d", n)
		_, err = s.TryAcquire(h.ctx, n)
		require.ErrorIs(t, err, lock.ErrPermits, "%d", n)
	}
	h.awaitKeys("job/", 0)
	for _, n := range []int64{-1, 1 << 41} {
		require.ErrorIs(t, s.SetLimit(h.ctx, n), lock.ErrPermits)
		_, err := h.sem(n).Acquire(h.ctx, 1)
		require.ErrorIs(t, err, lock.ErrPermits)
	}
}

// The first that waits watches the holders, each other one the one before it.
func testSemaphoreHerd(t *testing.T, h *harness) {
	const waiters = 4
	s := h.sem(2)
	held := []*lock.Permit{h.permits(s, 1), h.permits(s, 1)}
	wires, looks := make([]wire, waiters), make([]*lookout, waiters)
	pendings := make([]*pending[*lock.Permit], waiters)
	var keys []string
	for i := range waiters {
		looks[i] = newLookout()
		c := h.client(looks[i].config(wires[i].config()))
		pendings[i] = h.want(lock.NewSemaphore(c, "job", 2), 1, i+1)
		keys = append(keys, h.awaitKeys("job/", i+3)[i+2].Key)
	}
	h.watches(looks[0], keys[0], h.holders())
	for i := 1; i < waiters; i++ {
		h.watches(looks[i], keys[i], keys[i-1])
	}
	before := []int{wires[2].calls(), wires[3].calls()}
	gone(h, held[0])
	p := pendings[0].success()
	h.watches(looks[1], keys[1], h.holders()) // now it is the first
	require.Equal(t, before, []int{wires[2].calls(), wires[3].calls()}, "nobody else was woken")
	h.watches(looks[2], keys[2], keys[1])
	h.watches(looks[3], keys[3], keys[2])
	gone(h, held[1], p)
	for _, w := range pendings[1:] {
		gone(h, w.success())
	}
}

// What a waiter waits for happens while it can not see it, and is compacted before
// it can.
func testSemaphoreCompacted(t *testing.T, h *harness) {
	p := h.permits(h.sem(1), 1)
	l := clienttest.NewLink()
	look := newLookout()
	c := h.client(look.config(client.Config{Dialer: l.Dial}))
	w := h.want(lock.NewSemaphore(c, "job", 1), 1, 1)
	h.watches(look, h.awaitKeys("job/", 2)[1].Key, h.holders())
	restore := l.Down()
	gone(h, p)
	res, err := h.c.Put(h.ctx, "other", nil)
	require.NoError(t, err)
	require.NoError(t, h.c.Compact(h.ctx, res.Revision))
	restore()
	gone(h, w.success())
}

func testSemaphoreNames(t *testing.T, h *harness) {
	for _, name := range []string{"", "/", "a/", "a//b", "a/read", "write", "x/g", "d"} {
		s := lock.NewSemaphore(h.c, name, 1)
		require.ErrorIs(t, second(s.Acquire(h.ctx, 1)), lock.ErrName, "%q", name)
		require.ErrorIs(t, second(s.TryAcquire(h.ctx, 1)), lock.ErrName, "%q", name)
		require.ErrorIs(t, second(s.Inspect(h.ctx)), lock.ErrName, "%q", name)
		require.ErrorIs(t, s.SetLimit(h.ctx, 1), lock.ErrName, "%q", name)
	}
	// Nested names have nothing to do with it.
	for i := range 20 {
		_, err := h.c.Put(h.ctx, fmt.Sprintf("job/a%d/f%d", i, i), nil)
		require.NoError(t, err)
	}
	below := h.permits(lock.NewSemaphore(h.c, "job/a", 1), 1)
	p := h.permits(h.sem(2), 1)
	q, err := h.sem(2).TryAcquire(h.ctx, 1)
	require.NoError(t, err)
	_, err = h.sem(2).TryAcquire(h.ctx, 1)
	require.ErrorIs(t, err, lock.ErrHeld)
	gone(h, p, q, below)

	// Another recipe uses the name.
	held, err := lock.New(h.c, "mutex").Acquire(h.ctx)
	require.NoError(t, err)
	writer, err := lock.NewRW(h.c, "rw").Lock(h.ctx)
	require.NoError(t, err)
	for _, name := range []string{"mutex", "rw"} {
		s := lock.NewSemaphore(h.c, name, 1)
		for what, err := range map[string]error{
			"Acquire":    second(s.Acquire(h.ctx, 1)),
			"TryAcquire": second(s.TryAcquire(h.ctx, 1)),
			"Inspect":    second(s.Inspect(h.ctx)),
		} {
			require.ErrorIs(t, err, lock.ErrConflict, "%s of %s", what, name)
		}
		h.awaitKeys(name+"/", 1)
	}
	gone(h, held)
	gone(h, writer)
	p = h.permits(h.sem(2), 1)
	require.ErrorIs(t, second(lock.New(h.c, "job").Acquire(h.ctx)), lock.ErrConflict)
	gone(h, p)
}

func testSemaphoreInspect(t *testing.T, h *harness) {
	s := h.sem(3, lock.WithOwner("one"))
	info, err := s.Inspect(h.ctx)
	require.NoError(t, err)
	require.Empty(t, info.Holders)
	require.Zero(t, info.Limit)
	p, q := h.permits(s, 1), h.permits(h.sem(3, lock.WithOwner("two")), 1)
	w := h.want(h.sem(3, lock.WithOwner("three")), 3, 1)
	kvs := h.awaitKeys("job/", 3)
	info, err = s.Inspect(h.ctx)
	require.NoError(t, err)
	who := func(i int, owner string, n int64) lock.Contender {
		return lock.Contender{Key: kvs[i].Key, Lease: kvs[i].Lease, Token: fence.Token(kvs[i].CreateRevision), Owner: owner, Permits: n}
	}
	require.Equal(t, []lock.Contender{who(0, "one", 1), who(1, "two", 1)}, info.Holders)
	require.Equal(t, []lock.Contender{who(2, "three", 3)}, info.Waiters)
	require.Equal(t, "job", info.Name)
	require.Equal(t, int64(3), info.Limit)
	require.Equal(t, int64(2), info.Used)
	require.False(t, info.More)
	gone(h, p, q)
	gone(h, w.success())
}

// One that waits does not see that it could have got in, another gets in behind it,
// and then the limit is lowered, and raised: the permits of the other count, though
// it came later.
func testLimitUnseen(t *testing.T, h *harness) {
	first := h.permits(h.sem(5), 3)
	l := clienttest.NewLink()
	looked := make(chan struct{}, 100)
	wire := wire{after: func(*call, error) { looked <- struct{}{} }}
	cfg := wire.config()
	cfg.Dialer = l.Dial
	look := newLookout()
	w := h.want(lock.NewSemaphore(h.client(look.config(cfg)), "job", 5), 3, 1)
	h.watches(look, h.awaitKeys("job/", 2)[1].Key, h.holders())
	restore := l.Down()
	require.NoError(t, first.Shrink(h.ctx, 1))
	behind := h.permits(h.sem(5), 1)
	require.NoError(t, h.sem(0).SetLimit(h.ctx, 3))
	require.NoError(t, h.sem(0).SetLimit(h.ctx, 4))
	for len(looked) > 0 {
		<-looked
	}
	restore()
	<-looked // at what there is now
	<-looked // and then at those behind it too
	h.permitsOut(2)
	w.stillWaits()
	gone(h, behind)
	gone(h, w.success(), first)
}
