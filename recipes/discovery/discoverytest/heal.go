package discoverytest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/discovery"
)

// A key that somebody deletes comes back, as it was.
func testKeyDeleted(t *testing.T, h *harness) {
	r := h.register(h.c, at("a", "h:1"))
	require.NoError(t, r.Update(h.ctx, func(in *instance) error { in.Meta.Color = "red"; return nil }))
	for range 3 {
		res, err := h.c.Delete(h.ctx, r.Key())
		require.NoError(t, err)
		h.awaitPut(r.Key(), res.Revision)
		s, err := discovery.List[tags](h.ctx, h.c, "api")
		require.NoError(t, err)
		require.Equal(t, []instance{r.Instance()}, s.Instances)
		require.Equal(t, "red", s.Instances[0].Meta.Color)
	}
	require.NoError(t, r.Context().Err())
	h.close(r)
	h.awaitKeys("api/", 0)
}

// The server ends the lease, as it does when renewals stay out: the instance comes
// back under the client's next session.
func testLeaseRevoked(t *testing.T, h *harness) {
	c := h.client(client.Config{SessionTTL: shortTTL})
	r := h.register(c, at("a", "h:1"))
	s, err := c.Session(h.ctx)
	require.NoError(t, err)
	h.revoke(s, r.Key())
	require.NoError(t, r.Context().Err())
	h.close(r)
	h.awaitKeys("api/", 0)
}

// What others make of the value is kept, as long as the incarnation is in it; a key
// that they have taken off its lease is put back on it.
func testEdited(t *testing.T, h *harness) {
	r := h.register(h.c, at("a", "h:1"))
	kv, err := h.c.GetOne(h.ctx, r.Key())
	require.NoError(t, err)
	edited := []byte(string(kv.Value[:len(kv.Value)-1]) + `,"weight":5}`)
	put, err := h.c.Put(h.ctx, r.Key(), edited)
	require.NoError(t, err)
	back := h.awaitPut(r.Key(), put.Revision)
	require.Equal(t, kv.Lease, back.Lease)
	require.Equal(t, string(edited), string(back.Value))
	require.EqualValues(t, 5, r.Instance().Weight)
	h.close(r)
}

// The key is deleted while the instance can not see it, and the deletion is
// compacted before it can.
func testDeletionUnseen(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	c := h.client(client.Config{Dialer: link.Dial})
	r := h.register(c, at("a", "h:1"))
	for range 2 {
		restore := link.Down()
		_, err := h.c.Delete(h.ctx, r.Key())
		require.NoError(t, err)
		h.compact()
		require.Empty(t, h.ids())
		restore()
		h.awaitKeys("api/", 1)
	}
	// Nothing has happened to it, but what was seen last is compacted all the same.
	restore := link.Down()
	before := h.awaitKeys("api/", 1)
	h.compact()
	restore()
	require.NoError(t, r.Update(h.ctx, func(in *instance) error { in.Weight = 2; return nil }))
	require.Equal(t, before[0].CreateRevision, h.awaitKeys("api/", 1)[0].CreateRevision)
	h.close(r)
}

// Somebody else has the id now: the registration ends, and leaves the other alone.
func testIDTaken(t *testing.T, h *harness) {
	r := h.register(h.c, at("a", "h:1"))
	_, err := h.c.Put(h.ctx, r.Key(), []byte(`{"Op":0,"Addr":"h:2"}`))
	require.NoError(t, err)
	cause := h.ended(r)
	require.ErrorIs(t, cause, discovery.ErrDuplicateID)
	var dup *discovery.DuplicateError
	require.ErrorAs(t, cause, &dup)
	require.Equal(t, "h:2", dup.Addr)
	require.False(t, r.Registered())
	require.ErrorIs(t, r.Update(h.ctx, func(*instance) error { return nil }), discovery.ErrDuplicateID)
	h.close(r)
	require.Equal(t, "a", h.ids())
}

func testSessionClosed(t *testing.T, h *harness) {
	s, err := h.c.NewSession(h.ctx)
	require.NoError(t, err)
	r := h.register(h.c, at("a", "h:1"), discovery.WithSession(s))
	require.NoError(t, s.Close(h.ctx))
	require.ErrorIs(t, h.ended(r), client.ErrSessionClosed)
	h.awaitKeys("api/", 0)
	require.ErrorIs(t, r.Close(h.ctx), client.ErrSessionClosed)
	_, err = discovery.Register(h.ctx, h.c, at("a", "h:1"), discovery.WithSession(s))
	require.ErrorIs(t, err, client.ErrSessionClosed)
}

// An instance whose machine is gone is known to be lost within its TTL, and a
// moment for the server, which looks at its leases now and then.
func testLossWithinTTL(t *testing.T, h *harness) {
	const moment = 1500 * time.Millisecond
	link := clienttest.NewLink()
	c := h.client(client.Config{Dialer: link.Dial, SessionTTL: shortTTL})
	h.register(c, at("a", "h:1"))
	stays := h.register(h.c, at("b", "h:2"))
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	acted := make(chan instance)
	go func() {
		defer close(acted)
		for in, err := range discovery.Losses[tags](ctx, h.client(client.Config{}), "api") {
			if err == nil {
				acted <- in // the health action
			}
		}
	}()
	restore := link.Down()
	start := time.Now()
	lost := <-acted
	took := time.Since(start)
	t.Logf("lost after %v of a TTL of %v", took, shortTTL)
	require.Equal(t, "a", lost.ID)
	require.Equal(t, "h:1", lost.Addr)
	require.Less(t, took, shortTTL+moment)
	require.Equal(t, "b", h.ids())
	cancel()
	_, open := <-acted
	require.False(t, open, "nothing else was lost")
	restore()
	h.awaitKeys("api/", 2)
	h.close(stays)
}

// etcd's AddEndpoint is gone for good after an outage that is longer than its lease.
// Ours is back when the cluster is.
func testBackAfterOutage(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	c := h.client(client.Config{Dialer: link.Dial, SessionTTL: shortTTL})
	r := h.register(c, at("a", "h:1"))
	s, err := c.Session(h.ctx)
	require.NoError(t, err)
	restore := link.Down()
	h.awaitKeys("api/", 0)
	<-s.Context().Done()
	require.NoError(t, r.Context().Err())
	restore()
	h.awaitKeys("api/", 1)
	h.close(r)
	h.awaitKeys("api/", 0)
}
