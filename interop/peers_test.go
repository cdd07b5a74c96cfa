package interop_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// peer is etcd's client and ours on one cluster of etcd.
type peer struct {
	ctx      context.Context
	etcd     *clientv3.Client
	session  *concurrency.Session
	latchkey *client.Client
}

func newPeer(t *testing.T) *peer {
	s := startSide(t, *referenceKind, 1)
	p := &peer{ctx: testContext(t)}
	var err error
	p.etcd, err = s.cluster.Client()
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.etcd.Close() })
	p.session, err = concurrency.NewSession(p.etcd)
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.session.Close() })
	p.latchkey, err = client.New(client.Config{Endpoints: s.cluster.Endpoints()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.latchkey.Close() })
	return p
}

// TestPeersLocks shows what etcd's concurrency.Mutex does where our lock makes a
// promise: what locktest's cases of the same names repeat. When one of these
// fails, etcd has mended it, and the comparison has to be taken back.
func TestPeersLocks(t *testing.T) {
	p := newPeer(t)
	t.Run("etcd 11360, goroutines that share a session", p.sharedSession)
	t.Run("etcd 6127, a key that is deleted", p.deletedKey)
	t.Run("etcd 22082, a late unlock", p.lateUnlock)
	t.Run("etcd website 710, nested names", p.nestedNames)
}

func (p *peer) sharedSession(t *testing.T) {
	first, second := concurrency.NewMutex(p.session, "a"), concurrency.NewMutex(p.session, "a")
	require.NoError(t, first.Lock(p.ctx))
	require.NoError(t, second.Lock(p.ctx), "etcd: both hold it")
	require.Equal(t, first.Key(), second.Key())
	require.NoError(t, first.Unlock(p.ctx))

	held, err := lock.New(p.latchkey, "a").Acquire(p.ctx)
	require.NoError(t, err)
	_, err = lock.New(p.latchkey, "a").TryAcquire(p.ctx)
	require.ErrorIs(t, err, lock.ErrHeld)
	require.NoError(t, held.Release(p.ctx))
}

func (p *peer) deletedKey(t *testing.T) {
	m := concurrency.NewMutex(p.session, "b")
	require.NoError(t, m.Lock(p.ctx))
	_, err := p.etcd.Delete(p.ctx, m.Key())
	require.NoError(t, err)
	held, err := lock.New(p.latchkey, "b").Acquire(p.ctx)
	require.NoError(t, err, "somebody else has it")
	select {
	case <-p.session.Done():
		t.Fatal("etcd: the holder was told")
	default:
	}

	_, err = p.etcd.Delete(p.ctx, held.Key())
	require.NoError(t, err)
	<-held.Context().Done()
	require.ErrorIs(t, context.Cause(held.Context()), lock.ErrDeleted)
}

func (p *peer) lateUnlock(t *testing.T) {
	old, now := concurrency.NewMutex(p.session, "c"), concurrency.NewMutex(p.session, "c")
	require.NoError(t, old.Lock(p.ctx))
	_, err := p.etcd.Delete(p.ctx, old.Key())
	require.NoError(t, err)
	require.NoError(t, now.Lock(p.ctx))
	require.NoError(t, old.Unlock(p.ctx))
	got, err := p.etcd.Get(p.ctx, now.Key())
	require.NoError(t, err)
	require.Empty(t, got.Kvs, "etcd: the new lock is gone")

	l := lock.New(p.latchkey, "c")
	stale, err := l.Acquire(p.ctx)
	require.NoError(t, err)
	_, err = p.etcd.Delete(p.ctx, stale.Key())
	require.NoError(t, err)
	held, err := l.Acquire(p.ctx)
	require.NoError(t, err)
	require.ErrorIs(t, stale.Release(p.ctx), lock.ErrLost)
	require.NoError(t, held.Check(p.ctx))
	require.NoError(t, held.Release(p.ctx))
}

func (p *peer) nestedNames(t *testing.T) {
	inner := concurrency.NewMutex(p.session, "d2/x")
	require.NoError(t, inner.Lock(p.ctx))
	ctx, cancel := context.WithTimeout(p.ctx, time.Second)
	defer cancel()
	require.ErrorIs(t, concurrency.NewMutex(p.session, "d2").Lock(ctx), context.DeadlineExceeded, "etcd: d2 is not free")
	held, err := lock.New(p.latchkey, "d2").TryAcquire(p.ctx)
	require.NoError(t, err)
	require.NoError(t, held.Release(p.ctx))
	require.NoError(t, inner.Unlock(p.ctx))
}
