package state

import pb "go.etcd.io/etcd/api/v3/etcdserverpb"

// The generators favour few keys, few leases and revisions near the interesting ones, so that everything meets
// everything else often. They also make requests that the server's validation refuses, such as a key written twice in
// one transaction: the machine must give them a meaning all the same.

var (
	someKeys   = []string{"a", "b", "aa", "ab", "b\x00", "c", "\x00", "\xff", ""}
	someEnds   = []string{"", "\x00", "b", "c", "aa", "a", "\xff", "\x00\x00"}
	someLeases = []int64{0, 0, 1, 2, 3, -4}
)

func pick[E any](w *world, label string, from ...E) E { return from[w.pick(len(from), label)] }

func (w *world) key() []byte             { return []byte(pick(w, "key", someKeys...)) }
func (w *world) end() []byte             { return []byte(pick(w, "end", someEnds...)) }
func (w *world) lease() int64            { return pick(w, "lease", someLeases...) }
func (w *world) seldom(what string) bool { return w.pick(4, what) == 3 }

// revision is one from the compact to the current one, or a little beyond them.
func (w *world) revision() int64 {
	least := min(-2, w.model.compact-2)
	return least + int64(w.pick(int(w.model.rev+3-least), "revision"))
}

// readable is a revision that can be read.
func (w *world) readable(m *model) int64 {
	least := max(m.compact, 1)
	return least + int64(w.pick(int(m.rev-least+1), "readable"))
}

func (w *world) command() Command {
	switch w.pick(16, "kind") {
	case 0:
		return Command{Kind: KindCompact, Request: &pb.CompactionRequest{Revision: w.revision()}}
	case 1, 2:
		return Command{Kind: KindLeaseGrant, Request: &pb.LeaseGrantRequest{ID: w.lease(), TTL: pick[int64](w, "ttl", -1, 5, 60, 9_000_000_001)}}
	case 3:
		return Command{Kind: KindLeaseRevoke, Request: &pb.LeaseRevokeRequest{ID: w.lease()}}
	case 4:
		return Command{Kind: KindExpireLeases, Request: &ExpireLeases{IDs: []int64{w.lease(), w.lease(), w.lease()}[w.pick(3, "ids"):]}}
	case 5:
		return Command{Kind: KindMember, Request: &Member{ID: uint64(1 + w.pick(3, "id")), Name: "new", ClientURLs: []string{"http://new"}}}
	case 6, 7:
		return Command{Kind: KindDeleteRange, Request: w.deleteRequest()}
	case 8, 9, 10, 11:
		return Command{Kind: KindTxn, Request: w.txnRequest(w.model, 2)}
	default:
		return Command{Kind: KindPut, Request: w.putRequest()}
	}
}

func (w *world) putRequest() *pb.PutRequest {
	r := &pb.PutRequest{Key: w.key(), Lease: w.lease(), PrevKv: w.seldom("prev"), IgnoreLease: w.seldom("ignore lease")}
	if r.IgnoreValue = w.seldom("ignore value"); !r.IgnoreValue {
		r.Value = []byte(pick(w, "value", "x", "y", "zz", "xy"))
	}
	return r
}

func (w *world) deleteRequest() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: w.key(), RangeEnd: w.end(), PrevKv: w.seldom("prev")}
}

func (w *world) rangeRequest(m *model) *pb.RangeRequest {
	r := &pb.RangeRequest{
		Key: w.key(), RangeEnd: w.end(),
		Limit:      int64(w.pick(7, "limit") - 1),
		SortOrder:  pb.RangeRequest_SortOrder(w.pick(3, "order")),
		SortTarget: pb.RangeRequest_SortTarget(w.pick(5, "target")),
		KeysOnly:   w.seldom("keys only"),
		CountOnly:  w.seldom("count only"),
	}
	switch w.pick(4, "time") {
	case 2:
		r.Revision = w.readable(m)
	case 3:
		r.Revision = w.revision()
	}
	if w.seldom("filters") {
		for _, f := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
			if w.seldom("filter") {
				*f = w.revision()
			}
		}
	}
	return r
}

func (w *world) compareRequest() *pb.Compare {
	c := &pb.Compare{
		Key: w.key(), RangeEnd: w.end(),
		Result: pb.Compare_CompareResult(w.pick(4, "result")),
		Target: pb.Compare_CompareTarget(w.pick(5, "target")),
	}
	n := int64(w.pick(int(w.model.rev), "operand"))
	switch pick(w, "union", c.Target, c.Target, c.Target, pb.Compare_MOD, -1) {
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

func (w *world) txnRequest(m *model, depth int) *pb.TxnRequest {
	return w.txn(func() *pb.RequestOp {
		switch w.pick(6, "op") {
		case 0:
			return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: w.deleteRequest()}}
		case 1:
			return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: w.rangeRequest(m)}}
		case 2:
			if depth > 0 {
				return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: w.txnRequest(m, depth-1)}}
			}
			return &pb.RequestOp{}
		default:
			return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: w.putRequest()}}
		}
	})
}

func (w *world) readOnlyTxn(m *model, depth int) *pb.TxnRequest {
	return w.txn(func() *pb.RequestOp {
		if depth > 0 && w.seldom("nested") {
			return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: w.readOnlyTxn(m, depth-1)}}
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: w.rangeRequest(m)}}
	})
}

func (w *world) txn(op func() *pb.RequestOp) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range w.pick(3, "compares") {
		r.Compare = append(r.Compare, w.compareRequest())
	}
	for range w.pick(4, "success") {
		r.Success = append(r.Success, op())
	}
	for range w.pick(3, "failure") {
		r.Failure = append(r.Failure, op())
	}
	return r
}
