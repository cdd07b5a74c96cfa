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
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// rw returns the lock on a client of its own.
func (h *harness) rw(opts ...lock.Option) *lock.RWLock {
	return lock.NewRW(h.client(client.Config{}), "job", opts...)
}

// rlock begins to read and returns when that is in the queue, where there are n.
func (h *harness) rlock(l *lock.RWLock, n int) *pending[*lock.Held] {
	h.t.Helper()
	p := begin(h, func() (*lock.Held, error) { return l.RLock(h.ctx) })
	h.awaitKeys("job/", n)
	return p
}

func (h *harness) wlock(l *lock.RWLock, n int) *pending[*lock.WriteHeld] {
	h.t.Helper()
	p := begin(h, func() (*lock.WriteHeld, error) { return l.Lock(h.ctx) })
	h.awaitKeys("job/", n)
	return p
}

// gone releases handles of any kind.
func gone[H interface{ Release(context.Context) error }](h *harness, handles ...H) {
	h.t.Helper()
	for _, handle := range handles {
		require.NoError(h.t, handle.Release(h.ctx))
	}
}

func testRWReaders(t *testing.T, h *harness) {
	shared := h.rw()
	var readers []*lock.Held
	for i := range 6 {
		l := shared // several of one session, each with a key
		if i%2 == 1 {
			l = h.rw()
		}
		r, err := l.RLock(h.ctx)
		readers = append(readers, got(h, r, err))
	}
	kvs := h.awaitKeys("job/read/", len(readers))
	for i, r := range readers {
		require.True(t, r.Valid())
		require.Equal(t, kvs[i].Key, r.Key())
		require.Equal(t, fence.Token(kvs[i].CreateRevision), r.Token())
	}
	writer := h.wlock(shared, len(readers)+1)
	for _, r := range readers {
		writer.stillWaits()
		gone(h, r)
	}
	w := writer.success()
	require.Greater(t, w.Token(), readers[len(readers)-1].Token())
	gone(h, w)
	h.awaitKeys("job/", 0)
}

// rwWitness notices a writer that is not alone.
type rwWitness struct {
	mu      sync.Mutex
	readers int // protected by mu
	writers int // protected by mu
	most    int // protected by mu; readers that were in at once
	tokens  []fence.Token
}

func (w *rwWitness) in(readers, writers int, token fence.Token) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.readers += readers
	w.writers += writers
	w.most = max(w.most, w.readers)
	if w.writers > 1 || w.writers == 1 && w.readers > 0 {
		return fmt.Errorf("%d writers and %d readers at once", w.writers, w.readers)
	}
	if writers > 0 {
		if n := len(w.tokens); n > 0 && w.tokens[n-1] >= token {
			return fmt.Errorf("a writer has token %d, after one with %d", token, w.tokens[n-1])
		}
		w.tokens = append(w.tokens, token)
	}
	return nil
}

func (w *rwWitness) out(readers, writers int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.readers -= readers
	w.writers -= writers
}

// Many clients read, write, downgrade and upgrade at random.
func testRWExclusion(t *testing.T, h *harness) {
	const goroutines, rounds = 12, 12
	var w rwWitness
	var wg sync.WaitGroup
	errs := make([]error, goroutines)
	clients := []*lock.RWLock{h.rw(), h.rw(), h.rw(), h.rw()}
	work := func() error {
		_, err := h.c.Get(h.ctx, "other")
		return err
	}
	for i := range goroutines {
		rnd := rand.New(rand.NewSource(int64(i)))
		wg.Go(func() {
			for range rounds {
				errs[i] = errors.Join(errs[i], w.once(h.ctx, clients[i%len(clients)], rnd.Intn(8), work))
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Greater(t, w.most, 1, "readers that were in together")
	require.Greater(t, len(w.tokens), goroutines)
	h.awaitKeys("job/", 0)
}

// once takes the lock in some way, and gives it back.
func (w *rwWitness) once(ctx context.Context, l *lock.RWLock, how int, work func() error) (err error) {
	read := func() error {
		defer w.out(1, 0)
		return errors.Join(w.in(1, 0, 0), work())
	}
	write := func(held *lock.WriteHeld) error {
		defer w.out(0, 1)
		return errors.Join(w.in(0, 1, held.Token()), work())
	}
	switch how {
	case 0:
		held, err := l.Lock(ctx)
		if err != nil {
			return err
		}
		return errors.Join(write(held), held.Release(ctx))
	case 1:
		held, err := l.Lock(ctx)
		if err != nil {
			return err
		}
		err = write(held)
		reader, derr := held.Downgrade(ctx)
		if derr != nil {
			return errors.Join(err, derr)
		}
		return errors.Join(err, read(), reader.Release(ctx))
	case 2:
		held, err := l.ULock(ctx)
		if err != nil {
			return err
		}
		err = read()
		writer, uerr := held.Upgrade(ctx)
		if uerr != nil {
			return errors.Join(err, uerr)
		}
		return errors.Join(err, write(writer), writer.Release(ctx))
	default:
		held, err := l.RLock(ctx)
		if err != nil {
			return err
		}
		return errors.Join(read(), held.Release(ctx))
	}
}

// A reader does not overtake a writer who waits, and the next writer does not
// overtake that reader.
func testRWReaderBehindWriter(t *testing.T, h *harness) {
	first, err := h.rw().RLock(h.ctx)
	require.NoError(t, err)
	w1 := h.wlock(h.rw(), 2)
	r1 := h.rlock(h.rw(), 3)
	r2 := h.rlock(h.rw(), 4)
	w2 := h.wlock(h.rw(), 5)
	r3 := h.rlock(h.rw(), 6)
	w1.stillWaits()
	r1.stillWaits()
	gone(h, first)
	writer := w1.success()
	r1.stillWaits()
	gone(h, writer)
	reader1, reader2 := r1.success(), r2.success()
	w2.stillWaits()
	r3.stillWaits()
	gone(h, reader1)
	w2.stillWaits()
	gone(h, reader2)
	writer = w2.success()
	r3.stillWaits()
	gone(h, writer)
	gone(h, r3.success())
}

// Readers come without end, each before the last one has left: a writer gets in.
func testRWWriterNotStarved(t *testing.T, h *harness) {
	const readers = 3
	stop := make(chan struct{})
	started := make(chan struct{}, readers)
	l := h.rw()
	var wg sync.WaitGroup
	errs := make([]error, readers)
	for i := range readers {
		wg.Go(func() { errs[i] = readOn(h.ctx, l, started, stop) })
	}
	for range readers {
		<-started
	}
	for range 3 {
		w, err := h.rw().Lock(h.ctx)
		gone(h, got(h, w, err))
	}
	close(stop)
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}

// readOn has the lock at all times until it is stopped, but while it would have
// to wait behind a writer.
func readOn(ctx context.Context, l *lock.RWLock, started chan<- struct{}, stop <-chan struct{}) error {
	r, err := l.RLock(ctx)
	started <- struct{}{}
	for err == nil {
		select {
		case <-stop:
			return r.Release(ctx)
		default:
		}
		var next *lock.Held
		if next, err = l.TryRLock(ctx); errors.Is(err, lock.ErrHeld) {
			if err = r.Release(ctx); err == nil {
				r, err = l.RLock(ctx)
			}
			continue
		}
		err = errors.Join(err, r.Release(ctx))
		r = next
	}
	return err
}

func testRWTry(t *testing.T, h *harness) {
	mine, other := h.rw(), h.rw()
	held := func(err error, key string) {
		t.Helper()
		require.ErrorIs(t, err, lock.ErrHeld)
		var who *lock.HeldError
		require.ErrorAs(t, err, &who)
		require.Equal(t, key, who.Holder.Key)
	}
	r, err := mine.TryRLock(h.ctx)
	require.NoError(t, err)
	again, err := other.TryRLock(h.ctx)
	require.NoError(t, err)
	_, err = other.TryLock(h.ctx)
	held(err, again.Key())
	u, err := other.TryULock(h.ctx)
	require.NoError(t, err)
	_, err = mine.TryULock(h.ctx)
	held(err, u.Key())
	third, err := mine.TryRLock(h.ctx) // the upgradeable one's key is among the writers'
	require.NoError(t, err)
	h.awaitKeys("job/", 4)
	gone(h, r, again, third)
	gone(h, u)

	w, err := mine.TryLock(h.ctx)
	require.NoError(t, err)
	_, err = mine.TryRLock(h.ctx)
	held(err, w.Key())
	_, err = other.TryLock(h.ctx)
	held(err, w.Key())
	_, err = other.TryULock(h.ctx)
	held(err, w.Key())
	h.awaitKeys("job/", 1)
	reader, err := w.Downgrade(h.ctx)
	require.NoError(t, err)
	r, err = other.TryRLock(h.ctx)
	require.NoError(t, err)
	gone(h, reader, r)

	// Nobody has the lock alone, but somebody waits for that.
	r, err = mine.TryRLock(h.ctx)
	require.NoError(t, err)
	writer := h.wlock(mine, 2)
	_, err = other.TryRLock(h.ctx)
	require.ErrorIs(t, err, lock.ErrHeld)
	gone(h, r)
	gone(h, writer.success())
	h.awaitKeys("job/", 0)
}

func testRWHandle(t *testing.T, h *harness) {
	s := h.session(h.c, client.SessionTTL(20*time.Second))
	l := lock.NewRW(h.c, "job", lock.WithSession(s), lock.WithOwner("me"))
	r, err := l.RLock(h.ctx)
	require.NoError(t, err)
	require.Equal(t, "job", r.Name())
	require.Contains(t, r.Key(), "job/read/"+s.ID().String()+".")
	kv, err := h.c.GetOne(h.ctx, r.Key())
	require.NoError(t, err)
	require.Equal(t, s.ID(), kv.Lease)
	require.JSONEq(t, `{"owner": "me", "mode": "read"}`, string(kv.Value))
	require.Greater(t, r.Remaining(), 10*time.Second)
	token, ok := fence.FromContext(r.Context(), "job")
	require.True(t, ok)
	require.Equal(t, r.Token(), token)
	_, err = r.Txn().Then(client.OpPut("data", []byte("1"))).Commit(h.ctx)
	require.NoError(t, err)
	gone(h, r)
	require.ErrorIs(t, context.Cause(r.Context()), lock.ErrReleased)
	require.False(t, r.Valid())
	_, err = r.Txn().Then(client.OpPut("data", []byte("2"))).Commit(h.ctx)
	require.ErrorIs(t, err, lock.ErrLost)

	w, err := l.Lock(h.ctx)
	require.NoError(t, err)
	require.Greater(t, w.Token(), r.Token())
	require.NoError(t, w.Check(h.ctx))
	_, err = w.Txn().Then(client.OpPut("data", []byte("3"))).Commit(h.ctx)
	require.NoError(t, err)
	_, err = h.c.Delete(h.ctx, w.Key())
	require.NoError(t, err)
	require.Equal(t, lock.ErrDeleted, lostReason(t, h.ended(w.Held)))
	require.False(t, w.Valid())
	_, err = w.Txn().Then(client.OpPut("data", []byte("4"))).Commit(h.ctx)
	require.ErrorIs(t, err, lock.ErrLost)
	require.ErrorIs(t, w.Check(h.ctx), lock.ErrLost)
	_, err = w.Downgrade(h.ctx)
	require.ErrorIs(t, err, lock.ErrLost)
	require.ErrorIs(t, w.Release(h.ctx), lock.ErrLost)
}

// Who has the lock and wants it once more would wait for himself.
func testRWWouldDeadlock(t *testing.T, h *harness) {
	l := h.rw()
	r, err := l.RLock(h.ctx)
	require.NoError(t, err)
	again, err := l.RLock(r.Context())
	require.NoError(t, err, "nobody is in the way")
	_, err = l.Lock(again.Context())
	require.ErrorIs(t, err, lock.ErrWouldDeadlock)
	gone(h, again)
	h.awaitKeys("job/", 1)

	// A writer waits for r, so that a reader would wait for him, and for r.
	writer := h.wlock(h.rw(), 2)
	for _, enter := range []func(context.Context) (*lock.Held, error){l.RLock, l.TryRLock} {
		_, err = enter(r.Context())
		require.ErrorIs(t, err, lock.ErrWouldDeadlock)
	}
	_, err = l.ULock(r.Context())
	require.ErrorIs(t, err, lock.ErrWouldDeadlock)
	h.awaitKeys("job/", 2)
	gone(h, r)
	w := writer.success()
	_, err = l.RLock(w.Context())
	require.ErrorIs(t, err, lock.ErrWouldDeadlock, "whatever object it was acquired with")
	gone(h, w)
	r, err = l.RLock(context.WithoutCancel(w.Context()))
	require.NoError(t, err, "it is not held any more")
	gone(h, r)
}
