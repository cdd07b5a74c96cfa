package clienttest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
)

func testCompares(t *testing.T, h *harness) {
	lease, err := h.c.Grant(h.ctx, testTimeout)
	require.NoError(t, err)
	defer func() { require.NoError(t, h.c.Revoke(h.ctx, lease.ID)) }()
	ra := h.put("a/1", "x")
	rb := h.put("a/2", "y", client.WithLease(lease.ID))
	over := client.Prefix()
	for _, c := range []struct {
		name string
		cmp  client.Compare
		want bool
	}{
		{"mod =", client.ModRevision("a/1").Equal(ra), true},
		{"mod !=", client.ModRevision("a/1").NotEqual(ra), false},
		{"mod <", client.ModRevision("a/1").Less(ra + 1), true},
		{"mod >", client.ModRevision("a/1").Greater(ra), false},
		{"create =", client.CreateRevision("a/2").Equal(rb), true},
		{"version =", client.Version("a/2").Equal(1), true},
		{"value =", client.Value("a/1").Equal([]byte("x")), true},
		{"value <", client.Value("a/1").Less([]byte("x")), false},
		{"value of nothing", client.Value("none").NotEqual([]byte("x")), false},
		{"lease =", client.Lease("a/2").Equal(lease.ID), true},
		{"lease none", client.Lease("a/1").Equal(0), true},
		{"exists", client.Exists("a/1"), true},
		{"exists not", client.Exists("none"), false},
		{"missing", client.Missing("none"), true},
		{"missing not", client.Missing("a/1"), false},
		{"range all", client.ModRevision("a/", over).Less(rb + 1), true},
		{"range not all", client.ModRevision("a/", over).Less(rb), false},
		{"range empty", client.Missing("b/", over), true},
		{"range not empty", client.Missing("a/", over), false},
	} {
		res, err := h.c.Txn().If(c.cmp).Commit(h.ctx)
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, res.Succeeded, c.name)
		require.Empty(t, res.Results, c.name)
	}
}

func testNested(t *testing.T, h *harness) {
	h.put("a", "1")
	inner := client.OpTxn([]client.Compare{client.Exists("b")},
		[]client.Op{client.OpGet("b")}, []client.Op{client.OpPut("b", []byte("2")), client.OpGet("b")})
	txn := h.c.Txn().If(client.Exists("a")).Then(client.OpDelete("a", client.PrevKV()), inner).Else(client.OpGet("a"))
	res, err := txn.Commit(h.ctx)
	require.NoError(t, err)
	require.True(t, res.Succeeded)
	require.Equal(t, "1", string(res.Results[0].Delete.Prev[0].Value))
	nested := res.Results[1].Txn
	require.False(t, nested.Succeeded)
	require.Equal(t, "2", string(nested.Results[1].Get.KVs[0].Value), "an operation sees those before it")
	require.Equal(t, res.Revision, nested.Results[1].Get.KVs[0].ModRevision)

	res, err = txn.Commit(h.ctx)
	require.NoError(t, err)
	require.False(t, res.Succeeded)
	require.Empty(t, res.Results[0].Get.KVs)
}

func testGuarded(t *testing.T, h *harness) {
	lost := errors.New("lock is lost")
	token := h.put("lock", "me")
	guard := client.CreateRevision("lock").Equal(token)
	write := func() (*client.TxnResult, error) {
		return h.c.Guarded(lost, guard).If(client.Missing("a")).
			Then(client.OpPut("a", []byte("1"))).Else(client.OpGet("a")).Commit(h.ctx)
	}
	res, err := write()
	require.NoError(t, err)
	require.True(t, res.Succeeded)
	require.Equal(t, token+1, res.Revision)
	res, err = write()
	require.NoError(t, err, "that the user's own compare fails does not mean that the lock is lost")
	require.False(t, res.Succeeded)
	require.Equal(t, "1", string(res.Results[0].Get.KVs[0].Value))
	_, err = h.c.Guarded(lost, guard).Commit(h.ctx)
	require.NoError(t, err, "a check of the guard alone")

	_, err = h.c.Delete(h.ctx, "lock")
	require.NoError(t, err)
	h.put("lock", "somebody else")
	_, err = h.c.Delete(h.ctx, "a")
	require.NoError(t, err)
	_, err = write()
	require.ErrorIs(t, err, lost)
	require.ErrorIs(t, err, client.ErrGuardFailed)
	require.Equal(t, "", h.value("a"))
}

func testTxnErrors(t *testing.T, h *harness) {
	_, err := h.c.Txn().Then(client.OpPut("a", nil), client.OpPut("a", nil)).Commit(h.ctx)
	require.ErrorIs(t, err, client.ErrDuplicateKey)
	_, err = h.c.Txn().Then(client.OpPut("a", nil), client.OpDelete("", client.Prefix())).Commit(h.ctx)
	require.ErrorIs(t, err, client.ErrDuplicateKey)
	_, err = h.c.Txn().Then(client.OpPut("", nil)).Commit(h.ctx)
	require.ErrorIs(t, err, client.ErrEmptyKey)
	_, err = h.c.Txn().If(client.Exists("")).Commit(h.ctx)
	require.ErrorIs(t, err, client.ErrEmptyKey)
	_, err = h.c.Txn().Then(client.Op{}).Commit(h.ctx)
	require.ErrorIs(t, err, client.ErrInvalid)
	_, err = h.c.Txn().Then(client.OpPut("a", nil, client.WithLease(1))).Commit(h.ctx)
	require.ErrorIs(t, err, client.ErrLeaseNotFound)
	var many []client.Op
	for i := range 200 {
		many = append(many, client.OpPut(fmt.Sprint(i), nil))
	}
	_, err = h.c.Txn().Then(many...).Commit(h.ctx)
	require.ErrorIs(t, err, client.ErrTooManyOps)
	require.NotErrorIs(t, err, client.ErrUncertain)
	require.Equal(t, "", h.keys("", client.Prefix()))
}
