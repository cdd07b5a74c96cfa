package state

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"pgregory.net/rapid"
)

// The generators favour few keys, few leases and revisions near the interesting ones, so that everything meets
// everything else often. They also make requests that the server's validation refuses, such as a key written twice in
// one transaction: the machine must give them a meaning all the same.

var (
	someKeys  = []string{"a", "b", "aa", "ab", "b\x00", "c", "\x00", "\xff", ""}
	someEnds  = []string{"", "\x00", "b", "c", "aa", "a", "\xff", "\x00\x00"}
	someLease = []int64{0, 0, 1, 2, 3, -4}
)

func (w *world) key() []byte { return []byte(rapid.SampledFrom(someKeys).Draw(w.T, "key")) }
func (w *world) end() []byte { return []byte(rapid.SampledFrom(someEnds).Draw(w.T, "end")) }
func (w *world) flag(label string) bool {
	return rapid.IntRange(0, 3).Draw(w.T, label) == 0
}
func (w *world) lease() int64 { return rapid.SampledFrom(someLease).Draw(w.T, "lease") }

// revision is around the compact and the current one, and sometimes no real one.
func (w *world) revision() int64 {
	return rapid.Int64Range(min(-2, w.model.compact-2), w.model.rev+2).Draw(w.T, "revision")
}

func (w *world) command() Command {
	switch rapid.IntRange(0, 15).Draw(w.T, "kind") {
	case 0:
		return Command{KindCompact, &pb.CompactionRequest{Revision: w.revision()}}
	case 1, 2:
		return Command{KindLeaseGrant, &pb.LeaseGrantRequest{ID: w.lease(), TTL: rapid.SampledFrom([]int64{-1, 5, 60, 9_000_000_001}).Draw(w.T, "ttl")}}
	case 3:
		return Command{KindLeaseRevoke, &pb.LeaseRevokeRequest{ID: w.lease()}}
	case 4:
		return Command{KindExpireLeases, &ExpireLeases{IDs: rapid.SliceOfN(rapid.SampledFrom(someLease), 0, 4).Draw(w.T, "ids")}}
	case 5:
		return Command{KindMember, &Member{ID: uint64(rapid.IntRange(1, 3).Draw(w.T, "id")), Name: "new", ClientURLs: []string{"http://new"}}}
	case 6, 7:
		return Command{KindDeleteRange, w.deleteRequest()}
	case 8, 9, 10, 11:
		return Command{KindTxn, w.txnRequest(2)}
	default:
		return Command{KindPut, w.putRequest()}
	}
}

func (w *world) putRequest() *pb.PutRequest {
	r := &pb.PutRequest{Key: w.key(), Lease: w.lease(), PrevKv: w.flag("prev"), IgnoreLease: w.flag("ignore lease")}
	if r.IgnoreValue = w.flag("ignore value"); !r.IgnoreValue {
		r.Value = rapid.SliceOfN(rapid.SampledFrom([]byte("xyz")), 1, 3).Draw(w.T, "value")
	}
	return r
}

func (w *world) deleteRequest() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: w.key(), RangeEnd: w.end(), PrevKv: w.flag("prev")}
}

func (w *world) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{
		Key: w.key(), RangeEnd: w.end(),
		Limit:      rapid.Int64Range(-1, 5).Draw(w.T, "limit"),
		SortOrder:  pb.RangeRequest_SortOrder(rapid.IntRange(0, 2).Draw(w.T, "order")),
		SortTarget: pb.RangeRequest_SortTarget(rapid.IntRange(0, 4).Draw(w.T, "target")),
		KeysOnly:   w.flag("keys only"),
		CountOnly:  w.flag("count only"),
	}
	if rapid.Bool().Draw(w.T, "old") {
		r.Revision = w.revision()
	}
	if w.flag("filters") {
		for _, f := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
			if w.flag("filter") {
				*f = w.revision()
			}
		}
	}
	return r
}

func (w *world) compareRequest() *pb.Compare {
	c := &pb.Compare{
		Key: w.key(), RangeEnd: w.end(),
		Result: pb.Compare_CompareResult(rapid.IntRange(0, 3).Draw(w.T, "result")),
		Target: pb.Compare_CompareTarget(rapid.IntRange(0, 4).Draw(w.T, "target")),
	}
	n := rapid.Int64Range(0, w.model.rev).Draw(w.T, "operand")
	switch rapid.SampledFrom([]pb.Compare_CompareTarget{c.Target, c.Target, c.Target, pb.Compare_MOD, -1}).Draw(w.T, "union") {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: n % 3}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: n}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: n}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: n % 4}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: []byte("y")}
	}
	return c
}

func (w *world) txnRequest(depth int) *pb.TxnRequest {
	return w.txn(depth, func() *pb.RequestOp {
		switch rapid.IntRange(0, 5).Draw(w.T, "op") {
		case 0:
			return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: w.deleteRequest()}}
		case 1:
			return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: w.rangeRequest()}}
		case 2:
			if depth > 0 {
				return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: w.txnRequest(depth - 1)}}
			}
			return &pb.RequestOp{}
		default:
			return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: w.putRequest()}}
		}
	})
}

func (w *world) readOnlyTxn(depth int) *pb.TxnRequest {
	return w.txn(depth, func() *pb.RequestOp {
		if depth > 0 && w.flag("nested") {
			return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: w.readOnlyTxn(depth - 1)}}
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: w.rangeRequest()}}
	})
}

func (w *world) txn(depth int, op func() *pb.RequestOp) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range rapid.IntRange(0, 2).Draw(w.T, "compares") {
		r.Compare = append(r.Compare, w.compareRequest())
	}
	for range rapid.IntRange(0, 3).Draw(w.T, "success") {
		r.Success = append(r.Success, op())
	}
	for range rapid.IntRange(0, 2).Draw(w.T, "failure") {
		r.Failure = append(r.Failure, op())
	}
	return r
}
