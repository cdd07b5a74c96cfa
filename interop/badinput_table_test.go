package interop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
)

func badInputs() []badInput {
	return slices.Concat(badReads(), badWrites(), badTxns(), badSizes(), badLeases(), badWatches(), badCalls())
}

func badReads() []badInput {
	a := []byte("a")
	return []badInput{
		badRange("empty key", &pb.RangeRequest{}),
		badRange("empty key with an end", &pb.RangeRequest{RangeEnd: []byte("b")}),
		badRange("sort order", &pb.RangeRequest{Key: a, SortOrder: 9}),
		badRange("negative sort order", &pb.RangeRequest{Key: a, SortOrder: -1}),
		badRange("sort target", &pb.RangeRequest{Key: a, SortTarget: 9}),
		badRange("future revision", &pb.RangeRequest{Key: a, Revision: 1000}),
		badRange("compacted revision", &pb.RangeRequest{Key: a, Revision: preparedCompact - 1}),
		badRange("compacted revision, serializable", &pb.RangeRequest{Key: a, Revision: 1, Serializable: true}),
		badRange("revision of the compaction", &pb.RangeRequest{Key: a, Revision: preparedCompact}).isAccepted(),
		badRange("negative revision", &pb.RangeRequest{Key: a, Revision: -5}).isAccepted(),
		badRange("negative limit", &pb.RangeRequest{Key: a, RangeEnd: []byte{0}, Limit: -1}).isAccepted(),
		badRange("end before key", &pb.RangeRequest{Key: []byte("c"), RangeEnd: a}).isAccepted(),
		badRange("end equal to key", &pb.RangeRequest{Key: a, RangeEnd: a}).isAccepted(),
		badStream("empty key", &pb.RangeRequest{}),
		badStream("sort order", &pb.RangeRequest{Key: a, SortOrder: pb.RangeRequest_DESCEND}),
		badStream("sort target", &pb.RangeRequest{Key: a, SortTarget: pb.RangeRequest_MOD, SortOrder: pb.RangeRequest_ASCEND}),
		badStream("unknown sort target", &pb.RangeRequest{Key: a, SortTarget: 9}),
		badStream("revision filter", &pb.RangeRequest{Key: a, MinModRevision: 2}),
		badStream("future revision", &pb.RangeRequest{Key: a, Revision: 1000}),
		badStream("compacted revision", &pb.RangeRequest{Key: a, Revision: 1}),
		badCompact("future revision", 1000),
		badCompact("compacted revision", preparedCompact),
		badCompact("older revision", 1),
		badCompact("zero", 0),
		badCompact("negative", -3),
	}
}

func badWrites() []badInput {
	k, missing := []byte("a"), []byte("missing")
	return []badInput{
		badPut("empty key", &pb.PutRequest{Value: k}),
		badPut("ignored value given", &pb.PutRequest{Key: k, Value: k, IgnoreValue: true}),
		badPut("ignored lease given", &pb.PutRequest{Key: k, Lease: preparedLease, IgnoreLease: true}),
		badPut("ignored value of a missing key", &pb.PutRequest{Key: missing, IgnoreValue: true}),
		badPut("ignored lease of a missing key", &pb.PutRequest{Key: missing, IgnoreLease: true}),
		badPut("unknown lease", &pb.PutRequest{Key: k, Lease: unknownLease}),
		badPut("negative lease", &pb.PutRequest{Key: k, Lease: -1}),
		badDelete("empty key", &pb.DeleteRangeRequest{}),
		badDelete("empty key with an end", &pb.DeleteRangeRequest{RangeEnd: k}),
		badDelete("end before key", &pb.DeleteRangeRequest{Key: []byte("c"), RangeEnd: k}).isAccepted(),
		badDelete("missing key", &pb.DeleteRangeRequest{Key: missing, PrevKv: true}).isAccepted(),
	}
}

func badTxns() []badInput {
	a, missing := []byte("a"), []byte("missing")
	deleteA := opDelete(&pb.DeleteRangeRequest{Key: a})
	deleteRange := opDelete(&pb.DeleteRangeRequest{Key: a, RangeEnd: []byte("zz")})
	// etcd does not see a put inside a range without an end.
	deleteOpen := opDelete(&pb.DeleteRangeRequest{Key: []byte("size/"), RangeEnd: []byte{0}})
	nested := func(of ...*pb.RequestOp) *pb.RequestOp { return opTxn(&pb.TxnRequest{Success: of}) }
	both := func(name string, of ...*pb.RequestOp) []badInput {
		return []badInput{
			badTxn(name, &pb.TxnRequest{Success: of}),
			badTxn(name+", on the branch not taken", &pb.TxnRequest{Failure: of}),
		}
	}
	out := slices.Concat(
		both("two puts of a key", put("a"), put("a")),
		both("put and delete of a key", put("a"), deleteA),
		both("delete and put of a key", deleteA, put("a")),
		both("put in a deleted range", put("z"), deleteRange),
		both("put and nested put", put("a"), nested(put("a"))),
		both("put and nested delete", put("a"), nested(deleteA)),
		both("nested put and delete", nested(put("a")), deleteRange),
		both("two nested puts", nested(put("a")), nested(put("a"))),
		both("duplicates far inside", nested(nested(put("a"), put("a")))),
		both("put without key", opPut(&pb.PutRequest{Value: a})),
		both("range without key", opRange(&pb.RangeRequest{})),
		both("delete without key", opDelete(&pb.DeleteRangeRequest{})),
		both("nested put without key", nested(put(""))),
		both("operation without content", &pb.RequestOp{}),
		both("sort order", opRange(&pb.RangeRequest{Key: a, SortOrder: 9})),
		both("ignored value given", opPut(&pb.PutRequest{Key: a, Value: a, IgnoreValue: true})),
		both("ignored lease given", opPut(&pb.PutRequest{Key: a, Lease: 1, IgnoreLease: true})),
	)
	empty := &pb.Compare{Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{Version: 1}}
	return append(out,
		badTxn("compare without key", &pb.TxnRequest{Compare: []*pb.Compare{empty}}),
		badTxn("nested compare without key", &pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Compare: []*pb.Compare{empty}}))}),
		badTxn("future revision", &pb.TxnRequest{Success: ops(put("a"), opRange(&pb.RangeRequest{Key: a, Revision: 1000}))}),
		badTxn("compacted revision", &pb.TxnRequest{Success: ops(put("a"), opRange(&pb.RangeRequest{Key: a, Revision: 1}))}),
		badTxn("read-only, compacted revision", &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: a, Revision: 1}))}),
		badTxn("read-only, future revision", &pb.TxnRequest{Success: ops(opRange(&pb.RangeRequest{Key: a, Revision: 1000}))}),
		badTxn("unknown lease", &pb.TxnRequest{Success: ops(put("y"), opPut(&pb.PutRequest{Key: a, Lease: unknownLease}))}),
		badTxn("nested unknown lease", &pb.TxnRequest{Success: ops(put("y"), nested(opPut(&pb.PutRequest{Key: a, Lease: unknownLease})))}),
		badTxn("ignored value of a missing key", &pb.TxnRequest{Success: ops(put("y"), opPut(&pb.PutRequest{Key: missing, IgnoreValue: true}))}),
		badTxn("ignored lease of a missing key", &pb.TxnRequest{Success: ops(put("y"), opPut(&pb.PutRequest{Key: missing, IgnoreLease: true}))}),
		badTxn("overlapping deletes", &pb.TxnRequest{Success: ops(opDelete(&pb.DeleteRangeRequest{Key: missing}), opDelete(&pb.DeleteRangeRequest{Key: missing}))}).isAccepted(),
		badTxn("put in a deleted range without end", &pb.TxnRequest{Success: ops(deleteOpen, put("z"), nested(put("y")))}).isAccepted(),
		badTxn("nothing", &pb.TxnRequest{}).isAccepted(),
		badTxn("unknown lease on the branch not taken", &pb.TxnRequest{Failure: ops(opPut(&pb.PutRequest{Key: a, Lease: unknownLease}))}).isAccepted(),
	)
}

// badSizes is about limits: at and beyond each.
func badSizes() []badInput {
	key := func(i int) string { return fmt.Sprintf("size/%03d", i) }
	puts := func(n int) []*pb.RequestOp { return repeat(n, func(i int) *pb.RequestOp { return put(key(i)) }) }
	compares := func(n int) []*pb.Compare {
		return repeat(n, func(i int) *pb.Compare {
			return &pb.Compare{Key: []byte(key(i)), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{}}
		})
	}
	large := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	return []badInput{
		badTxn("too many compares", &pb.TxnRequest{Compare: compares(etcdMaxOps + 1)}),
		badTxn("too many operations", &pb.TxnRequest{Success: puts(etcdMaxOps + 1)}),
		badTxn("too many operations on the branch not taken", &pb.TxnRequest{Failure: puts(etcdMaxOps + 1)}),
		badTxn("as many operations as allowed", &pb.TxnRequest{Compare: compares(etcdMaxOps), Failure: puts(etcdMaxOps)}).isAccepted(),
		badTxn("too many operations with the nested ones", &pb.TxnRequest{
			Success: append(puts(etcdMaxOps/2), opTxn(&pb.TxnRequest{Failure: puts(etcdMaxOps)[etcdMaxOps/2-1:]}))}),
		badPut("too large", &pb.PutRequest{Key: []byte("a"), Value: large(etcdMaxRequest)}),
		badPut("larger than a message may be", &pb.PutRequest{Key: []byte("a"), Value: large(grpcMaxMessage)}),
		badTxn("too large", &pb.TxnRequest{Success: ops(
			opPut(&pb.PutRequest{Key: []byte("a"), Value: large(etcdMaxRequest / 2)}),
			opPut(&pb.PutRequest{Key: []byte("b"), Value: large(etcdMaxRequest / 2)}))}),
		badDelete("too large", &pb.DeleteRangeRequest{Key: large(etcdMaxRequest)}),
		badPut("nearly too large", &pb.PutRequest{Key: []byte("size/large"), Value: large(etcdMaxRequest - 1000)}).isAccepted(),
	}
}

// oddGrant grants a short lease and revokes it at once: it must not end by
// itself while another case compares the store before and after.
func oddGrant(name string, ttl int64) badInput {
	return badInput{name: "grant/" + name, accepted: true, do: func(ctx context.Context, s *side) (proto.Message, error) {
		granted, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 6, TTL: ttl})
		if err != nil {
			return nil, err
		}
		_, err = s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 6})
		return granted, err
	}}
}

func badLeases() []badInput {
	keepAlive := func(name string, id int64) badInput {
		return badInput{name: "keep-alive/" + name, accepted: true, do: func(ctx context.Context, s *side) (proto.Message, error) {
			stream, err := s.lease.LeaseKeepAlive(ctx)
			if err != nil {
				return nil, err
			}
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
				return nil, err
			}
			resp, err := stream.Recv()
			stream.CloseSend()
			return resp, err
		}}
	}
	ttl := func(name string, id int64) badInput {
		return badInput{name: "time-to-live/" + name, accepted: true, do: func(ctx context.Context, s *side) (proto.Message, error) {
			return s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
		}}
	}
	return []badInput{
		badGrant("too long", &pb.LeaseGrantRequest{ID: 5, TTL: tooLongTTL}),
		badGrant("exists", &pb.LeaseGrantRequest{ID: preparedLease, TTL: 10}),
		badGrant("as long as allowed", &pb.LeaseGrantRequest{ID: 5, TTL: tooLongTTL - 1}).isAccepted(),
		oddGrant("no TTL", 0),
		oddGrant("negative TTL", -10),
		oddGrant("less than the least TTL", 1),
		badGrant("negative id", &pb.LeaseGrantRequest{ID: -8, TTL: longLease}).isAccepted(),
		badRevoke("unknown", unknownLease),
		badRevoke("zero", 0),
		keepAlive("unknown", unknownLease),
		keepAlive("zero", 0),
		ttl("unknown", unknownLease),
		ttl("zero", 0),
	}
}

// badWatches ask on a stream of their own; the first answer counts. A watch is
// refused in an answer, not by an error.
func badWatches() []badInput {
	ask := func(name string, requests ...*pb.WatchRequest) badInput {
		return badInput{name: "watch/" + name, accepted: true, do: func(ctx context.Context, s *side) (proto.Message, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := s.watch.Watch(ctx)
			if err != nil {
				return nil, err
			}
			var last *pb.WatchResponse
			for _, r := range requests {
				if err := stream.Send(r); err != nil {
					return nil, err
				}
			}
			for range len(requests) {
				if last, err = stream.Recv(); err != nil {
					return nil, err
				}
			}
			return last, nil
		}}
	}
	create := func(r *pb.WatchCreateRequest) *pb.WatchRequest {
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
	}
	a := []byte("a")
	return []badInput{
		ask("end before key", create(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: a})),
		ask("end equal to key", create(&pb.WatchCreateRequest{Key: a, RangeEnd: a})),
		ask("negative revision", create(&pb.WatchCreateRequest{Key: a, StartRevision: -1})),
		ask("id twice", create(&pb.WatchCreateRequest{Key: a, WatchId: 3}), create(&pb.WatchCreateRequest{Key: a, WatchId: 3})),
		ask("empty key", create(&pb.WatchCreateRequest{})),
		ask("unknown filter", create(&pb.WatchCreateRequest{Key: a, Filters: []pb.WatchCreateRequest_FilterType{9}})),
	}
}

func badCalls() []badInput {
	malformed := badCall("method of another service", "/etcdserverpb.KV/LeaseGrant", &pb.LeaseGrantRequest{})
	return []badInput{
		badCall("unknown method", "/etcdserverpb.KV/Nothing", &pb.RangeRequest{}),
		badCall("unknown service", "/etcdserverpb.Nothing/Range", &pb.RangeRequest{}),
		malformed,
	}
}

// clientErrors provokes one error of each kind that programs test for.
func clientErrors(ctx context.Context, c *clientv3.Client) []error {
	var out []error
	add := func(err error) { out = append(out, err) }
	_, err := c.Put(ctx, "", "v")
	add(err)
	_, err = c.Put(ctx, "a", "v", clientv3.WithLease(unknownLease))
	add(err)
	_, err = c.Put(ctx, "missing", "", clientv3.WithIgnoreValue())
	add(err)
	_, err = c.Get(ctx, "a", clientv3.WithRev(1))
	add(err)
	_, err = c.Get(ctx, "a", clientv3.WithRev(1000))
	add(err)
	_, err = c.Txn(ctx).Then(clientv3.OpPut("a", ""), clientv3.OpPut("a", "")).Commit()
	add(err)
	_, err = c.Txn(ctx).Then(repeat(etcdMaxOps+1, func(i int) clientv3.Op { return clientv3.OpGet("a") })...).Commit()
	add(err)
	_, err = c.Revoke(ctx, unknownLease)
	add(err)
	_, err = c.KeepAliveOnce(ctx, unknownLease)
	add(err)
	_, err = c.Grant(ctx, tooLongTTL)
	add(err)
	_, err = c.Compact(ctx, 1)
	add(err)
	_, err = c.Compact(ctx, 1000)
	add(err)
	compacted := <-c.Watch(ctx, "a", clientv3.WithRev(1))
	add(compacted.Err())
	empty := <-c.Watch(ctx, "b", clientv3.WithRange("a"))
	add(empty.Err())
	return out
}

// errorType is what a program can learn about an error of the official client.
func errorType(err error) string {
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return fmt.Sprintf("EtcdError %s: %v", e.Code(), err)
	}
	return fmt.Sprintf("%T: %v", err, err)
}
