package membershiptest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/membership"
)

func testLife(t *testing.T, h *harness) {
	m, err := membership.Join(h.ctx, h.c, "team", "a", tags{Rack: 7})
	require.NoError(t, err)
	require.Equal(t, "a", m.ID())
	require.Equal(t, "team", m.Group())
	require.True(t, m.Present())
	kv, err := h.c.GetOne(h.ctx, "team/a")
	require.NoError(t, err)
	require.Equal(t, "team/a", m.Key())
	require.Regexp(t, `^\{"meta":\{"Rack":7\},"by":"[A-Z2-7]+"\}$`, string(kv.Value))
	own, err := h.c.Session(h.ctx)
	require.NoError(t, err)
	require.Equal(t, own.ID(), kv.Lease)
	require.NoError(t, m.Update(h.ctx, tags{Rack: 8}))
	h.leave(m)
	h.leave(m)
	require.False(t, m.Present())
	require.ErrorIs(t, context.Cause(m.Context()), membership.ErrLeft)
	require.ErrorIs(t, m.Update(h.ctx, tags{}), membership.ErrLeft)
	h.awaitKeys("team/", 0)
	require.NoError(t, own.Err())
}

func testNames(t *testing.T, h *harness) {
	for _, c := range [][2]string{{"", "a"}, {"team/", "a"}, {"a//b", "a"}, {"team", ""}, {"team", "a/b"}} {
		_, err := membership.Join(h.ctx, h.c, c[0], c[1], tags{})
		require.ErrorIs(t, err, membership.ErrName, "%q", c)
	}
	for _, err := range membership.Members[tags](h.ctx, h.c, "") {
		require.ErrorIs(t, err, membership.ErrName)
	}
}

// Curator's GroupMember says that ids must be unique, and lets two have the same.
func testDuplicate(t *testing.T, h *harness) {
	first := h.join(h.c, "a")
	other := h.client(client.Config{})
	for _, c := range []*client.Client{h.c, other} {
		_, err := membership.Join(h.ctx, c, "team", "a", tags{})
		require.ErrorIs(t, err, membership.ErrDuplicateID)
	}
	require.True(t, first.Present())
	joined := make(chan *member)
	go func() {
		m, err := membership.Join(h.ctx, other, "team", "a", tags{}, membership.WithWait())
		if err == nil {
			joined <- m
		}
		close(joined)
	}()
	h.leave(first)
	second, ok := <-joined
	require.True(t, ok)
	// The other way round: somebody takes the key away from us.
	_, err := h.c.Put(h.ctx, "team/a", []byte(`{"by":"somebody"}`))
	require.NoError(t, err)
	<-second.Context().Done()
	require.ErrorIs(t, context.Cause(second.Context()), membership.ErrDuplicateID)
	h.leave(second)
	h.awaitKeys("team/", 1)
}

func testViews(t *testing.T, h *harness) {
	w := h.watch(h.c)
	require.Empty(t, w.step().Members)
	b := h.join(h.c, "b")
	require.Equal(t, "b", idsOf(w.step().Joined))
	a := h.join(h.c, "a")
	v := w.step()
	require.Equal(t, "a b", idsOf(v.Members))
	require.Equal(t, "a", idsOf(v.Joined))
	require.Equal(t, "team", v.Group)
	require.NoError(t, b.Update(h.ctx, tags{Rack: 3}))
	v = w.step()
	require.Equal(t, []membership.Peer[tags]{{ID: "b", Meta: tags{Rack: 3}}}, v.Changed)
	require.Empty(t, v.Joined)
	_, err := h.c.Put(h.ctx, "team/x", []byte("text"))
	require.NoError(t, err)
	v = w.step()
	require.Equal(t, []string{"team/x"}, v.Invalid)
	require.Equal(t, "a b", idsOf(v.Members))
	nested, err := membership.Join(h.ctx, h.c, "team/sub", "n", tags{})
	require.NoError(t, err)
	_, err = h.c.Delete(h.ctx, "team/x")
	require.NoError(t, err)
	h.leave(a)
	v = w.untilIDs("b")
	require.Equal(t, "a", idsOf(v.Left))
	h.leave(b)
	h.leave(nested)
}

func testCompacted(t *testing.T, h *harness) {
	link := clienttest.NewLink()
	w := h.watch(h.client(client.Config{Dialer: link.Dial}))
	w.step()
	a, b := h.join(h.c, "a"), h.join(h.c, "b")
	w.untilIDs("a b")
	restore := link.Down()
	h.leave(a)
	c := h.join(h.c, "c")
	h.compact()
	restore()
	v := w.untilIDs("b c")
	require.True(t, v.Resynced)
	require.Equal(t, "c", idsOf(v.Joined))
	require.Equal(t, "a", idsOf(v.Left))
	h.leave(b)
	require.Equal(t, "b", idsOf(w.untilIDs("c").Left))
	h.leave(c)
}

// A membership comes back after its key was deleted, and after its session was lost.
func testHeal(t *testing.T, h *harness) {
	c := h.client(client.Config{SessionTTL: shortTTL})
	m := h.join(c, "a")
	require.NoError(t, m.Update(h.ctx, tags{Rack: 5}))
	res, err := h.c.Delete(h.ctx, m.Key())
	require.NoError(t, err)
	first := h.awaitPut(m.Key(), res.Revision)
	s, err := c.Session(h.ctx)
	require.NoError(t, err)
	require.NoError(t, h.c.Revoke(h.ctx, s.ID()))
	second := h.awaitPut(m.Key(), first.ModRevision)
	require.Equal(t, string(first.Value), string(second.Value))
	require.Contains(t, string(second.Value), `"Rack":5`)
	require.NotEqual(t, s.ID(), second.Lease)
	require.NoError(t, m.Context().Err())
	h.leave(m)
}

func testSession(t *testing.T, h *harness) {
	s, err := h.c.NewSession(h.ctx)
	require.NoError(t, err)
	m := h.join(h.c, "a", membership.WithSession(s))
	require.NoError(t, s.Close(h.ctx))
	<-m.Context().Done()
	require.ErrorIs(t, context.Cause(m.Context()), client.ErrSessionClosed)
	h.awaitKeys("team/", 0)
}
