package locktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// sem returns the semaphore on a client of its own.
func (h *harness) sem(limit int64, opts ...lock.Option) *lock.Semaphore {
	return lock.NewSemaphore(h.client(client.Config{}), "job", limit, opts...)
}

// permits acquires some at once.
func (h *harness) permits(s *lock.Semaphore, n int64) *lock.Permit {
	h.t.Helper()
	p, err := s.Acquire(h.ctx, n)
	return got(h, p, err)
}

// want begins to acquire permits, and returns when that is in the queue, and has
// said that it waits, as the w-th.
func (h *harness) want(s *lock.Semaphore, n int64, w int) *pending[*lock.Permit] {
	h.t.Helper()
	p := begin(h, func() (*lock.Permit, error) { return s.Acquire(h.ctx, n) })
	h.awaitWaiters(w)
	return p
}

// awaitWaiters waits until as many wait.
func (h *harness) awaitWaiters(n int) {
	h.t.Helper()
	s := lock.NewSemaphore(h.c, "job", 0)
	h.await("job/", func([]client.KV) bool {
		info, err := s.Inspect(h.ctx)
		require.NoError(h.t, err)
		return len(info.Waiters) == n
	})
}

func testPermits(t *testing.T, h *harness) {
	s := h.sem(3)
	a, b, c := h.permits(s, 1), h.permits(h.sem(3), 1), h.permits(s, 1)
	require.NotEqual(t, a.Key(), c.Key(), "both are of one session")
	w := h.want(s, 1, 1)
	w.stillWaits()
	gone(h, b)
	d := w.success()
	gone(h, a, c, d)
	h.awaitKeys("job/", 0)
}

// semWitness counts the permits that are out.
type semWitness struct {
	mu        sync.Mutex
	out, most int64 // protected by mu
}

func (w *semWitness) change(n int64) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out += n
	w.most = max(w.most, w.out)
	return w.out
}

// Many want, shrink and release at random, in line and barging.
func testSemaphoreExclusion(t *testing.T, h *harness) {
	const goroutines, rounds, limit = 12, 10, 5
	semaphores := []*lock.Semaphore{h.sem(limit), h.sem(limit), h.sem(limit, lock.WithBarging()), h.sem(0)}
	require.NoError(t, semaphores[0].SetLimit(h.ctx, limit))
	var w semWitness
	var wg sync.WaitGroup
	errs := make([]error, goroutines)
	for i := range goroutines {
		rnd := rand.New(rand.NewSource(int64(i)))
		wg.Go(func() {
			s := semaphores[i%len(semaphores)]
			for range rounds {
				errs[i] = errors.Join(errs[i], w.once(h.ctx, s, 1+rnd.Int63n(limit), limit))
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Greater(t, w.most, int64(2))
	h.awaitKeys("job/", 0)
}

func (w *semWitness) once(ctx context.Context, s *lock.Semaphore, n, limit int64) error {
	return s.Do(ctx, n, func(ctx context.Context, p *lock.Permit) error {
		out := w.change(n)
		if out > limit {
			return fmt.Errorf("%d permits are out", out)
		}
		if n > 1 {
			w.change(-1)
			n--
			if err := p.Shrink(ctx, n); err != nil {
				return err
			}
		}
		w.change(-n)
		return nil
	})
}

// Curator's semaphore takes the permits one by one: two that want two of two
// each have one, and wait for ever.
func testAllOrNothing(t *testing.T, h *harness) {
	const clients, rounds = 2, 30
	var wg sync.WaitGroup
	errs := make([]error, clients)
	for i := range clients {
		s := h.sem(2)
		wg.Go(func() {
			for range rounds {
				errs[i] = errors.Join(errs[i], s.Do(h.ctx, 2, func(ctx context.Context, _ *lock.Permit) error { return ctx.Err() }))
			}
		})
	}
	third := h.sem(2) // wants one, and gets it
	for range rounds {
		gone(h, h.permits(third, 1))
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}

// Who wants many is not overtaken by those who want few.
func testSemaphoreOrder(t *testing.T, h *harness) {
	s := h.sem(3)
	a, b := h.permits(s, 1), h.permits(s, 1)
	large := h.want(h.sem(3), 3, 1)
	small := h.want(h.sem(3), 1, 2) // there would be one
	last := h.want(h.sem(3), 1, 3)
	gone(h, a)
	h.permitsOut(1)
	large.stillWaits()
	small.stillWaits()
	gone(h, b)
	held := large.success()
	small.stillWaits()
	last.stillWaits()
	require.NoError(t, held.Shrink(h.ctx, 2))
	one := small.success()
	last.stillWaits()
	gone(h, held)
	gone(h, last.success(), one)
}

// holders is the range that the first in the queue watches.
func (h *harness) holders() string { return "job.limit to " + h.namespace + "job0" }

// permitsOut fails if other than n permits are out.
func (h *harness) permitsOut(n int64) {
	h.t.Helper()
	info, err := lock.NewSemaphore(h.c, "job", 0).Inspect(h.ctx)
	require.NoError(h.t, err)
	require.Equal(h.t, n, info.Used)
}

func testSemaphoreTry(t *testing.T, h *harness) {
	s, other := h.sem(3, lock.WithOwner("me")), h.sem(3)
	a, err := s.TryAcquire(h.ctx, 2) // creates the limit
	require.NoError(t, err)
	_, err = other.TryAcquire(h.ctx, 2)
	require.ErrorIs(t, err, lock.ErrHeld)
	var who *lock.HeldError
	require.ErrorAs(t, err, &who)
	require.Equal(t, a.Key(), who.Holder.Key)
	require.Equal(t, int64(2), who.Holder.Permits)
	h.awaitKeys("job/", 1)
	b, err := other.TryAcquire(h.ctx, 1)
	require.NoError(t, err)
	gone(h, a, b)
	c, err := s.TryAcquire(h.ctx, 3)
	require.NoError(t, err)
	gone(h, c)

	// There is one, but somebody waits.
	a = h.permits(s, 2)
	large := h.want(other, 3, 1)
	_, err = s.TryAcquire(h.ctx, 1)
	require.ErrorIs(t, err, lock.ErrHeld)
	gone(h, a)
	gone(h, large.success())
	h.awaitKeys("job/", 0)
}

// Who is barging does not stand in line: those who want few overtake it.
func testBarging(t *testing.T, h *harness) {
	s := h.sem(3, lock.WithBarging())
	a := h.permits(s, 2)
	look := newLookout()
	barging := lock.NewSemaphore(h.client(look.config(client.Config{})), "job", 3, lock.WithBarging())
	large := begin(h, func() (*lock.Permit, error) { return barging.Acquire(h.ctx, 2) })
	h.watches(look, h.holders())
	h.awaitKeys("job/", 1)
	b := h.permits(h.sem(3), 1)
	gone(h, a)
	c := large.success()
	ctx, cancel := context.WithCancel(h.ctx)
	second := begin(h, func() (*lock.Permit, error) { return barging.Acquire(ctx, 3) })
	gone(h, b)
	second.cancelled(cancel)
	gone(h, c)
	h.awaitKeys("job/", 0)
}

func testPermitHandle(t *testing.T, h *harness) {
	session := h.session(h.c, client.SessionTTL(20*time.Second))
	s := lock.NewSemaphore(h.c, "job", 3, lock.WithSession(session), lock.WithOwner("me"))
	p := h.permits(s, 2)
	require.Equal(t, "job", p.Name())
	require.Equal(t, int64(2), p.Permits())
	require.Contains(t, p.Key(), "job/"+session.ID().String()+".")
	kv, err := h.c.GetOne(h.ctx, p.Key())
	require.NoError(t, err)
	require.Equal(t, session.ID(), kv.Lease)
	require.JSONEq(t, `{"owner": "me", "permits": 2}`, string(kv.Value))
	limit, err := h.c.GetOne(h.ctx, "job.limit")
	require.NoError(t, err)
	require.JSONEq(t, `{"limit": 3}`, string(limit.Value))
	require.Zero(t, limit.Lease)
	require.True(t, p.Valid())
	require.Greater(t, p.Remaining(), 10*time.Second)
	_, fenced := fence.FromContext(p.Context(), "job")
	require.False(t, fenced, "tokens of permits are no fences")
	require.NoError(t, p.Check(h.ctx))
	_, err = p.Txn().Then(client.OpPut("data", []byte("1"))).Commit(h.ctx)
	require.NoError(t, err)
	_, err = h.c.Delete(h.ctx, p.Key())
	require.NoError(t, err)
	select {
	case <-p.Context().Done():
	case <-h.ctx.Done():
		t.Fatal("the loss was not noticed")
	}
	require.Equal(t, lock.ErrDeleted, lostReason(t, context.Cause(p.Context())))
	require.False(t, p.Valid())
	_, err = p.Txn().Then(client.OpPut("data", []byte("2"))).Commit(h.ctx)
	require.ErrorIs(t, err, lock.ErrLost)
	require.ErrorIs(t, p.Shrink(h.ctx, 1), lock.ErrLost)
	require.ErrorIs(t, p.Release(h.ctx), lock.ErrLost)

	p = h.permits(s, 1)
	gone(h, p)
	gone(h, p)
	require.ErrorIs(t, context.Cause(p.Context()), lock.ErrReleased)
}

func testSemaphoreDo(t *testing.T, h *harness) {
	s := h.sem(1)
	failed := errors.New("work failed")
	err := s.Do(h.ctx, 1, func(ctx context.Context, p *lock.Permit) error {
		require.True(t, p.Valid())
		_, fenced := fence.FromContext(ctx, "job")
		require.False(t, fenced)
		return failed
	})
	require.Equal(t, failed, err)
	h.awaitKeys("job/", 0)
	err = s.Do(h.ctx, 1, func(ctx context.Context, p *lock.Permit) error {
		if _, err := h.c.Delete(h.ctx, p.Key()); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	require.ErrorIs(t, err, lock.ErrLost)
	require.PanicsWithValue(t, "boom", func() {
		_ = s.Do(h.ctx, 1, func(context.Context, *lock.Permit) error { panic("boom") })
	})
	h.awaitKeys("job/", 0)
}

func testShrink(t *testing.T, h *harness) {
	s := h.sem(5)
	p := h.permits(s, 5)
	w := h.want(h.sem(5), 3, 1)
	require.NoError(t, p.Shrink(h.ctx, 3))
	require.Equal(t, int64(3), p.Permits())
	h.permitsOut(3)
	w.stillWaits()
	for _, n := range []int64{4, 0, -1} {
		require.ErrorIs(t, p.Shrink(h.ctx, n), lock.ErrPermits)
	}
	require.NoError(t, p.Shrink(h.ctx, 2))
	gone(h, w.success(), p)
}

// The session of one that waits ends: it is told, and those behind it go on.
func testSemaphoreWaiterSession(t *testing.T, h *harness) {
	s := h.session(h.client(client.Config{}))
	a := h.permits(h.sem(2), 1)
	large := h.want(h.sem(2, lock.WithSession(s)), 2, 1)
	small := h.want(h.sem(2), 1, 2)
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	require.ErrorIs(t, large.failure(), lock.ErrLost)
	gone(h, small.success(), a)
	_, err := lock.NewSemaphore(h.c, "job", 2, lock.WithSession(s)).Acquire(h.ctx, 1)
	require.ErrorIs(t, err, lock.ErrLost)
}

// The process of a holder dies without a word, which looks like a network that is
// down for good: its permits are back at most one TTL later.
func testPermitsAfterCrash(t *testing.T, h *harness) {
	const ttl = 2 * time.Second
	l := clienttest.NewLink()
	c := h.client(client.Config{Dialer: l.Dial, SessionTTL: ttl})
	crashed := h.permits(lock.NewSemaphore(c, "job", 1), 1)
	w := h.want(h.sem(1), 1, 1)
	restore := l.Down()
	defer restore() // so that the client can be closed
	start := time.Now()
	p := w.success()
	took := time.Since(start)
	t.Logf("after %v", took)
	// etcd raises a TTL that is shorter than its elections take, and looks for
	// leases to end twice a second.
	require.Less(t, took, ttl+2*time.Second)
	require.False(t, crashed.Valid(), "it had noticed before")
	require.ErrorIs(t, context.Cause(crashed.Context()), lock.ErrLost)
	gone(h, p)
}

func testSemaphoreCancel(t *testing.T, h *harness) {
	a := h.permits(h.sem(2), 1)
	ctx, cancel := context.WithCancel(h.ctx)
	s := h.sem(2)
	large := begin(h, func() (*lock.Permit, error) { return s.Acquire(ctx, 2) })
	h.awaitWaiters(1)
	small := h.want(h.sem(2), 1, 2)
	large.cancelled(cancel)
	gone(h, small.success(), a)
	h.awaitKeys("job/", 0)
}

// The caller gives up at the k-th request, for every k.
func testSemaphoreCancelAnywhere(t *testing.T, h *harness) {
	for _, opts := range [][]lock.Option{nil, {lock.WithBarging()}} {
		for k := 1; ; k++ {
			holder := h.permits(lock.NewSemaphore(h.c, "job", 3), 2)
			ctx, cancel := context.WithCancel(h.ctx)
			reached := false
			w := wire{before: func(_ context.Context, c *call) fate {
				if c.n == k {
					reached = true
					cancel()
				}
				return arrives
			}}
			look := newLookout()
			c := h.client(look.config(w.config()))
			p := begin(h, func() (*lock.Permit, error) {
				return lock.NewSemaphore(c, "job", 3, opts...).Acquire(ctx, 2)
			})
			select {
			case <-p.done:
			case <-h.whenWatched(look, h.holders()):
			}
			gone(h, holder)
			held, err := p.wait()
			if err == nil {
				gone(h, held)
			} else {
				require.ErrorIs(t, err, context.Canceled)
			}
			h.awaitKeys("job/", 0)
			require.NoError(t, c.Close())
			cancel()
			if !reached {
				require.NoError(t, err)
				t.Logf("%d requests", k-1)
				require.Greater(t, k, 3)
				break
			}
		}
	}
}

// Every answer in turn is lost, and every request.
func testSemaphoreEveryAnswerDropped(t *testing.T, h *harness) {
	for _, f := range []fate{answerDropped, requestLost} {
		for k := 1; ; k++ {
			lost := false
			w := wire{before: func(_ context.Context, c *call) fate {
				if c.n != k {
					return arrives
				}
				lost = true
				return f
			}}
			c := h.client(w.config())
			h.everyKindOfSemaphore(c)
			h.awaitKeys("job", 0)
			require.NoError(t, c.Close())
			if !lost {
				t.Logf("%d requests", k-1)
				require.Greater(t, k, 15)
				break
			}
		}
	}
}

func (h *harness) everyKindOfSemaphore(c *client.Client) {
	h.t.Helper()
	mine, theirs := lock.NewSemaphore(c, "job", 3), lock.NewSemaphore(h.c, "job", 3)
	p, err := mine.TryAcquire(h.ctx, 3)
	require.NoError(h.t, err)
	require.NoError(h.t, p.Shrink(h.ctx, 2))
	q := h.permits(mine, 1)
	_, err = mine.TryAcquire(h.ctx, 1)
	require.ErrorIs(h.t, err, lock.ErrHeld)
	gone(h, p, q)

	p = h.permits(theirs, 2)
	w := h.want(mine, 2, 1)
	require.NoError(h.t, mine.SetLimit(h.ctx, 4))
	q = w.success()
	h.permitsOut(4)
	w = h.want(mine, 4, 1)
	gone(h, p, q)
	gone(h, w.success())
	_, err = h.c.Delete(h.ctx, "job.limit") // it was set, and so is there for good
	require.NoError(h.t, err)
}
