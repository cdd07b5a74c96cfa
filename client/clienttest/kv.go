package clienttest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

func testPutGetDelete(t *testing.T, h *harness) {
	_, err := h.c.GetOne(h.ctx, "a")
	require.ErrorIs(t, err, client.ErrNotFound)

	r1 := h.put("a", "1")
	r2 := h.put("a", "2")
	require.Equal(t, r1+1, r2)
	kv, err := h.c.GetOne(h.ctx, "a")
	require.NoError(t, err)
	require.Equal(t, client.KV{Key: "a", Value: []byte("2"), CreateRevision: r1, ModRevision: r2, Version: 2}, kv)

	put, err := h.c.Put(h.ctx, "a", nil, client.PrevKV())
	require.NoError(t, err)
	require.Equal(t, "2", string(put.Prev.Value))
	put, err = h.c.Put(h.ctx, "b", []byte("x"), client.PrevKV())
	require.NoError(t, err)
	require.Nil(t, put.Prev)

	del, err := h.c.Delete(h.ctx, "a", client.PrevKV())
	require.NoError(t, err)
	require.Equal(t, int64(1), del.Deleted)
	require.Equal(t, put.Revision+1, del.Revision)
	require.Len(t, del.Prev, 1)
	require.Equal(t, "a", del.Prev[0].Key)
	del, err = h.c.Delete(h.ctx, "a")
	require.NoError(t, err)
	require.Zero(t, del.Deleted, "deleting nothing is no error")
	require.Equal(t, "b", h.keys("", client.Prefix()))

	// A local read may be old, but this member has at some point had something to answer.
	_, err = h.c.Get(h.ctx, "b", client.Serializable())
	require.NoError(t, err)
}

func testRanges(t *testing.T, h *harness) {
	for _, key := range []string{"a", "a/1", "a/2", "a0", "b", "\xff", "\xff\xff"} {
		h.put(key, key)
	}
	require.Equal(t, "a/1 a/2", h.keys("a/", client.Prefix()))
	require.Equal(t, "a a/1 a/2 a0", h.keys("a", client.Prefix()))
	require.Equal(t, "a a/1", h.keys("a", client.Range("a/2")))
	require.Equal(t, "b \xff \xff\xff", h.keys("b", client.FromKey()))
	require.Equal(t, "\xff \xff\xff", h.keys("\xff", client.Prefix()), "a prefix without an end of its own")
	require.Equal(t, "a a/1 a/2 a0 b \xff \xff\xff", h.keys("", client.FromKey()))
	require.Equal(t, "", h.keys("b", client.Range("a")), "an empty range")

	res, err := h.c.Get(h.ctx, "a", client.Prefix(), client.Limit(2), client.KeysOnly())
	require.NoError(t, err)
	require.True(t, res.More)
	require.Equal(t, int64(4), res.Count)
	require.Len(t, res.KVs, 2)
	require.Empty(t, res.KVs[0].Value)
	res, err = h.c.Get(h.ctx, "a", client.Prefix(), client.CountOnly())
	require.NoError(t, err)
	require.Equal(t, int64(4), res.Count)
	require.Empty(t, res.KVs)

	del, err := h.c.Delete(h.ctx, "a/", client.Prefix())
	require.NoError(t, err)
	require.Equal(t, int64(2), del.Deleted)
	require.Equal(t, "a a0 b \xff \xff\xff", h.keys("", client.Prefix()))
}

func testOrder(t *testing.T, h *harness) {
	h.put("a", "3")
	rb := h.put("b", "2")
	h.put("c", "1")
	h.put("a", "3")
	all := client.Prefix()
	require.Equal(t, "c b a", h.keys("", all, client.Descending(client.ByKey)))
	require.Equal(t, "b c a", h.keys("", all, client.Ascending(client.ByModRevision)))
	require.Equal(t, "a b c", h.keys("", all, client.Ascending(client.ByCreateRevision)))
	require.Equal(t, "c b a", h.keys("", all, client.Ascending(client.ByValue)))
	require.Equal(t, "a", h.keys("", all, client.Descending(client.ByVersion), client.Limit(1)))
	require.Equal(t, "c", h.keys("", all, client.Descending(client.ByCreateRevision), client.Limit(1)))
	require.Equal(t, "b c", h.keys("", all, client.MinCreateRevision(rb)))
	require.Equal(t, "a b", h.keys("", all, client.MaxCreateRevision(rb)))
	require.Equal(t, "a c", h.keys("", all, client.MinModRevision(rb+1)))
	require.Equal(t, "b", h.keys("", all, client.MaxModRevision(rb)))
}

func testHistory(t *testing.T, h *harness) {
	r1 := h.put("a", "1")
	r2 := h.put("a", "2")
	kv, err := h.c.GetOne(h.ctx, "a", client.AtRevision(r1))
	require.NoError(t, err)
	require.Equal(t, "1", string(kv.Value))
	res, err := h.c.Get(h.ctx, "a", client.AtRevision(r1))
	require.NoError(t, err)
	require.Equal(t, r2, res.Revision, "a read of the past tells the present revision")
	_, err = h.c.Get(h.ctx, "a", client.AtRevision(r2+1000))
	require.ErrorIs(t, err, client.ErrFutureRevision)

	require.NoError(t, h.c.Compact(h.ctx, r2, client.Physical()))
	_, err = h.c.Get(h.ctx, "a", client.AtRevision(r1))
	require.ErrorIs(t, err, client.ErrCompacted)
	require.ErrorIs(t, h.c.Compact(h.ctx, r2), client.ErrCompacted)
	require.ErrorIs(t, h.c.Compact(h.ctx, r2+1000), client.ErrFutureRevision)
	require.Equal(t, "2", h.value("a"))
}

func testKVErrors(t *testing.T, h *harness) {
	_, err := h.c.Get(h.ctx, "")
	require.ErrorIs(t, err, client.ErrEmptyKey)
	_, err = h.c.Put(h.ctx, "", nil)
	require.ErrorIs(t, err, client.ErrEmptyKey)
	_, err = h.c.Put(h.ctx, "a", nil, client.KeepValue())
	require.ErrorIs(t, err, client.ErrKeyNotFound)
	_, err = h.c.Put(h.ctx, "a", nil, client.KeepLease())
	require.ErrorIs(t, err, client.ErrKeyNotFound)
	_, err = h.c.Put(h.ctx, "a", nil, client.WithLease(1))
	require.ErrorIs(t, err, client.ErrLeaseNotFound)
	require.NotErrorIs(t, err, client.ErrUncertain)

	// Above the limit of a request, and far above, where gRPC itself refuses.
	for _, bytes := range []int{1_800_000, 5_000_000} {
		_, err = h.c.Put(h.ctx, "a", make([]byte, bytes))
		require.ErrorIs(t, err, client.ErrTooLarge, "%d bytes", bytes)
		require.NotErrorIs(t, err, client.ErrUncertain)
	}
	require.Equal(t, "", h.keys("", client.Prefix()), "nothing was written")

	_, err = client.New(client.Config{})
	require.ErrorContains(t, err, "Endpoints")
}

func testNamespace(t *testing.T, h *harness) {
	in := h.c.Namespace("in/")
	h.put("im", "before")
	h.put("in0", "behind")
	_, err := in.Put(h.ctx, "a", []byte("1"))
	require.NoError(t, err)
	require.Equal(t, "1", h.value("in/a"))
	for _, over := range []client.GetOption{client.Prefix(), client.FromKey()} {
		res, err := in.Get(h.ctx, "", over)
		require.NoError(t, err)
		require.Len(t, res.KVs, 1)
		require.Equal(t, "a", res.KVs[0].Key)
	}
	txn, err := in.Txn().If(client.Exists("a"), client.Missing("b", client.FromKey())).
		Then(client.OpPut("b", nil), client.OpGet("", client.Prefix())).Commit(h.ctx)
	require.NoError(t, err)
	require.True(t, txn.Succeeded)
	require.Equal(t, "b", txn.Results[1].Get.KVs[1].Key)
	del, err := in.Delete(h.ctx, "", client.FromKey())
	require.NoError(t, err)
	require.Equal(t, int64(2), del.Deleted)
	require.Equal(t, "im in0", h.keys("", client.Prefix()))
	require.True(t, strings.HasSuffix(in.Prefix(), "/in/"))
}

func testCluster(t *testing.T, h *harness) {
	members, err := h.c.Members(h.ctx)
	require.NoError(t, err)
	require.NotEmpty(t, members)
	for _, endpoint := range h.endpoints {
		st, err := h.c.Status(h.ctx, endpoint)
		require.NoError(t, err)
		require.NotZero(t, st.Leader)
		require.NotZero(t, st.MemberID)
		require.NotEmpty(t, st.Version)
	}
	_, err = h.c.Status(h.ctx, "nowhere:1")
	require.ErrorIs(t, err, client.ErrInvalid)
}
