package rpc

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func putOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

func deleteOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)},
	}}
}

func rangeOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
}

func txnOp(then, otherwise []*pb.RequestOp) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{
		RequestTxn: &pb.TxnRequest{Success: then, Failure: otherwise},
	}}
}

func TestCheckTxn(t *testing.T) {
	ops := func(o ...*pb.RequestOp) []*pb.RequestOp { return o }
	many := make([]*pb.RequestOp, 4)
	for i := range many {
		many[i] = rangeOp("k")
	}
	for _, c := range []struct {
		name string
		txn  *pb.TxnRequest
		want error
	}{
		{"empty", &pb.TxnRequest{}, nil},
		{"one put a key", &pb.TxnRequest{Success: ops(putOp("a"), putOp("b"))}, nil},
		{"two puts of a key", &pb.TxnRequest{Success: ops(putOp("a"), putOp("a"))}, rpctypes.ErrGRPCDuplicateKey},
		{"two puts in the branch not chosen", &pb.TxnRequest{Failure: ops(putOp("a"), putOp("a"))}, rpctypes.ErrGRPCDuplicateKey},
		{"the same put in both branches", &pb.TxnRequest{Success: ops(putOp("a")), Failure: ops(putOp("a"))}, nil},
		{"put inside a deleted range", &pb.TxnRequest{Success: ops(deleteOp("a", "c"), putOp("b"))}, rpctypes.ErrGRPCDuplicateKey},
		{"put at the end of a deleted range", &pb.TxnRequest{Success: ops(deleteOp("a", "c"), putOp("c"))}, nil},
		{"put of the deleted key", &pb.TxnRequest{Success: ops(deleteOp("a", ""), putOp("a"))}, rpctypes.ErrGRPCDuplicateKey},
		{"put after an open delete", &pb.TxnRequest{Success: ops(deleteOp("a", "\x00"), putOp("b"))}, nil},
		{"overlapping deletes", &pb.TxnRequest{Success: ops(deleteOp("a", "c"), deleteOp("b", "d"))}, nil},
		{"then and else of one nested txn share a put", &pb.TxnRequest{Success: ops(txnOp(ops(putOp("a")), ops(putOp("a"))))}, nil},
		{"two nested txns put one key", &pb.TxnRequest{Success: ops(txnOp(ops(putOp("a")), nil), txnOp(nil, ops(putOp("a"))))}, rpctypes.ErrGRPCDuplicateKey},
		{"put beside a nested put", &pb.TxnRequest{Success: ops(putOp("a"), txnOp(ops(putOp("a")), nil))}, rpctypes.ErrGRPCDuplicateKey},
		{"nested put inside an outer delete", &pb.TxnRequest{Success: ops(txnOp(ops(putOp("b")), nil), deleteOp("a", "c"))}, rpctypes.ErrGRPCDuplicateKey},
		{"put inside a nested delete", &pb.TxnRequest{Success: ops(putOp("b"), txnOp(nil, ops(deleteOp("a", "c"))))}, rpctypes.ErrGRPCDuplicateKey},
		{"compare without key", &pb.TxnRequest{Compare: []*pb.Compare{{}}}, rpctypes.ErrGRPCEmptyKey},
		{"put without key", &pb.TxnRequest{Success: ops(putOp(""))}, rpctypes.ErrGRPCEmptyKey},
		{"operation without request", &pb.TxnRequest{Success: ops(&pb.RequestOp{})}, rpctypes.ErrGRPCKeyNotFound},
		{"nil operation", &pb.TxnRequest{Success: ops(nil)}, rpctypes.ErrGRPCKeyNotFound},
		{"as many as allowed", &pb.TxnRequest{Success: many}, nil},
		{"too many", &pb.TxnRequest{Success: append(many, rangeOp("k"))}, rpctypes.ErrGRPCTooManyOps},
		{"nested gets what is left", &pb.TxnRequest{Success: ops(txnOp(many[:3], nil))}, nil},
		{"nested beyond what is left", &pb.TxnRequest{Success: ops(txnOp(many, nil))}, rpctypes.ErrGRPCTooManyOps},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, checkTxn(c.txn, 4))
		})
	}
}

func TestCheckRange(t *testing.T) {
	require.Equal(t, rpctypes.ErrGRPCEmptyKey, checkRange(&pb.RangeRequest{SortOrder: 99}))
	require.Equal(t, rpctypes.ErrGRPCInvalidSortOption, checkRange(&pb.RangeRequest{Key: []byte("a"), SortOrder: 3}))
	require.Equal(t, rpctypes.ErrGRPCInvalidSortOption, checkRange(&pb.RangeRequest{Key: []byte("a"), SortTarget: -1}))
	require.NoError(t, checkRange(&pb.RangeRequest{Key: []byte("a"), SortTarget: pb.RangeRequest_VALUE}))
	require.ErrorContains(t, checkRangeStream(&pb.RangeRequest{Key: []byte("a"), SortOrder: pb.RangeRequest_DESCEND}), "custom sort orders")
	require.ErrorContains(t, checkRangeStream(&pb.RangeRequest{Key: []byte("a"), MinModRevision: 1}), "revision filters")
	require.NoError(t, checkRangeStream(&pb.RangeRequest{Key: []byte("a"), SortOrder: pb.RangeRequest_ASCEND}))
	unordered := &pb.RangeRequest{Key: []byte("a"), SortTarget: pb.RangeRequest_VALUE} // etcd streams it by key
	require.NoError(t, checkRangeStream(unordered))
}

func TestCheckPut(t *testing.T) {
	key, value := []byte("a"), []byte("v")
	require.Equal(t, rpctypes.ErrGRPCEmptyKey, checkPut(&pb.PutRequest{}))
	require.Equal(t, rpctypes.ErrGRPCValueProvided, checkPut(&pb.PutRequest{Key: key, Value: value, IgnoreValue: true}))
	require.Equal(t, rpctypes.ErrGRPCLeaseProvided, checkPut(&pb.PutRequest{Key: key, Lease: 1, IgnoreLease: true}))
	require.NoError(t, checkPut(&pb.PutRequest{Key: key, IgnoreValue: true, IgnoreLease: true}))
}

// The sorted, merged list must say of every key what a plain list of all
// intervals says.
func TestIntervalsAgainstList(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	key := func() string {
		return string([]byte{byte('a' + rng.IntN(20)), byte('a' + rng.IntN(3))}[:1+rng.IntN(2)])
	}
	for range 500 {
		var merged intervals
		var plain []interval
		for range rng.IntN(12) {
			iv := interval{key(), key()}
			merged.add(iv)
			plain = append(plain, iv)
		}
		for range 60 {
			k, want := key(), false
			for _, iv := range plain {
				want = want || (iv.from <= k && k < iv.to)
			}
			require.Equal(t, want, merged.contain(k), "key %q in %v, merged %v", k, plain, merged)
		}
		for i := 1; i < len(merged); i++ {
			require.Less(t, merged[i-1].to, merged[i].from, "disjoint, sorted, not adjacent: %v", merged)
		}
	}
}
