package locktest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// witness is what a lock protects: it notices two holders at once, and a token
// that does not grow.
type witness struct {
	mu     sync.Mutex
	inside int           // protected by mu
	tokens []fence.Token // protected by mu; in the order of holding
}

func (w *witness) hold(held *lock.Held, work func() error) error {
	return w.holdToken(held.Token(), work)
}

func (w *witness) holdToken(token fence.Token, work func() error) error {
	w.mu.Lock()
	w.inside++
	alone := w.inside == 1
	w.tokens = append(w.tokens, token)
	w.mu.Unlock()
	err := work()
	w.mu.Lock()
	w.inside--
	w.mu.Unlock()
	if !alone {
		return errors.New("two holders at once")
	}
	return err
}

func (w *witness) check(t *testing.T, n int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Len(t, w.tokens, n)
	for i := 1; i < len(w.tokens); i++ {
		require.Greater(t, w.tokens[i], w.tokens[i-1], "tokens grow from holder to holder")
	}
}

// increment adds one to a counter by reading and writing it: without mutual
// exclusion, additions get lost.
func (h *harness) increment(ctx context.Context, c *client.Client) error {
	n := 0
	kv, err := c.GetOne(ctx, "counter")
	switch {
	case err == nil:
		if _, err := fmt.Sscan(string(kv.Value), &n); err != nil {
			return err
		}
	case !errors.Is(err, client.ErrNotFound):
		return err
	}
	_, err = c.Put(ctx, "counter", fmt.Append(nil, n+1))
	return err
}

func testExclusionOfClients(t *testing.T, h *harness) {
	const clients, rounds = 5, 6
	var w witness
	var wg sync.WaitGroup
	errs := make([]error, clients)
	for i := range clients {
		c := h.client(client.Config{})
		wg.Go(func() {
			for range rounds {
				errs[i] = errors.Join(errs[i], lock.New(c, "job").Do(h.ctx, func(ctx context.Context, held *lock.Held) error {
					return w.hold(held, func() error { return h.increment(ctx, c) })
				}))
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	w.check(t, clients*rounds)
	kv, err := h.c.GetOne(h.ctx, "counter")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(clients*rounds), string(kv.Value))
	h.awaitKeys("job/", 0)
}

// All goroutines of a client share its session, and so one key; still, one at a
// time has the lock, each with a token of its own. It makes no difference
// whether they share the Lock object.
func testExclusionOfGoroutines(t *testing.T, h *harness) {
	const goroutines = 100
	shared := lock.New(h.c, "job")
	var w witness
	var wg sync.WaitGroup
	errs := make([]error, goroutines)
	for i := range goroutines {
		wg.Go(func() {
			l := shared
			if i%2 == 1 {
				l = lock.New(h.c, "job")
			}
			errs[i] = l.Do(h.ctx, func(_ context.Context, held *lock.Held) error {
				return w.hold(held, func() error { return nil })
			})
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	w.check(t, goroutines)
	h.awaitKeys("job/", 0)
}

// The queue is served in the order in which the keys were created.
func testQueueOrder(t *testing.T, h *harness) {
	const waiters = 6
	first := h.acquire(lock.New(h.c, "job"))
	var attempts []*attempt
	for i := range waiters {
		attempts = append(attempts, h.start(h.ctx, lock.New(h.client(client.Config{}), "job")))
		h.awaitKeys("job/", i+2)
	}
	last := first
	for _, a := range attempts {
		a.stillWaits()
		h.release(last)
		held := a.success()
		require.Greater(t, held.Token(), last.Token())
		last = held
	}
	h.release(last)
}

func testTry(t *testing.T, h *harness) {
	other := h.client(client.Config{})
	mine := lock.New(h.c, "job", lock.WithOwner("me"))
	held, err := mine.TryAcquire(h.ctx)
	require.NoError(t, err)
	require.True(t, held.Valid())
	require.NotZero(t, held.Token())

	check := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, lock.ErrHeld)
		var who *lock.HeldError
		require.ErrorAs(t, err, &who)
		require.Equal(t, held.Key(), who.Holder.Key)
		require.Equal(t, held.Token(), who.Holder.Token)
		require.Equal(t, "me", who.Holder.Owner)
	}
	_, err = lock.New(other, "job").TryAcquire(h.ctx)
	check(err)
	_, err = mine.TryAcquire(h.ctx)
	check(err)
	h.awaitKeys("job/", 1)

	h.release(held)
	again, err := lock.New(other, "job").TryAcquire(h.ctx)
	require.NoError(t, err)
	require.Greater(t, again.Token(), held.Token())
	h.release(again)
}

// Of many that try at once, one succeeds at most, and nobody else leaves a
// trace in the queue: the watch sees the winners' keys only.
func testTryContended(t *testing.T, h *harness) {
	const clients, rounds = 4, 5
	res, err := h.c.Get(h.ctx, "job/", client.Prefix())
	require.NoError(t, err)
	won := 0
	for range rounds {
		var wg sync.WaitGroup
		held := make([]*lock.Held, clients)
		errs := make([]error, clients)
		for i := range clients {
			c := h.client(client.Config{})
			wg.Go(func() { held[i], errs[i] = lock.New(c, "job").TryAcquire(h.ctx) })
		}
		wg.Wait()
		winners := 0
		for i := range clients {
			if errs[i] == nil {
				winners++
				h.release(held[i])
				continue
			}
			require.ErrorIs(t, errs[i], lock.ErrHeld)
		}
		require.Equal(t, 1, winners)
		won += winners
	}
	_, err = h.c.Put(h.ctx, "job/end", nil)
	require.NoError(t, err)
	created := 0
	for ev, err := range h.c.Watch(h.ctx, "job/", client.Prefix(), client.FromRevision(res.Revision+1), client.WithoutDeletes()) {
		require.NoError(t, err)
		if ev.KV.Key == "job/end" {
			break
		}
		created++
	}
	require.Equal(t, won, created)
}
