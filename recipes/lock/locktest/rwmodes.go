package locktest

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

// awaitMode waits until a key below the prefix has a mode in its value.
func (h *harness) awaitMode(prefix, mode string) {
	h.t.Helper()
	h.await(prefix, func(kvs []client.KV) bool {
		for _, kv := range kvs {
			var r struct{ Mode string }
			if json.Unmarshal(kv.Value, &r) == nil && r.Mode == mode {
				return true
			}
		}
		return false
	})
}

// whenKeys returns a channel that is closed when there are n keys below a prefix.
func (h *harness) whenKeys(prefix string, n int) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			res, err := h.c.Get(h.ctx, prefix, client.Prefix())
			if err != nil || len(res.KVs) == n {
				return
			}
			for range h.c.Watch(h.ctx, prefix, client.Prefix(), client.FromRevision(res.Revision+1)) {
				break
			}
		}
	}()
	return done
}

func testDowngrade(t *testing.T, h *harness) {
	w, err := h.rw().Lock(h.ctx)
	require.NoError(t, err)
	r := h.rlock(h.rw(), 2)
	r.stillWaits()
	reader, err := w.Downgrade(h.ctx)
	require.NoError(t, err)
	require.Equal(t, w.Token(), reader.Token())
	require.Equal(t, w.Key(), reader.Key())
	require.True(t, reader.Valid())
	beside := r.success()

	// The writer's handle is over, the reader's is not.
	require.ErrorIs(t, context.Cause(w.Context()), lock.ErrDowngraded)
	require.False(t, w.Valid())
	_, err = w.Downgrade(h.ctx)
	require.ErrorIs(t, err, lock.ErrMode)
	require.ErrorIs(t, w.Check(h.ctx), lock.ErrDowngraded)
	require.NoError(t, reader.Check(h.ctx))
	_, err = reader.Txn().Then(client.OpPut("data", nil)).Commit(h.ctx)
	require.NoError(t, err)
	kv, err := h.c.GetOne(h.ctx, reader.Key())
	require.NoError(t, err)
	require.Equal(t, reader.Token(), fence.Token(kv.CreateRevision))
	gone(h, reader)
	gone(h, w) // gives back what is given back already
	gone(h, beside)
	h.awaitKeys("job/", 0)
}

// CURATOR-621: a writer who waits slips in when the one before him becomes a
// reader.
func testDowngradeBeforeWriter(t *testing.T, h *harness) {
	w, err := h.rw().Lock(h.ctx)
	require.NoError(t, err)
	r1 := h.rlock(h.rw(), 2)
	next := h.wlock(h.rw(), 3)
	r2 := h.rlock(h.rw(), 4)
	reader, err := w.Downgrade(h.ctx)
	require.NoError(t, err)
	beside := r1.success()
	next.stillWaits()
	r2.stillWaits()
	require.True(t, reader.Valid())
	gone(h, beside)
	// The writer has seen that his predecessor left, and must wait for the one
	// that was downgraded. There is a moment for that to go wrong in.
	_, err = h.c.Put(h.ctx, "other", nil)
	require.NoError(t, err)
	next.stillWaits()
	require.NoError(t, reader.Check(h.ctx))
	gone(h, reader)
	writer := next.success()
	require.Greater(t, writer.Token(), reader.Token())
	gone(h, writer)
	gone(h, r2.success())
}

// A write that was sent before the downgrade and arrives after it is refused, as
// others read by then.
func testDowngradeLateWrite(t *testing.T, h *harness) {
	w, err := h.rw().Lock(h.ctx)
	require.NoError(t, err)
	late := w.Txn().Then(client.OpPut("data", []byte("late")))
	raw := h.c.Guarded(lock.ErrLost, w.Guard()).Then(client.OpPut("data", []byte("late")))
	reader, err := w.Downgrade(h.ctx)
	require.NoError(t, err)
	r, err := h.rw().RLock(h.ctx)
	require.NoError(t, err)
	_, err = late.Commit(h.ctx)
	require.ErrorIs(t, err, lock.ErrLost)
	_, err = raw.Commit(h.ctx)
	require.ErrorIs(t, err, lock.ErrLost)
	_, err = h.c.GetOne(h.ctx, "data")
	require.ErrorIs(t, err, client.ErrNotFound)
	gone(h, reader, r)
}

func testUpgrade(t *testing.T, h *harness) {
	before, err := h.rw().RLock(h.ctx)
	require.NoError(t, err)
	u, err := h.rw().ULock(h.ctx)
	require.NoError(t, err)
	after, err := h.rw().RLock(h.ctx)
	require.NoError(t, err, "it lets others read")
	upgrade := begin(h, func() (*lock.WriteHeld, error) { return u.Upgrade(h.ctx) })
	h.awaitMode("job/", "upgraded")
	late := h.rlock(h.rw(), 4)
	gone(h, before)
	upgrade.stillWaits()
	late.stillWaits()
	_, err = h.rw().TryRLock(h.ctx)
	require.ErrorIs(t, err, lock.ErrHeld)
	gone(h, after)
	w := upgrade.success()
	late.stillWaits()
	require.Equal(t, u.Token(), w.Token())
	require.True(t, u.Valid())
	_, err = u.Upgrade(h.ctx)
	require.ErrorIs(t, err, lock.ErrMode)
	_, err = w.Txn().Then(client.OpPut("data", nil)).Commit(h.ctx)
	require.NoError(t, err)

	reader, err := w.Downgrade(h.ctx)
	require.NoError(t, err)
	gone(h, late.success())
	require.True(t, u.Valid())
	_, err = u.Upgrade(h.ctx)
	require.ErrorIs(t, err, lock.ErrMode)
	gone(h, reader)
	h.awaitKeys("job/", 0)
}

func testUpgradeOneAtATime(t *testing.T, h *harness) {
	u, err := h.rw().ULock(h.ctx)
	require.NoError(t, err)
	l := h.rw()
	next := begin(h, func() (*lock.UpgradeableHeld, error) { return l.ULock(h.ctx) })
	h.awaitKeys("job/", 2)
	r, err := h.rw().RLock(h.ctx) // it is not in the way of one who reads
	require.NoError(t, err)
	gone(h, r)
	w, err := u.Upgrade(h.ctx)
	require.NoError(t, err)
	next.stillWaits()
	gone(h, w)
	second := next.success()
	require.Greater(t, second.Token(), u.Token())
	gone(h, second)
}

// An upgrade that is given up leaves the lock as it was, and readers come in.
func testUpgradeGivenUp(t *testing.T, h *harness) {
	r, err := h.rw().RLock(h.ctx)
	require.NoError(t, err)
	u, err := h.rw().ULock(h.ctx)
	require.NoError(t, err)
	for range 2 {
		ctx, cancel := context.WithCancel(h.ctx)
		upgrade := begin(h, func() (*lock.WriteHeld, error) { return u.Upgrade(ctx) })
		h.awaitMode("job/", "upgraded")
		late := h.rlock(h.rw(), 3)
		late.stillWaits()
		upgrade.cancelled(cancel)
		gone(h, late.success())
	}
	require.True(t, u.Valid())
	gone(h, r)
	w, err := u.Upgrade(h.ctx)
	require.NoError(t, err)
	gone(h, w)
}

// The lock is lost while it is upgraded.
func testUpgradeOfTheLost(t *testing.T, h *harness) {
	r, err := h.rw().RLock(h.ctx)
	require.NoError(t, err)
	u, err := h.rw().ULock(h.ctx)
	require.NoError(t, err)
	upgrade := begin(h, func() (*lock.WriteHeld, error) { return u.Upgrade(h.ctx) })
	h.awaitMode("job/", "upgraded")
	_, err = h.c.Delete(h.ctx, u.Key())
	require.NoError(t, err)
	require.Equal(t, lock.ErrDeleted, lostReason(t, upgrade.failure()))
	_, err = u.Upgrade(h.ctx)
	require.Error(t, err)
	gone(h, r)
	gone(h, h.wlock(h.rw(), 1).success())
}

// unseen is a reader behind an upgradeable one, that was cut off when the writer
// between the two left: it has the lock and does not know.
type unseen struct {
	u       *lock.UpgradeableHeld
	look    *lookout // of u's client
	reader  *pending[*lock.Held]
	key     string // the reader's
	restore func()
}

func (h *harness) unseen() unseen {
	h.t.Helper()
	out := unseen{look: newLookout()}
	u, err := lock.NewRW(h.client(out.look.config(client.Config{})), "job").ULock(h.ctx)
	out.u = got(h, u, err)
	ctx, cancel := context.WithCancel(h.ctx)
	between := h.rw()
	writer := begin(h, func() (*lock.WriteHeld, error) { return between.Lock(ctx) })
	h.awaitKeys("job/", 2)
	created := make(chan struct{}, 1)
	w := wire{after: func(c *call, err error) {
		if c.isCreate() && err == nil {
			created <- struct{}{}
		}
	}}
	l := clienttest.NewLink()
	cfg := w.config()
	cfg.Dialer = l.Dial
	out.reader = h.rlock(lock.NewRW(h.client(cfg), "job"), 3)
	<-created
	out.key = h.awaitKeys("job/", 3)[2].Key
	out.restore = l.Down()
	writer.cancelled(cancel)
	h.awaitKeys("job/", 2)
	return out
}

// The upgrade waits for the reader, which learns of its luck only then.
func testUpgradeUnseenReader(t *testing.T, h *harness) {
	s := h.unseen()
	upgrade := begin(h, func() (*lock.WriteHeld, error) { return s.u.Upgrade(h.ctx) })
	h.awaitMode("job/", "upgraded")
	s.restore()
	held := s.reader.success()
	require.NoError(t, held.Check(h.ctx))
	upgrade.stillWaits()
	gone(h, held)
	gone(h, upgrade.success())
}

// The revision of the upgrade is compacted before the reader sees it, so it can
// not be known whether the upgrade waits for it: it steps back.
func testUpgradeUnseenCompacted(t *testing.T, h *harness) {
	s := h.unseen()
	upgrade := begin(h, func() (*lock.WriteHeld, error) { return s.u.Upgrade(h.ctx) })
	h.watches(s.look, s.u.Key(), s.key)
	res, err := h.c.Put(h.ctx, "other", nil)
	require.NoError(t, err)
	require.NoError(t, h.c.Compact(h.ctx, res.Revision))
	s.restore()
	w := upgrade.success()
	s.reader.stillWaits()
	gone(h, w)
	held := s.reader.success()
	require.Greater(t, held.Token(), w.Token())
	require.NotEqual(t, s.key, held.Key())
	gone(h, held)
	h.awaitKeys("job/", 0)
}

// A writer is between the two at the revision of the upgrade: the reader waits for
// him, and the upgrade not for the reader.
func testUpgradeBehindWriter(t *testing.T, h *harness) {
	u, err := h.rw().ULock(h.ctx)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(h.ctx)
	between := h.rw()
	writer := begin(h, func() (*lock.WriteHeld, error) { return between.Lock(ctx) })
	h.awaitKeys("job/", 2)
	reader := h.rlock(h.rw(), 3)
	w, err := u.Upgrade(h.ctx)
	require.NoError(t, err)
	// The writer leaves: now the reader would have the lock, were it not for us.
	writer.cancelled(cancel)
	h.awaitKeys("job/", 2)
	_, err = h.c.Put(h.ctx, "other", nil)
	require.NoError(t, err)
	reader.stillWaits()
	require.NoError(t, w.Check(h.ctx))
	gone(h, w)
	gone(h, reader.success())
}

// Each waiter watches its own key and one other, and the end of a holder wakes
// those only that are to have the lock.
func testRWHerd(t *testing.T, h *harness) {
	type contender struct {
		l    *lock.RWLock
		look *lookout
		wire *wire
	}
	newOne := func() contender {
		c := contender{look: newLookout(), wire: &wire{}}
		c.l = lock.NewRW(h.client(c.look.config(c.wire.config())), "job")
		return c
	}
	holder, err := h.rw().Lock(h.ctx)
	require.NoError(t, err)
	key := func(n int) string { return h.awaitKeys("job/", n)[n-1].Key }
	var readers []*pending[*lock.Held]
	for i := range 3 {
		c := newOne()
		readers = append(readers, h.rlock(c.l, i+2))
		h.watches(c.look, key(i+2), holder.Key()) // the burst of readers is meant
	}
	var writers []*pending[*lock.WriteHeld]
	var writersOf []contender
	last := key(4)
	for i := range 3 {
		c := newOne()
		writers = append(writers, h.wlock(c.l, i+5))
		writersOf = append(writersOf, c)
		h.watches(c.look, key(i+5), last)
		last = key(i + 5)
	}
	calls := func() (n []int) {
		for _, c := range writersOf {
			n = append(n, c.wire.calls())
		}
		return n
	}
	before := calls()
	gone(h, holder)
	var held []*lock.Held
	for _, r := range readers {
		held = append(held, r.success())
	}
	require.Equal(t, before, calls(), "no writer was woken")
	gone(h, held[0], held[1])
	gone(h, held[2])
	w := writers[0].success()
	require.Equal(t, before[1:], calls()[1:], "one writer was woken")
	gone(h, w)
	gone(h, writers[1].success())
	gone(h, writers[2].success())
}

func testRWNames(t *testing.T, h *harness) {
	for _, name := range []string{"", "/", "a/", "a//b", "a/read", "write", "x/g", "d"} {
		l := lock.NewRW(h.c, name)
		require.ErrorIs(t, second(l.RLock(h.ctx)), lock.ErrName, "%q", name)
		require.ErrorIs(t, second(l.TryLock(h.ctx)), lock.ErrName, "%q", name)
		require.ErrorIs(t, second(l.Inspect(h.ctx)), lock.ErrName, "%q", name)
	}
	// Locks of both kinds below the name have nothing to do with it.
	for i := range 20 {
		_, err := h.c.Put(h.ctx, fmt.Sprintf("job/write/%d/f%d", i, i), nil)
		require.NoError(t, err)
	}
	below, err := lock.New(h.c, "job/a").Acquire(h.ctx)
	require.NoError(t, err)
	w, err := lock.NewRW(h.c, "job").TryLock(h.ctx)
	require.NoError(t, err)
	require.ErrorIs(t, second(h.rw().TryRLock(h.ctx)), lock.ErrHeld)
	r := h.rlock(h.rw(), 23)
	r.stillWaits()
	gone(h, w)
	gone(h, r.success())
	gone(h, below)

	// Another recipe uses the name.
	held, err := lock.New(h.c, "mutex").Acquire(h.ctx)
	require.NoError(t, err)
	permit, err := lock.NewSemaphore(h.c, "sem", 1).Acquire(h.ctx, 1)
	require.NoError(t, err)
	for _, name := range []string{"mutex", "sem"} {
		l := lock.NewRW(h.c, name)
		for what, err := range map[string]error{
			"RLock":   second(l.RLock(h.ctx)),
			"Lock":    second(l.Lock(h.ctx)),
			"TryLock": second(l.TryLock(h.ctx)),
			"Inspect": second(l.Inspect(h.ctx)),
		} {
			require.ErrorIs(t, err, lock.ErrConflict, "%s of %s", what, name)
		}
		h.awaitKeys(name+"/", 1)
	}
	gone(h, held)
	gone(h, permit)
	w, err = lock.NewRW(h.c, "mutex").Lock(h.ctx)
	require.NoError(t, err)
	require.ErrorIs(t, second(lock.New(h.c, "mutex").Acquire(h.ctx)), lock.ErrConflict)
	require.ErrorIs(t, second(lock.NewSemaphore(h.c, "mutex", 1).Acquire(h.ctx, 1)), lock.ErrConflict)
	gone(h, w)
}

func testRWInspect(t *testing.T, h *harness) {
	l := h.rw(lock.WithOwner("one"))
	info, err := l.Inspect(h.ctx)
	require.NoError(t, err)
	require.Empty(t, info.Holders)
	require.Empty(t, info.Waiters)
	r, err := l.RLock(h.ctx)
	require.NoError(t, err)
	u, err := h.rw(lock.WithOwner("two")).ULock(h.ctx)
	require.NoError(t, err)
	w := h.wlock(h.rw(lock.WithOwner("three")), 3)
	late := h.rlock(h.rw(lock.WithOwner("four")), 4)
	kvs := h.awaitKeys("job/", 4)
	info, err = h.rw().Inspect(h.ctx)
	require.NoError(t, err)
	who := func(i int, owner string, m lock.Mode) lock.Contender {
		return lock.Contender{Key: kvs[i].Key, Lease: kvs[i].Lease, Token: fence.Token(kvs[i].CreateRevision), Owner: owner, Mode: m}
	}
	require.Equal(t, []lock.Contender{who(0, "one", lock.ModeRead), who(1, "two", lock.ModeUpgradeable)}, info.Holders)
	require.Equal(t, []lock.Contender{who(2, "three", lock.ModeWrite), who(3, "four", lock.ModeRead)}, info.Waiters)
	require.Equal(t, "job", info.Name)
	require.False(t, info.More)
	gone(h, r)
	gone(h, u)
	gone(h, w.success())
	gone(h, late.success())
}

// Keys as etcd's recipe makes them take part, as long as nobody downgrades.
func testRWEtcdClients(t *testing.T, h *harness) {
	lease, err := h.c.Grant(h.ctx, time.Minute)
	require.NoError(t, err)
	put := func(key string) {
		t.Helper()
		_, err = h.c.Put(h.ctx, key, nil, client.WithLease(lease.ID))
		require.NoError(t, err)
	}
	put("job/read/1796092443880340140")
	r, err := h.rw().RLock(h.ctx)
	require.NoError(t, err)
	gone(h, r)
	require.ErrorIs(t, second(h.rw().TryLock(h.ctx)), lock.ErrHeld)
	w := h.wlock(h.rw(), 2)
	put("job/write/1796092443880340141")
	late := h.rlock(h.rw(), 4)
	info, err := h.rw().Inspect(h.ctx)
	require.NoError(t, err)
	require.Equal(t, lock.ModeRead, info.Holders[0].Mode)
	require.Equal(t, "job/write/1796092443880340141", info.Waiters[1].Key)
	require.Equal(t, lock.ModeWrite, info.Waiters[1].Mode)
	w.stillWaits()
	_, err = h.c.Delete(h.ctx, "job/read/1796092443880340140")
	require.NoError(t, err)
	gone(h, w.success())
	late.stillWaits()
	require.NoError(t, h.c.Revoke(h.ctx, lease.ID))
	gone(h, late.success())
}
