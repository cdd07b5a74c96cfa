package cachetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/cache"
)

// What the cache could not see is compacted away while it is cut off: it reads
// again, and says what has changed. (etcd's naming resolver stops for ever.)
func testCompacted(t *testing.T, h *harness) {
	a := h.put("n/a", 1)
	b := h.put("n/b", 1)
	h.put("n/c", 1)
	h.put("n/again", 1)
	link := clienttest.NewLink()
	ca := h.numbers(h.client(client.Config{Dialer: link.Dial}))
	next, stop := iter.Pull2(ca.Events(h.ctx))
	defer stop()
	take := func() cache.Event[int] {
		t.Helper()
		ev, err, ok := next()
		require.True(t, ok)
		require.NoError(t, err)
		return ev
	}
	require.Len(t, take().Diff, 4)
	for round := range 3 {
		before := ca.Rev()
		restore := link.Down()
		b2 := h.put("n/b", 2+round)
		h.delete("n/c")
		h.delete("n/again")
		again := h.put("n/again", 1)
		d := h.put(fmt.Sprintf("n/d%d", round), 1)
		last := h.delete("n/none") // nothing, but the revision
		require.NoError(t, h.c.Compact(h.ctx, d))
		require.Equal(t, before, ca.Rev(), "it has seen nothing of that")
		restore()
		ev := take()
		require.Equal(t, cache.Resynced, ev.Type)
		require.GreaterOrEqual(t, ev.Rev, last)
		var types []string
		for _, d := range ev.Diff {
			types = append(types, fmt.Sprint(d.Type, " ", d.Key))
		}
		want := []string{"modified again", "modified b"}
		if round == 0 {
			want = append(want, "deleted c")
		}
		require.Equal(t, append(want, fmt.Sprintf("added d%d", round)), types)
		require.Equal(t, item("b", 2+round, b2, b), ev.Diff[1].New)
		require.Equal(t, item("again", 1, again, again), ev.Diff[0].New)
		require.True(t, h.equalsStore(ca.View()))
		unchanged, _ := ca.Get("a")
		require.Equal(t, item("a", 1, a, a), unchanged)
		e := h.put("n/e", round)
		require.Equal(t, e, take().Rev, "it goes on")
	}
	require.NoError(t, ca.Err())
}

// History is compacted while pages are being read: what was read is of no use, and
// is read anew.
func testCompactedWhileReading(t *testing.T, h *harness) {
	for i := range 6 {
		var ops []client.Op
		for j := range 100 {
			ops = append(ops, client.OpPut(fmt.Sprintf("n/%d", i*100+j), []byte("1")))
		}
		h.txn(ops...)
	}
	compactions := 0
	w := &tap{}
	w.after = func(c *call, err error) {
		if r := c.page(); r != nil && r.Revision == 0 && compactions < 3 && err == nil {
			compactions++
			assertNoError(t, h.c.Compact(h.ctx, h.put("n/0", compactions+1)))
		}
	}
	ca := h.numbers(h.client(w.config()))
	require.Equal(t, 3, compactions)
	require.Equal(t, 600, ca.Len())
	first, _ := ca.Get("0")
	require.Equal(t, 4, first.Value)
	require.NoError(t, ca.Err())
}

// assertNoError is for goroutines that may not end the test.
func assertNoError(t *testing.T, err error) {
	if err != nil {
		t.Error(err)
	}
}

// The network breaks again and again: every event comes, once, in order, and there
// is no gap that would need a Resynced.
func testNetworkCut(t *testing.T, h *harness) {
	const writes, every = 300, 25
	link := clienttest.NewLink()
	ca := h.numbers(h.client(client.Config{Dialer: link.Dial}))
	m := newMirror(h)
	done := make(chan error, 1)
	go func() { done <- m.listen(ca) }()
	cuts := 0
	var rev client.Revision
	for i := range writes {
		rev = h.put(fmt.Sprintf("n/%d", i%7), i)
		if i%every == every-1 {
			h.reached(ca, rev) // it is connected again
			if link.Cut() > 0 {
				cuts++
			}
		}
	}
	h.reached(ca, h.put("n/end", 0))
	require.NoError(t, <-done)
	require.Equal(t, writes/every, cuts)
	require.Equal(t, 1, m.resync)
	require.GreaterOrEqual(t, m.events, writes-every, "the loop may have begun late")
	require.True(t, h.equalsStore(ca.View()))
}

// Every second answer to a read is lost, and every third read: the cache comes up,
// and comes up again after a compaction.
func testAnswersLost(t *testing.T, h *harness) {
	h.put("n/a", 1)
	lost, n := 0, 0
	w := &tap{lose: func(c *call) fate {
		if c.page() == nil {
			return arrives
		}
		n++
		switch {
		case n%2 == 1:
			lost++
			return answerDropped
		case n%3 == 1:
			lost++
			return requestLost
		}
		return arrives
	}}
	link := clienttest.NewLink()
	cfg := w.config()
	cfg.Dialer = link.Dial
	ca := h.numbers(h.client(cfg))
	got, _ := ca.Get("a")
	require.Equal(t, 1, got.Value)
	restore := link.Down()
	h.put("n/a", 2)
	h.delete("n/a")
	rev := h.put("n/a", 3)
	require.NoError(t, h.c.Compact(h.ctx, rev))
	restore()
	h.reached(ca, rev)
	got, _ = ca.Get("a")
	require.Equal(t, 3, got.Value)
	require.GreaterOrEqual(t, lost, 3)
}

// A member answers with what was true long ago, as one that lags would: the cache
// does not go back, says why it does not go on, and goes on when it is asked of one
// that is up to date.
func testMemberBehind(t *testing.T, h *harness) {
	h.put("n/a", 1)
	var old *pb.RangeResponse
	var lag atomic.Bool
	replayed := 0
	w := &tap{}
	w.after = func(c *call, err error) {
		if c.page() == nil || err != nil {
			return
		}
		reply := c.reply.(*pb.RangeResponse)
		if old == nil {
			old = proto.CloneOf(reply)
		}
		if lag.Load() {
			replayed++
			proto.Reset(reply)
			proto.Merge(reply, old)
			if replayed == 3 {
				lag.Store(false)
			}
		}
	}
	link := clienttest.NewLink()
	cfg := w.config()
	cfg.Dialer = link.Dial
	ca := h.numbers(h.client(cfg))
	next, stop := iter.Pull2(ca.Events(h.ctx))
	defer stop()
	_, err, _ := next()
	require.NoError(t, err)
	seen := h.put("n/a", 2)
	h.reached(ca, seen)
	_, err, _ = next()
	require.NoError(t, err)

	lag.Store(true)
	restore := link.Down()
	h.put("n/a", 3)
	rev := h.put("n/a", 4)
	require.NoError(t, h.c.Compact(h.ctx, rev))
	restore()
	// This waits while the replays come, and nothing is said meanwhile.
	ev, err, _ := next()
	require.NoError(t, err)
	require.Equal(t, cache.Resynced, ev.Type)
	require.GreaterOrEqual(t, ev.Rev, rev)
	require.Equal(t, 3, replayed)
	require.Len(t, ev.Diff, 1)
	require.Equal(t, 2, ev.Diff[0].Old.Value)
	require.Equal(t, 4, ev.Diff[0].New.Value)
}

// A cluster that refuses the read is not waited for silently.
func testRefused(t *testing.T, h *harness) {
	var refuse atomic.Bool
	refuse.Store(true)
	h.put("n/a", 1)
	cfg := client.Config{DialOptions: []grpc.DialOption{grpc.WithUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if refuse.Load() {
				return rpctypes.ErrGRPCPermissionDenied
			}
			return invoke(ctx, method, req, reply, cc, opts...)
		})}}
	ca, err := cache.New[int](h.client(cfg), "n/")
	require.NoError(t, err)
	defer func() { require.NoError(t, ca.Close()) }()
	require.ErrorIs(t, ca.WaitSynced(h.ctx), client.ErrPermissionDenied)
	require.ErrorIs(t, ca.Err(), client.ErrPermissionDenied)
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	err = ca.WaitRev(ctx, 1)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, client.ErrPermissionDenied, "the reason stays visible")
	refuse.Store(false)
	require.NoError(t, ca.WaitRev(h.ctx, 1))
	require.NoError(t, ca.Err())
	require.Equal(t, 1, ca.Len())
}

// A cache under random writes is at every moment equal to the store at the cache's
// revision, and its events lead to the same, while connections break and history is
// compacted.
func testEqualsTheStore(t *testing.T, h *harness) {
	const writers, keys, comparisons = 3, 25, 100
	link := clienttest.NewLink()
	ca := h.numbers(h.client(client.Config{Dialer: link.Dial}),
		cache.WithIndex("mod", func(n int) []string { return []string{fmt.Sprint(n % 3), "all"} }))
	m := newMirror(h)
	listening := make(chan error, 1)
	go func() { listening <- m.listen(ca) }()
	writing, stop := context.WithCancel(h.ctx)
	defer stop()
	var group errgroup
	for w := range writers {
		group.start(func() error { return h.writeRandomly(writing, uint64(w), keys) })
	}
	compared, compactions, cuts := 0, 0, 0
	last := client.Revision(0)
	for i := 0; compared < comparisons; i++ {
		h.reached(ca, last+1)
		v := ca.View()
		require.Greater(t, v.Rev(), last)
		last = v.Rev()
		if h.equalsStore(v) {
			compared++
		}
		require.NoError(t, indexed(v))
		switch i % 40 {
		case 15:
			if link.Cut() > 0 {
				cuts++
			}
		case 35:
			restore := link.Down()
			require.NoError(t, h.compactNow())
			compactions++
			restore()
		}
	}
	stop()
	require.NoError(t, group.wait())
	h.reached(ca, h.put("n/end", 0))
	require.NoError(t, <-listening)
	require.True(t, h.equalsStore(ca.View()))
	require.Len(t, m.items, ca.Len())
	for key, item := range ca.All() {
		require.Equal(t, item, m.items[key])
	}
	t.Logf("%d events, %d resyncs, %d compactions, %d cuts", m.events, m.resync, compactions, cuts)
	require.Greater(t, m.events, 50)
	require.Greater(t, m.resync, 1)
	require.Greater(t, compactions, 1)
	require.Greater(t, cuts, 1)
}

// errgroup is a few goroutines that may fail.
type errgroup struct {
	group sync.WaitGroup
	mu    sync.Mutex
	err   error
}

func (g *errgroup) start(f func() error) {
	g.group.Go(func() {
		if err := f(); err != nil {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.err = errors.Join(g.err, err)
		}
	})
}

func (g *errgroup) wait() error {
	g.group.Wait()
	return g.err
}

// writeRandomly writes until ctx is done.
func (h *harness) writeRandomly(ctx context.Context, seed uint64, keys int) error {
	random := rand.New(rand.NewPCG(seed, 42))
	for ctx.Err() == nil {
		if err := h.randomWrite(random, keys); err != nil {
			return err
		}
	}
	return nil
}

// compactNow forgets all history but that of the last two revisions.
func (h *harness) compactNow() error {
	res, err := h.c.Put(h.ctx, "other", nil)
	if err != nil {
		return err
	}
	if _, err = h.c.Put(h.ctx, "n/compacted", []byte("1")); err != nil {
		return err
	}
	if err = h.c.Compact(h.ctx, res.Revision+1); errors.Is(err, client.ErrCompacted) {
		return nil
	}
	return err
}

// randomWrite changes one to three of the keys in one transaction.
func (h *harness) randomWrite(random *rand.Rand, keys int) error {
	key := func() string { return fmt.Sprintf("n/%02d", random.IntN(keys)) }
	value := func() []byte { return []byte(fmt.Sprint(random.IntN(1000))) }
	switch random.IntN(6) {
	case 0:
		_, err := h.c.Delete(h.ctx, key())
		return err
	case 1:
		first := random.IntN(keys)
		_, err := h.c.Delete(h.ctx, fmt.Sprintf("n/%02d", first), client.Range(fmt.Sprintf("n/%02d", first+3)))
		return err
	case 2:
		a := random.IntN(keys)
		_, err := h.c.Txn().Then(
			client.OpPut(fmt.Sprintf("n/%02d", a), value()),
			client.OpDelete(fmt.Sprintf("n/%02d", (a+1)%keys)),
			client.OpPut(fmt.Sprintf("n/%02d", (a+2)%keys), value()),
		).Commit(h.ctx)
		return err
	}
	_, err := h.c.Put(h.ctx, key(), value())
	return err
}

// indexed says what is wrong with the index of a view.
func indexed(v *cache.View[int]) error {
	found := 0
	for i := range 3 {
		for item := range v.ByIndex("mod", fmt.Sprint(i)) {
			found++
			if got, ok := v.Get(item.Key); !ok || got != item || item.Value%3 != i {
				return fmt.Errorf("index %d has %+v, the view %+v", i, item, got)
			}
		}
	}
	last, all := "", 0
	for item := range v.ByIndex("mod", "all") {
		if item.Key <= last {
			return fmt.Errorf("%s comes after %s", item.Key, last)
		}
		last = item.Key
		all++
	}
	if found != v.Len() || all != v.Len() {
		return fmt.Errorf("the index has %d and %d items, the view %d", found, all, v.Len())
	}
	return nil
}

// A closed cache keeps what it has and says that it is closed; so does one whose
// client was closed.
func testClosed(t *testing.T, h *harness) {
	h.put("n/a", 1)
	for _, closing := range []string{"cache", "client"} {
		c := h.client(client.Config{})
		ca := h.numbers(c)
		errs := make(chan error, 3)
		for _, wait := range []func() error{
			func() error { return ca.WaitRev(h.ctx, 1<<40) },
			func() error { return newMirror(h).listen(ca) },
		} {
			go func() { errs <- wait() }()
		}
		if closing == "cache" {
			require.NoError(t, ca.Close())
		} else {
			require.NoError(t, c.Close())
		}
		for range 2 {
			err := <-errs
			require.ErrorIs(t, err, cache.ErrClosed)
			require.Equal(t, closing == "client", errors.Is(err, client.ErrClosed))
		}
		require.ErrorIs(t, ca.Err(), cache.ErrClosed)
		require.ErrorIs(t, newMirror(h).listen(ca), cache.ErrClosed)
		got, ok := ca.Get("a")
		require.True(t, ok)
		require.Equal(t, 1, got.Value)
		require.NoError(t, ca.WaitSynced(h.ctx), "it was")
		require.NoError(t, ca.Close())
	}
}

// The end of a context ends the call that it was given to, with its cause, and
// nothing else.
func testContexts(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	restore := link.Down()
	ca, err := cache.New[int](h.client(client.Config{Dialer: link.Dial}), "n/")
	require.NoError(t, err)
	defer func() { require.NoError(t, ca.Close()) }()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(h.ctx)
	cancel(enough)
	for name, wait := range map[string]func() error{
		"WaitSynced": func() error { return ca.WaitSynced(ctx) },
		"WaitRev":    func() error { return ca.WaitRev(ctx, 1) },
		"Sync":       func() error { return ca.Sync(ctx) },
		"Events": func() error {
			for _, err := range ca.Events(ctx) {
				return err
			}
			return nil
		},
	} {
		err := wait()
		require.ErrorIs(t, err, context.Canceled, name)
		require.ErrorIs(t, err, enough, name)
	}
	require.Zero(t, ca.Rev())
	require.Zero(t, ca.Len())
	restore()
	h.reached(ca, h.put("n/a", 1))
}
