package discoverytest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/discovery"
)

func testSnapshots(t *testing.T, h *harness) {
	w := h.watch(h.c)
	require.Empty(t, w.step().Instances)
	b := h.register(h.c, at("b", "h:2"))
	require.Equal(t, "b", idsOf(w.step().Joined))
	a := h.register(h.c, at("a", "h:1"))
	s := w.step()
	require.Equal(t, "a", idsOf(s.Joined))
	require.Equal(t, "a b", idsOf(s.Instances), "in order")
	require.Equal(t, "api", s.Service)

	// The same value again is no change.
	kv, err := h.c.GetOne(h.ctx, "api/a")
	require.NoError(t, err)
	_, err = h.c.Put(h.ctx, "api/a", kv.Value, client.KeepLease())
	require.NoError(t, err)
	// What comes and goes in one transaction, or is of no concern, is not seen.
	_, err = h.c.Put(h.ctx, "apis/x", []byte(`{"Addr":"h:9"}`))
	require.NoError(t, err)
	require.NoError(t, b.Update(h.ctx, func(in *instance) error { in.Weight = 2; return nil }))
	s = w.step()
	require.Equal(t, "b", idsOf(s.Changed))
	require.Empty(t, s.Joined)

	// Two at once are in one snapshot.
	_, err = h.c.Txn().Then(
		client.OpPut("api/c", []byte(`{"Addr":"h:3"}`)), client.OpPut("api/d", []byte(`{"Addr":"h:4"}`)),
	).Commit(h.ctx)
	require.NoError(t, err)
	require.Equal(t, "c d", idsOf(w.step().Joined))
	_, err = h.c.Delete(h.ctx, "api/c", client.Range("api/e"))
	require.NoError(t, err)
	require.Equal(t, "c d", idsOf(w.step().Lost))
	h.close(a)
	require.Equal(t, "a", idsOf(w.untilIDs("b").Left))
	h.close(b)
}

// Goodbye and end come together: it is a goodbye all the same.
func testGoodbyeUnseen(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	w := h.watch(h.client(client.Config{Dialer: link.Dial}))
	r := h.register(h.c, at("a", "h:1"))
	w.untilIDs("a")
	restore := link.Down()
	h.close(r)
	restore()
	require.Equal(t, "a", idsOf(w.untilIDs("").Left))
}

// A value that is no instance is named, and does not hide the others.
func testInvalid(t *testing.T, h *harness) {
	r := h.register(h.c, at("a", "h:1"))
	w := h.watch(h.c)
	w.step()
	for _, value := range []string{"text", `{"Addr":""}`, `{"Addr":"h:1","Metadata":7}`} {
		_, err := h.c.Put(h.ctx, "api/x", []byte(value))
		require.NoError(t, err)
		s := w.until(func(s snapshot) bool { return len(s.Invalid) == 1 })
		require.Equal(t, []string{"api/x"}, s.Invalid)
		require.Equal(t, "a", idsOf(s.Instances))
		_, err = h.c.Delete(h.ctx, "api/x")
		require.NoError(t, err)
		require.Empty(t, w.step().Invalid)
	}
	h.close(r)
}

// A service and one whose name is longer have nothing to do with each other.
func testNestedNames(t *testing.T, h *harness) {
	w := h.watch(h.c)
	w.step()
	nested := h.register(h.c, instance{Service: "api/v2", ID: "n", Addr: "h:9"})
	r := h.register(h.c, at("a", "h:1"))
	require.Equal(t, "a", idsOf(w.step().Instances))
	s, err := discovery.List[tags](h.ctx, h.c, "api/v2")
	require.NoError(t, err)
	require.Equal(t, "n", idsOf(s.Instances))
	h.close(r)
	h.close(nested)
}

// While the watcher is cut off, instances come and go; it hears of all of it
// afterwards, in order.
func testWatchCut(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	w := h.watch(h.client(client.Config{Dialer: link.Dial}))
	w.step()
	for i := range 5 {
		restore := link.Down()
		id := fmt.Sprintf("i%d", i)
		_, err := h.c.Put(h.ctx, "api/"+id, []byte(`{"Addr":"h:1"}`))
		require.NoError(t, err)
		restore()
		s := w.until(func(s snapshot) bool { return len(s.Instances) == i+1 })
		require.Equal(t, id, idsOf(s.Joined))
		require.False(t, s.Resynced)
	}
}

// What happens while the watcher is cut off is compacted before it can see it. etcd's
// naming watcher ends there for ever, and its addresses are frozen.
func testCompactedUnseen(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	w := h.watch(h.client(client.Config{Dialer: link.Dial}))
	w.step()
	a, b := h.register(h.c, at("a", "h:1")), h.register(h.c, at("b", "h:2"))
	before := w.untilIDs("a b")
	for i := range 3 {
		restore := link.Down()
		h.close(a)
		require.NoError(t, b.Update(h.ctx, func(in *instance) error { in.Weight++; return nil }))
		a = h.register(h.c, at(fmt.Sprintf("c%d", i), "h:3"))
		h.compact()
		restore()
		s := w.until(func(s snapshot) bool { return s.Resynced })
		require.Equal(t, "b "+a.ID(), idsOf(s.Instances))
		require.Equal(t, a.ID(), idsOf(s.Joined))
		require.Equal(t, "b", idsOf(s.Changed))
		require.Len(t, s.Lost, 1, "its goodbye is compacted away")
		require.Greater(t, s.Revision, before.Revision)
		before = s
	}
	// And it goes on.
	h.close(a)
	require.Equal(t, a.ID(), idsOf(w.untilIDs("b").Left))
	h.close(b)
}

func testWatchEnds(t *testing.T, h *harness) {
	why := errors.New("had enough")
	ctx, cancel := context.WithCancelCause(h.ctx)
	next, stop := iter.Pull2(discovery.Watch[tags](ctx, h.c, "api"))
	defer stop()
	_, err, _ := next()
	require.NoError(t, err)
	cancel(why)
	_, err, ok := next()
	require.True(t, ok)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, why)

	c := h.client(client.Config{})
	next, stop = iter.Pull2(discovery.Watch[tags](h.ctx, c, "api"))
	defer stop()
	_, err, _ = next()
	require.NoError(t, err)
	require.NoError(t, c.Close())
	_, err, ok = next()
	require.True(t, ok)
	require.ErrorIs(t, err, client.ErrClosed)
}
