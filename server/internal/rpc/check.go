package rpc

import (
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// checkRange refuses a malformed range, in etcd's order of checks.
func checkRange(r *pb.RangeRequest) error {
	if len(r.GetKey()) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	if _, ok := pb.RangeRequest_SortOrder_name[int32(r.SortOrder)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	if _, ok := pb.RangeRequest_SortTarget_name[int32(r.SortTarget)]; !ok {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}

// checkRangeStream refuses, besides, what a stream can not deliver in key
// order. Clients take Unimplemented as the sign to fall back to Range.
func checkRangeStream(r *pb.RangeRequest) error {
	if err := checkRange(r); err != nil {
		return err
	}
	byKey := r.SortOrder == pb.RangeRequest_NONE ||
		r.SortTarget == pb.RangeRequest_KEY && r.SortOrder == pb.RangeRequest_ASCEND
	if !byKey {
		return status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	}
	if r.MinModRevision|r.MaxModRevision|r.MinCreateRevision|r.MaxCreateRevision != 0 {
		return status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
	}
	return nil
}

func checkPut(r *pb.PutRequest) error {
	switch {
	case len(r.GetKey()) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.IgnoreValue && len(r.Value) != 0:
		return rpctypes.ErrGRPCValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

func checkDeleteRange(r *pb.DeleteRangeRequest) error {
	if len(r.GetKey()) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return nil
}

// checkTxn refuses a transaction that is too large, has a malformed operation
// or writes one key twice. Both branches are checked whatever will be chosen.
func checkTxn(r *pb.TxnRequest, opsMax int) error {
	if err := checkTxnOps(r, opsMax); err != nil {
		return err
	}
	for _, branch := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		if writesOnce(branch) {
			continue
		}
		if _, _, err := checkOverlaps(branch); err != nil {
			return err
		}
	}
	return nil
}

// writesOnce tells at once, of most transactions, that nothing in ops can
// overlap: one put or deletion at most, and nothing nested.
func writesOnce(ops []*pb.RequestOp) bool {
	writes := 0
	for _, op := range ops {
		switch op.GetRequest().(type) {
		case *pb.RequestOp_RequestPut, *pb.RequestOp_RequestDeleteRange:
			writes++
		case *pb.RequestOp_RequestTxn:
			return false
		}
	}
	return writes <= 1
}

// checkTxnOps bounds the longest list of each level; a nested transaction gets
// what its parent left, so depth is bounded as well.
func checkTxnOps(r *pb.TxnRequest, opsMax int) error {
	ops := max(len(r.GetCompare()), len(r.GetSuccess()), len(r.GetFailure()))
	if ops > opsMax {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.GetCompare() {
		if len(c.GetKey()) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, branch := range [][]*pb.RequestOp{r.GetSuccess(), r.GetFailure()} {
		for _, op := range branch {
			if err := checkOp(op, opsMax-ops); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *pb.RequestOp, opsMax int) error {
	switch o := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return checkRange(o.RequestRange)
	case *pb.RequestOp_RequestPut:
		return checkPut(o.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return checkDeleteRange(o.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return checkTxnOps(o.RequestTxn, opsMax)
	default:
		return rpctypes.ErrGRPCKeyNotFound // an empty operation; etcd's choice of words
	}
}

// checkOverlaps refuses two puts of one key, and a put inside a deleted range,
// at one level or across nesting. The two branches of a nested transaction may
// put the same key, because only one of them runs. It returns what the list
// puts and deletes, for the level above.
func checkOverlaps(ops []*pb.RequestOp) (map[string]struct{}, intervals, error) {
	var deleted intervals
	for _, op := range ops {
		if d := op.GetRequestDeleteRange(); d != nil {
			deleted.add(rangeOf(d.Key, d.RangeEnd))
		}
	}
	puts := make(map[string]struct{})
	for _, op := range ops {
		nested := op.GetRequestTxn()
		if nested == nil {
			continue
		}
		if err := addNested(nested, puts, &deleted); err != nil {
			return nil, nil, err
		}
	}
	for _, op := range ops {
		p := op.GetRequestPut()
		if p == nil {
			continue
		}
		if _, twice := puts[string(p.Key)]; twice || deleted.contain(string(p.Key)) {
			return nil, nil, rpctypes.ErrGRPCDuplicateKey
		}
		puts[string(p.Key)] = struct{}{}
	}
	return puts, deleted, nil
}

// addNested checks a nested transaction against what its level has written so
// far and adds what it writes.
func addNested(t *pb.TxnRequest, puts map[string]struct{}, deleted *intervals) error {
	thenPuts, thenDeleted, err := checkOverlaps(t.Success)
	if err != nil {
		return err
	}
	elsePuts, elseDeleted, err := checkOverlaps(t.Failure)
	if err != nil {
		return err
	}
	for _, branch := range []map[string]struct{}{thenPuts, elsePuts} {
		for key := range branch {
			if _, twice := puts[key]; twice || deleted.contain(key) {
				return rpctypes.ErrGRPCDuplicateKey
			}
		}
	}
	for _, branch := range []map[string]struct{}{thenPuts, elsePuts} {
		for key := range branch {
			puts[key] = struct{}{}
		}
	}
	for _, iv := range append(thenDeleted, elseDeleted...) {
		deleted.add(iv)
	}
	return nil
}

// interval is the half-open key range [from, to).
type interval struct{ from, to string }

// rangeOf reads a request's range literally. An end of "\x00", which a delete
// takes for "all keys from here on", covers nothing here: etcd's check has the
// same gap, and clients may rely on the transaction being accepted.
func rangeOf(key, end []byte) interval {
	if len(end) == 0 {
		return interval{string(key), string(key) + "\x00"}
	}
	return interval{string(key), string(end)}
}

// intervals is a sorted list of disjoint intervals, so that a key is looked up
// in logarithmic time: a transaction may carry thousands of ranges in its nested
// lists.
type intervals []interval

func (s *intervals) add(iv interval) {
	if iv.from >= iv.to {
		return
	}
	list := *s
	lo, _ := slices.BinarySearchFunc(list, iv.from, func(have interval, from string) int {
		return strings.Compare(have.to, from)
	})
	hi := lo
	for hi < len(list) && list[hi].from <= iv.to {
		iv.from, iv.to = min(iv.from, list[hi].from), max(iv.to, list[hi].to)
		hi++
	}
	*s = slices.Replace(list, lo, hi, iv)
}

func (s intervals) contain(key string) bool {
	i, found := slices.BinarySearchFunc(s, key, func(have interval, key string) int {
		return strings.Compare(have.from, key)
	})
	return found || (i > 0 && key < s[i-1].to)
}
