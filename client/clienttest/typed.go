package clienttest

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

// upper is a codec that is not JSON.
type upper struct{}

func (upper) Encode(v string) ([]byte, error) {
	if v == "" {
		return nil, errors.New("empty")
	}
	return []byte(">" + v), nil
}

func (upper) Decode(b []byte) (string, error) {
	if len(b) == 0 || b[0] != '>' {
		return "", errors.New("no >")
	}
	return string(b[1:]), nil
}

func testTyped(t *testing.T, h *harness) {
	stock := client.NewTyped[int](h.c, "stock/")
	_, err := stock.Get(h.ctx, "x")
	require.ErrorIs(t, err, client.ErrNotFound)
	r1, err := stock.Create(h.ctx, "x", 5)
	require.NoError(t, err)
	require.Equal(t, "5", h.value("stock/x"))
	_, err = stock.Create(h.ctx, "x", 6)
	require.ErrorIs(t, err, client.ErrExists)
	r2, err := stock.CompareAndSwap(h.ctx, "x", r1, 7)
	require.NoError(t, err)
	_, err = stock.CompareAndSwap(h.ctx, "x", r1, 8)
	require.ErrorIs(t, err, client.ErrConflict)
	item, err := stock.Get(h.ctx, "x")
	require.NoError(t, err)
	require.Equal(t, client.Item[int]{Key: "x", Value: 7, Revision: r2, CreateRevision: r1}, item)

	// Update keeps the lease, and makes a value where there is none.
	s, err := h.c.Session(h.ctx)
	require.NoError(t, err)
	_, err = stock.Put(h.ctx, "leased", 1, client.WithLease(s.ID()))
	require.NoError(t, err)
	add := func(old int, exists bool) (int, error) { return old + 10, nil }
	item, err = stock.Update(h.ctx, "leased", add)
	require.NoError(t, err)
	require.Equal(t, 11, item.Value)
	require.Equal(t, s.ID(), item.Lease)
	again, err := stock.Get(h.ctx, "leased")
	require.NoError(t, err)
	require.Equal(t, item, again)
	item, err = stock.Update(h.ctx, "new", add, client.ExactlyOnce())
	require.NoError(t, err)
	require.Equal(t, client.Item[int]{Key: "new", Value: 10, Revision: item.Revision, CreateRevision: item.Revision}, item)
	_, err = stock.Update(h.ctx, "new", func(int, bool) (int, error) { return 0, errStop })
	require.Equal(t, errStop, err)

	items, rev, err := stock.List(h.ctx)
	require.NoError(t, err)
	require.Len(t, items, 3)
	require.Equal(t, "leased", items[0].Key)
	require.GreaterOrEqual(t, rev, item.Revision)
	require.ErrorIs(t, stock.CompareAndDelete(h.ctx, "x", r1), client.ErrConflict)
	require.NoError(t, stock.CompareAndDelete(h.ctx, "x", r2))
	existed, err := stock.Delete(h.ctx, "x")
	require.NoError(t, err)
	require.False(t, existed)

	// One transaction over values of two types.
	names := client.NewTyped(h.c, "names/", client.Codec[string](upper{}))
	require.NoError(t, h.c.Update(h.ctx, func(tx *client.Tx) error {
		all, err := stock.ListTx(tx, client.Limit(1))
		require.NoError(t, err)
		n, err := stock.GetTx(tx, all[0].Key)
		require.NoError(t, err)
		require.NoError(t, stock.PutTx(tx, "new", n+1))
		stock.DeleteTx(tx, "leased")
		return names.PutTx(tx, "n", "ada")
	}))
	require.Equal(t, "12", h.value("stock/new"))
	require.Equal(t, ">ada", h.value("names/n"))
	err = h.c.Update(h.ctx, func(tx *client.Tx) error { _ = names.PutTx(tx, "n", ""); return nil })
	require.ErrorContains(t, err, `encode value of key "n": empty`)
	other := h.client(client.Config{})
	err = other.Update(h.ctx, func(tx *client.Tx) error { stock.DeleteTx(tx, "new"); return nil })
	require.ErrorContains(t, err, "another client")
}

func testTypedWatch(t *testing.T, h *harness) {
	names := client.NewTyped(h.c, "names/", client.Codec[string](upper{}))
	rev, err := names.Put(h.ctx, "a", "ada")
	require.NoError(t, err)
	h.put("names/b", "damaged")
	_, err = names.Delete(h.ctx, "a")
	require.NoError(t, err)
	_, err = names.Get(h.ctx, "b")
	var decode *client.DecodeError
	require.ErrorAs(t, err, &decode)
	require.Equal(t, "b", decode.Key)

	n := 0
	for ev, err := range names.Watch(h.ctx, "", client.Prefix(), client.FromRevision(rev)) {
		switch n++; n {
		case 1:
			require.NoError(t, err)
			require.Equal(t, client.Item[string]{Key: "a", Value: "ada", Revision: rev, CreateRevision: rev}, ev.Item)
			continue
		case 2:
			require.ErrorAs(t, err, &decode)
			require.Equal(t, "b", ev.Item.Key)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, client.EventDelete, ev.Type)
		require.Equal(t, "a", ev.Item.Key)
		break
	}
	require.Equal(t, 3, n)
}

var errStop = errors.New("stop")
